"""What a network says of its inputs: its answers, and what these inputs give at a layer that remembers its training.

A BatchNormalization remembers mean and variance of what it was trained on, and a Normalization those of its data
(Ioffe & Szegedy 2015, arXiv:1502.03167). Inputs in another scale, order or layout than in training give others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
FLOOR = 1e-3  # of a variance, beside the mean one of its layer: what a dead channel has says nothing
LEAST = 1e-12  # of a variance, where all of them are 0


@dataclass(frozen=True)
class Expected:
    """Mean and variance by channel, (c,), of what one layer was trained on."""

    layer: str
    mean: Floats
    variance: Floats


@dataclass(frozen=True)
class Observed:
    """Of each image: the first output (n, ...), and at each layer of `expected` mean and mean square, (n, c) both."""

    outputs: Array
    expected: tuple[Expected, ...] = ()
    means: tuple[Floats, ...] = ()
    squares: tuple[Floats, ...] = ()

    def first(self) -> Observed:
        """With the first of the layers alone."""
        return Observed(self.outputs, self.expected[:1], self.means[:1], self.squares[:1])


def joined(parts: Sequence[Observed]) -> Observed:
    """Answers to the same way of presenting images, one part after the other."""
    count = len(parts[0].expected)
    means, squares = (
        tuple(np.concatenate([getattr(part, name)[i] for part in parts]) for i in range(count))
        for name in ("means", "squares")
    )
    return Observed(np.concatenate([part.outputs for part in parts]), parts[0].expected, means, squares)


def distances(observed: Observed, weights: Floats) -> Floats:
    """How far the inputs are from what the layers expect, for each row of `weights` (draws, n): (draws, layers).

    Of each channel the Kullback-Leibler divergence of two normal distributions, as log(1 + .); its mean over channels.
    """
    share = weights / weights.sum(axis=1, keepdims=True)
    found = []
    for known, means, squares in zip(observed.expected, observed.means, observed.squares, strict=True):
        mean, square = share @ means, share @ squares
        floor = max(FLOOR * float(known.variance.mean()), LEAST)
        own, expected = np.maximum(square - mean**2, 0) + floor, known.variance + floor
        divergence = (own / expected + (mean - known.mean) ** 2 / expected - 1 - np.log(own / expected)) / 2
        found.append(np.log1p(np.maximum(divergence, 0)).mean(axis=1))
    return np.stack(found, axis=1) if found else np.zeros((len(weights), 0))
