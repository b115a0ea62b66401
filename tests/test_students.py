"""A student that nothing trains before it is written is refused by the plan; one that comes trained is noted."""

from __future__ import annotations

import pytest

from tests.test_plan import DATA, INT8, plan

STUDENT = '[[passes]]\nuse = "student"\nwidth = 0.5\n'
FILES = '[[variants]]\nname = "small"\nexport = ["tflite", "onnx"]\n'


@pytest.mark.parametrize(
    "taught",
    [
        '[[passes]]\nuse = "distill"\n',
        '[[passes]]\nuse = "prune"\nsparsity = 0.5\nrecover = { epochs = 1 }\n',
        '[[passes]]\nuse = "sparsify"\nsparsity = 0.5\n',
    ],
)
def test_student_with_a_training_behind_it_is_planned(taught: str) -> None:
    assert not plan(DATA + STUDENT + taught + FILES).problems


@pytest.mark.parametrize("behind", ["", '[[passes]]\nuse = "prune"\nsparsity = 0.5\n'])
def test_student_that_nothing_trains_is_refused_once_with_its_variants(behind: str) -> None:
    other = '[[variants]]\nname = "int8"\nexport = ["tflite"]\n' + INT8
    trained = '[[variants]]\nname = "qat"\nexport = ["tflite"]\n[[variants.passes]]\nuse = "qat"\n'
    (problem,) = plan(DATA + STUDENT + behind + FILES + other + trained).problems
    assert "student: variants small, int8: nothing trains it before it is written. Fix: put a training" in problem


def test_training_before_the_student_does_not_count() -> None:
    made = plan(DATA + '[[passes]]\nuse = "distill"\n' + STUDENT + FILES)
    assert len(made.problems) == 1


def test_student_that_comes_trained_is_noted(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("student") / "own.keras"
    path.write_bytes(b"")
    text = DATA + f'[[passes]]\nuse = "student"\nsource = "{path}"\n' + FILES
    made = plan(text)
    assert not made.problems
    assert "student: variant small: written as its file has it, nothing here trains it" in made.notes
    assert len(plan(text.replace(str(path), str(path.with_name("gone.keras")))).problems) == 1
