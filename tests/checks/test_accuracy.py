"""Accuracy and its loss, from outputs worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from toolkit.checks.accuracy import Predictions, measure_accuracy, paired_table
from toolkit.core import Batch, Measurement
from toolkit.engine.statistics import PAIRED_METHOD, Paired, paired_interval, wilson
from toolkit.errors import InputError


class Labelled:
    """A split of which only labels count."""

    name, fingerprint, task = "test", "f00d", "classes"

    def __init__(self, labels: list[int], classes: int) -> None:
        self.labels = np.array(labels, np.int64)
        self.classes = tuple(map(str, range(classes)))

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Any:
        return iter((Batch({}, {}, ()),))


def answers(subject: str, decisions: list[int], classes: int) -> Predictions:
    return Predictions(subject, np.eye(classes, dtype=np.float32)[decisions], "softmax", how={"runtime": "r"})


def named(found: tuple[Measurement, ...]) -> dict[str, Measurement]:
    return {measurement.name: measurement for measurement in found}


LABELS = [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]
ORIGINAL = answers("original", [0, 0, 1, 1, 1, 2, 2, 2, 2, 0], 3)  # 8 of 10
ARTIFACT = answers("a.tflite", [0, 1, 0, 1, 1, 2, 2, 0, 0, 1], 3)  # 6 of 10: 3 lost, 1 gained


def test_accuracy_has_its_interval_and_its_source() -> None:
    found = measure_accuracy(ARTIFACT, Labelled(LABELS, 3))
    top1 = named(found.measurements)["top1"]
    limits = wilson(6, 10, 0.95)
    assert (top1.subject, top1.value, top1.unit, top1.source) == ("a.tflite", 0.6, "fraction", "measured")
    assert top1.interval is not None
    assert (top1.interval.low, top1.interval.high) == (pytest.approx(limits.low), pytest.approx(limits.high))
    assert top1.how == {"images": 10, "split": "f00d", "interval": "Wilson 1927", "runtime": "r"}
    assert "top5" not in named(found.measurements)
    assert "top1_drop" not in named(found.measurements)


def test_per_class_counts_each_class() -> None:
    found = measure_accuracy(ARTIFACT, Labelled(LABELS, 3)).per_class
    assert found == ({"correct": 2, "total": 3}, {"correct": 2, "total": 2}, {"correct": 2, "total": 5})


def test_drop_is_paired_and_its_counts_are_kept() -> None:
    drop = named(measure_accuracy(ARTIFACT, Labelled(LABELS, 3), original=ORIGINAL).measurements)["top1_drop"]
    table = Paired(both=5, only_first=3, only_second=1, neither=1)
    limits = paired_interval(table, 0.95)
    assert drop.value == pytest.approx(0.2)
    assert paired_table(drop) == table
    assert drop.interval is not None
    assert (drop.interval.low, drop.interval.high) == (pytest.approx(limits.low), pytest.approx(limits.high))
    assert drop.interval.method == drop.how["interval"] == PAIRED_METHOD
    assert {drop.how[key] for key in ("both_right", "lost", "gained", "both_wrong")} == {5, 3, 1}


def test_top5_appears_for_six_classes_or_more() -> None:
    """Class 5 comes after 0..4 where all are equal, so its label is the sixth."""
    outputs = Predictions("a", np.zeros((2, 6), np.float32), "logits")
    found = named(measure_accuracy(outputs, Labelled([4, 5], 6)).measurements)
    assert (found["top5"].value, found["top1"].value, found["ties"].value) == (0.5, 0.0, 2)


def test_one_sigmoid_output_is_a_two_class_model() -> None:
    outputs = Predictions("a", np.array([[0.2], [0.9], [0.4]], np.float32), "sigmoid")
    found = measure_accuracy(outputs, Labelled([0, 1, 1], 2))
    assert named(found.measurements)["top1"].value == pytest.approx(2 / 3)
    assert found.per_class == ({"correct": 1, "total": 1}, {"correct": 1, "total": 2})


def test_other_number_of_classes_is_refused() -> None:
    with pytest.raises(InputError, match=r"a\.tflite: the model has 3 classes, the data has 4"):
        measure_accuracy(ARTIFACT, Labelled(LABELS, 4))
    with pytest.raises(InputError, match="original: the model has 2 classes"):
        measure_accuracy(ARTIFACT, Labelled(LABELS, 3), original=answers("original", [0] * 10, 2))
    with pytest.raises(InputError, match="10 outputs for 3 labels"):
        measure_accuracy(ARTIFACT, Labelled([0, 1, 2], 3))
