"""Progress that says where in the whole it belongs: the k-th of n parts, or one of several devices at work at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from toolkit.core import Progress

WARNING = "warning: "
Emit = Callable[[Progress], None]


@dataclass(frozen=True)
class Part(Progress):
    """Part `number` of `total` begins; what comes after it belongs to it."""

    number: int = 0
    total: int = 0

    @classmethod
    def of(cls, text: str, number: int, total: int) -> Part:
        """As a line to keep, its place before it."""
        return cls(f"[{number}/{total}] {text}", None, True, number, total)


@dataclass(frozen=True)
class Beside(Progress):
    """What goes on on one of several devices."""

    device: str = ""


def beside(emit: Emit, device: str) -> Emit:
    """`emit` for what is done on a device while others work too."""

    def told(progress: Progress) -> None:
        emit(Beside(progress.text, progress.fraction, progress.keep, device))

    return told


def warns(progress: Progress) -> bool:
    """Whether it is a warning."""
    return progress.keep and progress.text.lstrip().startswith(WARNING)
