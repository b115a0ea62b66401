"""Pruning in a whole run: to a latency that is measured here, in steps, stopped in the middle of one and taken up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit import pipeline, runs
from toolkit.core import Progress

RECIPE = """
schema = 1
export = ["tflite"]

[data]
use = "digits"
preprocess = { scale = 0.0625 }

[data.splits]
selection = 100
calibration = 100
test = 200

[[passes]]
use = "prune"
size = 0.6
ranking = "sensitivity"
importance = "fisher"
round_to = 2
steps = 2
recover = { epochs = 3, learning_rate = 0.003 }

[measure]
processes = 0
"""


@pytest.mark.slow
def test_run_goes_on_in_the_middle_of_a_step(
    digits_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = tmp_path / "steps.toml"
    recipe.write_text(RECIPE)

    def interrupt(progress: Progress) -> None:
        if progress.keep and "prune.recover: epoch 2 of 3" in progress.text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe, model=digits_model, out=tmp_path / "run", emit=interrupt)
    assert (tmp_path / "run" / "checkpoint-01-prune" / "step-2-state.npz").is_file()
    said: list[Progress] = []
    result = pipeline.run(resume=tmp_path / "run", emit=said.append)
    assert not any("choosing channels" in progress.text for progress in said)
    ended = [progress.text for progress in said if progress.keep and "prune.recover: epoch" in progress.text]
    assert len(ended) == 1 and "epoch 3 of 3" in ended[0]  # the first step's and two of the second were done
    assert not (tmp_path / "run" / "checkpoint-01-prune").exists()
    (stage,) = [stage for stage in result.manifest.stages if stage.name == "01-prune"]
    assert len(stage.curves["loss"]) == 4
    sizes = {record.name: record.size_bytes for record in result.manifest.artifacts}
    assert 0.45 <= sizes["main.tflite"] / sizes["original.tflite"] <= 0.6
    whole = pipeline.run(recipe, model=digits_model, out=tmp_path / "whole", emit=said.append)
    assert sum("sensitivity curves: as an earlier run found them" in progress.text for progress in said) == 2
    (again,) = [stage for stage in whole.manifest.stages if stage.name == "01-prune"]
    assert again.curves == stage.curves
    assert _line(again, "digits")["after"] == _line(stage, "digits")["after"]


def _line(stage: runs.StageRecord, name: str) -> Any:
    return next(change for change in stage.changes if change["layer"] == name)
