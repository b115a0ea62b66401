"""Which models answer alike: hand-worked numbers, and what counts as unexpected."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from toolkit.checks.equivalence import MOST_SUBJECTS, Equivalence, Subject, compare

if TYPE_CHECKING:
    from toolkit.core import Array

MODEL = Subject("original", runtime="keras")
FILE = Subject("a.tflite", "here", "litert", "float32", "original")
TWIN = Subject("a.onnx", "here", "onnxruntime", "float32", "original")
THERE = Subject("a.tflite", "phone", "litert", "float32", "original")
INT8 = Subject("b.tflite", "here", "litert", "int8", "original")
INT8_THERE = Subject("b.tflite", "phone", "litert", "int8", "original")
LOGITS = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)


def together(answers: dict[Subject, Array], head: str = "logits") -> Equivalence:
    found = compare(list(answers), head, answers.__getitem__)
    assert found is not None
    return found


def noisy(decibels: float, seed: int = 1) -> Array:
    """LOGITS with noise of exactly this SQNR."""
    noise = np.random.default_rng(seed).normal(size=LOGITS.shape)
    wanted = math.sqrt(np.sum(LOGITS.astype(float) ** 2) / 10 ** (decibels / 10))
    return LOGITS + noise * wanted / math.sqrt(np.sum(noise**2))


def test_numbers_of_a_pair_are_those_worked_by_hand() -> None:
    """Decisions 0, 1, 0 and 0, 0, 0; signal 14, noise 4 + 1."""
    first = np.array([[1.0, 0.0], [2.0, 3.0], [0.0, 0.0]])
    second = np.array([[1.0, 0.0], [4.0, 2.0], [0.0, 0.0]])
    (pair,) = together({MODEL: first, FILE: second}).pairs
    assert (pair.first, pair.second, pair.images, pair.agree, pair.max_abs) == (0, 1, 3, 2, 2.0)
    assert pair.sqnr_db == pytest.approx(10 * math.log10(14 / 5))


def test_an_image_with_nan_agrees_with_nothing_and_is_left_out_of_the_numbers() -> None:
    broken = LOGITS.copy()
    broken[7, 2] = np.nan
    (pair,) = together({MODEL: LOGITS, FILE: broken}).pairs
    assert (pair.images, pair.agree, pair.max_abs, pair.sqnr_db) == (199, 199, 0.0, 200.0)


def test_nothing_usable_is_told_and_not_counted_as_alike() -> None:
    found = together({MODEL: LOGITS, FILE: np.full_like(LOGITS, np.nan)})
    (pair,) = found.pairs
    assert (pair.images, pair.agree, pair.max_abs, pair.sqnr_db) == (0, 0, None, None)
    assert found.sentence(pair).endswith("float32 explains: alike on 0 of 200 images, no usable answer")
    assert found.strays() == ("a.tflite",)


@pytest.mark.parametrize(
    ("first", "second", "decibels", "reason"),
    [
        (MODEL, FILE, 45, ""),
        (MODEL, FILE, 30, "the model it was written from"),
        (FILE, THERE, 30, "the same file"),
        (FILE, TWIN, 30, "another file of the same model"),
        (MODEL, INT8, 20, ""),
        (MODEL, INT8, 6, "the model it was written from"),
        (INT8, INT8_THERE, 14, ""),
        (INT8, INT8_THERE, 6, "the same file"),
        (FILE, INT8, 1, ""),
        (Subject("01-prune"), FILE, 1, ""),
    ],
)
def test_unexpected_is_what_no_scheme_explains(first: Subject, second: Subject, decibels: float, reason: str) -> None:
    (pair,) = together({first: LOGITS, second: noisy(decibels)}).pairs
    assert pair.sqnr_db == pytest.approx(decibels, abs=0.01)
    assert pair.unexpected == reason


def test_floats_that_decide_otherwise_are_unexpected_whatever_their_sqnr() -> None:
    """Two classes so close that 60 dB of noise flips them."""
    close = np.stack([np.full(200, 5.0), np.full(200, 5.0001)], axis=1)
    (pair,) = together({MODEL: close, FILE: close[:, ::-1]}).pairs
    assert pair.sqnr_db is not None
    assert pair.sqnr_db > 80
    assert (pair.agree, pair.unexpected) == (0, "the model it was written from")


def test_only_files_that_stray_from_their_own_model_are_to_be_looked_into() -> None:
    found = together({MODEL: LOGITS, FILE: noisy(30), THERE: LOGITS, INT8: noisy(20), INT8_THERE: noisy(5)})
    assert found.strays() == ("a.tflite", "b.tflite")


@pytest.mark.parametrize("head", ["embedding", "regression"])
def test_heads_that_decide_nothing_have_numbers_alone(head: str) -> None:
    (pair,) = together({MODEL: LOGITS, FILE: noisy(50)}, head).pairs
    assert pair.agree is None
    assert pair.sqnr_db == pytest.approx(50, abs=0.01)


def test_labels_agree_only_together() -> None:
    first, second = np.array([[0.9, 0.1], [0.9, 0.9]]), np.array([[0.9, 0.1], [0.9, 0.1]])
    assert together({MODEL: first, FILE: second}, "sigmoids").pairs[0].agree == 1


def test_answers_of_other_images_are_no_pair() -> None:
    assert compare([MODEL, FILE], "logits", {MODEL: LOGITS, FILE: LOGITS[:5]}.__getitem__) is None
    assert compare([MODEL], "logits", {MODEL: LOGITS}.__getitem__) is None


def test_a_table_of_very_many_is_cut_and_says_so() -> None:
    many = {Subject(f"{i}.tflite", "here", "litert", "int8", "original"): LOGITS for i in range(MOST_SUBJECTS + 3)}
    found = together(many)
    assert (len(found.subjects), found.left_out) == (MOST_SUBJECTS, 3)
    assert len(found.pairs) == MOST_SUBJECTS * (MOST_SUBJECTS - 1) // 2


def test_large_answers_are_subtracted_in_part_and_decided_in_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.checks.equivalence.MOST_NUMBERS", 100)
    other = LOGITS.copy()
    other[50:] = -other[50:]
    found = together({MODEL: LOGITS, FILE: other})
    assert (found.images, found.numbers, found.pairs[0].images, found.pairs[0].max_abs) == (200, 10, 10, 0.0)
    assert found.pairs[0].agree == 50
