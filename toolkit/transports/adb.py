"""An Android device over adb: the real client (Debian: adb), by serial number, with exit codes and checked files.

Clients do not agree on how `adb shell` ends when the connection is cut, so each command says itself how it ended; one
that does not say was cut off. The device needs Android 7 or later, whose shell gives exit codes and stderr apart.
Pages: packages/modules/adb of the Android Open Source Project: SHELL_V2 in docs/dev, SYNC.TXT.
"""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Annotated, ClassVar

from pydantic import Field

from toolkit.core import Completed
from toolkit.errors import UnavailableError
from toolkit.schema import Component
from toolkit.transports.remote import GRACE_S, TRANSFER_S, RemoteSession, in_folder, last, program, too_long, waiting

TEMPORARY = "/data/local/tmp"  # the folder that adb's shell may write to and run programs in
FILE_ERROR = re.compile(r"^(?:adb: )?error: failed to (?:copy|stat|open)\b.*': (?:remote )?", re.DOTALL)


class ADB(Component):
    """An Android device over adb, with the system's own adb client."""

    needs_host: ClassVar[bool] = True

    host: Annotated[str, Field(min_length=1, pattern=r"^[^-\s][^\s]*$")]
    """Its serial number, as `adb devices` lists it. Never part of a profile."""
    python: Annotated[str, Field(min_length=1)] = "python3"
    """Python there, for the worker; phones have none of their own."""

    def open(self) -> RemoteSession:
        """Reach the device, take its lease and make a work folder there."""
        if shutil.which("adb") is None:
            raise UnavailableError("adb", "there is no adb client here", "install it (Debian: adb)")
        link = ADBLink(self)
        link.check()
        return RemoteSession(link, python=self.python)


class ADBLink:
    """One device of the adb server, which the client starts when it is not running."""

    temporary = TEMPORARY

    def __init__(self, settings: ADB) -> None:
        self.place = settings.host
        self._token = secrets.token_hex(8)  # stands before the exit code, where nothing else can have written it

    def check(self) -> None:
        """UnavailableError when the device is not there, is not allowed, or has no exit codes."""
        # the server outlives the client that starts it, and would hold its pipes open
        subprocess.run(["adb", "start-server"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=False, timeout=GRACE_S)  # fmt: skip
        state, late = program(self._client("get-state"), timeout_s=GRACE_S)
        if late or state.returncode or state.stdout.strip() != "device":
            raise self._unreachable(state.stderr or f"its state is {state.stdout.strip() or 'unknown'}")
        features, late = program(self._client("features"), timeout_s=GRACE_S)
        if "shell_v2" not in features.stdout.split():
            problem = "its shell gives no exit codes, which Android has since version 7"
            raise UnavailableError(self.place, problem, "use a newer device, or update adb here")

    def call(
        self,
        command: Sequence[str],
        *,
        timeout_s: float,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        folder: str = "",
        what: str = "",
    ) -> Completed:
        """One remote command; UnavailableError when the connection fails, StageError when it takes too long."""
        done, timed_out = program(self._shell(command, folder), timeout_s=timeout_s, stdin=stdin)
        if timed_out:
            raise too_long(self.place, what or command[0], timeout_s)
        return self.completed(done.returncode, done.stdout, done.stderr)

    def completed(self, code: int, out: str, errors: str) -> Completed:
        """What the program there said of its end; UnavailableError when it came to say nothing."""
        said, told, ending = errors.rpartition(f"\n{self._token} ")
        if not told:
            raise self._unreachable(errors)
        return Completed(int(ending), out, said)

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """A program there that runs until its input ends."""
        return waiting(self._shell(command))

    def send(self, path: Path, remote: str) -> Completed:
        """The bytes of a file, to a path there."""
        return self._transfer(path.name, "push", str(path.absolute()), remote)

    def fetch(self, remote: str, path: Path) -> Completed:
        """The bytes of a file there, to a path here."""
        return self._transfer(remote, "pull", remote, str(path.absolute()))

    def close(self) -> None:
        """Nothing of the connection is ours."""

    def _client(self, *arguments: str) -> list[str]:
        return ["adb", "-s", self.place, *arguments]

    def _shell(self, command: Sequence[str], folder: str = "") -> list[str]:
        """-T: no terminal, so that bytes pass unchanged and stderr comes apart."""
        return self._client("shell", "-T", f"{in_folder(command, folder)}; printf '\\n{self._token} %s' \"$?\" >&2")

    def _transfer(self, what: str, *arguments: str) -> Completed:
        done, timed_out = program(self._client(*arguments), timeout_s=TRANSFER_S)
        if timed_out:
            raise too_long(self.place, what, TRANSFER_S)
        lines = [line for line in (*done.stderr.splitlines(), *done.stdout.splitlines()) if line.strip()]
        said = next((line for line in lines if "error:" in line), lines[-1] if lines else "")  # a summary comes after
        return Completed(done.returncode, "", FILE_ERROR.sub("", said).removeprefix("adb: error: "))

    def _unreachable(self, errors: str) -> UnavailableError:
        told = last(errors, "the connection was lost").removeprefix("error: ").removeprefix("adb: ").rstrip(".")
        if told.startswith("device ") and "not found" in told:
            told = "no such device is connected"
        fix = "`adb devices` must list this serial number as `device`"
        if "unauthorized" in errors:
            told, fix = "it does not allow this computer to debug it", "accept the question on its screen"
        elif ":" in self.place:
            fix = f"{fix}; over the network: adb connect {self.place}"
        return UnavailableError(self.place, told, fix)
