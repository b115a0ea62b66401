"""OpenVINO, Intel's runtime: .onnx and .tflite files on CPUs."""

from __future__ import annotations

from typing import ClassVar

from toolkit.runtimes.installed import version_of
from toolkit.schema import Component


class OpenVINO(Component):
    """Runs .onnx and .tflite files with OpenVINO on the CPU, float32 where the file has floats and int8 where int8."""

    formats: ClassVar[tuple[str, ...]] = ("onnx", "tflite")
    worker: ClassVar[str] = "ov"
    package: ClassVar[str] = "openvino"
    extra: ClassVar[str] = "edgekit[openvino]"
    delegates: ClassVar[tuple[str, ...]] = ("cpu",)

    def version(self) -> str | None:
        """Installed version on this machine, or None."""
        return version_of(self.package)
