"""The executor's child: errors cross over, a crash is a failed stage with the log's tail, nothing is left running."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit import executor
from toolkit.core import Progress
from toolkit.errors import InputError, StageError
from toolkit.executor import Executor

# A stand-in for toolkit.stages: the same protocol, stages that misbehave
SERVE = """
import os, signal, subprocess, sys, tempfile, time
from multiprocessing.connection import Connection
from toolkit.core import Progress
from toolkit.errors import InputError
from toolkit.stages import _answer
pipe = Connection(int(sys.argv[1]))
def double(value): pipe.send(("progress", Progress("half", 0.5))); return 2 * value
def refuse(): raise InputError("here", "is wrong", "mend it")
def bug(): return 1 // 0
def crash(): print("last words", flush=True); os.kill(os.getpid(), signal.SIGSEGV)
def starve(): os.kill(os.getpid(), signal.SIGKILL)
def leave(): os._exit(7)
def leave_file(): return tempfile.mkstemp()[1]
def spawn(): child = subprocess.Popen(["sleep", "60"]); return os.getpid(), child.pid
while True:
    name, arguments = pipe.recv()
    pipe.send(_answer(globals()[name], arguments))
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    monkeypatch.setattr(executor, "SERVE", SERVE)
    with Executor(tmp_path / "log.txt", lambda progress: None) as running:
        yield running


def test_call_gives_the_result_and_passes_progress_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "SERVE", SERVE)
    seen: list[Progress] = []
    with Executor(tmp_path / "log.txt", seen.append) as running:
        assert running.call("double", value=21) == 42
    assert seen == [Progress("half", 0.5)]


def test_errors_of_ours_cross_over_whole(child: Executor) -> None:
    with pytest.raises(InputError) as caught:
        child.call("refuse")
    assert (caught.value.where, caught.value.fix, caught.value.exit_code) == ("here", "mend it", 2)
    assert child.call("double", value=1) == 2


def test_any_other_exception_is_a_bug_with_its_traceback(child: Executor) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)bug in Edgekit.*in bug.*ZeroDivisionError"):
        child.call("bug")


@pytest.mark.parametrize(
    ("function", "how"),
    [("crash", "was killed by SIGSEGV.*last words"), ("starve", "SIGKILL .out of memory"), ("leave", "exit code 7")],
)
def test_crash_is_a_failed_stage_and_the_next_call_starts_anew(child: Executor, function: str, how: str) -> None:
    with pytest.raises(StageError, match=how) as caught:
        child.call(function)
    assert caught.value.exit_code == 3
    assert child.call("double", value=2) == 4


def test_interrupt_ends_the_child_and_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "SERVE", SERVE)
    with pytest.raises(KeyboardInterrupt), Executor(tmp_path / "log.txt", lambda progress: None) as running:
        pids = running.call("spawn")
        raise KeyboardInterrupt
    for pid in pids:
        assert gone(pid)


def test_temporary_files_of_the_child_go_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "SERVE", SERVE)
    with Executor(tmp_path / "log.txt", lambda progress: None) as running:
        for _ in range(2):
            written = Path(running.call("leave_file"))
            assert written.is_file()
            running.close()
            assert not written.parent.exists()
        crashed = Path(running.call("leave_file"))
        with pytest.raises(StageError):
            running.call("leave")
        assert not crashed.parent.exists()


def gone(pid: int) -> bool:
    """Whether a killed process ends; the kernel may take a moment on a busy machine."""
    return any(not running_process(pid) or time.sleep(0.1) for _ in range(100))


def running_process(pid: int) -> bool:
    """Whether a process of this number runs (a zombie waiting for its parent does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
