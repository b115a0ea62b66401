"""Deployments over SSH, against a real sshd on loopback: the same, and what can go wrong on the way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.delivered import finished_run
from tests.loopback import HOST, Loopback, serve
from toolkit.cli import cli
from toolkit.deploy import Deployment, deploy, roll_back
from toolkit.deployed import LOOK
from toolkit.errors import EdgekitError, StageError, UnavailableError

BOARD = """
schema = 1
transport = "ssh"
python = "PYTHON"
arch = "any"

[[runtimes]]
use = "onnxruntime"
formats = ["onnx"]
schemes = ["float32"]
delegates = ["cpu"]
"""
# Stands before the real program in PATH there. $DO: file whose words say what to do instead, once.
STAND_IN = """#!/bin/sh
do=$(cat FOLDER/do-NAME 2>/dev/null)
case $do in
  "") exec REAL "$@" ;;
  full) rm FOLDER/do-NAME; echo "NAME: write error: No space left on device" >&2; exit 1 ;;
  wait) rm FOLDER/do-NAME; touch FOLDER/waiting; sleep 30; exit 1 ;;
  spoil) rm FOLDER/do-NAME; REAL "$@" || exit; for last; do :; done
    find "$last" -name good.onnx -exec sh -c 'printf x >>"$1"' sh {} ';' ;;
  tiny) rm FOLDER/do-NAME; echo "Filesystem 1024-blocks Used Available Capacity Mounted on"
    echo "/dev/root 100 93 7 93% /" ;;
esac
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    programs = tmp_path_factory.mktemp("programs")
    for name in ("tar", "df", "sha256sum"):
        real = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=True)
        text = STAND_IN.replace("REAL", real.stdout.strip()).replace("NAME", name).replace("FOLDER", str(programs))
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    with serve(tmp_path_factory.mktemp("sshd"), programs=programs) as running:
        yield running


@pytest.fixture
def programs(server: Loopback) -> Path:
    """Folder of the stand-ins: `do-NAME` says what one does next."""
    text = (server.folder / "sshd_config").read_text()
    return Path(text.partition(" PATH=")[2].partition(":")[0])


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: finished_run(folder / name, factor) for name, factor in {"a": 1.0, "b": 2.0}.items()}


@pytest.fixture
def board(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{server.binaries}:{os.environ['PATH']}")
    path = tmp_path / "board.toml"
    path.write_text(BOARD.replace("PYTHON", sys.executable))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "a device's folder"


def put(run: Path, board: Path, root: Path, **more: Any) -> Deployment:
    return deploy(run, "good.onnx", device=str(board), ssh=[HOST], into=str(root), **more)


def current(root: Path) -> bytes:
    return (root / "colors" / "current" / "good.onnx").read_bytes()


def model(run: Path) -> bytes:
    return (run / "artifacts" / "good.onnx").read_bytes()


def whole(root: Path) -> list[str]:
    """Numbers of the versions there; fails for anything else that lies there."""
    assert sorted(path.name for path in (root / "colors").iterdir()) == ["current", "versions"]
    return sorted(path.name[:4] for path in (root / "colors" / "versions").iterdir())


def test_deploy_and_rollback_over_ssh(versions: dict[str, Path], board: Path, root: Path, server: Loopback) -> None:
    first = put(versions["a"], board, root)
    second = put(versions["b"], board, root)
    assert (second.before, current(root)) == (first.version, model(versions["b"]))
    assert second.smoke is not None
    assert (second.smoke.passed, second.smoke.differing) == (True, 0)
    done = roll_back(device=str(board), name="colors", ssh=[HOST], into=str(root))
    assert (done.version, current(root), whole(root)) == (first.version, model(versions["a"]), ["0001", "0002"])
    assert done.smoke is not None
    assert done.smoke.passed
    assert [path.name for path in server.folder.glob("edgekit-*") if "lease" not in path.name] == []


@pytest.mark.parametrize(
    ("home", "expected"),
    [("HERE", "HERE/edgekit/colors"), ("/", "/data/local/tmp/edgekit/colors"), ("", "/data/local/tmp/edgekit/colors")],
)
def test_default_folder_is_the_home_folders_or_what_adb_may_write(tmp_path: Path, home: str, expected: str) -> None:
    home, expected = (text.replace("HERE", str(tmp_path)) for text in (home, expected))
    command = ["sh", "-c", LOOK, "sh", "", "colors"]
    environment = {"PATH": os.environ["PATH"], "HOME": home}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"base {expected}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", ["tar", "sha256sum"])
def test_full_disk_there_is_one_line_and_the_old_version_stays(
    versions: dict[str, Path], board: Path, root: Path, programs: Path, program: str
) -> None:
    put(versions["a"], board, root, smoke=False)
    if program == "tar":
        (programs / "do-tar").write_text("full")
        with pytest.raises(UnavailableError, match=r"board: the bundle cannot be unpacked there: .*No space left"):
            put(versions["b"], board, root, smoke=False)
    else:
        (programs / "do-df").write_text("tiny")
        with pytest.raises(UnavailableError, match=r"has 7 KiB free, \d+ are needed. Fix: make room there"):
            put(versions["b"], board, root, smoke=False)
    assert (current(root), whole(root)) == (model(versions["a"]), ["0001"])


def test_file_that_changed_on_the_way_is_told_and_the_old_version_stays(
    versions: dict[str, Path], board: Path, root: Path, programs: Path
) -> None:
    put(versions["a"], board, root, smoke=False)
    (programs / "do-tar").write_text("spoil")
    with pytest.raises(StageError, match=r"good.onnx did not stay whole"):
        put(versions["b"], board, root, smoke=False)
    assert (current(root), whole(root)) == (model(versions["a"]), ["0001"])


@pytest.mark.parametrize("program", ["tar", "sha256sum"])
def test_connection_cut_half_way_leaves_the_old_version_and_the_next_deployment_works(
    versions: dict[str, Path], board: Path, root: Path, programs: Path, server: Loopback, program: str
) -> None:
    put(versions["a"], board, root, smoke=False)
    (programs / "waiting").unlink(missing_ok=True)
    (programs / f"do-{program}").write_text("wait")
    caught: list[BaseException] = []

    def attempt() -> None:
        try:
            put(versions["b"], board, root, smoke=False)
        except EdgekitError as error:
            caught.append(error)

    work = threading.Thread(target=attempt)
    work.start()
    for _ in range(600):
        if (programs / "waiting").exists():
            break
        time.sleep(0.05)
    server.drop_connections()
    work.join(60)
    assert isinstance(caught[0], UnavailableError)
    assert "\n" not in str(caught[0])
    assert current(root) == model(versions["a"])
    done = put(versions["b"], board, root, smoke=False)
    assert (done.version[:4], done.before[:4]) == ("0002", "0001")
    assert (current(root), whole(root)) == (model(versions["b"]), ["0001", "0002"])


def test_unknown_host_key_is_refused_before_anything_is_sent(
    versions: dict[str, Path], board: Path, root: Path, server: Loopback
) -> None:
    known = (server.folder / "known_hosts").read_text()
    server.forget_host()
    try:
        with pytest.raises(UnavailableError, match="accept it once"):
            put(versions["a"], board, root)
    finally:
        (server.folder / "known_hosts").write_text(known)
    assert not root.exists()


def test_missing_python_stops_before_the_switch(versions: dict[str, Path], board: Path, root: Path) -> None:
    put(versions["a"], board, root)
    broken = board.with_name("broken.toml")
    broken.write_text(BOARD.replace("PYTHON", "/no/such/python3"))
    result = CliRunner().invoke(
        cli,
        ["deploy", str(versions["b"]), "--device", str(broken), "--ssh", HOST, "--into", str(root)],
    )
    assert result.exit_code == 3
    assert "/no/such/python3: is not there" in result.stderr
    assert (current(root), whole(root)) == (model(versions["a"]), ["0001"])
    told = ["deploy", str(versions["b"]), "--device", str(broken), "--ssh", HOST, "--into", str(root), "--no-smoke"]
    assert CliRunner().invoke(cli, told).exit_code == 0
    assert current(root) == model(versions["b"])


def test_missing_runtime_is_one_line_with_its_command_and_nothing_is_sent(
    versions: dict[str, Path], board: Path, root: Path, tmp_path: Path
) -> None:
    """A Python without packages: that of this machine, isolated from what is installed in its environment."""
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    board.write_text(BOARD.replace("PYTHON", str(bare)))
    with pytest.raises(UnavailableError, match="pip install") as caught:
        put(versions["a"], board, root)
    assert "\n" not in str(caught.value)
    assert not root.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
def test_really_full_disk_leaves_the_old_version(versions: dict[str, Path], board: Path, tmp_path: Path) -> None:
    root = tmp_path / "small"
    root.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1300k", "tmpfs", str(root)], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        put(versions["a"], board, root, smoke=False)
        subprocess.run(["dd", "if=/dev/zero", f"of={root}/ballast", "bs=1k", "count=200"], check=True, stderr=-3)
        with pytest.raises(UnavailableError, match="KiB free"):
            put(versions["b"], board, root)
        assert (current(root), whole(root)) == (model(versions["a"]), ["0001"])
    finally:
        subprocess.run(["umount", str(root)], check=True)
