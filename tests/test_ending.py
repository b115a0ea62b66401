"""How a run ends: the manifest says so whatever happened, and log.txt says all of it."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from toolkit import runs
from toolkit.core import Progress
from toolkit.ended import Ended
from toolkit.ending import ending
from toolkit.errors import EdgekitError, InputError, UnavailableError
from toolkit.run_log import RunLog


def new_run(folder: Path) -> runs.Run:
    manifest = runs.Manifest(
        name="n",
        status="running",
        started="2026-01-01T00:00:00+00:00",
        recipe={},
        seed=0,
        host={"cpu": "a cpu", "cores": 2},
        versions={"edgekit": "0.1.0", "numpy": "2.0"},
        invocation={"recipe": "digits-demo", "model": None, "overrides": ["seed=1"]},
        seconds=100.0,
    )
    return runs.Run.create(folder, manifest, b"schema = 1")


def end(folder: Path, error: BaseException | None) -> tuple[runs.Manifest, str, list[str]]:
    """A run that ends by `error`: its manifest, log and what was shown."""
    run, shown = new_run(folder), []
    log = RunLog(folder / "log.txt")
    emit = log.keeping(lambda progress: shown.append(progress.text))
    (folder / "scratch").mkdir()
    with ending(run, log, emit, folder / "scratch"):
        emit(Progress("preparing", keep=True))
        emit(Progress("warning: few images", keep=True))
        emit(Progress("half", 0.5))
        if error:
            raise error
    return runs.read(folder), log.path.read_text(), shown


def test_run_that_ends_well_is_done_and_the_log_has_every_line_with_its_time(tmp_path: Path) -> None:
    manifest, log, shown = end(tmp_path / "run", None)
    assert (manifest.status, manifest.error) == ("done", "")
    assert 100.0 <= manifest.seconds < 110.0  # those of the earlier run, and its own
    assert not (tmp_path / "run" / "scratch").exists()
    assert shown == ["preparing", "warning: few images", "half"]
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ "
    lines = log.splitlines()
    assert all(re.match(stamp, line) for line in lines)
    assert [re.sub(stamp, "", line) for line in lines[:-1]] == [
        "edgekit 0.1.0 run: recipe digits-demo, overrides ['seed=1']",
        "host: cpu a cpu, cores 2",
        "packages: edgekit 0.1.0, numpy 2.0",
        "preparing",
        "warning: few images",
    ]
    assert re.fullmatch(stamp + r"done in 100\.\d s: no gate", lines[-1])


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, "interrupted by the user"),
        (Ended(15), KeyboardInterrupt, "ended by SIGTERM"),
        (InputError("here", "is wrong"), InputError, "here: is wrong."),
        (OSError(errno.ENOSPC, "No space left", "/d/f"), UnavailableError, "/d/f: No space left. Fix: free some space"),
        (ZeroDivisionError("a bug"), ZeroDivisionError, "ZeroDivisionError: a bug"),
    ],
)
def test_whatever_ends_a_run_is_in_its_manifest_and_its_traceback_in_the_log(
    error: BaseException, raised: type[BaseException], words: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(raised):
        end(folder, error)
    manifest = runs.read(folder)
    assert manifest.status == "failed"
    assert manifest.error.startswith(words)
    assert not (folder / "scratch").exists()
    log = (folder / "log.txt").read_text()
    assert "Traceback (most recent call last)" in log and "raise error" in log
    assert type(error).__name__ in log
    known = isinstance(error, EdgekitError | OSError | KeyboardInterrupt)
    assert (f"`edgekit run --resume {folder}` takes it up again" in log) == known


def test_warning_of_the_manifest_that_nobody_told_is_told_at_the_end(tmp_path: Path) -> None:
    run, shown = new_run(tmp_path / "run"), []
    log = RunLog(tmp_path / "run" / "log.txt")
    emit = log.keeping(lambda progress: shown.append(progress.text))
    with ending(run, log, emit, tmp_path / "scratch"):
        emit(Progress("  warning: few images", keep=True))
        run.update(warnings=("few images", "no diagnosis"))
    assert shown == ["  warning: few images", "warning: no diagnosis"]
    assert log.path.read_text().count("warning: ") == 2


def test_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    shown: list[Progress] = []
    RunLog(tmp_path / "gone" / "log.txt").keeping(shown.append)(Progress("x", keep=True))
    assert [each.text for each in shown] == ["x"]


def test_interrupt_while_the_manifest_is_written_leaves_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file stands beside the old one until it is complete."""
    run, really = new_run(tmp_path / "run"), Path.replace
    calls = []

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return really(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), ending(run, RunLog(tmp_path / "log"), lambda p: None, tmp_path / "s"):
        run.update(outcome="PASS")
    assert (runs.read(tmp_path / "run").status, runs.read(tmp_path / "run").outcome) == ("failed", "PASS")
    assert not list((tmp_path / "run").glob(".*.part"))
