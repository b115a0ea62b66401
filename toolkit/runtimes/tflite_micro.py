"""tflite-micro, the runtime of .tflite files on microcontrollers: its real kernels, run on this machine (x86-64)."""

from __future__ import annotations

from typing import ClassVar

from toolkit.runtimes.installed import version_of
from toolkit.schema import Component


class TFLiteMicro(Component):
    """Runs .tflite files with tflite-micro's reference kernels: exact outputs and the arena, never a latency."""

    formats: ClassVar[tuple[str, ...]] = ("tflite",)
    worker: ClassVar[str] = "tflm"
    package: ClassVar[str] = "tflite-micro"
    extra: ClassVar[str] = "edgekit[mcu]"
    delegates: ClassVar[tuple[str, ...]] = ("none",)
    timed: ClassVar[bool] = False  # how long reference kernels take on a computer says nothing of a microcontroller

    def version(self) -> str | None:
        """Installed version on this machine, or None."""
        return version_of(self.package)
