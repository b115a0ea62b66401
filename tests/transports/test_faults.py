"""What goes wrong on the way to a device and on it, over SSH and adb: nothing lost, nothing left, one clear line."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from tests.android import android
from tests.loopback import HOST, Place, serve, why_no_namespace
from toolkit.errors import EdgekitError, StageError, UnavailableError
from toolkit.transports import remote
from toolkit.transports.adb import ADB
from toolkit.transports.remote import RemoteSession
from toolkit.transports.ssh import SSH
from toolkit.transports.there import LEASE

WAYS = ("ssh", "adb")
# A stand-in for the worker, which does what the job's kind says
WORKER = """
import json, os, signal, sys, time
job = json.load(open(sys.argv[1]))
open(job["pid"], "w").write(str(os.getpid()))
if job["kind"] == "hang": time.sleep(60)
if job["kind"] == "fill": open("filler", "wb").write(bytes(64 << 20))
json.dump({"did": job["kind"]}, open(job["result"], "w"))
"""
# Lets a part of a file through, says so, and then goes on: what is sent over SSH is written by `cat`
CAT = """#!/bin/sh
if [ -f "{folder}/armed" ]; then rm "{folder}/armed"; head -c 65536; : > "{folder}/partway"; fi
exec /bin/cat "$@"
"""
SMALL = 'mount -t tmpfs -o size=1m,mode=1777 tmpfs "$FOLDER/tmp"\n'  # a device with 1 MiB of disk


@dataclass(frozen=True)
class Device:
    """One way to a device. cut: its connections. restore: what a person would do then. temporary: seen from here."""

    open: Callable[..., RemoteSession]
    kind: str
    host: str
    cut: Callable[[], None]
    restore: Callable[[], None]
    cut_in_push: Callable[[], None]
    temporary: Path
    programs: Path

    def left(self) -> list[str]:
        """What lies in the folder for temporary files, the lock apart; waits a little for what is on its way out."""
        for _ in range(100):
            found = [path.name for path in self.temporary.iterdir() if not path.name.startswith("edgekit-lease-")]
            if not found:
                break
            time.sleep(0.05)
        return found


@contextmanager
def over(way: str, folder: Path, setup: str = "") -> Iterator[Device]:
    """A device that is reached so."""
    programs = folder / "programs"
    programs.mkdir()
    with ExitStack() as stack:
        if way == "adb":
            phone = stack.enter_context(android(folder, setup=setup, emulated=False, programs=programs))
            binaries, cut, restore = phone.binaries, phone.drop_connections, phone.connect
            temporary, build, host = phone.temporary, ADB, phone.serial

            def cut_in_push() -> None:
                phone.cut_push_after(65536)
        else:
            server = stack.enter_context(serve(folder, place=Place(setup=setup, programs=programs)))
            binaries, cut, restore = server.binaries, server.drop_connections, lambda: None
            temporary, build, host = server.temporary, SSH, HOST

            def cut_in_push() -> None:
                (programs / "cat").write_text(CAT.format(folder=folder))
                (programs / "cat").chmod(0o755)
                (folder / "armed").touch()
                threading.Thread(target=lambda: (wait_for(folder / "partway"), cut()), daemon=True).start()

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
            yield Device(
                lambda **more: build(host=host, **more).open(),
                build.__name__,
                host,
                cut,
                restore,
                cut_in_push,
                temporary,
                programs,
            )


@pytest.fixture(scope="module", params=WAYS)
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with over(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in in the worker's place; the file that it says its number in."""
    folder = tmp_path / "worker"
    folder.mkdir()
    (folder / "__main__.py").write_text(WORKER)
    monkeypatch.setattr(remote, "WORKER", folder)
    return tmp_path / "pid"


def wait_for(path: Path) -> str:
    for _ in range(400):
        if path.is_file() and path.read_text():
            return path.read_text()
        if path.name == "partway" and path.is_file():
            return ""
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie; waits a moment for one that was just killed."""
    for _ in range(60):
        stat = Path(f"/proc/{pid}/stat")
        with suppress(FileNotFoundError, ProcessLookupError):
            if stat.read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.05)
                continue
        return False
    return True


def one_line(error: EdgekitError) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_push_cut_in_the_middle_leaves_nothing_and_can_be_done_again(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(os.urandom(4 << 20))
    with closing(device.open()) as session:
        device.cut_in_push()
        with pytest.raises(UnavailableError) as caught:
            session.push(path)
        one_line(caught.value)
        device.restore()
        assert device.left() == []  # the device itself took it away
        back = tmp_path / "back"
        session.pull(session.push(path), back)
        assert back.read_bytes() == path.read_bytes()
    assert device.left() == []


def test_run_cut_in_the_middle_ends_the_worker_and_can_be_done_again(
    device: Device, worker: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(device.open(python=sys.executable)) as session:
        threading.Thread(target=lambda: (wait_for(worker), device.cut()), daemon=True).start()
        with pytest.raises(UnavailableError) as caught:
            session.run({"kind": "hang", "pid": str(worker)}, timeout_s=50)
        one_line(caught.value)
        assert not is_running(int(worker.read_text()))
        device.restore()
        assert device.left() == []
        folder = session.folder()
        assert session.run({"kind": "ok", "pid": str(worker)}, timeout_s=50) == {"did": "ok"}
        assert session.folder() == folder
        assert "was cut; a new one is made" in caplog.text
    assert device.left() == []


def test_connection_that_never_comes_back_is_one_line_and_closing_still_works(device: Device) -> None:
    session = device.open()
    device.cut()
    assert device.left() == []
    session.close()
    device.restore()
    assert device.left() == []


KILLED = """
import sys
from toolkit.transports.{module} import {kind}
session = {kind}(host={host!r}).open()
session.execute(["sh", "-c", "echo $$ > $1; sleep 60", "sh", {pid!r}], timeout_s=50)
"""


def test_edgekit_that_is_killed_leaves_nothing_there(device: Device, tmp_path: Path) -> None:
    pid, module = tmp_path / "pid", device.kind.lower()
    program = KILLED.format(module=module, kind=device.kind, host=device.host, pid=str(pid))
    killed = subprocess.Popen([sys.executable, "-c", program])
    running = int(wait_for(pid))
    assert device.left() != []
    killed.kill()
    killed.wait()
    assert not is_running(running)
    assert device.left() == []


@pytest.mark.parametrize("way", WAYS)
def test_full_disk_is_said_and_what_was_written_is_taken_away(way: str, tmp_path: Path, worker: Path) -> None:
    if why := why_no_namespace():
        pytest.skip(why)
    path = tmp_path / "model.tflite"
    path.write_bytes(os.urandom(4 << 20))
    there = tmp_path / "device"
    there.mkdir()
    with over(way, there, SMALL) as device, closing(device.open(python=sys.executable)) as session:
        with pytest.raises(UnavailableError) as caught:
            session.push(path)
        assert "model.tflite cannot be written there:" in one_line(caught.value)
        assert "No space left on device" in str(caught.value)
        with pytest.raises(StageError) as failed:
            session.run({"kind": "fill", "pid": str(worker)}, timeout_s=50)
        assert "No space left on device" in one_line(failed.value)
        listed = session.execute(["sh", "-c", "ls | grep -c part; rm -f filler"], timeout_s=20).stdout
        assert session.run({"kind": "ok", "pid": str(worker)}, timeout_s=50) == {"did": "ok"}
        assert int(listed) == 0


def test_worker_that_is_killed_says_by_what(device: Device, worker: Path) -> None:
    with closing(device.open(python=sys.executable)) as session:
        threading.Thread(target=lambda: os.kill(int(wait_for(worker)), 9), daemon=True).start()
        with pytest.raises(StageError, match="was killed by SIGKILL, perhaps for want of memory"):
            session.run({"kind": "hang", "pid": str(worker)}, timeout_s=50)
    assert device.left() == []


def test_two_runs_at_once_measure_one_after_the_other(device: Device, worker: Path) -> None:
    first, done = device.open(python=sys.executable), list[Any]()

    def second() -> None:
        with closing(device.open(python=sys.executable)) as session, session.alone():
            done.append(session.run({"kind": "ok", "pid": str(worker)}, timeout_s=50))

    with first.alone():
        waiting = threading.Thread(target=second, daemon=True)
        waiting.start()
        time.sleep(1.5)
        assert done == []
    first.close()
    waiting.join(timeout=60)
    assert done == [{"did": "ok"}]
    assert device.left() == []


def test_measuring_that_is_cut_off_keeps_nobody_waiting(device: Device, worker: Path) -> None:
    first = device.open(python=sys.executable)
    with pytest.raises(UnavailableError), first.alone():
        device.cut()
        device.restore()
        with closing(device.open(python=sys.executable)) as session, session.alone():
            session.run({"kind": "ok", "pid": str(worker)}, timeout_s=50)
        raise UnavailableError("first", "went away")
    first.close()
    assert device.left() == []


@pytest.mark.parametrize(
    "name", ["--help", "-rf $(touch pwned) ;'\"`.tflite", "line\nbreak.tflite", "ünïcode…", "a" * 200]
)
def test_file_of_a_hostile_name_goes_there_and_back(device: Device, tmp_path: Path, name: str) -> None:
    path, back = tmp_path / name, tmp_path / f"back {name}"
    path.write_bytes(name.encode())
    with closing(device.open()) as session:
        there = session.push(path)
        assert Path(there).parent == Path(session.folder())
        assert all(letter.isascii() and (letter.isalnum() or letter == ".") for letter in Path(there).name)
        session.pull(there, back)
        assert session.execute(["ls"], timeout_s=20).stdout.split() == [Path(there).name]
    assert back.read_bytes() == path.read_bytes()


def test_name_there_that_is_hostile_is_read(device: Device, tmp_path: Path) -> None:
    name = "-n $(touch pwned) '\"`"
    with closing(device.open()) as session:
        session.execute(["sh", "-c", 'printf content > "./$1"', "sh", name], timeout_s=20)
        session.pull(f"{session.folder()}/{name}", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "content"


def test_python_that_is_too_old_is_said(device: Device) -> None:
    old = device.programs / "old-python"
    old.write_text(f'#!/bin/sh\ncase "$*" in *version_info*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    old.chmod(0o755)
    with (
        closing(device.open(python="old-python")) as session,
        pytest.raises(
            UnavailableError, match=r"old-python: is older than 3\.8, or does not start\. Fix: install Python"
        ),
    ):
        session.run({"kind": "info", "runtime": "litert"}, timeout_s=60)


def test_runtime_that_is_not_there_is_said(device: Device) -> None:
    bare = device.programs / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with (
        closing(device.open(python="bare-python")) as session,
        pytest.raises(UnavailableError) as caught,
    ):
        session.run({"kind": "bench", "runtime": "onnxruntime", "model": "x.onnx"}, timeout_s=60)
    assert "onnxruntime" in one_line(caught.value) or "numpy" in str(caught.value)
    assert device.left() == []


# every look at the clock finds it hours away from where it was, forwards and backwards
JUMPING = """
import time
real, looks = time.time, [0]
def jumping():
    looks[0] += 1
    return real() + (7200 if looks[0] % 2 else -7200)
time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
"""


def write_onnx(folder: Path) -> Path:
    """A model of one operator."""
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "one.onnx")
    return folder / "one.onnx"


def test_clock_that_jumps_changes_no_latency(device: Device, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(JUMPING)
    jumping = device.programs / "jumping-python"
    jumping.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} "$@"\n')
    jumping.chmod(0o755)
    with closing(device.open(python="jumping-python")) as session:
        told = session.execute(["jumping-python", "-c", "import time; print(time.time() - time.time())"], timeout_s=20)
        assert abs(float(told.stdout)) > 14000  # the stand-in works
        job = {"kind": "bench", "runtime": "onnxruntime", "model": session.push(write_onnx(tmp_path)),
               "delegate": "cpu", "threads": 1, "seconds": 0.2, "warmup_seconds": 0.05, "seed": 0}  # fmt: skip
        found = session.run(job, timeout_s=60)
    assert len(found["samples_ns"]) >= 2
    assert all(0 <= sample < 5e9 for sample in found["samples_ns"])


# ---------------------------------------------------------------- a lease whose asker went


@contextmanager
def waiting_for_the_lock(folder: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """The lease's program, which waits for a lock that is held here, and has said so."""
    with (folder / f"edgekit-lease-{os.getuid()}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = {**os.environ, "TMPDIR": str(folder)}
        with subprocess.Popen(
            ["sh", "-c", LEASE, "sh", "/tmp", "60", "", "-s"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        ) as lease:
            assert lease.stdout and lease.stdin
            assert lease.stdout.readline() == "busy\n"
            lease.stdin.close()
            lease.stdout.close()
            yield lease, lock
            lease.kill()


def test_work_folder_goes_when_the_asker_went_before_it_heard_of_it(tmp_path: Path) -> None:
    with waiting_for_the_lock(tmp_path) as (lease, lock):
        fcntl.flock(lock, fcntl.LOCK_UN)
        lease.wait(timeout=20)
    assert [path.name for path in tmp_path.iterdir()] == [f"edgekit-lease-{os.getuid()}.lock"]


def test_nothing_goes_on_waiting_for_the_lock_when_the_asker_went(tmp_path: Path) -> None:
    with waiting_for_the_lock(tmp_path) as (lease, _):
        assert lease.wait(timeout=20) == 1  # while the lock is still held
