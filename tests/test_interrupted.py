"""Ctrl-C in the middle of a real run, whatever it does just then: a valid manifest, nothing left, and --resume."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import terminal
from toolkit import runs

pytestmark = pytest.mark.slow

# what is on the screen when the keys are pressed: a training, a calibration, a file being written, the test images'
# answers, the clock
MOMENTS = ("distill: epoch 1 of", "] int8.03-quantize", "] int8.onnx", "checking int8.tflite on", "timing float.tflite")


def start(folder: Path, *words: str) -> terminal.Terminal:
    program = [sys.executable, "-m", "toolkit", "run", *words, "--set", "measure.seconds=1"]
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return terminal.Terminal(program, columns=200, TMPDIR=str(temporary), TF_CPP_MIN_LOG_LEVEL="3")


def left_over(folder: Path) -> Iterator[str]:
    """What a command has left behind: its processes, by their temporary folder, and its files."""
    wanted = f"TMPDIR={folder / 'tmp'}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes() and (process / "cmdline").read_bytes():
                yield (process / "cmdline").read_bytes().decode()
        except OSError:
            continue
    yield from (path.name for path in (folder / "tmp").iterdir() if "lease" not in path.name)


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_ends_a_run_cleanly_and_it_can_be_taken_up(
    moment: str, tmp_path: Path, digits_model: Path, recipe_file: Path
) -> None:
    out = tmp_path / "run"
    watched = start(tmp_path, str(recipe_file), "--model", str(digits_model), "--out", str(out))
    watched.wait_for(lambda text: moment in text, seconds=400)
    watched.press_ctrl_c()
    code, stdout = watched.end()
    assert (code, stdout) == (130, ""), watched.text
    assert watched.text.rstrip().endswith("interrupted")
    assert "Traceback" not in watched.text
    assert watched.seen.rfind(terminal.SHOW) > watched.seen.rfind(terminal.HIDE)
    stopped = runs.read(out)
    assert (stopped.status, stopped.error, stopped.outcome) == ("failed", "interrupted by the user", "")
    assert not (out / "scratch").exists()
    assert "KeyboardInterrupt" in (out / "log.txt").read_text()
    assert not list(left_over(tmp_path))
    if moment == MOMENTS[-1]:
        again = start(tmp_path, "--resume", str(out), "--json", "--quiet")
        code, stdout = again.end(seconds=400)
        assert (code, again.text) == (0, "")
        resumed = json.loads(stdout)
        assert (resumed["status"], resumed["error"], resumed["outcome"]) == ("done", "", "PASS")
        done = {stage.name for stage in stopped.stages}
        assert done and done <= {stage["name"] for stage in resumed["stages"] if stage["reused"]}


def test_second_ctrl_c_does_not_wait(tmp_path: Path, digits_model: Path, recipe_file: Path) -> None:
    out = tmp_path / "run"
    watched = start(tmp_path, str(recipe_file), "--model", str(digits_model), "--out", str(out))
    watched.wait_for(lambda text: "01-prune" in text, seconds=400)
    watched.press_ctrl_c()
    watched.press_ctrl_c()
    assert watched.end(seconds=20)[0] == 130
    assert runs.read(out).status in ("running", "failed")  # whichever it came to: valid
    assert not [line for line in left_over(tmp_path) if "toolkit" in line]
    assert (out / "recipe.toml").is_file()
