"""Runs stages in a child process: a converter that crashes or is killed for memory ends a stage and not the run.

One child serves a whole run: TensorFlow is imported once, and only there. Whatever the child and the
libraries in it print goes to the run's log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import Any

from toolkit import children
from toolkit.core import Progress
from toolkit.errors import EdgekitError, StageError

SERVE = "import sys; from toolkit.stages import serve; serve(int(sys.argv[1]), tuple(sys.argv[2:]))"
TAIL_LINES = 12  # of the log, in the message of a crashed stage


class Executor:
    """A lazily started child process that runs methods of `toolkit.stages.Stages` by name.

    allow_code: modules whose code models at rest may need; none is imported otherwise.
    """

    def __init__(self, log: Path, emit: Callable[[Progress], None], allow_code: Sequence[str] = ()) -> None:
        self._log, self._emit, self._allow_code = log, emit, tuple(allow_code)
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None  # TensorFlow writes code there, and leaves it

    def start(self) -> None:
        """Start the child, which begins to import its libraries; `call` does it when needed."""
        if self._child:
            return
        ours, theirs = Pipe()
        self._temporary = tempfile.TemporaryDirectory(prefix="edgekit-", ignore_cleanup_errors=True)
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(theirs.fileno()), *self._allow_code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**_environment(), "TMPDIR": self._temporary.name},
                start_new_session=True,  # Ctrl-C reaches us alone, and we end the child
            )
        children.born(self._child.pid)
        theirs.close()
        self._pipe = ours

    def call(self, function: str, **arguments: Any) -> Any:
        """The result of `Stages.<function>(**arguments)` in the child; its EdgekitErrors are raised here."""
        self.start()
        if self._pipe is None or self._child is None:
            raise StageError(function, "its process could not be started")
        try:
            self._pipe.send((function, arguments))
            return self._receive(function)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise StageError(function, f"its process {self._ending()}", "see log.txt; --resume goes on") from None
        except KeyboardInterrupt:
            self.close()
            raise

    def _receive(self, function: str) -> Any:
        while self._pipe:
            kind, value = self._pipe.recv()
            if kind == "progress":
                self._emit(value)
            elif kind == "result":
                return value
            elif isinstance(value, EdgekitError):
                raise value
            else:
                raise RuntimeError(f"{function} failed in its process, which is a bug in Edgekit:\n{value}")
        raise EOFError

    def _ending(self) -> str:
        code = self._child.wait(timeout=30) if self._child else 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += " (out of memory?)"
        self.close()
        tail = self._log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return f"{how}; the log ends: {' | '.join(line.strip() for line in tail)}" if tail else how

    def close(self) -> None:
        """End the child and everything it started."""
        if self._pipe:
            self._pipe.close()
        if self._child and self._child.poll() is None:
            try:
                self._child.wait(timeout=2)
            except subprocess.TimeoutExpired:
                os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait()
        if self._child:
            children.gone(self._child.pid)
        if self._temporary:
            self._temporary.cleanup()
        self._child = self._pipe = self._temporary = None

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind and self._child and self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
        self.close()


def _environment() -> dict[str, str]:
    """Ours, with the package importable and TensorFlow quiet, on the CPU's plain numerics and Keras 3."""
    here = str(Path(__file__).resolve().parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "KERAS_BACKEND": "tensorflow",
        "TF_USE_LEGACY_KERAS": "0",
    }
