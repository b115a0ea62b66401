"""ONNX Runtime, the runtime of .onnx files on servers and desktops."""

from __future__ import annotations

from typing import ClassVar

from toolkit.runtimes.installed import version_of
from toolkit.schema import Component


class ONNXRuntime(Component):
    """Runs .onnx files with ONNX Runtime's CPU execution provider."""

    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    worker: ClassVar[str] = "ort"
    package: ClassVar[str] = "onnxruntime"
    delegates: ClassVar[tuple[str, ...]] = ("cpu",)

    def version(self) -> str | None:
        """Installed version on this machine, or None."""
        return version_of(self.package)
