"""LiteRT (ai-edge-litert), the runtime of .tflite files on phones, boards and desktops."""

from __future__ import annotations

from typing import ClassVar

from toolkit.runtimes.installed import version_of
from toolkit.schema import Component


class LiteRT(Component):
    """Runs .tflite files with LiteRT: the XNNPACK delegate, or the built-in kernels (delegate "none")."""

    formats: ClassVar[tuple[str, ...]] = ("tflite",)
    worker: ClassVar[str] = "litert"
    package: ClassVar[str] = "ai-edge-litert"
    delegates: ClassVar[tuple[str, ...]] = ("xnnpack", "none")

    def version(self) -> str | None:
        """Installed version on this machine, or None."""
        return version_of(self.package)
