"""This machine as a device: the same worker, in a fresh process without TensorFlow."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from toolkit import children
from toolkit.core import Completed
from toolkit.errors import InputError, StageError, UnavailableError
from toolkit.schema import Component

log = logging.getLogger(__name__)

WORKER = Path(__file__).resolve().parent.parent / "worker"
LEASE_SECONDS = 3600.0  # how long to wait for another run that measures here
TOLD = "told"  # file in the work folder: the share of its images that a worker has answered
TAIL_LINES = 8  # of a crashed worker's stderr, in the message
# what would change the worker's numerics or imports behind its back
DROPPED = ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME")


class Local(Component):
    """This machine: the worker runs in a fresh process of the same Python."""

    def open(self) -> LocalSession:
        """Take a share in the machine's lease and make a work folder."""
        return LocalSession()


class LocalSession:
    """One lease on this machine, and a work folder that goes when it closes."""

    def __init__(self, lease_seconds: float = LEASE_SECONDS) -> None:
        self._lease_seconds = lease_seconds
        self._lease = (Path(tempfile.gettempdir()) / f"edgekit-lease-{os.getuid()}.lock").open("a")
        try:
            _lock(self._lease, fcntl.LOCK_SH, lease_seconds)
        except BaseException:
            self._lease.close()
            raise
        self._folder = Path(tempfile.mkdtemp(prefix="edgekit-"))
        self._jobs = 0
        self._running: set[subprocess.Popen[str]] = set()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """This machine for oneself; UnavailableError when others keep it too long."""
        _lock(self._lease, fcntl.LOCK_EX, self._lease_seconds)
        try:
            yield
        finally:
            fcntl.flock(self._lease, fcntl.LOCK_UN)
        _lock(self._lease, fcntl.LOCK_SH, self._lease_seconds)

    def folder(self) -> str:
        """The work folder."""
        return str(self._folder)

    def push(self, path: Path) -> str:
        """The file is here already; InputError if it is not."""
        if not path.is_file():
            raise InputError(str(path), "no such file")
        return str(path.absolute())

    def pull(self, remote: str, path: Path) -> None:
        """Copy a result out of the work folder."""
        shutil.copyfile(remote, path)

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """One worker job. Raises what the worker says is wrong, or StageError when it crashes or takes too long."""
        self._jobs += 1
        result = self._folder / f"result-{self._jobs}.json"
        request = self._folder / f"job-{self._jobs}.json"
        told = {"told": str(self._folder / TOLD)} if job["kind"] == "eval" else {}
        request.write_text(json.dumps({**job, **told, "result": str(result)}))
        (self._folder / TOLD).unlink(missing_ok=True)
        code, errors = self._process(request, timeout_s)
        what = str(job.get("name") or Path(str(job.get("model", job["kind"]))).name)
        if not result.is_file():
            raise StageError(what, f"the worker {_ending(code, timeout_s)}{tail(errors)}")
        found: dict[str, Any] = json.loads(result.read_text())
        result.unlink()
        if "error" in found:
            kind = UnavailableError if found.get("kind") == "unavailable" else InputError
            raise kind(what, found["error"], found.get("fix") or None)
        return found

    def execute(self, command: Sequence[str], *, timeout_s: float) -> Completed:
        """A program of this machine, in the work folder; UnavailableError when there is none of that name."""
        return run_program(command, folder=self._folder, timeout_s=timeout_s)

    def _process(self, request: Path, timeout_s: float) -> tuple[int | None, str]:
        """Exit code (None for a timeout) and stderr; the process and all it started end with us."""
        environment = {key: value for key, value in os.environ.items() if key not in DROPPED}
        environment["TMPDIR"] = str(self._folder)  # what runtimes leave in it goes too
        process = subprocess.Popen(
            [sys.executable, str(WORKER), str(request)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=self._folder,
            env=environment,
            start_new_session=True,
        )
        self._running.add(process)
        children.born(process.pid)
        try:
            _, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return None, _end(process)
        except BaseException:
            _end(process)
            raise
        finally:
            self._running.discard(process)
            children.gone(process.pid)
        return process.returncode, errors

    def close(self) -> None:
        """End what still runs, remove the work folder and give the lease back."""
        for process in tuple(self._running):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lease.close()


def run_program(command: Sequence[str], *, folder: Path | None = None, timeout_s: float) -> Completed:
    """Run a program, its output as text; StageError when it takes too long, with all that it started ended."""
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=folder,
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise UnavailableError(command[0], f"cannot be run: {error.strerror}", "install it, or name its path") from None
    children.born(process.pid)
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _end(process)
        raise StageError(command[0], _ending(None, timeout_s)) from None
    except BaseException:
        _end(process)
        raise
    finally:
        children.gone(process.pid)
    return Completed(process.returncode, stdout, stderr)


def _lock(lease: IO[str], kind: int, seconds: float) -> None:
    """Share this host, or have it alone, giving up what was held; UnavailableError when it takes too long."""
    stop, waiting = time.monotonic() + seconds, False
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(lease, kind | fcntl.LOCK_NB)
        if time.monotonic() >= stop:
            problem = f"another run has been measuring here for {seconds:.0f} s"
            raise UnavailableError("this-machine", problem, f"wait for it, or end it (lock {lease.name})")
        if not waiting:
            log.warning("another run or device is at work on this machine; waiting for it")
            waiting = True
        time.sleep(min(0.2, seconds))


def _end(process: subprocess.Popen[str]) -> str:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[1]


def _ending(code: int | None, timeout_s: float) -> str:
    if code is None:
        return f"took longer than {timeout_s:.0f} s and was ended"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code} and no result"


def tail(errors: str) -> str:
    """The last lines of a crashed worker's stderr, for a message."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()][-TAIL_LINES:]
    return f": {' | '.join(lines)}" if lines else ""
