"""A device over SSH: OpenSSH's own client, one multiplexed connection, the user's own configuration.

Host keys are always checked, nothing asks for a password, every wait ends, and what runs on the device ends with the
connection. The device needs a POSIX shell, coreutils, util-linux (flock, setsid), and Python for worker jobs.
Pages: ssh_config(5) (ControlMaster, BatchMode, StrictHostKeyChecking, ServerAliveInterval); flock(1); setsid(1).
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar

from pydantic import Field

from toolkit.core import Completed
from toolkit.errors import InputError, StageError, UnavailableError
from toolkit.schema import Component
from toolkit.transports.local import WORKER, tail

log = logging.getLogger(__name__)

LEASE_SECONDS = 3600  # how long to wait for another run that measures there
CONNECTION_LOST = 255  # ssh's own exit code; a remote program may not use it
GRACE_S = 30.0  # beyond a limit, for the connection itself
TRANSFER_S = 3600.0  # for one file
OPTIONS = ("BatchMode=yes", "StrictHostKeyChecking=yes", "ServerAliveInterval=5", "ServerAliveCountMax=3",
           "ControlMaster=auto", "ControlPersist=60", "ConnectionAttempts=2", "LogLevel=ERROR",
           "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes", "RequestTTY=no")  # fmt: skip
# Runs a program in a session of its own and ends all of it when our end of the connection closes (stdin ends).
GUARD = """exec 3<&0
setsid "$@" </dev/null 3<&- & p=$!
{ while read -r _; do :; done <&3; kill -s KILL -- "-$p"; } >/dev/null 2>&1 & w=$!
exec 3<&-
wait "$p"; c=$?
kill "$w" 2>/dev/null
exit "$c"
"""
LEASE = """l="${TMPDIR:-/tmp}/edgekit-lease-$(id -u).lock"
flock -n "$2" "$l" true || echo busy
exec flock -w "$1" "$2" "$l" sh -c "echo held; cat >/dev/null"
"""


class SSH(Component):
    """A device over SSH, with the system's own ssh client and configuration (~/.ssh/config)."""

    needs_host: ClassVar[bool] = True

    host: Annotated[str, Field(min_length=1, pattern=r"^[^-\s][^\s]*$")]
    """Where it is: HOST or USER@HOST, as ssh takes it. Never part of a profile."""
    python: Annotated[str, Field(min_length=1)] = "python3"
    """Python there, for the worker."""
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 10
    """Seconds to wait for a connection."""

    def open(self) -> SSHSession:
        """Connect, take a share in the host's lease and make a work folder there."""
        if shutil.which("ssh") is None:
            raise UnavailableError("ssh", "there is no ssh client here", "install OpenSSH's (openssh-client)")
        return SSHSession(self)


class SSHSession:
    """One connection, one lease on the host, and a work folder there that goes when it closes."""

    def __init__(self, settings: SSH, lease_seconds: int = LEASE_SECONDS) -> None:
        self._settings, self._pushed, self._jobs = settings, dict[str, str](), 0
        self._control = Path(tempfile.mkdtemp(prefix="edgekit-ssh-"))  # short: a socket's path has 108 bytes at most
        self._folder = self._worker = ""
        self._lease: subprocess.Popen[str] | None = None
        try:
            make = ["sh", "-c", 'mktemp -d "${TMPDIR:-/tmp}/edgekit-XXXXXXXXXX"']
            self._folder = self._checked(make, "a work folder").strip()
            self._lease_seconds = lease_seconds
            self._lease = self._take_lease("--shared")
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
        digest = _sha256(path)
        remote = f"{self._folder}/{digest[:16]}{_suffix(path)}"
        if self._pushed.get(remote) != digest:
            self._send(path, remote, digest)
            self._pushed[remote] = digest
        return remote

    def pull(self, remote: str, path: Path) -> None:
        """Fetch a file whole: its hash there is that of what came, or nothing is written."""
        partial = path.with_name(f"{path.name}.part")
        try:
            with partial.open("wb") as file:
                found = self._ssh(["cat", "--", remote], stdout=file, timeout_s=TRANSFER_S)
            if found.returncode:
                raise StageError(self._settings.host, f"{remote} cannot be read: {_last(found.stderr)}")
            if self._digest(remote) != _sha256(partial):
                raise StageError(self._settings.host, f"{remote} changed on its way here", "run it again")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def execute(self, command: Sequence[str], *, timeout_s: float) -> Completed:
        """A program of the device, in the work folder; UnavailableError when there is none of that name."""
        guarded = ["sh", "-c", GUARD, "sh", *command]
        found = self._ssh(guarded, stdin=subprocess.PIPE, timeout_s=timeout_s, folder=self._folder, what=command[0])
        if found.returncode in (126, 127) and command[0] in found.stderr:
            raise UnavailableError(f"{self._settings.host}: {command[0]}", f"cannot be run: {_last(found.stderr)}")
        return found

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """One worker job. Raises what the worker says is wrong, or StageError when it crashes or takes too long."""
        self._worker = self._worker or self._push_worker()
        self._jobs += 1
        what = str(job.get("name") or Path(str(job.get("model", job["kind"]))).name)
        there = f"{self._folder}/result-{self._jobs}.json"
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            request, result = Path(folder) / "job.json", Path(folder) / "result.json"
            request.write_text(json.dumps({**job, "result": there}))
            command = ["env", "-u", "PYTHONPATH", self._settings.python, self._worker, self.push(request)]
            done = self.execute(command, timeout_s=timeout_s)
            if self._ssh(["test", "-f", there], timeout_s=GRACE_S).returncode:
                ending = f"ended with exit code {done.returncode} and no result"
                raise StageError(what, f"the worker on {self._settings.host} {ending}{tail(done.stderr)}")
            self.pull(there, result)
            found: dict[str, Any] = json.loads(result.read_text())
        if "error" in found:
            kind = UnavailableError if found.get("kind") == "unavailable" else InputError
            raise kind(f"{self._settings.host}: {what}", found["error"], found.get("fix") or None)
        return found

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The host for oneself; UnavailableError when others keep it too long."""
        self._give_lease_back()
        self._lease = self._take_lease("--exclusive")
        try:
            yield
        finally:
            self._give_lease_back()
        self._lease = self._take_lease("--shared")  # not after an error: the connection may be gone

    def close(self) -> None:
        """Remove the work folder, give the lease back, and end the connection."""
        with suppress(UnavailableError):
            if self._folder:
                self._ssh(["rm", "-rf", "--", self._folder], timeout_s=GRACE_S)
        self._give_lease_back()
        socket = self._control / "s"
        if socket.exists():
            self._disconnect()
        shutil.rmtree(self._control, ignore_errors=True)

    # ------------------------------------------------------------ the connection

    def _client(self, options: Sequence[str] = ()) -> list[str]:
        settings = (*OPTIONS, f"ConnectTimeout={self._settings.connect_timeout_s}", f"ControlPath={self._control}/s")
        return ["ssh", *(part for option in settings for part in ("-o", option)), *options, "--", self._settings.host]

    def _ssh(
        self,
        command: Sequence[str],
        *,
        timeout_s: float,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        folder: str = "",
        what: str = "",
    ) -> Completed:
        """One remote command; UnavailableError when the connection fails, StageError when it takes too long."""
        text = f"cd {shlex.quote(folder)} && {shlex.join(command)}" if folder else shlex.join(command)
        process = subprocess.Popen(
            [*self._client(), text], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, start_new_session=True
        )
        held, process.stdin = process.stdin, None  # stays open, and ends the remote program if we go
        timed_out = False
        try:
            try:
                out, errors = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                timed_out = True
                if held is not None:
                    held.close()
                out, errors = self._ended(process)
        except BaseException:
            process.kill()
            raise
        finally:
            if held is not None:
                held.close()
        done = Completed(process.returncode, _text(out), _text(errors))
        if timed_out:
            raise StageError(
                f"{self._settings.host}: {what or command[0]}", f"took longer than {timeout_s:.0f} s and was ended"
            )
        if process.returncode == CONNECTION_LOST:
            raise self._unreachable(done.stderr)
        return done

    def _ended(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        """What a command that took too long had said; the connection goes with one that does not end."""
        try:
            return process.communicate(timeout=GRACE_S / 3)
        except subprocess.TimeoutExpired:
            process.kill()
            self._disconnect()
            return process.communicate()

    def _disconnect(self) -> None:
        """End the shared connection; the next command makes a new one."""
        subprocess.run(self._client(["-O", "exit"]), stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def _unreachable(self, errors: str) -> UnavailableError:
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        told = next((line for line in lines if "ost key" in line), lines[-1] if lines else "the connection was lost")
        if "ost key" in told or "ost identification" in errors:
            fix = f"make sure of the device's host key, then accept it once: ssh {self._settings.host} true"
        else:
            fix = f"it must work without a password: ssh -o BatchMode=yes {self._settings.host} true"
        return UnavailableError(self._settings.host, told, fix)

    def _checked(self, command: Sequence[str], what: str) -> str:
        found = self._ssh(command, timeout_s=GRACE_S)
        if found.returncode:
            problem = f"{what} cannot be had there: {_last(found.stderr)}"
            raise UnavailableError(self._settings.host, problem)
        return found.stdout

    # ------------------------------------------------------------ its parts

    def _take_lease(self, kind: str) -> subprocess.Popen[str]:
        """A lock on the host, held while this connection is; UnavailableError when another run keeps it too long."""
        seconds = self._lease_seconds
        command = shlex.join(["sh", "-c", LEASE, "sh", str(seconds), kind])
        lease = subprocess.Popen(
            [*self._client(), command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        said = lease.stdout.readline().strip() if lease.stdout else ""
        if lease.stdout and said == "busy":
            log.warning("another run is at work on %s; waiting for it", self._settings.host)
            said = lease.stdout.readline().strip()
        if said != "held":
            _, errors = lease.communicate()
            if lease.returncode == 1:
                problem = f"another run has been measuring there for {seconds} s"
                raise UnavailableError(self._settings.host, problem, "wait for it, or end it")
            raise UnavailableError(self._settings.host, f"cannot be locked for measuring: {_last(errors)}")
        return lease

    def _give_lease_back(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.communicate()  # its stdin ends, and so does it

    def _send(self, path: Path, remote: str, digest: str) -> None:
        partial = f"{remote}.part"
        with path.open("rb") as file:
            write = ["sh", "-c", 'cat > "$1"', "sh", partial]
            found = self._ssh(write, stdin=file, timeout_s=TRANSFER_S)
        if found.returncode:
            raise UnavailableError(self._settings.host, f"{path.name} cannot be written there: {_last(found.stderr)}")
        if self._digest(partial) != digest:
            raise StageError(self._settings.host, f"{path.name} did not arrive whole", "run it again")
        self._checked(["mv", "--", partial, remote], path.name)

    def _digest(self, remote: str) -> str:
        return self._checked(["sha256sum", "--", remote], "sha256sum").split()[0]

    def _push_worker(self) -> str:
        """The worker as one zip, and Python there is one that it runs on."""
        check = "import sys; sys.exit(sys.version_info < (3, 8))"
        found = self._ssh([self._settings.python, "-c", check], timeout_s=GRACE_S)
        if found.returncode:
            problem = "is not there" if found.returncode == 127 else "is older than 3.8, or does not start"
            fix = "install Python 3.8 or later there; TensorRT engines can be built and timed without (edgekit engine)"
            raise UnavailableError(f"{self._settings.host}: {self._settings.python}", problem, fix)
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            archive = Path(folder) / "worker.zip"
            with zipfile.ZipFile(archive, "w") as file:
                for path in sorted(WORKER.glob("*.py")):
                    file.write(path, path.name)
            return self.push(archive)


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _suffix(path: Path) -> str:
    """The last suffix, which runtimes look at, unless it holds what a shell or a file system might read otherwise."""
    return path.suffix if path.suffix[1:].isalnum() and path.suffix.isascii() else ""


def _text(content: bytes | None) -> str:
    return (content or b"").decode(errors="replace")


def _last(errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
