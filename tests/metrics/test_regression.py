"""Errors of predicted numbers, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from toolkit.errors import InputError
from toolkit.metrics.regression import MeanAbsoluteError, RootMeanSquareError

WANTED = np.array([[1.0, 2.0], [0.0, 4.0], [3.0, 3.0]], np.float32)
GIVEN = np.array([[2.0, 2.0], [0.0, 0.0], [3.0, 1.0]], np.float32)  # errors 1 0, 0 4, 0 2


def once(metric: Any, outputs: Any, targets: Any) -> float:
    return float(metric.reduce(metric.per_example(np.asarray(outputs), np.asarray(targets), "regression")))


def test_errors_equal_hand_worked_means() -> None:
    assert once(MeanAbsoluteError(), GIVEN, WANTED) == pytest.approx(7 / 6)
    assert once(RootMeanSquareError(), GIVEN, WANTED) == pytest.approx(math.sqrt(21 / 6))
    assert once(MeanAbsoluteError(), [1.0, 2.0], [1.5, 4.0]) == pytest.approx(1.25)  # one column, without a dimension


def test_images_without_a_number_are_left_out_and_counted() -> None:
    given = GIVEN.copy()
    given[0, 0] = math.nan
    values = MeanAbsoluteError().per_example(given, WANTED, "regression")
    assert MeanAbsoluteError().reduce(values) == pytest.approx((2 + 1) / 2)
    assert MeanAbsoluteError().left_out(values) == "1 images: without a finite output"
    assert math.isnan(once(RootMeanSquareError(), np.full((2, 1), math.inf), np.zeros((2, 1))))


@pytest.mark.parametrize("metric", [MeanAbsoluteError(), RootMeanSquareError()], ids=lambda m: m.name)
def test_perfect_answers_have_no_error_and_order_does_not_matter(metric: Any) -> None:
    rng = np.random.default_rng(0)
    given, wanted = rng.normal(size=(2, 40, 3))
    assert once(metric, wanted, wanted) == 0
    order = rng.permutation(40)
    assert once(metric, given[order], wanted[order]) == pytest.approx(once(metric, given, wanted))


def test_other_numbers_of_columns_are_refused() -> None:
    with pytest.raises(InputError, match="the model gives 2 numbers, the data has 1"):
        MeanAbsoluteError().per_example(GIVEN, WANTED[:, :1], "regression")
