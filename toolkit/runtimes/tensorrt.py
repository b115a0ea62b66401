"""TensorRT, the runtime of .onnx files on NVIDIA GPUs and Jetson: an engine is built where the file runs."""

from __future__ import annotations

from typing import ClassVar

from toolkit.runtimes.installed import version_of
from toolkit.schema import Component

# TensorRT's wheels, the plain one first: it brings that of its CUDA version. JetPack installs it under the plain name.
DISTRIBUTIONS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")


class TensorRT(Component):
    """Builds an engine from an .onnx file with TensorRT 8.5 or later and runs it, on the GPU or on a Jetson's DLA."""

    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    worker: ClassVar[str] = "trt"
    package: ClassVar[str] = "tensorrt"
    delegates: ClassVar[tuple[str, ...]] = ("gpu", "dla")

    def version(self) -> str | None:
        """Installed version on this machine, or None."""
        return next((version for name in DISTRIBUTIONS if (version := version_of(name))), None)
