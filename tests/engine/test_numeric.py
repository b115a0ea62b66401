"""Decisions, ties and decibels, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.engine import numeric
from toolkit.errors import UnsupportedError

NAN = math.nan


def test_decisions_take_the_lowest_index_of_equals_and_mark_nan() -> None:
    outputs = np.array([[0.1, 0.7, 0.2], [0.5, 0.0, 0.5], [0.2, NAN, 0.9]], np.float32)
    assert numeric.decisions(outputs, "softmax").tolist() == [1, 0, -1]
    assert numeric.count_ties(outputs, "softmax") == 1


@pytest.mark.parametrize(
    "head, values, expected, ties",
    [("sigmoid", [0.2, 0.5, 0.51], [0, 0, 1], 1), ("logits", [-1.0, 0.0, 0.1], [0, 0, 1], 1)],
)
def test_one_column_decides_between_two_classes(head: str, values: list[float], expected: list[int], ties: int) -> None:
    outputs = np.array(values, np.float32)[:, None]
    assert numeric.decisions(outputs, head).tolist() == expected
    assert numeric.decisions(outputs[:, 0], head).tolist() == expected
    assert numeric.count_ties(outputs, head) == ties


def test_labels_hold_above_one_half_and_the_threshold_itself_is_a_tie() -> None:
    outputs = np.array([[0.5, 0.6], [0.4, 0.51], [NAN, 0.9]], np.float32)
    assert numeric.label_decisions(outputs).tolist() == [[0, 1], [0, 1], [-1, -1]]
    assert numeric.count_ties(outputs, "sigmoids") == 1


@pytest.mark.parametrize(
    "head, outputs, expected",
    [
        ("logits", [[math.log(3), 0.0]], [[0.75, 0.25]]),
        ("logits", [[math.log(3)]], [[0.25, 0.75]]),
        ("logits", [[1000.0, 0.0]], [[1.0, 0.0]]),
        ("sigmoid", [[0.3]], [[0.7, 0.3]]),
        ("softmax", [[0.2, 0.5, 0.3]], [[0.2, 0.5, 0.3]]),
        ("softmax", [[0.2, NAN]], [[NAN, NAN]]),
    ],
)
def test_probabilities_are_of_every_class(head: str, outputs: list[list[float]], expected: list[list[float]]) -> None:
    np.testing.assert_allclose(numeric.probabilities(np.array(outputs), head), expected, atol=1e-12)


def test_rankable_puts_nan_last() -> None:
    found = numeric.rankable(np.array([1.0, NAN, -math.inf, math.inf]))
    assert np.isfinite(found).all()
    assert np.argsort(found).tolist() == [1, 2, 0, 3]


def test_rank_ties_are_those_the_class_index_settled() -> None:
    """Label 1 is among the first two by index alone; label 2 is not by index alone; label 0 leads in any order."""
    outputs = np.array([[3.0, 1.0, 1.0, 0.0], [3.0, 1.0, 1.0, 0.0], [3.0, 3.0, 1.0, 0.0], [3.0, 1.0, 1.0, 1.0]])
    labels = np.array([1, 2, 0, 0])
    assert numeric.count_rank_ties(outputs, labels, 2) == 2
    assert numeric.count_rank_ties(outputs, labels, 1) == 1


def test_label_ranks_count_classes_before_the_label() -> None:
    outputs = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0], [NAN, 1.0, 0.0]])
    assert numeric.label_ranks(outputs, np.array([1, 2, 1])).tolist() == [2, 2, 3]


def test_rank_zero_is_the_decision() -> None:
    rng = np.random.default_rng(0)
    outputs = rng.integers(0, 4, (200, 6)).astype(np.float32)  # many ties
    labels = rng.integers(0, 6, 200)
    assert np.array_equal(numeric.label_ranks(outputs, labels) == 0, numeric.decisions(outputs, "logits") == labels)


def test_sqnr_of_a_tenth_of_the_signal_is_twenty_decibels() -> None:
    reference = np.array([[1.0, -2.0], [3.0, 0.5]])
    found = numeric.difference(reference, reference * 1.1, "logits")
    assert found.sqnr_db == pytest.approx(20)
    assert found.logits_sqnr_db == pytest.approx(20)
    assert (found.largest, found.mean) == (pytest.approx(0.3), pytest.approx(6.5 / 40))


def test_sqnr_is_infinite_for_equal_outputs_and_minus_infinite_without_signal() -> None:
    assert numeric.sqnr_db(np.ones(3), np.ones(3)) == math.inf
    assert numeric.sqnr_db(np.zeros(3), np.ones(3)) == -math.inf


def test_as_logits_gives_back_logits_from_softmax_up_to_the_row_mean() -> None:
    logits = np.array([[1.0, 0.0, -1.0], [2.0, 2.5, 1.5]])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        numeric.as_logits(softmax, "softmax"), logits - logits.mean(axis=1, keepdims=True), atol=1e-12
    )


def test_as_logits_holds_probabilities_an_8_bit_file_cannot_write() -> None:
    exact = np.array([[1.0 - 1e-7, 1e-7]])
    rounded = np.array([[1.0, 0.0]])
    np.testing.assert_allclose(numeric.as_logits(exact, "softmax"), numeric.as_logits(rounded, "softmax"), atol=1e-6)


def test_as_logits_of_a_sigmoid_is_its_inverse() -> None:
    np.testing.assert_allclose(
        numeric.as_logits(1 / (1 + np.exp(-np.array([[1.5], [-2.0]]))), "sigmoid"), [[1.5], [-2]]
    )


def test_difference_leaves_out_and_counts_images_without_a_number() -> None:
    reference = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = numeric.difference(reference, np.array([[1.0, NAN], [3.0, 5.0]]), "logits")
    assert (found.unusable, found.largest) == (1, 1.0)
    assert math.isnan(numeric.difference(reference, np.full((2, 2), math.inf), "logits").sqnr_db)


def test_outputs_without_a_class_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="hold no class"):
        numeric.decisions(np.ones((2, 3)), "image")
    with pytest.raises(UnsupportedError, match="'sigmoids' hold no class"):
        numeric.decisions(np.ones((2, 3)), "sigmoids")
    with pytest.raises(UnsupportedError, match="always 1"):
        numeric.decisions(np.ones((2, 1)), "softmax")
