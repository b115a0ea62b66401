"""An Android device over adb: the real client against a stand-in, in the arm64 root file system where that is.

There commands run in mksh and toybox, as on a phone; elsewhere in this machine's shell. Faults: test_faults.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.android import Android, android
from toolkit.errors import InputError, StageError, UnavailableError
from toolkit.transports.adb import ADB, ADBLink
from toolkit.transports.remote import RemoteSession


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Android]:
    with android(tmp_path_factory.mktemp("adb")) as running:
        yield running


@pytest.fixture
def serial(phone: Android, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PATH", f"{phone.binaries}:{os.environ['PATH']}")
    return phone.serial


@pytest.fixture
def session(serial: str) -> Iterator[RemoteSession]:
    with closing(ADB(host=serial).open()) as opened:
        yield opened


def left(phone: Android) -> list[str]:
    """What lies in the folder that the device's shell may write to, the lock apart."""
    return [path.name for path in phone.temporary.iterdir() if not path.name.startswith("edgekit-lease-")]


def test_program_gives_its_exit_code_and_output_and_takes_hostile_arguments(session: RemoteSession) -> None:
    hostile = "a b;$(touch /tmp/x)`'\"\n*"
    found = session.execute(["sh", "-c", 'pwd; printf %s "$1"; printf bad >&2; exit 3', "sh", hostile], timeout_s=20)
    folder, _, said = found.stdout.partition("\n")
    assert (found.returncode, folder, said, found.stderr) == (3, session.folder(), hostile, "bad")


def test_program_runs_where_an_android_shell_has_its_files(phone: Android, session: RemoteSession) -> None:
    if not phone.emulated:
        pytest.skip("no arm64 root file system here: make emulated")
    found = session.execute(["sh", "-c", 'echo "$KSH_VERSION"; uname -m; id -u'], timeout_s=20)
    shell, machine, user = found.stdout.splitlines()
    assert "MIRBSD KSH" in shell
    assert (machine, user) == ("aarch64", "2000")
    assert session.folder().startswith("/data/local/tmp/edgekit-")


def test_program_that_is_not_there_is_named(session: RemoteSession) -> None:
    with pytest.raises(UnavailableError, match="no-such-program: cannot be run"):
        session.execute(["no-such-program"], timeout_s=20)


def test_what_a_program_says_of_exit_codes_is_not_taken_for_its_own(session: RemoteSession) -> None:
    found = session.execute(["sh", "-c", r"printf '\nffffffffffffffff 0' >&2; exit 7"], timeout_s=20)
    assert (found.returncode, found.stderr) == (7, "\nffffffffffffffff 0")


def test_file_goes_there_and_back_whole(session: RemoteSession, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    content = os.urandom(300_000)
    path.write_bytes(content)
    remote = session.push(path)
    assert session.push(path) == remote
    session.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_file_that_is_not_there_leaves_none_here(session: RemoteSession, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="nothing cannot be read"):
        session.pull(f"{session.folder()}/nothing", tmp_path / "back")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no such file"):
        session.push(tmp_path / "nothing")


def test_program_that_takes_too_long_ends_with_its_children(session: RemoteSession, phone: Android) -> None:
    with pytest.raises(StageError, match=r"sh: took longer than 2 s and was ended\.$"):
        session.execute(["sh", "-c", "(while :; do sleep 0.1; echo >> alive; done) & wait"], timeout_s=2)
    alive = phone.temporary / Path(session.folder()).name / "alive"
    size = alive.stat().st_size
    time.sleep(1)
    assert alive.stat().st_size == size > 0


def test_closing_leaves_nothing_there(serial: str, phone: Android) -> None:
    with closing(ADB(host=serial).open()) as session:
        session.execute(["sh", "-c", "mkdir -p deep/er; echo x > deep/er/file"], timeout_s=20)
        assert left(phone) == [Path(session.folder()).name]
    assert left(phone) == []


def test_second_run_waits_for_the_lease_and_gives_up(
    session: RemoteSession, serial: str, caplog: pytest.LogCaptureFixture
) -> None:
    with session.alone(), pytest.raises(UnavailableError, match="another run has been measuring there for 1 s"):
        RemoteSession(ADBLink(ADB(host=serial)), lease_seconds=1)
    assert f"another run or device is at work on {serial}; waiting for it" in caplog.text


def test_runs_share_a_device_and_wait_to_have_it_alone(session: RemoteSession, serial: str) -> None:
    with closing(RemoteSession(ADBLink(ADB(host=serial)), lease_seconds=1)) as second:
        with pytest.raises(UnavailableError, match="another run"), second.alone():
            pass
        session.close()
        with second.alone():
            assert second.execute(["true"], timeout_s=10).returncode == 0


def test_worker_runs_there(serial: str, phone: Android) -> None:
    import sys

    python = "/usr/bin/python3" if phone.emulated else sys.executable
    with closing(ADB(host=serial, python=python).open()) as session:
        found = session.run({"kind": "info", "runtime": "onnxruntime"}, timeout_s=120)
        assert "onnxruntime" in found["versions"]


def test_phone_without_python_is_told_so(serial: str) -> None:
    with (
        closing(ADB(host=serial, python="no-python").open()) as opened,
        pytest.raises(UnavailableError, match=r"no-python: is not there\. Fix: install Python 3\.8 or later there"),
    ):
        opened.run({"kind": "info", "runtime": "litert"}, timeout_s=60)


@pytest.mark.usefixtures("serial")
def test_device_that_is_not_connected_says_how_to_see_it() -> None:
    with pytest.raises(UnavailableError) as error:
        ADB(host="R58M123").open()
    assert str(error.value) == (
        "R58M123: no such device is connected. Fix: `adb devices` must list this serial number as `device`."
    )


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", "accept the question on its"),
        ("error: device offline", "device offline. Fix: `adb devices` must list"),
        ("", "the connection was lost. Fix"),
    ],
)
def test_what_adb_says_becomes_one_line_and_what_to_do(said: str, problem: str) -> None:
    with pytest.raises(UnavailableError) as error:
        ADBLink(ADB(host="R58M123")).completed(1, "", said)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_serial_that_reads_as_an_option_is_refused() -> None:
    with pytest.raises(ValueError, match="pattern"):
        ADB(host="-H evil")


def test_device_without_exit_codes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "adb"
    client.write_text('#!/bin/sh\ncase "$*" in *get-state) echo device;; *features) echo cmd;; esac\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UnavailableError, match="its shell gives no exit codes"):
        ADB(host="old").open()
