"""A device that is reached by running programs on it: files by content, worker jobs, a lease, and nothing left there.

What carries commands and bytes is a `Link` (SSH, adb). The device needs a POSIX shell, coreutils or toybox, `flock`,
`setsid`, and Python for worker jobs. Whatever was started, and the work folder, go there when the connection ends, be
it closed, cut or killed: both are held by a program that waits for the end of its input.
The programs are in `there.py`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import signal
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

from toolkit.core import Completed
from toolkit.digest import file_sha256
from toolkit.errors import InputError, StageError, UnavailableError
from toolkit.transports.local import WORKER, tail
from toolkit.transports.there import GUARD, LEASE, NO_FOLDER, NOT_WHOLE, RUN, TAKE

log = logging.getLogger(__name__)

LEASE_SECONDS = 3600  # how long to wait for another run that measures there
GRACE_S = 30.0  # beyond a limit, for the connection itself
TRANSFER_S = 3600.0  # for one file
DISMISS_S = 2.0  # for a lease to end that was not waited for
OLDEST_PYTHON = "import sys; sys.exit(sys.version_info < (3, 8))"
INLINE = 32768  # bytes of a request on a command line, of the 128 KiB that Linux takes (execve(2), MAX_ARG_STRLEN)
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date a zip can hold: the same archive whatever the clock says


class Link(Protocol):
    """What carries commands and bytes to one device."""

    place: str  # the device's name in messages
    temporary: str  # where work folders are made there, unless its TMPDIR says otherwise

    def call(
        self,
        command: Sequence[str],
        *,
        timeout_s: float,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        folder: str = "",
        what: str = "",
    ) -> Completed:
        """One program there; UnavailableError when the connection fails, StageError when it takes too long."""
        ...

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """A program there that runs until its input ends."""
        ...

    def completed(self, code: int, out: str, errors: str) -> Completed:
        """What a client that ended says of the program there; UnavailableError when the connection failed."""
        ...

    def send(self, path: Path, remote: str) -> Completed:
        """The bytes of a file, to a path there."""
        ...

    def fetch(self, remote: str, path: Path) -> Completed:
        """The bytes of a file there, to a path here."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class RemoteSession:
    """One lease on a device, and a work folder there that goes with the connection."""

    def __init__(self, link: Link, *, python: str = "python3", lease_seconds: int = LEASE_SECONDS) -> None:
        self._link, self._python, self._lease_seconds = link, python, lease_seconds
        self._pushed, self._jobs = dict[str, str](), 0
        self._folder = self._worker = ""
        self._how = "-s"  # how the lock is held, as flock calls it
        self._lease: subprocess.Popen[str] | None = None
        try:
            self._hold()
        except BaseException:
            self.close()
            raise

    def folder(self) -> str:
        """The work folder's path on the device."""
        return self._folder

    def push(self, path: Path) -> str:
        """Send a file, under a name made of its content; what is there already is not sent again."""
        if not path.is_file():
            raise InputError(str(path), "no such file")
        self._hold()
        digest = file_sha256(path)
        remote = f"{self._folder}/{digest[:16]}{suffix(path)}"
        if self._pushed.get(remote) != digest:
            self._send(path, remote, digest)
            self._pushed[remote] = digest
        return remote

    def pull(self, remote: str, path: Path) -> None:
        """Fetch a file whole: its hash there is that of what came, or nothing is written."""
        partial = path.with_name(f"{path.name}.part")
        try:
            found = self._link.fetch(remote, partial)
            if found.returncode:
                raise StageError(self._link.place, f"{remote} cannot be read: {last(found.stderr)}")
            if self._digest(remote) != file_sha256(partial):
                raise StageError(self._link.place, f"{remote} changed on its way here", "run it again")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def execute(self, command: Sequence[str], *, timeout_s: float) -> Completed:
        """A program of the device, in the work folder; UnavailableError when there is none of that name."""
        self._hold()
        guarded = ["sh", "-c", GUARD, "sh", *command]
        found = self._link.call(
            guarded, stdin=subprocess.PIPE, timeout_s=timeout_s, folder=self._folder, what=command[0]
        )
        if found.returncode in (126, 127) and command[0] in found.stderr:
            raise UnavailableError(f"{self._link.place}: {command[0]}", f"cannot be run: {last(found.stderr)}")
        return found

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """One worker job. Raises what the worker says is wrong, or StageError when it crashes or takes too long."""
        self._hold()
        self._worker = self._worker or self._push_worker()
        self._jobs += 1
        what = str(job.get("name") or Path(str(job.get("model", job["kind"]))).name)
        there = f"{self._folder}/result-{self._jobs}.json"
        request, told = self._request(json.dumps({**job, "result": there}))
        command = ["env", "-u", "PYTHONPATH", self._python, self._worker, request]
        done = self.execute(["sh", "-c", RUN, "sh", told, request, there, *command], timeout_s=timeout_s)
        digest, _, content = done.stdout.partition("\n")
        if not digest:
            raise StageError(what, f"the worker on {self._link.place} {_ending(done.returncode)}{tail(done.stderr)}")
        if digest.split()[0] != hashlib.sha256(content.encode()).hexdigest():
            raise StageError(self._link.place, f"the result of {what} changed on its way here", "run it again")
        found: dict[str, Any] = json.loads(content)
        if "error" in found:
            kind = UnavailableError if found.get("kind") == "unavailable" else InputError
            raise kind(f"{self._link.place}: {what}", found["error"], found.get("fix") or None)
        return found

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The device for oneself; UnavailableError when others keep it too long."""
        self._hold()
        self._lock("-x")
        try:
            yield
        finally:
            with suppress(UnavailableError):
                self._lock("-u")  # the connection may be gone, and the lock with it
        self._lock("-s")

    def close(self) -> None:
        """Give the lease back, with which the work folder goes, and end the connection."""
        lease, self._lease = self._lease, None
        with suppress(UnavailableError, StageError):
            if lease is not None and not self._ended(lease):
                self._link.call(["rm", "-rf", "--", self._folder], timeout_s=GRACE_S)
        self._link.close()

    # ------------------------------------------------------------ its parts

    def _hold(self) -> None:
        """The lease and the work folder; both anew where the connection that held them was cut."""
        if self._lease is not None and self._asked(self._lease, "here") == "held":
            return
        self._pushed, self._worker = {}, ""
        if self._lease is not None:
            log.warning("the connection to %s was cut; a new one is made", self._link.place)
            self._ended(self._lease)
        self._lease = self._take_lease()

    def _take_lease(self) -> subprocess.Popen[str]:
        """A lock on the device and a work folder, held while its program runs; UnavailableError when it takes long."""
        start = ["sh", "-c", LEASE, "sh", self._link.temporary, str(self._lease_seconds), self._folder, self._how]
        lease = self._link.start(start)
        try:
            answer, _, folder = self._said(lease).partition(" ")
        except BaseException:  # Ctrl-C while it waits
            _dismiss(lease)
            raise
        if answer == "held":
            self._folder = folder
            return lease
        raise self._refused(lease, answer)

    def _lock(self, how: str) -> None:
        """Have the lock another way."""
        lease, self._how = self._lease, "-s" if how == "-u" else how
        answer = self._asked(lease, how) if lease else "held"
        if answer != "held":
            self._how = "-s"
            raise self._late() if answer == "late" or lease is None else self._refused(lease, answer)

    def _asked(self, lease: subprocess.Popen[str], what: str) -> str:
        """What the lease's program answers; "" when it ended."""
        with suppress(BrokenPipeError, ValueError):  # ValueError: our end of it is closed
            if lease.stdin:
                lease.stdin.write(f"{what}\n")
                lease.stdin.flush()
            return self._said(lease)
        return ""

    def _said(self, lease: subprocess.Popen[str]) -> str:
        """What the lease's program answers, when the wait for others is over; "" when it ended."""
        said = _line(lease)
        if said == "busy":
            log.warning("another run or device is at work on %s; waiting for it", self._link.place)
            while said == "busy":  # once a second
                said = _line(lease)
            return said or "late"
        return said

    def _late(self) -> UnavailableError:
        problem = f"another run has been measuring there for {self._lease_seconds} s"
        return UnavailableError(self._link.place, problem, "wait for it, or end it")

    def _refused(self, lease: subprocess.Popen[str], answer: str) -> UnavailableError:
        """Why a lease that ended was not had."""
        _, errors = lease.communicate()
        try:
            done = self._link.completed(lease.returncode, "", errors)
        except UnavailableError as error:
            return error
        if answer == "late" and done.returncode == 1:
            return self._late()
        what = "a work folder cannot be had there" if done.returncode == NO_FOLDER else "cannot be locked for measuring"
        return UnavailableError(self._link.place, f"{what}: {last(done.stderr)}")

    def _ended(self, lease: subprocess.Popen[str]) -> bool:
        """Whether the program that held the lease ended well when its input did, having removed the work folder."""
        try:
            _, errors = lease.communicate(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            lease.kill()
            _, errors = lease.communicate()
        try:
            return not self._link.completed(lease.returncode, "", errors).returncode
        except UnavailableError:
            return False

    def _request(self, content: str) -> tuple[str, str]:
        """Where a job's request is to lie there, and what to write into it: nothing when it was sent."""
        if len(content) <= INLINE:
            return f"{self._folder}/job-{self._jobs}.json", content
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            path = Path(folder) / "job.json"
            path.write_text(content)
            return self.push(path), ""

    def _send(self, path: Path, remote: str, digest: str) -> None:
        partial = f"{remote}.part"
        found = self._link.send(path, partial)
        if found.returncode:
            problem = f"{path.name} cannot be written there: {last(found.stderr)}"
            self._link.call(["rm", "-f", "--", partial], timeout_s=GRACE_S)
            raise UnavailableError(self._link.place, problem)
        done = self._link.call(["sh", "-c", TAKE, "sh", partial, remote, digest], timeout_s=GRACE_S, what=path.name)
        if done.returncode == NOT_WHOLE:
            raise StageError(self._link.place, f"{path.name} did not arrive whole", "run it again")
        if done.returncode:
            raise UnavailableError(self._link.place, f"{path.name} cannot be kept there: {last(done.stderr)}")

    def _digest(self, remote: str) -> str:
        return self._checked(["sha256sum", "--", remote], "sha256sum").split()[0]

    def _checked(self, command: Sequence[str], what: str) -> str:
        found = self._link.call(command, timeout_s=GRACE_S)
        if found.returncode:
            problem = f"{what} cannot be had there: {last(found.stderr)}"
            raise UnavailableError(self._link.place, problem)
        return found.stdout

    def _push_worker(self) -> str:
        """The worker as one zip, and Python there is one that it runs on."""
        found = self._link.call([self._python, "-c", OLDEST_PYTHON], timeout_s=GRACE_S)
        if found.returncode:
            problem = "is not there" if found.returncode == 127 else "is older than 3.8, or does not start"
            fix = "install Python 3.8 or later there; TensorRT engines can be built and timed without (edgekit engine)"
            raise UnavailableError(f"{self._link.place}: {self._python}", problem, fix)
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            archive = Path(folder) / "worker.zip"
            with zipfile.ZipFile(archive, "w") as file:
                for path in sorted(WORKER.glob("*.py")):
                    file.writestr(zipfile.ZipInfo(path.name, ZIP_EPOCH), path.read_bytes())
            return self.push(archive)


def _line(lease: subprocess.Popen[str]) -> str:
    """The next line that the lease's program says; "" when it ended."""
    return lease.stdout.readline().strip() if lease.stdout else ""


def _dismiss(lease: subprocess.Popen[str]) -> None:
    """End a lease that nobody waits for any more: its program removes what it made when its input ends."""
    with suppress(subprocess.TimeoutExpired):
        lease.communicate(timeout=DISMISS_S)
    lease.kill()
    lease.wait()


# ---------------------------------------------------------------- for links


def program(
    client: Sequence[str],
    *,
    timeout_s: float,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stuck: Callable[[], None] = lambda: None,
) -> tuple[Completed, bool]:
    """A client here whose program there ends with its input, and whether that took too long.

    stuck: called when the client does not end although its input has.
    """
    process = subprocess.Popen(list(client), stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, start_new_session=True)
    held, process.stdin = process.stdin, None  # stays open, and ends the remote program if we go
    timed_out = False
    try:
        try:
            out, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            timed_out = True
            if held is not None:
                held.close()
            out, errors = _ended(process, stuck)
    except BaseException:
        process.kill()
        raise
    finally:
        if held is not None:
            held.close()
    return Completed(process.returncode, text(out), text(errors)), timed_out


def waiting(client: Sequence[str]) -> subprocess.Popen[str]:
    """A client here whose program there runs until its input ends."""
    return subprocess.Popen(
        list(client),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def too_long(place: str, what: str, timeout_s: float) -> StageError:
    """What is raised of a program that was ended for the time it took."""
    return StageError(f"{place}: {what}", f"took longer than {timeout_s:.0f} s and was ended")


def in_folder(command: Sequence[str], folder: str) -> str:
    """A command as a shell reads it, in a folder, where its temporary files go too."""
    if not folder:
        return shlex.join(command)
    return f"cd {shlex.quote(folder)} && TMPDIR={shlex.quote(folder)} {shlex.join(command)}"


def text(content: bytes | None) -> str:
    """What a program said."""
    return (content or b"").decode(errors="replace")


def last(errors: str, otherwise: str = "no reason given") -> str:
    """The last line that says something."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else otherwise


def _ended(process: subprocess.Popen[bytes], stuck: Callable[[], None]) -> tuple[bytes, bytes]:
    """What a command that took too long had said; the connection goes with one that does not end."""
    try:
        return process.communicate(timeout=GRACE_S / 3)
    except subprocess.TimeoutExpired:
        process.kill()
        stuck()
        return process.communicate()


def _ending(code: int) -> str:
    """How a worker ended that wrote no result; a shell adds 128 to the number of a signal."""
    with suppress(ValueError):
        if code > 128:
            name = signal.Signals(code - 128).name
            return f"was killed by {name}{', perhaps for want of memory' if name == 'SIGKILL' else ''}"
    return f"ended with exit code {code} and no result"


def suffix(path: Path) -> str:
    """The last suffix, which runtimes look at, unless it holds what a shell or a file system might read otherwise."""
    return path.suffix if path.suffix[1:].isalnum() and path.suffix.isascii() else ""
