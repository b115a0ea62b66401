"""TensorRT, the runtime of engines built from .onnx files on NVIDIA's GPUs and Jetson modules."""

from __future__ import annotations

from typing import ClassVar

from toolkit.runtimes.installed import version_of
from toolkit.schema import Component


class TensorRT(Component):
    """Builds an engine of an .onnx file where it runs and runs it: on the GPU, or on a deep-learning accelerator."""

    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    worker: ClassVar[str] = "trt"
    package: ClassVar[str] = "tensorrt"
    delegates: ClassVar[tuple[str, ...]] = ("gpu", "dla")

    def version(self) -> str | None:
        """Installed version on this machine, or None."""
        return version_of(self.package)
