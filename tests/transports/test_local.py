"""This machine as a device: fresh processes that end with us, errors by kind, one run at a time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import InputError, StageError, UnavailableError
from toolkit.transports import local
from toolkit.transports.local import Local, LocalSession

# A stand-in for the worker, which does what the job's kind says
WORKER = """
import json, os, signal, subprocess, sys, time
job = json.load(open(sys.argv[1]))
kind = job["kind"]
print("noise on stdout"); print("last words", file=sys.stderr, flush=True)
if kind == "crash": os.kill(os.getpid(), signal.SIGSEGV)
if kind == "exit": sys.exit(5)
if kind == "hang":
    child = subprocess.Popen(["sleep", "60"])
    open(job["pids"], "w").write(f"{os.getpid()} {child.pid}")
    time.sleep(60)
facts = {"modules": "tensorflow" in sys.modules, "path": os.environ.get("PYTHONPATH", ""), "cwd": os.getcwd()}
bad, absent = {"error": "bad input", "kind": "input"}, {"error": "not here", "kind": "unavailable"}
result = {"ok": facts, "input": bad, "absent": absent}[kind]
json.dump(result, open(job["result"], "w"))
"""


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSession]:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    monkeypatch.setattr(local, "WORKER", worker)
    with closing(Local().open()) as opened:
        yield opened


def ended(pid: int) -> bool:
    """Whether no process of this number runs; waits a moment for one that was just killed."""
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_job_runs_in_a_clean_process_in_the_work_folder(session: LocalSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    found = session.run({"kind": "ok"}, timeout_s=30)
    assert found == {"modules": False, "path": "", "cwd": os.path.realpath(session.folder())}


@pytest.mark.parametrize(("kind", "error"), [("input", InputError), ("absent", UnavailableError)])
def test_errors_of_the_worker_keep_their_kind(session: LocalSession, kind: str, error: Any) -> None:
    with pytest.raises(error, match=r"bad input|not here"):
        session.run({"kind": kind, "model": "/x/m.tflite"}, timeout_s=30)


@pytest.mark.parametrize(("kind", "words"), [("crash", "SIGSEGV: last words"), ("exit", "exit code 5 and no result")])
def test_crash_is_a_stage_error_with_the_last_words(session: LocalSession, kind: str, words: str) -> None:
    with pytest.raises(StageError, match=words):
        session.run({"kind": kind}, timeout_s=30)


def test_timeout_ends_the_worker_and_all_it_started(session: LocalSession, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="took longer than 2 s"):
        session.run({"kind": "hang", "pids": str(tmp_path / "pids")}, timeout_s=2)
    for pid in (tmp_path / "pids").read_text().split():
        assert ended(int(pid))


def test_interrupt_ends_the_worker(session: LocalSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Any, timeout: float | None = None, **more: Any) -> Any:
        while not (tmp_path / "pids").exists() or len((tmp_path / "pids").read_text().split()) < 2:
            time.sleep(0.05)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(local.subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.run({"kind": "hang", "pids": str(tmp_path / "pids")}, timeout_s=30)
    for pid in (tmp_path / "pids").read_text().split():
        assert ended(int(pid))


def test_push_is_the_path_itself_and_names_what_is_missing(session: LocalSession, tmp_path: Path) -> None:
    assert session.push(tmp_path / "worker.py") == str(tmp_path / "worker.py")
    with pytest.raises(InputError, match="no such file"):
        session.push(tmp_path / "none")


def test_closing_removes_the_work_folder() -> None:
    opened = Local().open()
    (Path(opened.folder()) / "left").write_text("x")
    opened.close()
    assert not Path(opened.folder()).exists()


def test_second_run_waits_for_the_lease_and_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.tempfile, "gettempdir", lambda: str(tmp_path))
    first = LocalSession()
    with first.alone(), pytest.raises(UnavailableError, match="another run has been measuring here"):
        LocalSession(lease_seconds=0.1)
    second = LocalSession(lease_seconds=0.1)  # they share it while nobody measures
    with pytest.raises(UnavailableError), second.alone():
        pass
    second.close()
    threading.Timer(0.3, first.close).start()
    third = LocalSession(lease_seconds=30)
    with third.alone():
        pass
    third.close()


def test_program_gives_its_exit_code_and_output(session: LocalSession) -> None:
    found = session.execute(["sh", "-c", "pwd; echo bad >&2; exit 3"], timeout_s=10)
    assert (found.returncode, found.stdout.strip(), found.stderr) == (3, session.folder(), "bad\n")


def test_program_that_is_not_there_is_named(session: LocalSession) -> None:
    with pytest.raises(UnavailableError, match="no-such-program"):
        session.execute(["no-such-program"], timeout_s=10)


def test_program_that_takes_too_long_ends_with_its_children(session: LocalSession, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="longer than 1 s"):
        session.execute(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], timeout_s=1)
    assert ended(int((tmp_path / "pid").read_text()))
