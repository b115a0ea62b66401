"""What the report's pictures of one model's answers need, small enough for the manifest.

Confusions, calibration, ROC curves, labels, columns, cosines: computed once from the answers, so that the report reads
the manifest and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.checks.accuracy import Predictions
from toolkit.core import Dataset
from toolkit.metrics.classification import DECIDING

if TYPE_CHECKING:
    from toolkit.core import Array

WHOLE_MATRIX = 50  # classes of which every confusion is kept
MOST_PAIRS = 200  # confusions kept of more classes, the most frequent
MOST_POINTS = 100  # of a curve
WORST_CURVES = 3  # classes with a curve of their own, beside the mean of all
MOST_LABELS = 200  # labels or columns with a row of their own, the worst
HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class Confusion:
    """decided: images decided for each class. cells: (label, decision, images) off the diagonal, the most frequent
    first. rest: images in confusions that are not among the cells. undecided: images with a NaN output."""

    decided: tuple[int, ...]
    cells: tuple[tuple[int, int, int], ...]
    rest: int = 0
    undecided: int = 0


@dataclass(frozen=True)
class Bin:
    """Images whose decision had about this probability: how many, their mean probability and share right."""

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Curve:
    """A ROC curve: (false positive rate, true positive rate) from (0, 0) to (1, 1). name: a class, or "mean"."""

    name: str
    auc: float
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Label:
    """One of several labels at threshold 0.5. place: its index; None: no image has it."""

    place: int
    images: int
    average_precision: float | None
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Column:
    """One predicted number. bias: mean of output - target."""

    place: int
    mae: float
    rmse: float
    bias: float


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width from low to high."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Details:
    """Of one subject on one device; what does not belong to its head is empty. left_out: metric -> what and why."""

    head: str = ""
    device: str = ""
    confusion: Confusion | None = None
    reliability: tuple[Bin, ...] = ()
    roc: tuple[Curve, ...] = ()
    labels: tuple[Label, ...] = ()
    columns: tuple[Column, ...] = ()
    cosines: Histogram | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


def of_answers(
    predictions: Predictions,
    data: Dataset,
    *,
    original: Predictions | None = None,
    left_out: Mapping[str, str] | None = None,
) -> Details:
    """The details of one model's answers; with `original`, of an embedding also the cosines to it."""
    found: dict[str, Any] = {}
    outputs, head = predictions.outputs.reshape(len(predictions.outputs), -1), predictions.head
    if head in DECIDING:
        found = _of_classes(outputs, head, data)
    elif head == "sigmoids":
        found = {"labels": _labels(outputs, data), "roc": _curves(outputs, data.labels, data.classes)}
    elif head == "regression":
        found = {"columns": _columns(outputs, data)}
    elif head == "embedding" and original is not None:
        found = {"cosines": _cosines(original.outputs, outputs)}
    return Details(head, predictions.device, left_out=dict(left_out or {}), **found)


# ---------------------------------------------------------------- one class an image


def _of_classes(outputs: Array, head: Any, data: Dataset) -> dict[str, Any]:
    import numpy as np

    from toolkit.engine import numeric

    scores = numeric.probabilities(outputs, head)
    truth = np.arange(scores.shape[1]) == np.asarray(data.labels)[:, None]
    return {
        "confusion": _confusion(numeric.decisions(outputs, head), data),
        "reliability": _reliability(outputs, head, data),
        "roc": _curves(numeric.rankable(scores), truth, data.classes),
    }


def _confusion(decided: Array, data: Dataset) -> Confusion:
    import numpy as np

    size, labels = len(data.classes), np.asarray(data.labels)
    there = decided >= 0
    codes, counts = np.unique(labels[there] * size + decided[there], return_counts=True)
    rows, columns = np.divmod(codes, size)
    off = rows != columns
    order = np.argsort(-counts[off], kind="stable")
    kept = order if size <= WHOLE_MATRIX else order[:MOST_PAIRS]
    cells = np.stack([rows[off], columns[off], counts[off]], axis=1)
    return Confusion(
        decided=tuple(int(count) for count in np.bincount(decided[there], minlength=size)),
        cells=tuple((int(row), int(column), int(count)) for row, column, count in cells[kept]),
        rest=int(cells[:, 2].sum() - cells[kept, 2].sum()),
        undecided=int(np.count_nonzero(~there)),
    )


def _reliability(outputs: Array, head: Any, data: Dataset) -> tuple[Bin, ...]:
    import numpy as np

    from toolkit.metrics.scores import BINS, ExpectedCalibrationError, bin_of

    values = ExpectedCalibrationError().per_example(outputs, data.labels, head)
    bins = bin_of(values[:, 0])
    counts = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=values[:, column], minlength=BINS) for column in (0, 1)]
    means = [np.divide(each, counts, out=np.zeros(BINS), where=counts > 0) for each in sums]
    return tuple(Bin(int(n), _short(sure), _short(right)) for n, sure, right in zip(counts, *means, strict=True))


def _curves(scores: Array, truth: Array, classes: tuple[str, ...]) -> tuple[Curve, ...]:
    """The mean over classes of the true positive rate at each false positive rate, then the worst classes' own."""
    import numpy as np
    from sklearn.metrics import auc, roc_curve

    from toolkit.engine import numeric

    share = np.asarray(truth).mean(axis=0)
    known = [int(place) for place in np.flatnonzero((share > 0) & (share < 1))]
    if len(classes) == 2 and len(known) == 2 and (np.asarray(truth).sum(axis=1) == 1).all():
        known = [1]  # the other class's curve is the same, mirrored
    scores = numeric.rankable(scores)
    rates = {place: roc_curve(truth[:, place], scores[:, place])[:2] for place in known}
    areas = {place: float(auc(*rates[place])) for place in known}
    worst = sorted(known, key=lambda place: (areas[place], place))[:WORST_CURVES]
    own = tuple(Curve(classes[place], _short(areas[place]), _thin(*rates[place])) for place in worst)
    if len(known) < 2:
        return own
    grid = np.linspace(0, 1, MOST_POINTS)
    mean = np.mean([np.interp(grid, *rates[place]) for place in known], axis=0)
    points = ((0.0, 0.0), *((_short(x), _short(y)) for x, y in zip(grid[1:], mean[1:], strict=True)))
    return (Curve("mean", _short(float(np.mean(list(areas.values())))), points), *own)


def _thin(across: Array, up: Array) -> tuple[tuple[float, float], ...]:
    """At most MOST_POINTS of a staircase, evenly along its way."""
    import numpy as np

    way = np.concatenate([[0.0], np.cumsum(np.diff(across) + np.diff(up))])
    wanted = np.searchsorted(way, np.linspace(0, way[-1], MOST_POINTS))
    chosen = np.unique(np.minimum(wanted, len(way) - 1)) if len(way) > MOST_POINTS else np.arange(len(way))
    return tuple((_short(across[place]), _short(up[place])) for place in chosen)


# ---------------------------------------------------------------- other heads


def _labels(outputs: Array, data: Dataset) -> tuple[Label, ...]:
    import numpy as np
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    from toolkit.engine import numeric

    truth, scores = np.asarray(data.labels), numeric.rankable(outputs)
    held = np.maximum(numeric.label_decisions(outputs), 0)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, held, average=None, zero_division=0)
    found = []
    for place, images in enumerate(truth.sum(axis=0)):
        if not images:
            found.append(Label(place, 0, None, None, None, None))
            continue
        area = float(average_precision_score(truth[:, place], scores[:, place]))
        rest = (_short(each[place]) for each in (precision, recall, f1))
        found.append(Label(place, int(images), _short(area), *rest))
    if len(found) > MOST_LABELS:
        found = sorted(found, key=lambda label: 2.0 if label.f1 is None else label.f1)[:MOST_LABELS]
    return tuple(sorted(found, key=lambda label: label.place))


def _columns(outputs: Array, data: Dataset) -> tuple[Column, ...]:
    import numpy as np

    error = outputs.astype(np.float64) - np.asarray(data.labels, np.float64).reshape(outputs.shape)
    error = error[np.isfinite(error).all(axis=1)]
    if not len(error):
        return ()
    numbers = zip(np.abs(error).mean(axis=0), np.sqrt((error**2).mean(axis=0)), error.mean(axis=0), strict=True)
    found = [Column(place, *(float(f"{each:.6g}") for each in row)) for place, row in enumerate(numbers)]
    worst = sorted(found, key=lambda column: -column.mae)[:MOST_LABELS]
    return tuple(sorted(worst, key=lambda column: column.place))


def _cosines(original: Array, outputs: Array) -> Histogram:
    import numpy as np

    from toolkit.engine import similarity

    values = similarity.cosines(original, outputs)
    low = min(float(np.floor(values.min() * 100) / 100), 0.99)
    counts, _ = np.histogram(values, bins=HISTOGRAM_BINS, range=(low, 1.0))
    return Histogram(low, 1.0, tuple(int(count) for count in counts))


def _short(value: Any) -> float:
    """Four decimals: what a picture can show."""
    return round(float(value), 4)
