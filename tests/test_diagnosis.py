"""`diagnose` for a finished run and for a file; and what a run with [diagnosis] keeps and shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from toolkit.cli import cli
from toolkit.diagnosis import diagnose, lines
from toolkit.errors import InputError

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
    ],
)
def test_files_that_cannot_be_set_beside_each_other_are_refused(
    finished: Any, words: tuple[str, ...], said: str
) -> None:
    result = invoke("diagnose", finished.folder, *words)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
