"""An Android device that is none (adb_device.py), and an `adb` whose private server is connected to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.emulated import pi
from tests.loopback import in_namespace

REASON = "no adb here (Debian: adb)"


@dataclass(frozen=True)
class Android:
    """serial: of the device. temporary: what its /data/local/tmp is, as seen from here. binaries: holds `adb`.

    emulated: commands run in the arm64 root file system, by mksh and toybox; else on this machine.
    """

    serial: str
    folder: Path
    temporary: Path
    binaries: Path
    device: subprocess.Popen[bytes]
    emulated: bool

    def drop_connections(self) -> None:
        """As when the cable is pulled."""
        self.device.send_signal(signal.SIGUSR1)

    def cut_push_after(self, size: int) -> None:
        """The connection is cut once, after so many bytes of a file."""
        (self.folder / "cut-after").write_text(str(size))

    def connect(self) -> None:
        """Plug it in (again): done when the server lists it."""
        for _ in range(100):
            self.adb("connect", self.serial)
            if self.adb("-s", self.serial, "get-state").strip() == "device":
                return
            self.adb("disconnect", self.serial)
            time.sleep(0.1)
        raise RuntimeError(f"adb does not connect: {(self.folder / 'server.log').read_text()}")

    def adb(self, *arguments: str) -> str:
        found = subprocess.run([self.binaries / "adb", *arguments], capture_output=True, text=True, check=False)
        return found.stdout


@contextmanager
def android(
    folder: Path, *, setup: str = "", emulated: bool | None = None, programs: Path | None = None
) -> Iterator[Android]:
    """A device for as long as the context lasts; skips the test where there is no adb.

    emulated: in the arm64 root file system; None for where that is. setup: more for `in_namespace`.
    programs: a folder that stands first in PATH of what runs there, where that is this machine.
    """
    client = shutil.which("adb")
    if client is None:
        pytest.skip(REASON)
    emulated = not pi.missing() if emulated is None else emulated
    temporary, binaries = folder / "tmp", folder / "bin"
    for made in (temporary, binaries):
        made.mkdir()
    port = _free_port()
    environment = {**os.environ, "ANDROID_ADB_SERVER_PORT": str(port), "HOME": str(folder)}
    environment["ADB_LOCAL_TRANSPORT_MAX_PORT"] = "5553"  # looks for no emulators
    (binaries / "adb").write_text(f'#!/bin/sh\nHOME={folder} ANDROID_ADB_SERVER_PORT={port} exec {client} "$@"\n')
    (binaries / "adb").chmod(0o755)
    command = [sys.executable, str(Path(__file__).with_name("adb_device.py")), str(folder)]
    if emulated:
        command.append(str(pi.ROOT))
    if emulated or setup:
        command = in_namespace(folder, f"{pi.phone_setup() if emulated else ''}{setup}", command)
    log = (folder / "server.log").open("w")
    path = {"PATH": f"{programs}:{os.environ['PATH']}"} if programs else {}
    device = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **path})
    server = subprocess.Popen(
        [client, "nodaemon", "server"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )
    try:
        serial = f"127.0.0.1:{_await(folder, device)}"
        found = Android(serial, folder, temporary, binaries, device, emulated)
        found.connect()
        yield found
    finally:
        for process in (server, device):
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _await(folder: Path, device: subprocess.Popen[bytes]) -> int:
    for _ in range(200):
        if (folder / "port").is_file():
            return int((folder / "port").read_text())
        if device.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the stand-in does not start: {(folder / 'server.log').read_text()}")
