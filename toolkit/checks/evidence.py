"""What two models' paired answers say of a loss, kept so that a gate can judge it at a confidence of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.core import Array, Dataset
    from toolkit.engine.bootstrap import Bootstrap
    from toolkit.engine.statistics import Limits, Paired

SEED = 0  # of every bootstrap here: the same answers give the same verdict


@dataclass(frozen=True)
class Classes:
    """Paired results of every class (or label) that has images: their names, and their counts as arrays."""

    names: tuple[str, ...]
    tables: Paired

    def table(self, place: int) -> Paired:
        """Counts of one of them."""
        from toolkit.engine.statistics import Paired

        cells = (self.tables.both, self.tables.only_first, self.tables.only_second, self.tables.neither)
        return Paired(*(float(cell[place]) for cell in cells))  # type: ignore[index]

    def limits(self, confidence: float) -> Limits:
        """Of every class, such that all hold together with `confidence` (Bonferroni)."""
        from toolkit.engine import statistics

        return statistics.paired_interval(self.tables, statistics.bonferroni(confidence, len(self.names)))


@dataclass(frozen=True)
class Evidence:
    """draws: of bootstrapped measurements, by their name. classes: None where nothing is right or wrong by class."""

    draws: Mapping[str, Bootstrap] = field(default_factory=dict)
    classes: Classes | None = None


def by_class(first: Array, second: Array, data: Dataset) -> Classes | None:
    """Counts for each class of two models' results: (n,) of 0 and 1 (NaN: does not count), or (n, labels)."""
    import numpy as np

    from toolkit.engine.statistics import Paired

    if first.ndim == 2:
        names, tables = data.classes, [(one, two) for one, two in zip(first.T, second.T, strict=True)]
    else:
        there = ~np.isnan(first) & ~np.isnan(second)
        present = np.unique(np.asarray(data.labels)[there])
        names = tuple(data.classes[index] for index in present)
        groups = [there & (data.labels == index) for index in present]
        tables = [(first[group], second[group]) for group in groups]
    if not tables:
        return None
    found = [Paired.of(one, two) for one, two in tables]
    cells: list[Any] = [
        np.array([getattr(table, cell) for table in found], np.float64)
        for cell in ("both", "only_first", "only_second", "neither")
    ]
    return Classes(tuple(names), Paired(*cells))
