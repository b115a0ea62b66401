"""Test images that a file decides otherwise than the original: how many, and which few of them to look at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from toolkit.checks.accuracy import Predictions
from toolkit.core import Dataset
from toolkit.metrics.classification import DECIDING

if TYPE_CHECKING:
    from toolkit.core import Array

MOST_LABELS = 8  # of one answer that holds many


@dataclass(frozen=True)
class Answer:
    """What one model decided for one image: indexes of classes, none where its output is NaN or no label holds.

    confidence: probability of that class, None for several labels.
    """

    subject: str
    device: str
    decided: tuple[int, ...]
    right: bool
    confidence: float | None = None


@dataclass(frozen=True)
class ChangedImage:
    """One image, and who decides it otherwise than the original. place: in the test split.

    thumbnail: its file in the run directory, "" where there is none; sha256: of that file.
    """

    name: str
    place: int
    labels: tuple[int, ...]
    original: Answer
    others: tuple[Answer, ...]
    thumbnail: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Tally:
    """How many of the images a file decides otherwise. lost: right before, wrong now; gained: the other way round."""

    subject: str
    device: str
    images: int
    changed: int
    lost: int
    gained: int


@dataclass(frozen=True)
class Changed:
    """tallies: of every file and device; images: at most `limit` of those that changed.

    left_out: why there are none, or no thumbnails. brighter: how often the thumbnails' values were multiplied.
    """

    tallies: tuple[Tally, ...] = ()
    images: tuple[ChangedImage, ...] = ()
    limit: int = 0
    left_out: str = ""
    brighter: int = 1


def find(original: Predictions, others: Sequence[Predictions], data: Dataset, *, limit: int) -> Changed:
    """What `others` decide otherwise than `original`, and up to `limit` images, from each of them in turn."""
    if original.head not in (*DECIDING, "sigmoids"):
        kind = "an embedding" if original.head == "embedding" else "a regression"
        return Changed(limit=limit, left_out=f"{kind} decides nothing that one image could show")
    base = _Decided(original, data)
    found = [_Decided(each, data) for each in others]
    tallies = tuple(_tally(base, each) for each in found)
    turns = zip_longest(*(_ranked(base, each) for each in found))
    places = list(dict.fromkeys(place for turn in turns for place in turn if place is not None))[:limit]
    images = tuple(
        ChangedImage(
            name=data.ids[place],
            place=place,
            labels=base.wanted(place),
            original=base.answer(place),
            others=tuple(each.answer(place) for each in found if each.otherwise(base)[place]),
        )
        for place in places
    )
    return Changed(tallies, images, limit)


class _Decided:
    """One model's decisions as a table (n, 1) of classes or (n, labels) of 0 and 1."""

    def __init__(self, predictions: Predictions, data: Dataset) -> None:
        import numpy as np

        from toolkit.engine import numeric

        self.of, self.several = predictions, predictions.head == "sigmoids"
        outputs = predictions.outputs.reshape(len(predictions.outputs), -1)
        self.targets = np.asarray(data.labels).reshape(len(outputs), -1)
        if self.several:
            self.table = numeric.label_decisions(outputs)
            self.sure: Array = np.abs(outputs - numeric.LABEL_THRESHOLD).max(axis=1)
        else:
            self.table = numeric.decisions(outputs, predictions.head)[:, None]
            chosen = np.maximum(self.table, 0)
            self.sure = np.take_along_axis(numeric.probabilities(outputs, predictions.head), chosen, axis=1)[:, 0]
        self.right: Array = (self.table == self.targets).all(axis=1)

    def otherwise(self, base: _Decided) -> Array:
        """Where the decision is not the original's."""
        changed: Array = (self.table != base.table).any(axis=1)
        return changed

    def wanted(self, place: int) -> tuple[int, ...]:
        return self._named(self.targets[place])

    def answer(self, place: int) -> Answer:
        sure = float(self.sure[place])
        known = not self.several and not math.isnan(sure)
        decided = self._named(self.table[place])
        return Answer(self.of.subject, self.of.device, decided, bool(self.right[place]), sure if known else None)

    def _named(self, row: Array) -> tuple[int, ...]:
        if self.several:
            return tuple(index for index, held in enumerate(row.tolist()) if held == 1)[:MOST_LABELS]
        return tuple(index for index in row.tolist() if index >= 0)


def _tally(base: _Decided, found: _Decided) -> Tally:
    changed = found.otherwise(base)
    lost, gained = changed & base.right & ~found.right, changed & ~base.right & found.right
    counts = (len(changed), int(changed.sum()), int(lost.sum()), int(gained.sum()))
    return Tally(found.of.subject, found.of.device, *counts)


def _ranked(base: _Decided, found: _Decided) -> Iterator[int]:
    """Places that changed: lost ones first, then neither, then gained; the surest of the new decision first."""
    import numpy as np

    changed = np.flatnonzero(found.otherwise(base))
    kind = np.where(base.right & ~found.right, 0, np.where(found.right, 2, 1))
    sure = np.nan_to_num(found.sure, nan=0.0)
    yield from (int(place) for place in sorted(changed, key=lambda place: (kind[place], -sure[place], place)))
