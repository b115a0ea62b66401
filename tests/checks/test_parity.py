"""Parity of outputs, worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from toolkit.checks.accuracy import Predictions
from toolkit.checks.parity import DECIBEL_LIMIT, measure_parity
from toolkit.core import Measurement
from toolkit.engine.statistics import wilson
from toolkit.errors import InputError


class Counted:
    """A split of which only the number of images counts."""

    name, fingerprint, classes, labels = "test", "f00d", ("a", "b"), np.zeros(4, np.int64)
    task = "classes"

    def __len__(self) -> int:
        return 4

    def batches(self, size: int) -> Any:
        return iter(())


OUTPUTS = np.array([[1.0, 2.0], [4.0, 3.0], [0.0, 1.0], [2.0, 2.0]], np.float32)
ORIGINAL = Predictions("original", OUTPUTS, "logits")


def parity(outputs: np.ndarray) -> dict[str, Measurement]:
    found = measure_parity(replace(ORIGINAL, subject="a", outputs=outputs), ORIGINAL, Counted())
    return {measurement.name: measurement for measurement in found}


def test_parity_counts_decisions_and_measures_differences() -> None:
    """Half a unit on one of eight numbers: noise 0.25, signal 39, SQNR 10 log10(156); the tie of row 4 is class 0."""
    changed = OUTPUTS.copy()
    changed[3, 1] += 0.5
    found = parity(changed)
    limits = wilson(3, 4, 0.95)
    agreement = found["agreement"]
    assert (agreement.value, agreement.how["agree"], agreement.how["images"]) == (0.75, 3, 4)
    assert agreement.interval is not None
    assert (agreement.interval.low, agreement.interval.high) == (pytest.approx(limits.low), pytest.approx(limits.high))
    assert (found["max_abs_diff"].value, found["mean_abs_diff"].value) == (0.5, 0.0625)
    assert found["sqnr_db"].value == pytest.approx(10 * math.log10(39 / 0.25))
    assert found["output_sqnr_db"].value == pytest.approx(10 * math.log10(39 / 0.25))
    assert found["sqnr_db"].how == {"images": 4, "split": "f00d"}
    assert "unusable_outputs" not in found


def test_equal_outputs_reach_the_limit_that_json_can_hold() -> None:
    found = parity(OUTPUTS)
    assert (found["sqnr_db"].value, found["agreement"].value) == (DECIBEL_LIMIT, 1.0)
    assert parity(-OUTPUTS)["sqnr_db"].value == pytest.approx(10 * math.log10(1 / 4))


def test_an_image_without_a_number_disagrees_and_is_counted() -> None:
    changed = OUTPUTS.copy()
    changed[0, 1] = math.nan
    found = parity(changed)
    assert (found["agreement"].value, found["unusable_outputs"].value) == (0.75, 1)
    assert found["sqnr_db"].how["images"] == 3
    assert set(parity(np.full_like(OUTPUTS, math.nan))) == {"agreement", "unusable_outputs"}


def test_outputs_without_a_class_have_no_agreement() -> None:
    image = replace(ORIGINAL, head="image")
    names = {m.name for m in measure_parity(replace(image, subject="a"), image, Counted())}
    assert names == {"max_abs_diff", "mean_abs_diff", "sqnr_db", "output_sqnr_db"}


def test_models_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(InputError, match="a: gives softmax, the original logits"):
        measure_parity(Predictions("a", OUTPUTS, "softmax"), ORIGINAL, Counted())
    with pytest.raises(InputError, match=r"a: outputs \(3, 2\), the original's \(4, 2\), 4 images"):
        parity(OUTPUTS[:3])
