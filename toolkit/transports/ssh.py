"""A device over SSH: OpenSSH's own client, one multiplexed connection, the user's own configuration.

Host keys are always checked, nothing asks for a password, every wait ends.
Pages: ssh_config(5) (ControlMaster, BatchMode, StrictHostKeyChecking, ServerAliveInterval).
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Annotated, ClassVar

from pydantic import Field

from toolkit.core import Completed
from toolkit.errors import UnavailableError
from toolkit.schema import Component
from toolkit.transports.remote import TRANSFER_S, RemoteSession, in_folder, program, too_long, waiting

CONNECTION_LOST = 255  # ssh's own exit code; a remote program may not use it
OPTIONS = ("BatchMode=yes", "StrictHostKeyChecking=yes", "ServerAliveInterval=5", "ServerAliveCountMax=3",
           "ControlMaster=auto", "ControlPersist=60", "ConnectionAttempts=2", "LogLevel=ERROR",
           "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes", "RequestTTY=no")  # fmt: skip


class SSH(Component):
    """A device over SSH, with the system's own ssh client and configuration (~/.ssh/config)."""

    needs_host: ClassVar[bool] = True

    host: Annotated[str, Field(min_length=1, pattern=r"^[^-\s][^\s]*$")]
    """Where it is: HOST or USER@HOST, as ssh takes it. Never part of a profile."""
    python: Annotated[str, Field(min_length=1)] = "python3"
    """Python there, for the worker."""
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 10
    """Seconds to wait for a connection."""

    def open(self) -> RemoteSession:
        """Connect, take the device's lease and make a work folder there."""
        if shutil.which("ssh") is None:
            raise UnavailableError("ssh", "there is no ssh client here", "install OpenSSH's (openssh-client)")
        return RemoteSession(SSHLink(self), python=self.python)


class SSHLink:
    """One shared connection; a command that finds it gone makes it anew."""

    temporary = "/tmp"

    def __init__(self, settings: SSH) -> None:
        self.place = settings.host
        self._settings = settings
        self._control = Path(tempfile.mkdtemp(prefix="edgekit-ssh-"))  # short: a socket's path has 108 bytes at most
        self._gone = weakref.finalize(self, shutil.rmtree, self._control, ignore_errors=True)  # at exit, if not before

    def call(
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
        client = [*self._client(), in_folder(command, folder)]
        done, timed_out = program(client, timeout_s=timeout_s, stdin=stdin, stdout=stdout, stuck=self._disconnect)
        if timed_out:
            raise too_long(self.place, what or command[0], timeout_s)
        return self.completed(done.returncode, done.stdout, done.stderr)

    def completed(self, code: int, out: str, errors: str) -> Completed:
        """What ssh says of the program there; UnavailableError when the connection failed."""
        if code == CONNECTION_LOST:
            raise self._unreachable(errors)
        return Completed(code, out, errors)

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """A program there that runs until its input ends."""
        return waiting([*self._client(), shlex.join(command)])

    def send(self, path: Path, remote: str) -> Completed:
        """The bytes of a file, to a path there."""
        with path.open("rb") as file:
            return self.call(["sh", "-c", 'cat > "$1"', "sh", remote], stdin=file, timeout_s=TRANSFER_S, what=path.name)

    def fetch(self, remote: str, path: Path) -> Completed:
        """The bytes of a file there, to a path here."""
        with path.open("wb") as file:
            return self.call(["cat", "--", remote], stdout=file, timeout_s=TRANSFER_S, what=remote)

    def close(self) -> None:
        """End the shared connection."""
        if (self._control / "s").exists():
            self._disconnect()
        self._gone()

    def _client(self, options: Sequence[str] = ()) -> list[str]:
        settings = (*OPTIONS, f"ConnectTimeout={self._settings.connect_timeout_s}", f"ControlPath={self._control}/s")
        return ["ssh", *(part for option in settings for part in ("-o", option)), *options, "--", self._settings.host]

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
