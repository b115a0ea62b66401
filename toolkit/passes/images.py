"""The images that a training sees: the train split's, and behind them those of which no label is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.core import Array, Dataset

BATCH = 256  # images decoded together


@dataclass(frozen=True)
class Seen:
    """rows: all images, float32. labels: of each; NO_CLASS or NaN where none is known. own: how many train has.

    where: they are held, in words.
    """

    rows: Array
    labels: Array
    own: int
    where: str

    @property
    def own_rows(self) -> Array:
        """Those of the train split."""
        return self.rows[: self.own]

    @property
    def words(self) -> str:
        """How many there are, and where they are held."""
        more = len(self.rows) - self.own
        without = f" and {more:,} without labels" if more else ""
        return f"{self.own:,} images{without} held {self.where}"


def read(train: Dataset, unlabelled: Dataset | None, name: str) -> Seen:
    """All images of both, preprocessed, as the model takes them under this name."""
    from toolkit.engine.hold import hold

    splits = [train, *([unlabelled] if unlabelled is not None else [])]
    parts: Iterator[Array] = chain.from_iterable(_images(split, name) for split in splits)
    held = hold(parts, sum(map(len, splits)))
    return Seen(held.rows, _padded(train.labels, len(held.rows) - len(train)), len(train), held.where)


def _images(split: Dataset, name: str) -> Iterator[Array]:
    return (batch.inputs[name] for batch in split.batches(BATCH))


def _padded(labels: Array, count: int) -> Array:
    """The labels, and behind them `count` that are unknown, as engine.loss has those."""
    import numpy as np

    from toolkit.engine.loss import NO_CLASS

    if not count:
        return labels
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        return np.concatenate([labels.astype(np.int64), np.full(count, NO_CLASS)])
    return np.concatenate([labels.astype(np.float32), np.full((count, *labels.shape[1:]), np.nan, np.float32)])
