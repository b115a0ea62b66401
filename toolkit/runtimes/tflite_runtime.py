"""tflite-runtime, LiteRT's predecessor: what many boards have. Needs numpy < 2, so never beside TensorFlow here."""

from __future__ import annotations

from typing import ClassVar

from toolkit.runtimes.installed import version_of
from toolkit.schema import Component


class TFLiteRuntime(Component):
    """Runs .tflite files with tflite-runtime: the XNNPACK delegate, or the built-in kernels (delegate "none")."""

    formats: ClassVar[tuple[str, ...]] = ("tflite",)
    worker: ClassVar[str] = "litert"
    package: ClassVar[str] = "tflite-runtime"
    delegates: ClassVar[tuple[str, ...]] = ("xnnpack", "none")

    def version(self) -> str | None:
        """Installed version on this machine, or None."""
        return version_of(self.package)
