"""Ridge regression from sums over rows, so that the rows themselves never have to be in memory together.

Several regressions of one shape stand side by side (the channels of a depthwise convolution). What is sought is the
change of given weights: with more ridge it goes to zero, so the weights stay, and on the rows seen no ridge leaves a
larger error than no change does (Hoerl and Kennard 1970, with the old weights in the place of zero).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_DEAD = 1e-6  # of the mean: a feature with less energy is treated as one with as much
TINY = float(np.finfo(np.float32).tiny)  # in place of no energy at all


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over rows of features x (k, rows, f), what is left to explain r and the target y (k, rows, o) each.

    xx: (k, f, f); xr: (k, f, o); rr: (k, o). x, r, y: sums of the values; yy: of the target's squares.
    """

    rows: int
    x: Array
    r: Array
    y: Array
    xx: Array
    xr: Array
    rr: Array
    yy: Array

    @classmethod
    def of(cls, features: Array, left: Array, target: Array) -> Self:
        across = features.transpose(0, 2, 1)
        return cls(
            rows=features.shape[1],
            x=features.sum(axis=1),
            r=left.sum(axis=1),
            y=target.sum(axis=1),
            xx=across @ features,
            xr=across @ left,
            rr=np.square(left).sum(axis=1),
            yy=np.square(target).sum(axis=1),
        )

    def __add__(self, other: Sums) -> Sums:
        return Sums(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    def centred(self) -> tuple[Array, Array]:
        """xx and xr about the means of these rows: what an intercept leaves."""
        each = self.x / self.rows
        return self.xx - self.x[:, :, None] * each[:, None], self.xr - each[:, :, None] * self.r[:, None]

    @property
    def spread(self) -> float:
        """Squares of the target about its mean, summed."""
        return float(np.sum(self.yy - np.square(self.y) / self.rows))

    def error(self, change: Array, offset: Array | None = None) -> float:
        """Sum of the squares that are left with this change of the weights (k, f, o) and of the bias (k, o)."""
        squares = self.rr.sum() - 2 * np.sum(change * self.xr) + np.sum(change * (self.xx @ change))
        if offset is not None:
            rest = self.r - np.einsum("kf,kfo->ko", self.x, change)
            squares += self.rows * np.square(offset).sum() - 2 * np.sum(offset * rest)
        return max(float(squares), 0.0)

    def solve(self, ridge: float, *, intercept: bool) -> tuple[Array, Array]:
        """Changes of the weights and of the bias. ridge: relative to each feature's own energy."""
        xx, xr = self.centred() if intercept else (self.xx, self.xr)
        energy = np.einsum("kff->kf", xx)
        floor = np.maximum(_DEAD * energy.mean(axis=1, keepdims=True), TINY)
        loaded = xx + ridge * np.maximum(energy, floor)[:, :, None] * np.eye(energy.shape[1])
        change = np.linalg.solve(loaded, xr)
        offset = (self.r - np.einsum("kf,kfo->ko", self.x, change)) / self.rows
        return change, offset if intercept else np.zeros_like(offset)
