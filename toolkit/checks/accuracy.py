"""Accuracy of one model on one split, and what it lost against the original on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.core import Dataset, Interval, Meaning, Measurement, Provenance
from toolkit.errors import InputError
from toolkit.metrics.classification import Top1, Top5, class_count

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.statistics import Limits, Paired

TOP5_CLASSES = 6  # fewest classes of which top-5 says anything
_CELLS = {"both": "both_right", "only_first": "lost", "only_second": "gained", "neither": "both_wrong"}


@dataclass(frozen=True)
class Predictions:
    """What one model answered on a split.

    subject: "original", a stage's or an artifact's name. outputs: (n, classes) float32, dequantized, in the split's
    order. how: runtime, version, ... as in `core.Measurement`.
    """

    subject: str
    outputs: Array
    head: Meaning
    device: str = ""
    source: Provenance = "measured"
    how: Mapping[str, Any] = field(default_factory=dict)

    def measurement(self, name: str, value: float, unit: str, **more: Any) -> Measurement:
        """A number about this model; `interval` and `how` may be given."""
        how = {**more.pop("how", {}), **self.how}
        return Measurement(self.subject, name, value, unit, self.source, self.device, how=how, **more)


@dataclass(frozen=True)
class Accuracy:
    """measurements: top1, top5, top1_drop, ... per_class: {"correct", "total"} in the order of the data's classes."""

    measurements: tuple[Measurement, ...]
    per_class: tuple[dict[str, int], ...]


def measure_accuracy(
    predictions: Predictions, data: Dataset, *, original: Predictions | None = None, confidence: float = 0.95
) -> Accuracy:
    """Top-1 (and top-5 of six classes or more) with Wilson intervals; with `original` also `top1_drop`, paired.

    Raises InputError where outputs and data differ in number of images or classes.
    """
    from toolkit.engine import numeric, statistics

    labels, head = data.labels, predictions.head
    right = _right(predictions, data)
    how = {"images": len(labels), "split": data.fingerprint, "interval": statistics.WILSON_METHOD}
    scores = {"top1": right}
    if len(data.classes) >= TOP5_CLASSES:
        scores["top5"] = Top5().per_example(predictions.outputs, labels, head)
    found = []
    for name, score in scores.items():
        limits = statistics.wilson(score.sum(), len(score), confidence)
        interval = as_interval(limits, confidence, statistics.WILSON_METHOD)
        found.append(predictions.measurement(name, float(score.mean()), "fraction", interval=interval, how=how))
    if original is not None:
        table = statistics.Paired.of(_right(original, data), right)
        found.append(_drop(predictions, table, confidence, how))
    found.append(predictions.measurement("ties", numeric.count_ties(predictions.outputs, head), "images", how=how))
    return Accuracy(tuple(found), _per_class(right, data))


def paired_table(drop: Measurement) -> Paired:
    """The counts behind a `top1_drop`, so that a gate can judge it at a confidence of its own."""
    from toolkit.engine.statistics import Paired

    return Paired(**{cell: drop.how[name] for cell, name in _CELLS.items()})


def as_interval(limits: Limits, confidence: float, method: str) -> Interval:
    """`core.Interval` of the engine's limits."""
    return Interval(float(limits.low), float(limits.high), confidence, method)


def check_classes(predictions: Predictions, data: Dataset) -> None:
    """Raises InputError where the model does not have the data's number of classes."""
    classes = class_count(predictions.outputs, predictions.head)
    if classes != len(data.classes):
        problem = f"the model has {classes} classes, the data has {len(data.classes)}"
        raise InputError(
            f"data for {predictions.subject}", problem, "give the data all classes of the model, in its order"
        )


def _right(predictions: Predictions, data: Dataset) -> Array:
    check_classes(predictions, data)
    return Top1().per_example(predictions.outputs, data.labels, predictions.head)


def _drop(predictions: Predictions, table: Paired, confidence: float, how: Mapping[str, Any]) -> Measurement:
    from toolkit.engine import statistics

    limits = statistics.paired_interval(table, confidence)
    cells = {name: getattr(table, cell) for cell, name in _CELLS.items()}
    return predictions.measurement(
        "top1_drop",
        table.drop,
        "fraction",
        interval=as_interval(limits, confidence, statistics.PAIRED_METHOD),
        how={**how, "interval": statistics.PAIRED_METHOD, **cells},
    )


def _per_class(right: Array, data: Dataset) -> tuple[dict[str, int], ...]:
    import numpy as np

    totals = np.bincount(data.labels, minlength=len(data.classes))
    correct = np.bincount(data.labels, weights=right, minlength=len(data.classes))
    return tuple({"correct": int(c), "total": int(t)} for c, t in zip(correct, totals, strict=True))
