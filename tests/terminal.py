"""A program in a pseudo-terminal, as a person sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Terminal:
    """A process whose stderr (and signals) are those of a terminal; its stdout is a file."""

    def __init__(self, command: Sequence[str], *, columns: int = 100, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self.seen, self._stdout = "", tempfile.TemporaryFile()  # noqa: SIM115  (closed by end; a pipe that nobody reads fills up)

        def lead() -> None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)  # who runs the tests may ignore them
            os.setsid()
            fcntl.ioctl(2, termios.TIOCSCTTY, 0)

        env = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment}
        env.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=self._stdout,
            stderr=theirs,
            env=env,
            preexec_fn=lead,  # noqa: PLW1509  (no threads here yet)
        )
        os.close(theirs)

    def wait_for(self, there: Callable[[str], bool], *, seconds: float = 120.0) -> None:
        """Read until `there` says yes to what was seen."""
        stop = time.monotonic() + seconds
        while not there(self.text):
            assert time.monotonic() < stop, self.text[-3000:]
            assert self._read(), f"it ended: {self.text[-3000:]}"

    def press_ctrl_c(self) -> None:
        """As a keyboard does it: the terminal sends the signal."""
        os.write(self._ours, b"\x03")

    def end(self, *, seconds: float = 60.0) -> tuple[int, str]:
        """Exit code and stdout, all of stderr read."""
        stop = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < stop, self.text[-3000:]
        code = self.process.wait(timeout=seconds)
        os.close(self._ours)
        with self._stdout as file:
            file.seek(0)
            return code, file.read().decode()

    @property
    def text(self) -> str:
        """What was seen, without the terminal's own codes."""
        return ESCAPE.sub("", self.seen)

    def _read(self) -> bool:
        """Whether there may be more."""
        ready, _, _ = select.select([self._ours], [], [], 0.2)
        if not ready:
            return self.process.poll() is None
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # Linux: the other end is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


def python(code: str, *words: str) -> list[str]:
    """A command that runs this program."""
    return [sys.executable, "-c", code, *words]
