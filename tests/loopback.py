"""An sshd of our own on 127.0.0.1, as whoever runs the tests, and an `ssh` that knows the way there."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
REASON = "no sshd here (Debian: openssh-server)"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
HOST = "board-on-loopback"  # the name that the ssh configuration gives it


@dataclass(frozen=True)
class Loopback:
    """port: of the server. folder: keys, configuration, logs. binaries: to stand first in PATH, holds `ssh`."""

    port: int
    folder: Path
    binaries: Path

    def forget_host(self) -> None:
        """The host key is known no longer."""
        (self.folder / "known_hosts").write_text("")

    def drop_connections(self) -> None:
        """Cut every connection: end the processes that serve them, and let the server be."""
        server = (self.folder / "sshd.pid").read_text().strip()
        for child in subprocess.run(
            ["pgrep", "-P", server], capture_output=True, text=True, check=False
        ).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(child), 9)


@contextmanager
def serve(folder: Path, *, programs: Path | None = None) -> Iterator[Loopback]:
    """A server for as long as the context lasts; skips the test where there is no sshd.

    programs: folder that stands first in PATH of what runs there.
    """
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip(REASON)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # privilege separation, which only root has, wants it
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    shutil.copyfile(folder / "user.pub", folder / "authorized")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/sshd.pid\n"
        f"AuthorizedKeysFile {folder}/authorized\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxSessions 100\nMaxStartups 100\n"
        # a lease of its own, so that tests do not wait for whoever measures on this machine
        + f"SetEnv TMPDIR={folder}{f' PATH={programs}:{PATH}' if programs else ''}\n"
    )
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    (folder / "ssh_config").write_text(
        f"Host {HOST}\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {folder}/user\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {folder}/known_hosts\n GlobalKnownHostsFile /dev/null\n"
    )
    binaries = folder / "bin"
    binaries.mkdir()
    (binaries / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    (binaries / "ssh").chmod(0o755)
    log = folder / "sshd.log"
    server = subprocess.Popen([SSHD, "-D", "-f", str(folder / "sshd_config"), "-E", str(log)], stdin=subprocess.DEVNULL)
    try:
        _await(port, log, server)
        yield Loopback(port, folder, binaries)
    finally:
        server.terminate()
        server.wait()


def _await(port: int, log: Path, server: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"sshd does not answer: {log.read_text() if log.is_file() else 'no log'}")
