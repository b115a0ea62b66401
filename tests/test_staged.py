"""Files of the stages: weighed and timed beside the delivered ones, never judged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from toolkit import pipeline, runs, staged
from toolkit.core import Progress
from toolkit.errors import UnsupportedError
from toolkit.plan import make_plan
from toolkit.recipe_reader import load_recipe
from toolkit.report.view import View

STAGES = ("01-prune", "02-distill")


def numbers(manifest: runs.Manifest, subject: str) -> dict[str, runs.Measurement]:
    return {m.name: m for m in manifest.measurements if m.subject == subject and staged.FORMAT in m.how}


def test_stage_weighs_what_its_own_file_weighs_and_is_timed_with_the_others(finished: Any) -> None:
    for name in STAGES:
        found = numbers(finished.manifest, name)
        file = finished.folder / "artifacts" / "stages" / f"{name}.tflite"
        assert found["size_bytes"].value == file.stat().st_size
        time = found["latency_p50_ms"]
        assert (time.source, time.device, time.how["of"]) == ("measured", "this-machine", "its float32 .tflite file")
        assert (finished.folder / "samples" / f"{name}@this-machine.latency.npz").is_file()


def test_no_stage_is_delivered_or_judged(finished: Any) -> None:
    manifest = finished.manifest
    assert not {item.name for item in manifest.artifacts} & {*STAGES, *(f"{name}.tflite" for name in STAGES)}
    assert not {item.artifact for item in manifest.verdicts} & set(STAGES)


def test_shares_of_size_and_latency_add_up_to_the_whole(finished: Any) -> None:
    view = View(finished.manifest)
    steps = {step.subject: step for step in view.steps()}
    for name in ("size_bytes", "latency_p50_ms"):
        way = [steps[subject].shares[name] for subject in (*STAGES, "int8.tflite")]
        assert [share.since for share in way] == ["original", "01-prune", "02-distill"]
        before, after = steps["original.tflite"].shares[name].value, way[-1].value
        assert before is not None and after is not None
        assert sum(share.change or 0.0 for share in way) == pytest.approx(after - before)


def test_file_of_another_format_is_set_against_the_original_in_its_own(finished: Any) -> None:
    steps = {step.subject: step for step in View(finished.manifest).steps()}
    for name in ("size_bytes", "latency_p50_ms"):
        assert steps["int8.onnx"].shares[name].since == "original.onnx"


def test_run_that_writes_no_stages_forgets_those_of_before(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    overrides = ["report.stages=false", "measure.processes=0"]
    result = pipeline.run(recipe_file, model=digits_model, resume=tmp_path / "run", overrides=overrides)
    assert not any(numbers(result.manifest, name) for name in STAGES)
    assert all(stage.reused for stage in result.manifest.stages)


def test_stage_that_cannot_be_written_is_named_and_the_run_goes_on(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    class Refusing:
        def call(self, function: str, **arguments: Any) -> Any:
            raise UnsupportedError("layer prelu", "has no kernel")

    shutil.copytree(finished.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "artifacts" / "stages")
    run, said = runs.Run(tmp_path / "run", runs.read(tmp_path / "run")), list[Progress]()
    plan = make_plan(load_recipe(recipe_file, model=digits_model))
    names = ("original", *STAGES)
    found = staged.write(plan, run, Refusing(), names, open_data=lambda: None, emit=said.append)  # type: ignore[arg-type]
    assert not found.files
    assert not any(numbers(run.manifest, name) for name in STAGES)
    assert [line for line in run.manifest.warnings if line.startswith("02-distill: its size and latency")]
