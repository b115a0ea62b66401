"""Progress that says where in the whole it belongs: the k-th of n parts, or one of several devices at work at once.

And progress of what cannot speak while it works: a program that leaves word in a file, one that runs for a known time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic

from toolkit.core import Progress

WARNING = "warning: "
EVERY_S = 0.5  # how often a silent worker is looked after
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


@contextmanager
def watching(emit: Emit, text: str, share: Callable[[], float | None]) -> Iterator[None]:
    """Tell, while the work inside goes on, what `share` says of it (0..1, None while it is not known)."""
    ended = Event()

    def watch() -> None:
        while not ended.wait(EVERY_S):
            found = share()
            if found is not None:
                emit(Progress(text, found))

    emit(Progress(text))
    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def told_in(path: Path) -> Callable[[], float | None]:
    """What a worker on this machine has written into a file: its share, as a number."""

    def share() -> float | None:
        try:
            return min(1.0, max(0.0, float(path.read_text())))
        except (OSError, ValueError):  # not yet, or being written
            return None

    return share


def passed(seconds: float, clock: Callable[[], float] = monotonic) -> Callable[[], float]:
    """The share of so many seconds that have gone by since this was called."""
    started = clock()
    return lambda: min(1.0, (clock() - started) / seconds)
