"""How good one model is on one split, by the metrics of its head, and what it lost against the original, paired."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.checks import fit
from toolkit.checks.evidence import SEED, Evidence, by_class
from toolkit.core import Dataset, Interval, Meaning, Measurement, Provenance, TensorSpec
from toolkit.errors import InputError
from toolkit.metrics import chosen
from toolkit.metrics.classification import DECIDING, TopK

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.bootstrap import Bootstrap
    from toolkit.engine.statistics import Limits, Paired

_CELLS = {"both": "both_right", "only_first": "lost", "only_second": "gained", "neither": "both_wrong"}


@dataclass(frozen=True)
class Predictions:
    """What one model answered on a split.

    subject: "original", a stage's or an artifact's name. outputs: (n, ...) float32, dequantized, in the split's
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
    """measurements: the head's score first. per_class: {"correct", "total"} in the order of the data's classes.

    evidence: for the gates. left_out: metric -> what of it, or all of it, could not be computed and why.
    """

    measurements: tuple[Measurement, ...]
    per_class: tuple[dict[str, int], ...] = ()
    evidence: Evidence = Evidence()
    left_out: Mapping[str, str] = field(default_factory=dict)


def measure_accuracy(
    predictions: Predictions,
    data: Dataset,
    *,
    original: Predictions | None = None,
    confidence: float = 0.95,
    metrics: Iterable[Any] = (),
) -> Accuracy:
    """The metrics of the head and those asked for; with `original` also what was lost against it, paired.

    Shares have Wilson intervals, means bootstrapped ones. Raises InputError where outputs and data do not fit.
    """
    head = predictions.head
    _check(predictions, data)
    if original is not None:
        _check(original, data)
    how = {"images": len(data), "split": data.fingerprint}
    found: list[Measurement] = []
    left_out: dict[str, str] = {}
    for metric in _metrics(predictions, data, metrics, original):
        measured, absent = _measured(metric, predictions, data, original=original, confidence=confidence)
        found += measured
        left_out |= {metric.name: absent} if absent else {}
    right = _right(predictions, data)
    evidence = Evidence()
    if original is not None:
        lost, evidence, missing = _lost(predictions, original, data, confidence, how=how)
        found += lost
        left_out |= missing
    if head in DECIDING or head == "sigmoids":
        from toolkit.engine import numeric

        ties = numeric.count_ties(predictions.outputs, head)
        found.append(predictions.measurement("ties", ties, "images", how=how))
    return Accuracy(tuple(found), _per_class(right, data), evidence, left_out)


def paired_table(drop: Measurement) -> Paired:
    """The counts behind a paired drop, so that a gate can judge it at a confidence of its own."""
    from toolkit.engine.statistics import Paired

    return Paired(**{cell: drop.how[name] for cell, name in _CELLS.items()})


def as_interval(limits: Limits, confidence: float, method: str) -> Interval:
    """`core.Interval` of the engine's limits."""
    return Interval(float(limits.low), float(limits.high), confidence, method)


def _check(predictions: Predictions, data: Dataset) -> None:
    outputs = predictions.outputs
    columns = int(math.prod(outputs.shape[1:]))
    try:
        fit.check_data(TensorSpec("", (None, columns), "float32", predictions.head), data)
    except InputError as error:
        raise InputError(f"data for {predictions.subject}", error.problem, error.fix) from error
    if not len(data):
        raise InputError("data", "there is no image to judge on")
    if len(outputs) != len(data):
        raise InputError("data", f"{len(outputs)} outputs for {len(data)} labels")


def _metrics(predictions: Predictions, data: Dataset, asked: Iterable[Any], original: Any) -> list[Any]:
    """The head's own, then those asked for; each name once. Agreement is measured with parity."""
    known = chosen.defaults(predictions.head, data.task, len(data.classes))
    found = {metric.name: metric for metric in (*known, *asked) if metric.name != "agreement"}
    return [metric for metric in found.values() if original is not None or not metric.against]


def _measured(
    metric: Any, predictions: Predictions, data: Dataset, *, original: Predictions | None, confidence: float
) -> tuple[list[Measurement], str]:
    """The metric's measurement, or none; and what had to be left out."""
    import numpy as np

    outputs, head = predictions.outputs, predictions.head
    against = original.outputs if original else None
    values = np.asarray(metric.per_example(outputs, data.labels, head, original=against))
    if len(values) != len(data):
        raise InputError(f"metrics.{metric.name}", f"gave {len(values)} values for {len(data)} images")
    value, missing = float(metric.reduce(values)), metric.left_out(values)
    if not math.isfinite(value):
        return [], missing or "cannot be told from these images"
    counted = values[~np.isnan(values)] if values.ndim == 1 else values
    how: dict[str, Any] = {"images": len(counted), "split": data.fingerprint}
    interval = _interval(metric, counted, confidence)
    how |= {"interval": interval.method} if interval else {}
    how |= {"left_out": missing} if missing else {}
    if isinstance(metric, TopK):
        from toolkit.engine import numeric

        how["ties"] = numeric.count_rank_ties(outputs.reshape(len(outputs), -1), data.labels, metric.k)
    return [predictions.measurement(metric.name, value, metric.unit, interval=interval, how=how)], missing


def _interval(metric: Any, values: Array, confidence: float) -> Interval | None:
    from toolkit.engine import bootstrap, statistics

    if metric.estimate == "share":
        limits = statistics.wilson(values.sum(), len(values), confidence)
        return as_interval(limits, confidence, statistics.WILSON_METHOD)
    if metric.estimate == "mean" and len(values) >= bootstrap.FEWEST_EXAMPLES:
        drawn = bootstrap.of_mean(values, seed=SEED)
        return as_interval(drawn.limits(confidence), confidence, drawn.method)
    return None


# ---------------------------------------------------------------- against the original


Lost = tuple[list[Measurement], Evidence, dict[str, str]]


def _lost(
    predictions: Predictions, original: Predictions, data: Dataset, confidence: float, *, how: Mapping[str, Any]
) -> Lost:
    """What the gates judge: the score's loss and the worst class's, or the error's growth and the cosine."""
    import numpy as np

    from toolkit.engine import statistics

    draws = {name: drawn for name, drawn in _bootstraps(predictions, original, data).items() if drawn is not None}
    found, missing = [], {}
    for name, drawn in draws.items():
        if name == "cosine":
            continue  # measured already
        interval = as_interval(drawn.limits(confidence), confidence, drawn.method)
        more = {**how, "interval": drawn.method, "images": drawn.examples}
        found.append(predictions.measurement(name, drawn.estimate, "fraction", interval=interval, how=more))
    if predictions.head == "regression" and "mae_increase" not in draws:
        missing["mae_increase"] = "the original's mean absolute error is 0 or not finite"
    before, after = _right(original, data), _right(predictions, data)
    if before is None or after is None:
        return found, Evidence(draws), missing
    classes = by_class(before, after, data)
    if before.ndim == 1:
        there = ~np.isnan(before)
        if there.any():
            table = statistics.Paired.of(before[there], after[there])
            found.append(_drop(predictions, f"{_score_name(predictions, data)}_drop", table, confidence, how=how))
    if classes is not None:
        found.append(_class_drop(predictions, classes, confidence, how=how))
    return found, Evidence(draws, classes), missing


def _bootstraps(predictions: Predictions, original: Predictions, data: Dataset) -> dict[str, Bootstrap | None]:
    import numpy as np

    from toolkit.engine import bootstrap

    one, two = (each.outputs for each in (original, predictions))
    score: Any = chosen.score(predictions.head, data.task)
    if predictions.head == "sigmoids":
        before, after = (score.per_example(each, data.labels, "sigmoids") for each in (one, two))
        some = before[:, 1].any()
        found = bootstrap.of_precision_drop(before[:, 0], after[:, 0], before[:, 1], seed=SEED) if some else None
        return {"mean_average_precision_drop": found}
    if predictions.head == "regression":
        before, after = (score.per_example(each, data.labels, "regression") for each in (one, two))
        there = ~np.isnan(before) & ~np.isnan(after)
        broken = np.isnan(after).sum() > np.isnan(before).sum() or not before[there].any()
        return {"mae_increase": None if broken else bootstrap.of_growth(before[there], after[there], seed=SEED)}
    if predictions.head == "embedding":
        from toolkit.engine import similarity

        return {"cosine": bootstrap.of_mean(similarity.cosines(one, two), seed=SEED)}
    return {}


def _score_name(predictions: Predictions, data: Dataset) -> str:
    metric = chosen.score(predictions.head, data.task)
    return metric.name if metric else ""


def _right(predictions: Predictions, data: Dataset) -> Array | None:
    """1 where right, 0 where not, NaN where it does not count: (n,), or (n, labels); None where nothing is either."""
    import numpy as np

    metric: Any = chosen.score(predictions.head, data.task)
    if predictions.head == "sigmoids":
        from toolkit.engine import numeric

        return np.equal(numeric.label_decisions(predictions.outputs), data.labels).astype(np.float64)
    if metric is None or metric.estimate != "share":
        return None
    values: Array = metric.per_example(predictions.outputs, data.labels, predictions.head)
    return values


def _drop(
    predictions: Predictions, name: str, table: Paired, confidence: float, *, how: Mapping[str, Any]
) -> Measurement:
    from toolkit.engine import statistics

    limits = statistics.paired_interval(table, confidence)
    cells = {name: int(getattr(table, cell)) for cell, name in _CELLS.items()}
    method = statistics.PAIRED_METHOD
    more = {**how, "images": int(table.total), "interval": method, **cells}
    interval = as_interval(limits, confidence, method)
    return predictions.measurement(name, table.drop, "fraction", interval=interval, how=more)


def _class_drop(predictions: Predictions, classes: Any, confidence: float, *, how: Mapping[str, Any]) -> Measurement:
    """The class that lost most; the interval is that of the largest loss of all classes."""
    import numpy as np

    from toolkit.engine import statistics

    worst = int(np.argmax(classes.tables.drop))
    method = f"{statistics.PAIRED_METHOD}, Bonferroni over {len(classes.names)} classes"
    interval = as_interval(statistics.worst_of(classes.tables, confidence), confidence, method)
    more = {**how, "class": classes.names[worst], "interval": method}
    value = float(classes.tables.drop[worst])
    return predictions.measurement("class_drop", value, "fraction", interval=interval, how=more)


def _per_class(right: Array | None, data: Dataset) -> tuple[dict[str, int], ...]:
    """Right answers and examples of each class; of each label all images count."""
    import numpy as np

    if right is None:
        return ()
    if right.ndim == 2:
        return tuple({"correct": int(count), "total": len(right)} for count in right.sum(axis=0))
    there, size = ~np.isnan(right), len(data.classes)
    totals = np.bincount(data.labels[there], minlength=size)
    correct = np.bincount(data.labels[there], weights=right[there], minlength=size)
    return tuple({"correct": int(c), "total": int(t)} for c, t in zip(correct, totals, strict=True))
