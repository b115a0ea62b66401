"""Metrics of several labels an image, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from toolkit.errors import InputError
from toolkit.metrics.classification import Agreement
from toolkit.metrics.labels import ExactMatch, LabelF1, MeanAveragePrecision

TRUTH = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], np.uint8)
SCORES = np.array([[0.9, 0.6], [0.8, 0.4], [0.7, 0.3], [0.1, 0.2]], np.float32)


def once(metric: Any, outputs: Any, targets: Any = TRUTH) -> float:
    return float(metric.reduce(metric.per_example(np.asarray(outputs, np.float32), np.asarray(targets), "sigmoids")))


def test_average_precision_is_taken_at_each_positive() -> None:
    """Label 0 ranks + - + -: (1/1 + 2/3) / 2. Label 1 ranks - + - -: 1/2."""
    assert once(MeanAveragePrecision(), SCORES) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)


def test_equal_scores_are_one_step() -> None:
    """All alike: precision is the share of positives, whatever the order."""
    assert once(MeanAveragePrecision(), np.full((4, 2), 0.5)) == pytest.approx((2 / 4 + 1 / 4) / 2)


def test_label_f1_counts_at_one_half() -> None:
    """Label 0 gives images 0, 1, 2: precision 2/3, recall 1. Label 1 gives image 0, wrongly: F1 0."""
    assert once(LabelF1(), SCORES) == pytest.approx((4 / 5 + 0) / 2)


def test_exact_match_needs_every_label() -> None:
    assert once(ExactMatch(), SCORES) == pytest.approx(2 / 4)  # images 2 and 3
    at_threshold = np.array([[0.5, 0.5], [0.5, 0.51], [0.51, 0.5], [0.5, 0.5]])
    assert once(ExactMatch(), at_threshold) == pytest.approx(3 / 4)  # exactly one half does not hold


def test_a_label_that_no_image_has_is_left_out_and_said() -> None:
    truth = np.concatenate([TRUTH, np.zeros((4, 1), np.uint8)], axis=1)
    scores = np.concatenate([SCORES, np.full((4, 1), 0.9)], axis=1)
    for metric in (MeanAveragePrecision(), LabelF1()):
        assert once(metric, scores, truth) == pytest.approx(once(metric, SCORES))
        assert metric.left_out(metric.per_example(scores, truth, "sigmoids")) == "label 2: no image has it"
        assert math.isnan(once(metric, scores, np.zeros((4, 3))))


def test_nan_ranks_last_and_gives_no_label() -> None:
    scores = SCORES.copy()
    scores[0, 0] = math.nan  # label 0 now ranks - + - +: (1/2 + 2/4) / 2
    assert once(MeanAveragePrecision(), scores) == pytest.approx(((1 / 2 + 2 / 4) / 2 + 1 / 2) / 2)
    assert once(ExactMatch(), scores) == pytest.approx(2 / 4)


def test_agreement_needs_all_labels_alike() -> None:
    other = SCORES.copy()
    other[1, 1], other[2, 1] = 0.45, 0.55
    values = Agreement().per_example(other, TRUTH, "sigmoids", original=SCORES)
    assert values.tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("metric", [MeanAveragePrecision(), LabelF1(), ExactMatch()], ids=lambda m: m.name)
def test_perfect_answers_score_one_and_order_does_not_matter(metric: Any) -> None:
    rng = np.random.default_rng(1)
    truth, scores = rng.integers(0, 2, (50, 3)), rng.random((50, 3)).astype(np.float32)
    assert once(metric, truth, truth) == 1.0
    order = rng.permutation(50)
    assert once(metric, scores[order], truth[order]) == pytest.approx(once(metric, scores, truth), abs=1e-12)


def test_other_numbers_of_labels_are_refused() -> None:
    with pytest.raises(InputError, match="the model gives 2 labels, the data has 3"):
        MeanAveragePrecision().per_example(SCORES, np.zeros((4, 3)), "sigmoids")
