"""Intervals and verdicts for paired and single proportions, and for means.

Every `confidence` is two-sided: at 0.95 each end of an interval is wrong at most about 2.5% of the time, so that
"PASS when the worst end is within the margin" is a one-sided test at (1 - confidence) / 2.

Wilson 1927 (JASA 22:209); Newcombe 1998 (Statistics in Medicine 17:2635, method 10); Tango 1998 (Statistics in
Medicine 17:891); bias-corrected and accelerated bootstrap, Efron 1987 (JASA 82:171).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]

PAIRED_METHOD = "outer limits of Newcombe 1998 (method 10) and Tango 1998, paired"
WILSON_METHOD = "Wilson 1927"


@dataclass(frozen=True)
class Paired:
    """How often two models were right on the same images: both, only the first, only the second, neither."""

    both: float
    only_first: float
    only_second: float
    neither: float

    @classmethod
    def of(cls, first: ArrayLike, second: ArrayLike) -> Paired:
        """Counts from two arrays of 0 and 1 (or bool), one entry an image, in the same order."""
        one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
        if one.shape != two.shape:
            raise ValueError(f"paired results differ in shape: {one.shape} and {two.shape}")
        counts = (one & two, one & ~two, ~one & two, ~one & ~two)
        return cls(*(int(np.count_nonzero(cell)) for cell in counts))

    @property
    def total(self) -> float:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def drop(self) -> float:
        """Share right of the first minus share right of the second."""
        return (self.only_first - self.only_second) / self.total


@dataclass(frozen=True)
class Limits:
    """Two ends of an interval: floats, or arrays where counts were arrays."""

    low: Any
    high: Any


def normal_quantile(confidence: float) -> float:
    """z such that a standard normal lies within +-z with this probability (1.96 at 0.95)."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: ArrayLike, total: ArrayLike, confidence: float) -> Limits:
    """Score interval of one proportion; successes and total may be arrays."""
    z, count = normal_quantile(confidence), np.asarray(total, dtype=np.float64)
    share = np.asarray(successes, dtype=np.float64) / count
    shrink = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / shrink
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / shrink
    return Limits(np.clip(centre - half, 0.0, share), np.clip(centre + half, share, 1.0))


def newcombe_paired(table: Paired, confidence: float) -> Limits:
    """Interval of `table.drop` by square-and-add of two Wilson intervals (method 10: corrected phi).

    Its upper end is too near when few images change sides (measured here: wrong 2 to 10 times as often as stated for
    a model right on 60% of images), its lower end is not; see `paired_interval`.
    """
    a, b, c, d = (np.asarray(cell, dtype=np.float64) for cell in _cells(table))
    total = a + b + c + d
    p1, p2 = (a + b) / total, (a + c) / total
    first, second = wilson(a + b, total, confidence), wilson(a + c, total, confidence)
    phi = _corrected_phi(a, b, c, d)
    down1, up1, down2, up2 = p1 - first.low, first.high - p1, p2 - second.low, second.high - p2
    low = p1 - p2 - np.sqrt(np.maximum(down1**2 - 2 * phi * down1 * up2 + up2**2, 0))
    high = p1 - p2 + np.sqrt(np.maximum(up1**2 - 2 * phi * up1 * down2 + down2**2, 0))
    return Limits(low, high)


def tango_paired(table: Paired, confidence: float) -> Limits:
    """Score interval of `table.drop`: the differences whose score test does not reject, by bisection.

    Its upper end keeps its level for a first model that is the better one; its lower end does not always.
    """
    _, b, c, _ = _cells(table)
    b, c, total = np.broadcast_arrays(*(np.asarray(cell, dtype=np.float64) for cell in (b, c, table.total)))
    z, estimate = normal_quantile(confidence), (b - c) / total
    high = _bisect(lambda drop: _tango_score(drop, b, c, total) + z, estimate, np.ones_like(total))
    low = _bisect(lambda drop: _tango_score(drop, b, c, total) - z, -np.ones_like(total), estimate)
    return Limits(low, high)


def paired_interval(table: Paired, confidence: float) -> Limits:
    """Interval of `table.drop`: the outer ends of Newcombe's and Tango's.

    Each of the two keeps its level at one end only where two models seldom disagree, which is the normal case of a
    compressed model and its original; together they do at both ends (tests/engine/test_statistics.py simulates it).
    """
    one, two = newcombe_paired(table, confidence), tango_paired(table, confidence)
    return Limits(np.minimum(one.low, two.low), np.maximum(one.high, two.high))


def bootstrap_mean(values: ArrayLike, confidence: float, *, seed: int, resamples: int = 10_000) -> Limits:
    """BCa interval of the mean of `values` (n,): for paired metrics that are not right-or-wrong.

    All values equal give an interval of no width: with a handful of images that says little.
    """
    sample = np.asarray(values, dtype=np.float64)
    mean, spread = float(sample.mean()), sample - sample.mean()
    squares = float(np.sum(spread**2))
    if squares == 0:
        return Limits(mean, mean)
    means = _resampled_means(sample, seed, resamples)
    normal = NormalDist()
    below = (np.count_nonzero(means < mean) + 0.5 * np.count_nonzero(means == mean)) / resamples
    bias = normal.inv_cdf(min(max(below, 1 / (resamples + 1)), resamples / (resamples + 1)))
    skew = float(np.sum(spread**3)) / (6 * squares**1.5)  # acceleration by the jackknife, in closed form for a mean
    z = normal_quantile(confidence)
    levels = [normal.cdf(bias + (bias + end) / (1 - skew * (bias + end))) for end in (-z, z)]
    low, high = np.quantile(means, levels)
    return Limits(float(low), float(high))


def non_inferiority(drop: Limits, margin: float) -> Outcome:
    """PASS when even the worst end of the loss is within the margin, FAIL when even the best end is not."""
    if drop.high <= margin:
        return "PASS"
    return "FAIL" if drop.low > margin else "INCONCLUSIVE"


def at_least(share: Limits, limit: float) -> Outcome:
    """PASS when the whole interval is at or above the limit, FAIL when wholly below."""
    if share.low >= limit:
        return "PASS"
    return "FAIL" if share.high < limit else "INCONCLUSIVE"


def bonferroni(confidence: float, comparisons: int) -> float:
    """Confidence of each of several intervals such that all hold together with `confidence`."""
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, got {comparisons}")
    return 1 - (1 - confidence) / comparisons


def images_needed(table: Paired, margin: float, confidence: float) -> int | None:
    """About how many images in all would put the interval of the drop on one side of the margin.

    Supposes that the shares stay as they are. None where they sit so near the margin that a million times the images
    would not tell. Exact to about 5%.
    """

    def decided(scale: Floats) -> Any:
        limits = paired_interval(Paired(*(cell * scale for cell in _cells(table))), confidence)
        return (limits.high <= margin) | (limits.low > margin)

    return _first_scale(decided, table.total)


def images_needed_share(successes: float, total: float, limit: float, *, confidence: float) -> int | None:
    """As `images_needed`, for one proportion against a limit (Wilson)."""

    def decided(scale: Floats) -> Any:
        share = wilson(successes * scale, total * scale, confidence)
        return (share.low >= limit) | (share.high < limit)

    return _first_scale(decided, total)


def images_needed_wide(value: float, limits: Limits, limit: float, images: float) -> int | None:
    """As `images_needed`, for any interval that narrows with the square root of the number of images."""
    side = float(limits.high) - value if value <= limit else value - float(limits.low)
    distance = abs(limit - value)
    if not math.isfinite(side) or distance * 1000 <= side:
        return None
    return math.ceil(images * (side / distance) ** 2)


def worst_of(tables: Paired, confidence: float) -> Limits:
    """Interval of the largest of several drops (a table of arrays): the largest low and the largest high end.

    Each drop has its share of the confidence (Bonferroni), so all hold together, and the largest drop then lies between
    the largest of each end.
    """
    limits = paired_interval(tables, bonferroni(confidence, int(np.size(tables.both))))
    return Limits(float(np.max(limits.low)), float(np.max(limits.high)))


def _first_scale(decided: Callable[[Floats], Any], total: float) -> int | None:
    scale = 2.0 ** (np.arange(0, 20 * 16 + 1) / 16)
    found = np.flatnonzero(decided(scale))
    return math.ceil(total * scale[found[0]]) if len(found) else None


def _cells(table: Paired) -> tuple[Any, Any, Any, Any]:
    return table.both, table.only_first, table.only_second, table.neither


def _corrected_phi(a: Floats, b: Floats, c: Floats, d: Floats) -> Floats:
    """Correlation of the two results; a positive one is reduced by n/2 in the numerator, but not below 0."""
    cross = a * d - b * c
    cross = np.where(cross > 0, np.maximum(cross - (a + b + c + d) / 2, 0), cross)
    scale = np.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    return np.divide(cross, scale, out=np.zeros_like(scale), where=scale > 0)


def _tango_score(drop: Floats, b: Floats, c: Floats, total: Floats) -> Floats:
    """Standardised b - c under the hypothesis that the true difference is `drop`; falls as `drop` rises."""
    linear = (2 * total - b + c) * drop - b - c
    constant = -c * drop * (1 - drop)
    share = (np.sqrt(np.maximum(linear**2 - 8 * total * constant, 0)) - linear) / (4 * total)  # likeliest share of c
    variance = total * (2 * share + drop * (1 - drop))
    excess = b - c - total * drop
    out = np.where(excess == 0, 0.0, np.copysign(np.inf, excess))
    return np.divide(excess, np.sqrt(np.maximum(variance, 0)), out=out, where=variance > 0)


def _bisect(falling: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    low, high = low.copy(), high.copy()
    for _ in range(50):  # 2 / 2**50: below the rounding of the shares themselves
        middle = (low + high) / 2
        positive = falling(middle) > 0
        low, high = np.where(positive, middle, low), np.where(positive, high, middle)
    return (low + high) / 2


def _resampled_means(sample: Floats, seed: int, resamples: int) -> Floats:
    """Means of samples drawn with replacement, some 4 million draws at a time."""
    rng, step = np.random.default_rng(seed), max(1, 4_000_000 // len(sample))
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate([sample[rng.integers(0, len(sample), (size, len(sample)))].mean(axis=1) for size in sizes])
