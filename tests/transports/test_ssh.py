"""A device over SSH, against a real sshd on loopback: programs, files, leases, faults, and that nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.loopback import HOST, Loopback, serve
from toolkit.errors import InputError, StageError, UnavailableError
from toolkit.transports.remote import RemoteSession
from toolkit.transports.ssh import SSH, SSHLink


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with serve(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def host(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PATH", f"{server.binaries}:{os.environ['PATH']}")
    return HOST


@pytest.fixture
def session(host: str) -> Iterator[RemoteSession]:
    with closing(SSH(host=host).open()) as opened:
        yield opened


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie; waits a moment for one that was just killed."""
    for _ in range(60):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.05)
    return True


def test_program_gives_its_exit_code_and_output_and_takes_hostile_arguments(session: RemoteSession) -> None:
    hostile = "a b;$(touch /tmp/x)`'\"\n*"
    found = session.execute(["sh", "-c", 'pwd; printf %s "$1"; echo bad >&2; exit 3', "sh", hostile], timeout_s=20)
    folder, _, said = found.stdout.partition("\n")
    assert (found.returncode, folder, said, found.stderr) == (3, session.folder(), hostile, "bad\n")


def test_program_that_is_not_there_is_named(session: RemoteSession) -> None:
    with pytest.raises(UnavailableError, match="no-such-program"):
        session.execute(["no-such-program"], timeout_s=20)


def test_file_goes_there_and_back_whole_whatever_its_name(session: RemoteSession, tmp_path: Path) -> None:
    path = tmp_path / "--a b;$(rm -rf x).tflite"
    content = os.urandom(300_000)
    path.write_bytes(content)
    remote = session.push(path)
    assert Path(remote).parent == Path(session.folder())
    assert Path(remote).name.endswith(".tflite")
    assert session.push(path) == remote
    session.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_file_that_is_not_there_leaves_none_here(session: RemoteSession, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="cannot be read"):
        session.pull(f"{session.folder()}/nothing", tmp_path / "back")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no such file"):
        session.push(tmp_path / "nothing")


def test_program_that_takes_too_long_ends_with_its_children(session: RemoteSession, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"^board-on-loopback: sh: took longer than 2 s and was ended\.$"):
        session.execute(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], timeout_s=2)
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_closing_removes_the_folder_and_the_connection(host: str, tmp_path: Path) -> None:
    session = SSH(host=host).open()
    folder, control = Path(session.folder()), session._link._control
    assert folder.is_dir()
    session.close()
    assert not folder.exists()
    assert not control.exists()


def test_second_run_waits_for_the_lease_and_gives_up(
    session: RemoteSession, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with session.alone(), pytest.raises(UnavailableError, match="another run has been measuring there"):
        RemoteSession(SSHLink(SSH(host=host)), lease_seconds=1)
    assert "another run or device is at work on board-on-loopback; waiting for it" in caplog.text


def test_runs_share_a_host_and_wait_to_have_it_alone(session: RemoteSession, host: str) -> None:
    with closing(RemoteSession(SSHLink(SSH(host=host)), lease_seconds=1)) as second:
        with pytest.raises(UnavailableError, match="another run"), second.alone():
            pass
        session.close()
        with second.alone():
            assert second.execute(["true"], timeout_s=10).returncode == 0


def test_cut_connection_ends_the_program_and_is_one_clear_line(
    server: Loopback, session: RemoteSession, tmp_path: Path
) -> None:
    import threading

    threading.Timer(1.0, server.drop_connections).start()
    with pytest.raises(UnavailableError) as caught:
        session.execute(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 60"], timeout_s=30)
    assert "\n" not in str(caught.value)
    assert not is_running(int((tmp_path / "pid").read_text()))
    assert session.execute(["true"], timeout_s=20).returncode == 0  # a new connection is made


def test_unknown_host_key_is_refused_with_what_to_do(server: Loopback, host: str) -> None:
    known = (server.folder / "known_hosts").read_text()
    server.forget_host()
    try:
        with pytest.raises(UnavailableError, match=r"ost key.*accept it once: ssh board-on-loopback true"):
            SSH(host=host).open()
    finally:
        (server.folder / "known_hosts").write_text(known)


def test_changed_host_key_is_refused_with_what_to_do(server: Loopback, host: str, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    known = (server.folder / "known_hosts").read_text()
    key = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    (server.folder / "known_hosts").write_text(f"{known.split()[0]} {key}\n")
    try:
        with pytest.raises(
            UnavailableError, match=r"ost key.*make sure of the device's host key, then accept"
        ) as caught:
            SSH(host=host).open()
        assert "\n" not in str(caught.value)
    finally:
        (server.folder / "known_hosts").write_text(known)


def test_host_that_reads_as_an_option_is_refused() -> None:
    with pytest.raises(ValueError, match="pattern"):
        SSH(host="-oProxyCommand=touch /tmp/x")


def test_unreachable_host_says_how_to_try_it(host: str, server: Loopback) -> None:
    config = server.folder / "ssh_config"
    kept = config.read_text()
    config.write_text(kept + "Host gone\n HostName 127.0.0.1\n Port 1\n")
    try:
        with pytest.raises(UnavailableError, match=r"Connection refused.*ssh -o BatchMode=yes gone true"):
            SSH(host="gone").open()
    finally:
        config.write_text(kept)


def test_worker_runs_there_and_its_errors_come_back(host: str) -> None:
    with closing(SSH(host=host, python=sys.executable).open()) as session:
        found = session.run({"kind": "info", "runtime": "onnxruntime"}, timeout_s=60)
        assert "onnxruntime" in found["versions"]
        with pytest.raises(InputError, match="board-on-loopback: x: no such runtime"):
            session.run({"kind": "bench", "runtime": "nothing", "model": "x"}, timeout_s=60)


def test_python_that_is_not_there_is_said(host: str) -> None:
    with (
        closing(SSH(host=host, python="no-python").open()) as session,
        pytest.raises(UnavailableError, match="no-python"),
    ):
        session.run({"kind": "info", "runtime": "onnxruntime"}, timeout_s=60)
