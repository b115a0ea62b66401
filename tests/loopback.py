"""An sshd of our own on 127.0.0.1, as whoever runs the tests, and an `ssh` that knows the way there."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
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
    temporary: Path  # what /tmp or TMPDIR is there, as seen from here

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


@dataclass(frozen=True)
class Place:
    """What the server serves: by default this machine, as whoever runs the tests.

    setup: lines of sh that run as root in a mount namespace of the server's own, before it starts; `$FOLDER` is the
    server's. more: lines of sshd_config. environment: of what runs there, TMPDIR apart. programs: a folder that stands
    first in its PATH.
    """

    user: str = ""
    setup: str = ""
    more: Sequence[str] = ()
    environment: tuple[str, ...] = ()
    programs: Path | None = None


@contextmanager
def serve(folder: Path, *, programs: Path | None = None, place: Place | None = None) -> Iterator[Loopback]:
    """A server for as long as the context lasts; skips the test where there is no sshd.

    programs: folder that stands first in PATH of what runs there.
    """
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip(REASON)
    place = place or Place(programs=programs)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # privilege separation, which only root has, wants it
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    _configure(folder, port, place)
    log, temporary, binaries = folder / "sshd.log", folder / "tmp", folder / "bin"
    temporary.mkdir()
    temporary.chmod(0o1777)
    binaries.mkdir()
    (binaries / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    (binaries / "ssh").chmod(0o755)
    command = [SSHD, "-D", "-f", str(folder / "sshd_config"), "-E", str(log)]
    if place.setup:
        command = in_namespace(folder, place.setup, command)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log.open("w"))
    try:
        _await(port, log, server)
        yield Loopback(port, folder, binaries, temporary)
    finally:
        server.terminate()
        server.wait()


def in_namespace(folder: Path, setup: str, command: Sequence[str]) -> list[str]:
    """The command as root in mount and host-name namespaces of its own, after `setup` (sh, `$FOLDER` is `folder`)."""
    script = folder / "setup.sh"
    script.write_text(f'set -e\nFOLDER={shlex.quote(str(folder))}\nmount --make-rprivate /\n{setup}\nexec "$@"\n')
    return ["unshare", "-m", "-u", "sh", str(script), *command]


def why_no_namespace() -> str:
    """Why `in_namespace` cannot work here, or ""."""
    if os.getuid() != 0:
        return "only root can mount a small or a foreign file system"
    tried = subprocess.run(["unshare", "-m", "-u", "true"], capture_output=True, text=True, check=False)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


def _configure(folder: Path, port: int, place: Place) -> None:
    """Keys and configurations of the server and of the client."""
    user, programs = place.user or getpass.getuser(), place.programs
    # a lease of its own, so that tests do not wait for whoever measures on this machine
    named = [*place.environment] if place.user else [f"TMPDIR={folder}/tmp", *place.environment]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/sshd.pid\n"
        "PermitRootLogin yes\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxSessions 100\nMaxStartups 100\n"
        f"SetEnv {' '.join([*named, *([f'PATH={programs}:{PATH}'] if programs else [])])}\n"
        + "".join(f"{line}\n" for line in place.more)
        # another account cannot read a folder of whoever runs the tests: root reads it to the server
        + (f"AuthorizedKeysFile none\nAuthorizedKeysCommand /bin/cat {folder}/user.pub\n" if place.user else "")
        + ("AuthorizedKeysCommandUser root\n" if place.user else f"AuthorizedKeysFile {folder}/user.pub\n")
    )
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    (folder / "ssh_config").write_text(
        f"Host {HOST}\n HostName 127.0.0.1\n Port {port}\n User {user}\n IdentityFile {folder}/user\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {folder}/known_hosts\n GlobalKnownHostsFile /dev/null\n"
    )


def _await(port: int, log: Path, server: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"sshd does not answer: {log.read_text() if log.is_file() else 'no log'}")
