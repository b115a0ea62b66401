"""The bootstrap over images, for what is no plain share: both models on the same resamples, so that they stay paired.

Means and ratios of means have the outer ends of two intervals, as BCa (Efron 1987, JASA 82:171) is too near on the long
side of a skewed mean of few images: BCa's and bootstrap-t's (Hall 1988, Annals of Statistics 16:927). A difference
of mean average precisions has the outer ends of the percentile interval, expanded for small samples (Hesterberg 2015,
The American Statistician 69:371, section 3.3), and of the same turned round the estimate (basic: Davison & Hinkley
1997, section 5.2). None keeps its level alone on few images, as tests/engine/test_bootstrap.py simulates.

So many draws hold no limit that fewer than ten of them lie beyond: what is asked for further out, as of a run of many
gates, lies as much further from the estimate as a normal tail would have it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.engine.statistics import Limits, normal_quantile

Floats = NDArray[np.float64]
_NORMAL = NormalDist()
Array = NDArray[Any]

MOST_RESAMPLES = 10_000
FEWEST_RESAMPLES = 2_000
_DRAWN = 40_000_000  # images drawn in all, where that leaves more resamples than the fewest: about a second
FEWEST_EXAMPLES = 30  # percentile limits of fewer are far too narrow (Hesterberg 2015, section 3)
STUDENTIZED = 0.999  # share of draws with a spread of their own, below which too few images differ for bootstrap-t
_BEYOND = 10  # draws beyond a limit that they hold: their share is then known to a third
_CHUNK = 500_000  # numbers held at once: about the size of a processor's cache


@dataclass(frozen=True)
class Bootstrap:
    """What resampling gave. draws: sorted. acceleration: of BCa limits, or None for the outer ends of percentile and
    basic limits; positives: how many examples these rest on, for a label on average. error: standard error of the
    estimate, deviations: sorted, of each draw from it in standard errors of its own; without them BCa stands alone."""

    estimate: float
    draws: Floats
    examples: int
    acceleration: float | None = None
    positives: float = math.inf
    error: float = 0.0
    deviations: Floats | None = None

    @property
    def method(self) -> str:
        """Name of the estimator, with its number of resamples."""
        outer = "outer limits of the percentile bootstrap (expanded, Hesterberg 2015) and the basic one"
        own = "BCa bootstrap (Efron 1987)"
        own = own if self.deviations is None else f"outer limits of {own} and bootstrap-t (Hall 1988)"
        kind = outer if self.acceleration is None else own
        return f"{kind}, {len(self.draws):,} resamples of images"

    @property
    def enough(self) -> bool:
        """Whether there are examples enough to judge on."""
        return self.examples >= FEWEST_EXAMPLES

    def limits(self, confidence: float) -> Limits:
        """The two-sided interval at any confidence."""
        z = normal_quantile(confidence)
        return self._outer(z) if self.acceleration is None else self._accelerated(z, self.acceleration)

    def _accelerated(self, z: float, skew: float) -> Limits:
        below = np.count_nonzero(self.draws < self.estimate) + 0.5 * np.count_nonzero(self.draws == self.estimate)
        share, least = float(below) / len(self.draws), 1 / (len(self.draws) + 1)
        bias = _NORMAL.inv_cdf(min(max(share, least), 1 - least))
        low, high = self._quantiles(*(bias + (bias + end) / (1 - skew * (bias + end)) for end in (-z, z)))
        if self.deviations is not None:
            least, most = _at(self.deviations, -z, 0.0), _at(self.deviations, z, 0.0)
            low, high = min(low, self.estimate - most * self.error), max(high, self.estimate - least * self.error)
        return Limits(float(min(low, self.estimate)), float(max(high, self.estimate)))

    def _outer(self, z: float) -> Limits:
        if math.isfinite(self.positives):
            few = max(self.positives, 2.0)
            z = _t_quantile(z, few - 1) * math.sqrt(few / (few - 1))
        low, high = self._quantiles(-z, z)
        return Limits(min(low, 2 * self.estimate - high), max(high, 2 * self.estimate - low))

    def _quantiles(self, low: float, high: float) -> tuple[float, float]:
        """At two normal scores."""
        return _at(self.draws, low, self.estimate), _at(self.draws, high, self.estimate)


def _at(draws: Floats, z: float, centre: float) -> float:
    """At a normal score, as far as the draws hold it; they are not interpolated, since they may be infinite."""
    most = normal_quantile(1 - 2 * _BEYOND / max(len(draws), 4 * _BEYOND))
    held = max(-most, min(z, most))
    found = float(np.quantile(draws, _NORMAL.cdf(held), method="inverted_cdf"))
    if held == z or not math.isfinite(centre):
        return found
    further = centre + (found - centre) * z / held
    return min(found, further) if z < 0 else max(found, further)


def of_mean(values: Array, *, seed: int, resamples: int = 0) -> Bootstrap:
    """The mean of one value an image."""
    sample = np.asarray(values, np.float64)
    parts = [_mean(sample[places]) for places in _places(len(sample), seed, resamples)]
    means, errors = (np.concatenate(part) for part in zip(*parts, strict=True))
    estimate, error = (float(each[0]) for each in _mean(sample[None]))
    return _studentized(Bootstrap(estimate, means, len(sample), _skew(sample), error=error), errors)


def of_growth(before: Array, after: Array, *, seed: int, resamples: int = 0) -> Bootstrap:
    """Relative growth of a mean, mean(after) / mean(before) - 1, of pairs; `before` must not be all zero."""
    one, two = np.asarray(before, np.float64), np.asarray(after, np.float64)
    parts = [_growth_of(one[places], two[places]) for places in _places(len(one), seed, resamples)]
    growths, errors = (np.concatenate(part) for part in zip(*parts, strict=True))
    left_out = -_growth(one.sum() - one, two.sum() - two)  # the jackknife: an image that raises the ratio lowers these
    acceleration = _skew(left_out) if np.isfinite(left_out).all() else 0.0
    estimate, error = (float(each[0]) for each in _growth_of(one[None], two[None]))
    return _studentized(Bootstrap(estimate, growths, len(one), acceleration, error=error), errors)


def of_precision_drop(first: Array, second: Array, truth: Array, *, seed: int, resamples: int = 0) -> Bootstrap:
    """Mean average precision of `first` less that of `second`, both scores (n, labels); truth: (n, labels) of 0 and 1.

    Labels without a positive in a resample are left out of it, for both. Labels without any are left out throughout.
    """
    truth = np.asarray(truth, bool)
    known, count = np.flatnonzero(truth.any(axis=0)), len(truth)
    resamples = resamples or FEWEST_RESAMPLES  # each ranks all images anew for each label and model
    ranked = [[_Ranked.of(scores[:, label], truth[:, label]) for label in known] for scores in (first, second)]

    def drop(weights: Array) -> Floats:
        lost = np.stack([one.precision(weights) - two.precision(weights) for one, two in zip(*ranked, strict=True)])
        there = ~np.isnan(lost)  # a label without a positive in a resample is so for both
        labels = there.sum(axis=0)
        summed = np.where(there, lost, 0).sum(axis=0)
        mean: Floats = np.divide(summed, labels, out=np.full(len(summed), np.nan), where=labels > 0)
        return mean

    draws = np.concatenate([drop(_counts(places)) for places in _places(count, seed, resamples)])
    estimate = float(drop(np.ones((count, 1), np.float32))[0])
    positives = float(truth[:, known].sum(axis=0).mean())
    return Bootstrap(estimate, np.sort(draws[~np.isnan(draws)]), count, positives=positives)


@dataclass(frozen=True)
class _Ranked:
    """One label's images by falling score, cut behind each run of equal scores that holds a positive.

    order: images up to the last cut. starts: where each piece between cuts begins. positives: images that hold the
    label, in order; lasts: place in these of each piece's last one.
    """

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    positives: NDArray[np.intp]
    lasts: NDArray[np.intp]

    @classmethod
    def of(cls, scores: Array, truth: Array) -> _Ranked:
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
        held = np.flatnonzero(truth[order])
        runs = np.searchsorted(ends, held)  # the run of equal scores each positive is in
        cuts, counts = np.unique(runs, return_counts=True)
        starts = np.concatenate([[0], ends[cuts[:-1]] + 1])
        return cls(order[: ends[cuts[-1]] + 1], starts, order[held], np.cumsum(counts) - 1)

    def precision(self, weights: Array) -> Floats:
        """Average precision (no interpolation; equal scores are one step) for each column of weights (n, resamples)."""
        right = np.cumsum(weights[self.positives], axis=0)[self.lasts]  # whole numbers: exact in float32 up to 2**24
        seen = np.cumsum(np.add.reduceat(weights[self.order], self.starts, axis=0), axis=0)
        precision = np.divide(right, seen, out=np.zeros_like(right), where=seen > 0)
        total = right[-1].astype(np.float64)
        summed = (np.diff(right, axis=0, prepend=0) * precision).sum(axis=0, dtype=np.float64)
        average: Floats = np.divide(summed, total, out=np.full_like(total, np.nan), where=total > 0)
        return average


def _places(count: int, seed: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Images of each resample, (some, count) at a time."""
    resamples = resamples or int(np.clip(_DRAWN // count, FEWEST_RESAMPLES, MOST_RESAMPLES))
    rng, step = np.random.default_rng(seed), max(1, _CHUNK // count)
    for start in range(0, resamples, step):
        yield rng.integers(0, count, (min(step, resamples - start), count))


def _counts(places: NDArray[np.int64]) -> Array:
    """How often each image is in each resample, (images, resamples) float32."""
    size, count = places.shape
    flat = np.bincount((places * size + np.arange(size)[:, None]).ravel(), minlength=size * count)
    return flat.reshape(count, size).astype(np.float32)


def _t_quantile(z: float, freedom: float) -> float:
    """Student's t where a normal deviate is z (Abramowitz & Stegun 26.7.5, first two terms)."""
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _skew(influence: Floats) -> float:
    """Acceleration (Efron 1987, equation 7.3) from each image's influence, up to a constant and a factor."""
    spread = influence - influence.mean()
    squares = float(np.sum(spread**2))
    return float(np.sum(spread**3)) / (6 * squares**1.5) if squares > 0 else 0.0


def _mean(rows: Floats) -> tuple[Floats, Floats]:
    """Mean and its standard error of each row."""
    return rows.mean(axis=1), rows.std(axis=1) / math.sqrt(max(1, rows.shape[1] - 1))


def _growth_of(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Growth of the mean and its standard error (linearised: Cochran, Sampling Techniques, section 6.3) of each row."""
    sums = before.sum(axis=1)
    growth = _growth(sums, after.sum(axis=1))
    rest = np.square(after - np.where(np.isfinite(growth), 1 + growth, 0.0)[:, None] * before).sum(axis=1)
    count = before.shape[1]
    scale = np.sqrt(rest * count / max(1, count - 1))
    return growth, np.divide(scale, sums, out=np.zeros_like(scale), where=sums > 0)


def _studentized(found: Bootstrap, errors: Floats) -> Bootstrap:
    """With its draws sorted, and their deviations where these are finite for enough of them to tell a tail."""
    there = (errors > 0) & np.isfinite(found.draws)
    if there.mean() < STUDENTIZED or not math.isfinite(found.estimate):
        return replace(found, draws=np.sort(found.draws))
    deviations = (found.draws[there] - found.estimate) / errors[there]
    return replace(found, draws=np.sort(found.draws), deviations=np.sort(deviations))


def _growth(before: Floats, after: Floats) -> Floats:
    worse = np.where(after > 0, np.inf, 0.0)  # from nothing to something; from nothing to nothing
    growth: Floats = np.divide(after, before, out=worse + 1.0, where=before > 0) - 1
    return growth
