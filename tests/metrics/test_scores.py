"""Precision, recall, F1, AUC and calibration against numbers worked by hand, and the laws all metrics keep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from toolkit.metrics.scores import F1, Auc, ExpectedCalibrationError, Precision, Recall, bin_of

LABELS = np.array([0, 0, 0, 1, 1, 2])
DECIDED = [0, 0, 1, 1, 1, 0]  # class 0: 2 of 3 right, 3 decided; class 1: 2 of 2, 3 decided; class 2: 0 of 1, never


def once(metric: Any, outputs: Any, labels: Any, head: str = "softmax") -> float:
    return float(metric.reduce(metric.per_example(np.asarray(outputs, np.float32), np.asarray(labels), head)))


def test_precision_recall_and_f1_equal_hand_worked_means_over_classes() -> None:
    outputs = np.eye(3)[DECIDED]
    assert once(Precision(), outputs, LABELS) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert once(Recall(), outputs, LABELS) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert once(F1(), outputs, LABELS) == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert once(F1(average="weighted"), outputs, LABELS) == pytest.approx((3 * 2 / 3 + 2 * 4 / 5 + 0) / 6)
    assert (F1().name, F1(average="weighted").name) == ("f1", "f1_weighted")
    assert (Precision(average="weighted").name, Recall(average="weighted").name) == (
        "precision_weighted",
        "recall_weighted",
    )


def test_a_class_without_images_is_left_out_and_said() -> None:
    outputs = np.eye(4)[DECIDED]
    assert once(Recall(), outputs, LABELS) == pytest.approx((2 / 3 + 1 + 0) / 3)
    for metric in (Recall(), Auc()):
        said = metric.left_out(metric.per_example(outputs, LABELS, "softmax"))
        assert said.startswith("class 3: ")


def test_a_decision_that_is_nan_is_wrong() -> None:
    outputs = np.eye(3)[DECIDED]
    outputs[0] = math.nan
    assert once(Recall(), outputs, LABELS) == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert once(Precision(), outputs, LABELS) == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_auc_of_two_classes_counts_pairs_in_order() -> None:
    """Positives 0.8 and 0.3, negatives 0.1, 0.3, 0.5: pairs won 3 + (1 + half a tie) = 4.5 of 6."""
    outputs = np.array([[0.8], [0.3], [0.1], [0.3], [0.5]])
    labels = [1, 1, 0, 0, 0]
    assert once(Auc(), outputs, labels, "sigmoid") == pytest.approx(4.5 / 6)
    both = np.concatenate([1 - outputs, outputs], axis=1)
    assert once(Auc(), both, labels) == pytest.approx(4.5 / 6)


def test_auc_is_the_mean_of_each_class_against_the_rest() -> None:
    """Class 0 against the rest: 0.6 beats 0.2 and 0.3, 0.3 beats 0.2 and ties 0.3, 3.5 of 4 pairs; the others all."""
    outputs = np.array([[0.6, 0.3, 0.1], [0.3, 0.4, 0.3], [0.2, 0.5, 0.3], [0.3, 0.1, 0.6]])
    labels = np.array([0, 0, 1, 2])
    areas = []
    for place in range(3):
        wins = [
            (own > other) + 0.5 * (own == other)
            for own in outputs[labels == place, place]
            for other in outputs[labels != place, place]
        ]
        areas.append(np.mean(wins))
    assert areas == [pytest.approx(3.5 / 4), 1.0, 1.0]
    assert once(Auc(), outputs, labels) == pytest.approx(np.mean(areas))


def test_auc_of_one_class_cannot_be_told() -> None:
    assert math.isnan(once(Auc(), np.eye(3)[[0, 1]], [1, 1]))
    assert once(Auc(), np.full((4, 2), 0.5), [0, 1, 0, 1]) == 0.5  # constant outputs: all pairs are ties


def test_calibration_error_weighs_the_gap_of_each_bin() -> None:
    """Two images at 0.9, one right: gap 0.4. Two at 0.6, both right: gap 0.4. Weighed alike: 0.4."""
    outputs = [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]]
    assert once(ExpectedCalibrationError(), outputs, [0, 1, 0, 1]) == pytest.approx(0.4)
    logits = np.log(np.array(outputs))
    assert once(ExpectedCalibrationError(), logits, [0, 1, 0, 1], "logits") == pytest.approx(0.4)


def test_bins_are_closed_on_the_right() -> None:
    assert bin_of(np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 1.0])).tolist() == [0, 0, 1, 14]


@pytest.mark.parametrize("metric", [Precision(), Recall(), F1(), F1(average="weighted"), Auc()], ids=lambda m: m.name)
def test_perfect_answers_score_one_and_order_does_not_matter(metric: Any) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    outputs = rng.dirichlet(np.ones(4), 60)
    assert once(metric, np.eye(4)[labels], labels) == 1.0
    order = rng.permutation(60)
    assert once(metric, outputs[order], labels[order]) == pytest.approx(once(metric, outputs, labels), abs=1e-12)


def test_perfect_and_sure_answers_have_no_calibration_error() -> None:
    labels = np.arange(8) % 4
    assert once(ExpectedCalibrationError(), np.eye(4)[labels], labels) == 0.0
    assert once(ExpectedCalibrationError(), np.eye(4)[(labels + 1) % 4], labels) == 1.0
