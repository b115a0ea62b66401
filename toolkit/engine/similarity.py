"""Vectors by direction: cosine of pairs, and each one's nearest neighbour among all the others.

Similarities are rounded to nine decimals before they are compared, so that equal vectors are equal whatever order a
matrix product added them in; of equals the lowest index is the nearest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DECIMALS = 9  # float64 keeps about 15; a sum of a thousand products loses two or three
_BLOCK = 512  # rows of similarities held at once
_REMEMBERED = 3  # searches: the same answers are searched for retrieval, agreement and the paired loss
_recent: dict[bytes, Neighbours] = {}


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


def neighbours(vectors: Array) -> Neighbours:
    """Nearest other vector of each, by cosine. A vector without a direction is at similarity 0 to all."""
    table = np.ascontiguousarray(np.asarray(vectors, np.float64).reshape(len(vectors), -1))
    key = hashlib.sha256(repr(table.shape).encode() + table.tobytes()).digest()
    if key not in _recent:
        while len(_recent) >= _REMEMBERED:
            _recent.pop(next(iter(_recent)))
        _recent[key] = _search(_directions(table))
    return _recent[key]


def _search(table: NDArray[np.float64]) -> Neighbours:
    count = len(table)
    nearest, ties = np.full(count, -1, np.int64), 0
    for start in range(0, count if count > 1 else 0, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, count))
        alike = np.round(table[block] @ table.T, DECIMALS)
        alike[np.arange(len(block)), block] = -np.inf
        nearest[block] = alike.argmax(axis=1)
        best = alike[np.arange(len(block)), nearest[block]]
        ties += int(np.count_nonzero((alike == best[:, None]).sum(axis=1) > 1))
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
