"""ONNX Runtime, the runtime of .onnx files on servers and desktops."""

from __future__ import annotations

from typing import ClassVar

from toolkit.runtimes.installed import version_of
from toolkit.schema import Component


class ONNXRuntime(Component):
    """Runs .onnx files with ONNX Runtime: on the CPU, or with onnxruntime-gpu by its CUDA or TensorRT provider."""

    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    worker: ClassVar[str] = "ort"
    package: ClassVar[str] = "onnxruntime"
    delegates: ClassVar[tuple[str, ...]] = ("cpu", "cuda", "tensorrt")

    def version(self) -> str | None:
        """Installed version on this machine, or None."""
        return version_of(self.package) or version_of("onnxruntime-gpu")  # the same module under another name
