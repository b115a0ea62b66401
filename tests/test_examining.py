"""`run` and `eval` say what is wrong between data and model, and whether a calibration was enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from toolkit import coverage
from toolkit.cli import cli
from toolkit.measuring import evaluate_file, measurement_lines

SCALE = "{ scale = 0.0625 }"
RECIPE = """
schema = 1

[data]
preprocess = { scale = 0.0625 }

[data.splits]
train = "rest"
selection = 100
calibration = 100
test = 200

[[variants]]
name = "int8"
passes = [{ use = "quantize", scheme = "int8" }]
export = ["tflite"]

[measure]
processes = 0

[diagnosis]
sensitivity = false
images = 4
"""


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits with rows for columns, as uint8 pixels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    path = tmp_path_factory.mktemp("data") / "turned.npz"
    images = found.images.astype(np.uint8).transpose(0, 2, 1)
    np.savez(path, images=images[..., None], labels=found.target.astype(np.int64))
    return path


def test_clean_run_keeps_what_was_looked_at_and_warns_of_nothing(finished: Any) -> None:
    found = finished.manifest.inputs
    assert (found.layer, found.findings, found.tried[0].way) == ("bn1", (), "as they are")
    assert found.images == 100
    assert found.key
    assert not any("Fix: set data.preprocess" in warning for warning in finished.manifest.warnings)


@pytest.mark.parametrize("kind", ["keras", "tflite", "onnx"])
def test_eval_names_the_fault_of_the_data(
    kind: str, turned: Path, digits_model: Path, digits_files: dict[str, Path]
) -> None:
    file = digits_model if kind == "keras" else digits_files[kind]
    found = evaluate_file(file, data=str(turned), preprocess=SCALE)
    (finding,) = found["inputs"]["findings"]
    assert finding["what"] == "layout"
    assert "rows and columns are swapped" in finding["text"]
    assert any(line.startswith("warning: the layout is wrong") for line in measurement_lines(found))


def test_eval_of_clean_data_says_nothing(digits_files: dict[str, Path]) -> None:
    found = evaluate_file(digits_files["tflite"], data="digits", preprocess=SCALE)
    assert found["inputs"]["findings"] == ()
    assert not any(line.startswith("warning") for line in measurement_lines(found))


def test_calibration_of_a_run_is_checked(finished: Any) -> None:
    (found,) = coverage.check_run(finished.folder, images=8)
    assert (found.stage, found.images, found.other) == ("int8.03-quantize", 100, "selection")
    assert (found.judged, found.others) == (33, 67)  # of 100: 64 are wanted, whatever layers are looked at with
    assert {"image", "classes"} <= {row.layer for row in found.tensors}
    assert next(coverage.lines([found])) == f"calibration of {found.stage}: {found.advice}"


def test_command_prints_both_as_json(finished: Any) -> None:
    words = ["diagnose", str(finished.folder), "int8.tflite", "--no-sensitivity", "--images", "4", "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [each["stage"] for each in told["calibrations"]] == ["int8.03-quantize"]
    assert len(told["diagnoses"]) == 1


def test_file_of_another_stage_has_no_calibration(finished: Any) -> None:
    assert coverage.check_run(finished.folder, "float.tflite") == []


@pytest.mark.slow
def test_run_on_other_images_warns_and_checks_its_calibration_once(
    turned: Path, digits_model: Path, tmp_path: Path
) -> None:
    """Twice: --resume takes both from the first time."""
    from toolkit import pipeline

    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE)
    found = pipeline.run(recipe, model=digits_model, data=str(turned), out=tmp_path / "run")
    (finding,) = found.manifest.inputs.findings  # type: ignore[union-attr]
    assert finding.what == "layout"
    assert str(finding) in found.manifest.warnings
    assert list(found.manifest.calibrations) == ["int8.01-quantize"]
    heard: list[str] = []
    again = pipeline.run(resume=tmp_path / "run", emit=lambda progress: heard.append(progress.text))
    assert again.manifest.calibrations == found.manifest.calibrations
    assert (again.manifest.inputs, again.manifest.warnings) == (found.manifest.inputs, found.manifest.warnings)
    assert not [text for text in heard if "looking at" in text or text.startswith("calibrating")]
