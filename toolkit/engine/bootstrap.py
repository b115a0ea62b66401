"""The bootstrap over images, for what is no plain share: both models on the same resamples, so that they stay paired.

Means and ratios of means have BCa limits (Efron 1987, JASA 82:171). A difference of mean average precisions has
percentile limits (Efron 1979, Annals of Statistics 7:1): its jackknife would rank all images once more for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.engine.statistics import Limits, normal_quantile

Floats = NDArray[np.float64]
Array = NDArray[Any]

RESAMPLES = 10_000
FEWEST_RESAMPLES = 1_000
# Percentile limits of fewer examples are too narrow (Hesterberg 2015, The American Statistician 69:371, figure 7)
FEWEST_EXAMPLES = 30
_RANKED = 1.5e9  # weights put in order for one difference of average precisions: some tens of seconds on one core
_CHUNK = 4_000_000  # numbers held at once


@dataclass(frozen=True)
class Bootstrap:
    """What resampling gave. draws: sorted. acceleration: of BCa limits; None for percentile limits."""

    estimate: float
    draws: Floats
    examples: int
    acceleration: float | None = None

    @property
    def method(self) -> str:
        """Name of the estimator, with its number of resamples."""
        kind = "percentile bootstrap (Efron 1979)" if self.acceleration is None else "BCa bootstrap (Efron 1987)"
        return f"{kind}, {len(self.draws):,} resamples of images"

    @property
    def enough(self) -> bool:
        """Whether there are examples enough to judge on."""
        return self.examples >= FEWEST_EXAMPLES

    def limits(self, confidence: float) -> Limits:
        """The two-sided interval at any confidence."""
        from statistics import NormalDist

        normal, z = NormalDist(), normal_quantile(confidence)
        bias = 0.0
        if self.acceleration is not None:
            below = np.count_nonzero(self.draws < self.estimate) + 0.5 * np.count_nonzero(self.draws == self.estimate)
            share, least = float(below) / len(self.draws), 1 / (len(self.draws) + 1)
            bias = normal.inv_cdf(min(max(share, least), 1 - least))
        skew = self.acceleration or 0.0
        levels = [normal.cdf(bias + (bias + end) / (1 - skew * (bias + end))) for end in (-z, z)]
        low, high = np.quantile(self.draws, levels, method="inverted_cdf")
        return Limits(min(float(low), self.estimate), max(float(high), self.estimate))


def of_mean(values: Array, *, seed: int, resamples: int = RESAMPLES) -> Bootstrap:
    """The mean of one value an image."""
    sample = np.asarray(values, np.float64)
    draws = np.concatenate([weights @ sample for weights in _weights(len(sample), seed, resamples)]) / len(sample)
    return Bootstrap(float(sample.mean()), np.sort(draws), len(sample), _skew(sample))


def of_growth(before: Array, after: Array, *, seed: int, resamples: int = RESAMPLES) -> Bootstrap:
    """Relative growth of a mean, mean(after) / mean(before) - 1, of pairs; `before` must not be all zero."""
    one, two = np.asarray(before, np.float64), np.asarray(after, np.float64)
    parts = [(weights @ one, weights @ two) for weights in _weights(len(one), seed, resamples)]
    draws = _growth(*(np.concatenate(sums) for sums in zip(*parts, strict=True)))
    left_out = -_growth(one.sum() - one, two.sum() - two)  # the jackknife: an image that raises the ratio lowers these
    acceleration = _skew(left_out) if np.isfinite(left_out).all() else 0.0
    estimate = float(_growth(one.sum(keepdims=True), two.sum(keepdims=True))[0])
    return Bootstrap(estimate, np.sort(draws), len(one), acceleration)


def of_precision_drop(first: Array, second: Array, truth: Array, *, seed: int, resamples: int = 0) -> Bootstrap:
    """Mean average precision of `first` less that of `second`, both scores (n, labels); truth: (n, labels) of 0 and 1.

    Labels without a positive in a resample are left out of it, for both. resamples: 4,000 by default, down to 1,000
    where images and labels are many.
    """
    truth = np.asarray(truth, bool)
    known = np.flatnonzero(truth.any(axis=0))
    count = len(truth)
    resamples = resamples or int(np.clip(_RANKED / (2 * count * max(1, len(known))), FEWEST_RESAMPLES, 4_000))
    ranked = [[_Ranked.of(scores[:, label], truth[:, label]) for label in known] for scores in (first, second)]

    def drop(weights: Array) -> Floats:
        lost = np.stack([one.precision(weights) - two.precision(weights) for one, two in zip(*ranked, strict=True)])
        there = ~np.isnan(lost)  # a label without a positive in a resample is so for both
        labels = there.sum(axis=0)
        summed = np.where(there, lost, 0).sum(axis=0)
        mean: Floats = np.divide(summed, labels, out=np.full(len(weights), np.nan), where=labels > 0)
        return mean

    draws = np.concatenate([drop(weights) for weights in _weights(count, seed, resamples)])
    return Bootstrap(float(drop(np.ones((1, count), np.float32))[0]), np.sort(draws[~np.isnan(draws)]), count)


@dataclass(frozen=True)
class _Ranked:
    """One label's images by falling score. ends: the last place of each run of equal scores."""

    order: NDArray[np.intp]
    truth: Array
    ends: NDArray[np.intp]

    @classmethod
    def of(cls, scores: Array, truth: Array) -> _Ranked:
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
        return cls(order, truth[order].astype(np.float32), ends)

    def precision(self, weights: Array) -> Floats:
        """Average precision (Buckley & Voorhees 2000: no interpolation) for each row of weights, equals together."""
        weighed = weights[:, self.order]
        right = np.cumsum(weighed * self.truth, axis=1)[:, self.ends]  # whole numbers: exact in float32 up to 2**24
        seen = np.cumsum(weighed, axis=1)[:, self.ends]
        precision = np.divide(right, seen, out=np.zeros_like(right), where=seen > 0)
        gained = np.diff(right, axis=1, prepend=0)
        total = right[:, -1].astype(np.float64)
        summed = (gained * precision).sum(axis=1, dtype=np.float64)
        average: Floats = np.divide(summed, total, out=np.full_like(total, np.nan), where=total > 0)
        return average


def _weights(count: int, seed: int, resamples: int) -> Iterator[Array]:
    """How often each resample holds each image, (some, count) float32 at a time."""
    rng, step = np.random.default_rng(seed), max(1, _CHUNK // count)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        places = rng.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(places.ravel(), minlength=size * count).reshape(size, count).astype(np.float32)


def _skew(influence: Floats) -> float:
    """Acceleration (Efron 1987, equation 7.3) from each image's influence, up to a constant and a factor."""
    spread = influence - influence.mean()
    squares = float(np.sum(spread**2))
    return float(np.sum(spread**3)) / (6 * squares**1.5) if squares > 0 else 0.0


def _growth(before: Floats, after: Floats) -> Floats:
    worse = np.where(after > 0, np.inf, 0.0)  # from nothing to something; from nothing to nothing
    growth: Floats = np.divide(after, before, out=worse + 1.0, where=before > 0) - 1
    return growth
