"""Vectors by direction: cosine of pairs, and each one's nearest neighbour among all the others.

Similarities are rounded to nine decimals before they are compared, so that equal vectors are equal whatever order a
matrix product added them in; of equals the lowest index is the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DECIMALS = 9  # float64 keeps about 15; a sum of a thousand products loses two or three
_BLOCK = 512  # rows of similarities held at once


@dataclass(frozen=True)
class Neighbours:
    """nearest: index of each vector's nearest other one, -1 where it has none. ties: how many had several."""

    nearest: NDArray[np.int64]
    ties: int


def cosines(first: Array, second: Array) -> NDArray[np.float64]:
    """Cosine of each pair of rows, (n,). Without a direction (all zero, NaN): 1 for equal rows, else 0."""
    one, two = (np.asarray(each, np.float64).reshape(len(each), -1) for each in (first, second))
    found: NDArray[np.float64] = np.sum(_directions(one) * _directions(two), axis=1)
    bare = ~(_has_direction(one) & _has_direction(two))
    found[bare] = (one[bare] == two[bare]).all(axis=1)
    return np.clip(found, -1.0, 1.0)


def neighbours(vectors: Array, allowed: Array | None = None) -> Neighbours:
    """Nearest other vector of each, by cosine. allowed: (n,) bool, which may be somebody's neighbour.

    A vector without a direction is at similarity 0 to all.
    """
    table = _directions(np.asarray(vectors, np.float64).reshape(len(vectors), -1))
    count = len(table)
    nearest, ties = np.full(count, -1, np.int64), 0
    open_to = np.ones(count, bool) if allowed is None else np.asarray(allowed, bool)
    for start in range(0, count, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, count))
        alike = np.round(table[block] @ table.T, DECIMALS)
        alike[:, ~open_to] = -np.inf
        alike[np.arange(len(block)), block] = -np.inf
        best = alike.max(axis=1)
        some = np.isfinite(best)
        nearest[block[some]] = alike[some].argmax(axis=1)
        ties += int(np.count_nonzero((alike[some] == best[some, None]).sum(axis=1) > 1))
    return Neighbours(nearest, ties)


def _has_direction(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    length = np.linalg.norm(table, axis=1)
    found: NDArray[np.bool_] = np.isfinite(length) & (length > 0)
    return found


def _directions(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1; zeros for a row without a direction."""
    sound = _has_direction(table)
    unit = np.zeros_like(table)
    unit[sound] = table[sound] / np.linalg.norm(table[sound], axis=1, keepdims=True)
    return unit
