"""Reference images and answers: drawn alike everywhere, and near enough is told from wrong."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.delivered import finished_run
from toolkit import reference, runs
from toolkit.checks.inference import Answer
from toolkit.contract import read_contract_file
from toolkit.errors import InputError
from toolkit.reference import Answers, Reference, compare, field


def test_image_is_the_same_everywhere() -> None:
    """The corners are the hash's own bytes; fixed for good, as bundles must reproduce."""
    image = field(0, 7, 9, 3)
    corners = hashlib.sha256(b"edgekit reference 0 0").digest()
    assert (image.shape, image.dtype) == ((7, 9, 3), np.uint8)
    assert image[0, 0].tolist() == list(corners[:3])
    assert (
        hashlib.sha256(field(1, 32, 32, 3).tobytes()).hexdigest()
        == "3a443649e56a8c5045d1f7fd2028c20a0e036a9c908d0f1b92cd198414465305"
    )


def test_image_is_linear_between_corners() -> None:
    """Three patches over 3 rows: each row begins a patch, so that rows are the corners themselves."""
    corners = np.frombuffer(hashlib.sha256(b"edgekit reference 0 0").digest()[:16], np.uint8).reshape(4, 4)
    assert field(0, 3, 3, 1)[:, :, 0].tolist() == corners[:3, :3].tolist()
    halfway = field(0, 3, 6, 1)[:, :, 0]
    assert halfway[:, 1].tolist() == [(int(a) + int(b)) // 2 for a, b in corners[:3, :2]]


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Reference, Path]:
    """Two sets of kernels that answered (1, 0) and (0.9, 0.1) to one image."""
    files = {}
    for name, row in {"one": [1.0, 0.0], "two": [0.9, 0.1]}.items():
        np.save(tmp_path / f"{name}.npy", np.float32([row]))
        files[name] = Answers("litert", "2", name, f"kernels {name}", {"y": f"{name}.npy"})
    return Reference(1, "", "x86_64", ("0.bmp",), tuple(files.values()), 15.0), tmp_path


def smoke(kept: tuple[Reference, Path], row: list[float], head: Any = "softmax") -> reference.Smoke:
    answer = Answer({"y": np.float32([row])}, 0.0, 0.0, "theirs", {})
    return compare(answer, *kept, head=head, version="2")


def test_answers_are_held_against_the_nearer_kernels(kept: Any) -> None:
    found = smoke(kept, [0.9, 0.1])
    assert (found.passed, found.sqnr_db, found.nearest) == (True, math.inf, "litert 2, kernels two")
    assert (found.differing, found.values, found.decisions) == (0, 2, 1)


def test_nearness_is_the_energy_of_signal_over_difference(kept: Any) -> None:
    found = smoke(kept, [1.0, -0.1])  # of (1, 0): noise 0.01, signal 1
    assert found.sqnr_db == pytest.approx(20.0, abs=1e-4)
    assert (found.passed, found.differing, found.largest) == (True, 1, pytest.approx(0.1))


def test_wrong_answers_fail_and_are_counted(kept: Any) -> None:
    found = smoke(kept, [0.0, 1.0])
    assert (found.passed, found.decisions) == (False, 0)
    assert "2 of 2 values differ" in found.line()


def test_what_decides_nothing_is_not_said_to_decide(kept: Any) -> None:
    found = smoke(kept, [0.9, 0.1], "regression")
    assert found.decisions is None
    assert "decided" not in found.line()


def test_other_outputs_are_refused(kept: Any) -> None:
    with pytest.raises(InputError, match="other outputs"):
        smoke(kept, [0.9, 0.1, 0.0])


def test_reference_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    record = runs.read(run).artifacts[0]
    contract = read_contract_file(run / "artifacts" / "good.onnx.json")
    reference.make(record.artifact(run), contract, tmp_path / "made")
    path = tmp_path / "made" / reference.FILE
    path.write_text(path.read_text().replace("0.bmp", "../0.bmp"))
    with pytest.raises(InputError, match="names a file elsewhere"):
        reference.read(tmp_path / "made")


def test_reference_of_another_file_is_made_anew(tmp_path: Path) -> None:
    run, told = finished_run(tmp_path / "run"), []
    record = runs.read(run).artifacts[0]
    contract = read_contract_file(run / "artifacts" / "good.onnx.json")
    first = reference.kept(run, record.artifact(run), contract, told.append)
    assert reference.kept(run, record.artifact(run), contract, told.append) == first
    assert len(told) == 1
    path = run / "samples" / "good.onnx.reference" / reference.FILE
    path.write_text(path.read_text().replace(record.sha256, "0" * 64))
    assert reference.kept(run, record.artifact(run), contract, told.append) == first
    assert len(told) == 2
    (path.parent / "0.bmp").unlink()
    assert reference.kept(run, record.artifact(run), contract, told.append) == first
    assert len(told) == 3


@pytest.mark.parametrize("name", ["int8.tflite", "float.tflite"])
def test_both_kernels_of_a_tflite_file_answer_and_wrong_classes_are_told(
    finished: Any, tmp_path: Path, name: str
) -> None:
    record = next(record for record in finished.manifest.artifacts if record.name == name)
    artifact = record.artifact(finished.folder)
    contract = read_contract_file(artifact.path.with_name(f"{name}.json"))
    made = reference.make(artifact, contract, tmp_path / "made")
    assert [answers.delegate for answers in made.answers] == ["xnnpack", "none"]
    one, other = (np.load(tmp_path / "made" / answers.files["classes"]) for answers in made.answers)
    answer = Answer({"classes": one}, 0.0, 0.0, "", {})
    only_other = Reference(**{**vars(made), "answers": made.answers[1:]})
    assert compare(answer, only_other, tmp_path / "made", head="softmax", version="").passed
    wrong = np.roll(other, 1, axis=1)  # of other classes: on images like noise a network may say the same of all
    answer = Answer({"classes": wrong}, 0.0, 0.0, "", {})
    assert not compare(answer, made, tmp_path / "made", head="softmax", version="").passed
