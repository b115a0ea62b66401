"""`diagnose` for a finished run and for a file; and what a run with [diagnosis] keeps and shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from toolkit.cli import cli
from toolkit.diagnosis import Diagnoser, diagnose, lines
from toolkit.errors import InputError, UnsupportedError

QUANTIZED = ("int8.onnx", "int8.tflite")
FLOATS = ("float.tflite",)


def invoke(*words: Any) -> Any:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def found(finished: Any) -> dict[str, Any]:
    return {each.artifact: each for each in diagnose(finished.folder, images=8)}


def test_files_of_a_run_are_diagnosed(found: dict[str, Any]) -> None:
    assert sorted(found) == sorted(QUANTIZED + FLOATS)
    assert all(each.images == 8 for each in found.values())


def test_sound_files_have_no_fault(found: dict[str, Any]) -> None:
    assert [name for name, each in found.items() if each.faulty] == []


@pytest.mark.parametrize("name", QUANTIZED)
def test_errors_are_worst_first_and_sensitivity_has_every_layer(name: str, found: dict[str, Any]) -> None:
    own = [row.alone_db for row in found[name].errors]
    assert own == sorted(own)
    assert {"conv1", "conv2", "classes"} <= {row.layer for row in found[name].sensitive}


def test_lines_say_the_likely_culprit_first(found: dict[str, Any]) -> None:
    first, diverging, _, heading, *rows = lines([found["int8.tflite"]])
    assert first == f"int8.tflite: {found['int8.tflite'].advice}"
    assert diverging == "  no layer diverges"
    assert heading.split()[:3] == ["layer", "own", "in"]
    assert rows[0].split()[0] == found["int8.tflite"].errors[0].layer


def test_command_on_one_artifact_prints_json(finished: Any) -> None:
    result = invoke("diagnose", finished.folder, "int8.tflite", "--no-sensitivity", "--images", 4, "--json")
    assert result.exit_code == 0, result.output
    (told,) = json.loads(result.stdout)["diagnoses"]
    assert (told["artifact"], told["images"], told["sensitive"]) == ("int8.tflite", 4, [])


def test_command_on_a_file_needs_its_model_and_images(finished: Any) -> None:
    result = invoke("diagnose", finished.folder / "artifacts" / "int8.tflite")
    assert result.exit_code == 2
    assert "give --model and --data" in result.stderr


def test_file_with_its_model_is_diagnosed_as_in_its_run(finished: Any, found: dict[str, Any]) -> None:
    record = next(each for each in finished.manifest.artifacts if each.name == "int8.tflite")
    model = finished.folder / "artifacts" / f"{record.stage}.keras"
    (told,) = diagnose(finished.folder / record.path, model=model, data="digits", images=8)
    assert {row.layer for row in told.errors} == {row.layer for row in found["int8.tflite"].errors}
    assert told.all_db is not None


def test_no_layer_of_a_sound_float_file_diverges(finished: Any, found: dict[str, Any]) -> None:
    assert (found["float.tflite"].first, found["float.tflite"].sensitive) == (None, ())
    first, *_ = lines([found["float.tflite"]])
    assert first.startswith("float.tflite: no layer diverges: the worst, ")
    result = invoke("diagnose", finished.folder, "original.tflite", "--images", 2)
    assert result.exit_code == 0, result.output
    assert "no layer diverges" in result.stdout


def test_no_layer_of_sound_quantized_files_diverges(found: dict[str, Any]) -> None:
    for name in QUANTIZED:
        assert found[name].diverging() == "no layer diverges"
        assert next(iter(lines([found[name]]))).startswith(name)


def test_unknown_artifact_is_told_which_there_are(finished: Any) -> None:
    with pytest.raises(InputError, match=r"int8\.tflite.*int8\.onnx"):
        diagnose(finished.folder, "phone.tflite")


def test_run_of_a_model_that_shows_no_layers_is_refused(finished: Any, tmp_path: Path) -> None:
    """Its stages rest as .onnx files: nothing is missing, and running it again would not help."""
    shutil.copytree(finished.folder, tmp_path / "run")
    for path in (tmp_path / "run" / "artifacts").glob("*.keras"):
        path.rename(path.with_suffix(".model.onnx"))
    record = next(each for each in finished.manifest.artifacts if each.name == "int8.tflite")
    diagnoser = Diagnoser(None, tmp_path, 2, False)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="onnx model, which shows no layers"):
        diagnoser.of_record(tmp_path / "run", record, None)  # type: ignore[arg-type]


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json"):
        diagnose(tmp_path)


def test_run_without_a_failed_gate_keeps_no_diagnosis(finished: Any) -> None:
    assert finished.manifest.diagnoses == {}
    assert "no [diagnosis]" in (finished.folder / "report.html").read_text()


def test_two_files_of_a_run_are_set_beside_each_other(finished: Any) -> None:
    command = ("diagnose", finished.folder, "int8.tflite", "--images", 2)
    result = invoke(*command, "--against", "int8.onnx")
    assert result.exit_code == 0, result.output
    assert "int8.tflite and int8.onnx: no layer diverges" in result.stdout
    told = json.loads(invoke(*command, "--against", "int8.onnx", "--json").stdout)
    assert (told["files"], told["first"]) == (["int8.tflite", "int8.onnx"], None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("int8.tflite", "--against", "phone.onnx"), "holds no phone.onnx"),
        (("--against", "int8.onnx"), "compares two files"),
        (("int8.tflite", "--against", "int8.onnx", "--data", "digits"), "a run knows its model and data"),
    ],
)
def test_files_that_cannot_be_set_beside_each_other_are_refused(
    finished: Any, words: tuple[str, ...], said: str
) -> None:
    result = invoke("diagnose", finished.folder, *words)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


def test_float_file_that_leaves_its_model_is_looked_into_at_the_end_of_a_run(finished: Any, tmp_path: Path) -> None:
    """Its weights changed in the middle, and its answers with them: nobody asked, no gate failed."""
    import numpy as np

    from toolkit import equivalence, runs
    from toolkit.data import load_splits
    from toolkit.diagnosis import diagnosed
    from toolkit.executor import Executor
    from toolkit.exporters import tflite_file
    from toolkit.plan import make_plan
    from toolkit.recipe_reader import load_recipe

    folder = shutil.copytree(finished.folder, tmp_path / "run")
    path = folder / "artifacts" / "float.tflite"
    model = tflite_file.parse(path.read_bytes())
    operator = [each for each in model.subgraphs[0].operators if len(each.inputs) == 3][1]
    buffer = model.buffers[model.subgraphs[0].tensors[operator.inputs[1]].buffer]
    weights = np.random.default_rng(0).permutation(np.frombuffer(bytes(buffer.data), np.float32))
    buffer.data = np.frombuffer(weights.tobytes(), np.uint8)
    path.write_bytes(tflite_file.pack(model))
    (answers,) = (folder / "samples").glob("float.tflite@*.answers.npz")
    with np.load(answers) as stored:
        arrays = {name: stored[name] for name in stored.files}
    first = next(iter(arrays))
    arrays[first] = np.roll(arrays[first], 1, axis=1)
    np.savez(answers, **arrays)
    run = runs.Run(folder, runs.read(folder))
    run.update(equivalence=equivalence.of_run(folder, run.manifest))
    assert run.manifest.equivalence is not None
    assert run.manifest.equivalence.strays() == ("float.tflite",)
    recipe = load_recipe(folder / "recipe.toml", model=finished.manifest.invocation["model"])
    splits = load_splits(recipe.data, recipe.data.preprocess.resolve((None, 8, 8, 1)), seed=recipe.seed)
    with Executor(tmp_path / "log.txt", lambda progress: None) as executor:
        diagnosed(make_plan(recipe), run, executor, splits, tmp_path / "scratch")
    (found,) = run.manifest.diagnoses.values()
    assert found.diagnosis.artifact == "float.tflite"
    assert found.diagnosis.first is not None
    assert found.diagnosis.first.layer in ("conv2", "conv2_relu")
    assert runs.read(folder).diagnoses == run.manifest.diagnoses
