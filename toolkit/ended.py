"""How a command is ended from outside: by Ctrl-C, by another program, or by a terminal that closed.

The first time it cleans up: processes are ended, a run says so in its manifest. A second Ctrl-C does not wait for that.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from toolkit import children

INTERRUPTED = 128 + signal.SIGINT  # as shells have it
SHOW_CURSOR = b"\x1b[?25h\r\n"  # a live line hides it


class Ended(KeyboardInterrupt):
    """Another program, or a terminal that closed, ends the command: what it cleans up for Ctrl-C it cleans up then."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"ended by {self.signal.name}")


def listen() -> None:
    """Hear SIGINT, SIGTERM and SIGHUP; one that is ignored, as under nohup or in a shell's background, stays so."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def interrupted() -> bool:
    """Whether Ctrl-C was heard: libraries in C make other exceptions of it, so that whatever is raised then is it."""
    return signal.getsignal(signal.SIGINT) is _at_once


def forget() -> None:
    """Have the exit code be the one that is given.

    `python -m` ends itself by SIGINT where a KeyboardInterrupt went through an `exec` (a dataclass that is made has
    one), though it was caught afterwards; the next `exec` makes it forget that.
    """
    exec("")


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise Ended(number)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, _at_once)
    raise KeyboardInterrupt


def _at_once(number: int, frame: FrameType | None) -> NoReturn:
    children.kill_all()
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, SHOW_CURSOR)
    os._exit(INTERRUPTED)
