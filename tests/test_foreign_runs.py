"""Whole runs that start from a SavedModel, a .tflite and an .onnx file; and what their plans refuse, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit import pipeline
from toolkit.plan import make_plan
from toolkit.recipe_reader import load_recipe

RECIPE = """
schema = 1
[data]
use = "digits"
preprocess = { scale = 0.0625 }
[data.splits]
calibration = 60
test = 300
[[variants]]
name = "int8"
passes = [{ use = "quantize", scheme = "int8" }]
export = EXPORT
[budget]
max_accuracy_drop = 0.2
max_macs = 1_000_000
[measure]
processes = 1
seconds = 0.02
warmup_seconds = 0.01
"""
EXPORTS = {"savedmodel": ["tflite", "onnx"], "tflite": ["tflite"], "onnx": ["onnx"]}
RUNTIMES = {"savedmodel": "tensorflow", "tflite": "litert", "onnx": "onnxruntime"}
MACS = 16 * 9 * 12 + 16 * 9 * 12 * 16 + 256 * 10


@pytest.fixture(scope="module")
def run(digits_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """One finished run of each kind, made when first asked for."""
    made: dict[str, Any] = {}

    def of(kind: str) -> Any:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            (folder / "r.toml").write_text(RECIPE.replace("EXPORT", str(EXPORTS[kind]).replace("'", '"')))
            made[kind] = pipeline.run(folder / "r.toml", model=digits_files[kind], out=folder / "run")
        return made[kind]

    return of


def measured(result: Any, subject: str, name: str) -> Any:
    found = [m for m in result.manifest.measurements if (m.subject, m.name) == (subject, name)]
    return found[0] if found else None


@pytest.mark.parametrize("kind", sorted(EXPORTS))
def test_run_delivers_and_judges(kind: str, run: Callable[[str], Any]) -> None:
    result = run(kind)
    files = [artifact.name for artifact in result.manifest.artifacts]
    assert files == [f"{name}.{export}" for name in ("original", "int8") for export in EXPORTS[kind]]
    original = measured(result, "original", "top1")
    assert original.value > 0.85
    assert original.how["runtime"] == RUNTIMES[kind]
    assert (
        original.how["version"]
        == result.manifest.versions[{"litert": "ai-edge-litert"}.get(RUNTIMES[kind], RUNTIMES[kind])]
    )
    for name in files:
        assert measured(result, name, "agreement").value > (0.999 if name.startswith("original") else 0.95)
    gates = {(v.artifact, v.gate): v.outcome for v in result.manifest.verdicts}
    assert {gates[name, "max_accuracy_drop"] for name in files if name.startswith("int8")} == {"PASS"}


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_reference_of_a_file_is_the_file(kind: str, run: Callable[[str], Any], digits_files: dict[str, Path]) -> None:
    reference = run(kind).folder / "artifacts" / f"original.{kind}"
    assert reference.read_bytes() == digits_files[kind].read_bytes()


def test_macs_are_counted_in_files_and_never_made_up(run: Callable[[str], Any]) -> None:
    assert {measured(run(kind), "int8." + kind, "macs").value for kind in ("tflite", "onnx")} == {MACS}
    assert measured(run("savedmodel"), "original", "macs") is None
    assert measured(run("savedmodel"), "original", "parameters").value == 4470
    outcomes = {v.outcome for v in run("savedmodel").manifest.verdicts if v.gate == "max_macs"}
    assert outcomes == {"INCONCLUSIVE"}


def test_original_and_its_file_answer_alike(run: Callable[[str], Any]) -> None:
    samples = run("savedmodel").folder / "samples"
    original = np.load(samples / "original.answers.npz")["output_0"]
    for name in ("original.tflite", "original.onnx"):
        file = np.load(samples / f"{name}@this-machine.answers.npz")["output_0"]
        np.testing.assert_allclose(original, file, atol=1e-5)


@pytest.mark.parametrize("kind", ["savedmodel", "onnx"])
def test_resume_of_a_finished_run_repeats_nothing(kind: str, run: Callable[[str], Any]) -> None:
    again = pipeline.run(resume=run(kind).folder)
    assert all(stage.reused for stage in again.manifest.stages)
    assert again.manifest.verdicts == run(kind).manifest.verdicts


def test_run_teaches_a_keras_student(digits_files: dict[str, Path], digits_model: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        RECIPE.replace("EXPORT", '["tflite"]').replace("calibration = 60", "calibration = 60\nselection = 50")
        + '[[passes]]\nuse = "prune"\nsparsity = 0.5\nround_to = 4\n'
        + '[[passes]]\nuse = "distill"\nepochs = 2\nalpha = 1.0\nteacher = "teacher.onnx"\n'
    )
    (tmp_path / "teacher.onnx").write_bytes(digits_files["onnx"].read_bytes())
    result = pipeline.run(tmp_path / "r.toml", model=digits_model, out=tmp_path / "run")
    before, after = (measured(result, name, "agreement").value for name in ("01-prune", "02-distill"))
    assert after > before
    (tmp_path / "teacher.onnx").write_bytes(digits_files["onnx"].read_bytes() + b"\x72\x00")  # an empty metadata_props
    again = pipeline.run(resume=result.folder)
    assert [s.name for s in again.manifest.stages if s.name == "02-distill" and s.reused] == []


# ---------------------------------------------------------------- what a plan refuses


def refused(folder: Path, model: Path, passes: str, export: str) -> list[str]:
    text = f'schema = 1\nexport = ["{export}"]\n[data]\nuse = "digits"\nsplits = {{ test = 300 }}\n{passes}'
    (folder / "r.toml").write_text(text)
    return list(make_plan(load_recipe(folder / "r.toml", model=model)).problems)


@pytest.mark.parametrize("use", ["prune", "distill"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("savedmodel", "a SavedModel without Keras has none"),
        ("tflite", "a .tflite file has none"),
        ("onnx", "an .onnx file has none"),
    ],
)
def test_pass_that_needs_layers_is_refused(
    kind: str, words: str, use: str, digits_files: dict[str, Path], tmp_path: Path
) -> None:
    extra = "\nsparsity = 0.5" if use == "prune" else ""
    problems = refused(tmp_path, digits_files[kind], f'[[passes]]\nuse = "{use}"{extra}\n', EXPORTS[kind][0])
    assert [p for p in problems if f"{use} needs a Keras graph; {words}" in p and "r.toml:6: passes.0" in p]


@pytest.mark.parametrize(
    ("kind", "export", "words"),
    [("onnx", "tflite", "onnx2tf"), ("tflite", "onnx", "no converter from .tflite to ONNX")],
)
def test_conversion_that_there_is_none_of_is_refused_once(
    kind: str, export: str, words: str, digits_files: dict[str, Path], tmp_path: Path
) -> None:
    problems = refused(tmp_path, digits_files[kind], "", export)
    assert len([problem for problem in problems if words in problem]) == 1


def test_teacher_that_is_not_there_is_refused(digits_model: Path, tmp_path: Path) -> None:
    passes = '[[passes]]\nuse = "distill"\nteacher = "gone.onnx"\n'
    (problem,) = refused(tmp_path, digits_model, passes, "tflite")
    assert "distill.teacher: no such file" in problem
    assert str(tmp_path / "gone.onnx") in problem


def test_quantizer_that_is_missing_is_named(
    digits_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.plan._installed", lambda package: False)
    (tmp_path / "r.toml").write_text(RECIPE.replace("EXPORT", '["tflite"]'))
    plan = make_plan(load_recipe(tmp_path / "r.toml", model=digits_files["tflite"]))
    assert [text for text in plan.missing if "ai-edge-quantizer" in text and "pip install 'edgekit'" in text]
    (tmp_path / "r.toml").write_text(RECIPE.replace("EXPORT", '["onnx"]'))
    assert not make_plan(load_recipe(tmp_path / "r.toml", model=digits_files["onnx"])).missing


def test_layout_says_nothing_to_a_keras_model(digits_model: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.replace("EXPORT", '["onnx"]') + '[model]\nlayout = "NCHW"\n')
    problems = make_plan(load_recipe(tmp_path / "r.toml", model=digits_model)).problems
    assert [problem for problem in problems if "layout: says nothing to this kind of model" in problem]
