"""Ranges of tensors from streams of values: what is collected of each, and five ways to choose a range from it.

A histogram has bins of width 2**k at multiples of that width. When the range outgrows it, k rises and bins are added
up, which is exact: what is collected depends on the values and not on their order, and its size not on their number.
Percentile and entropy: Migacz 2017, "8-bit inference with TensorRT"; Wu et al. 2020 (arXiv:2004.09602), section 5.
Moving average: Jacob et al. 2018 (arXiv:1712.05877), section 3.1. Mean squared error: Nagel et al. 2021
(arXiv:2106.08295), section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.quantization import RangeMethod

Array = NDArray[Any]
Histogram = NDArray[np.int64]
BINS = 4096  # at least half of them are in use: 8 or more for each of the 256 levels that entropy compares them with
DECAY = 0.95  # of the moving average, for each image: what ai-edge-quantizer's own calibration takes
CANDIDATES = 128  # thresholds that entropy tries, and ends of each side that mse does
NEEDS_HISTOGRAM: tuple[RangeMethod, ...] = ("percentile", "entropy", "mse")
EXPONENTS = (-126, 30)  # smallest of a normal float32; bits that an index may have, so that it is exact in int32
CACHED = 1 << 15  # values
UNSEEN = 1e-9  # probability that entropy gives what a candidate says cannot happen; 0 would make it infinitely bad


@dataclass(frozen=True)
class Collected:
    """What a Collector saw. low, high: least and greatest value; average: the moving average of both, by image.

    histogram: counts of bins number `start` + i, which are [number * width, (number + 1) * width); None where only
    ends were collected. zeros: values that are exactly 0, which integers hold without error. finite: all values are.
    """

    values: int
    low: float
    high: float
    average: tuple[float, float]
    finite: bool
    histogram: Histogram | None = None
    start: int = 0
    width: float = 0.0
    zeros: int = 0

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the histogram's bins, one more than there are bins."""
        bins = 0 if self.histogram is None else len(self.histogram)
        return (self.start + np.arange(bins + 1, dtype=np.float64)) * self.width

    def outside(self, low: float, high: float) -> float:
        """Share of the values that a range cuts off, as far as bins tell: a bin is outside when its middle is."""
        if low <= self.low and high >= self.high:
            return 0.0
        counts = self._counts()
        middles = np.clip(self.edges[:-1] + self.width / 2, self.low, self.high)
        inside = counts[(middles >= low) & (middles <= high)].sum()
        return 1.0 - float(inside) / max(self.values, 1)

    def _counts(self) -> Histogram:
        if self.histogram is None:
            raise ValueError("no histogram was collected")
        return self.histogram


class Collector:
    """Sees the values of one tensor batch by batch. histogram: False collects ends alone, which is faster."""

    def __init__(self, *, histogram: bool = True) -> None:
        self._low, self._high = math.inf, -math.inf
        self._average: tuple[float, float] | None = None
        self._finite, self._values, self._zeros = True, 0, 0
        self._counts = np.zeros(BINS, np.int64) if histogram else None
        self._start, self._exponent = 0, EXPONENTS[0]

    def add(self, values: Array) -> None:
        """Values of one image or more, (images, ...); images count for the moving average alone, in their order."""
        if not values.size:
            return
        rows = np.asarray(values, np.float32).reshape(len(values) if values.ndim else 1, -1)
        self.add_ends(rows.min(axis=1), rows.max(axis=1), rows.size)
        if self._counts is not None and self._finite:
            self._count(rows.reshape(-1), self._counts)

    def add_ends(self, lows: Array, highs: Array, values: int = 0) -> None:
        """Least and greatest value of each image, (images,) both, of so many values."""
        if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
            self._finite = False
            return
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True):
            a, b = self._average or (low, high)
            self._average = DECAY * a + (1 - DECAY) * low, DECAY * b + (1 - DECAY) * high
        self._values += values
        low, high = min(self._low, float(lows.min())), max(self._high, float(highs.max()))
        if (low, high) != (self._low, self._high):
            self._low, self._high = low, high
            self._widen()

    @property
    def finite(self) -> bool:
        """Whether all values so far are."""
        return self._finite

    @property
    def empty(self) -> bool:
        """Whether nothing was added yet."""
        return self._finite and self._average is None

    @property
    def places(self) -> tuple[float, float]:
        """(inverse, start): a value's place among the bins is floor(value * inverse) - start, all exact in float32."""
        return math.ldexp(1.0, -self._exponent), float(self._start)

    def add_counts(self, counts: Histogram, zeros: int) -> None:
        """Values counted elsewhere, by their places, in BINS + 1 bins, after their ends were added."""
        if self._counts is None:
            raise ValueError("no histogram is collected")
        self._counts += counts[:BINS]
        self._counts[-1] += counts[BINS]  # a tiny negative value underflows to the bin of 0
        self._values += int(counts.sum(dtype=np.int64))
        self._zeros += zeros

    def collected(self) -> Collected:
        """Everything so far; raises ValueError when nothing was added."""
        if self.empty:
            raise ValueError("nothing was collected")
        average = self._average or (math.nan, math.nan)
        counts = None if self._counts is None else self._counts.copy()
        width = math.ldexp(1.0, self._exponent)
        ends = (self._values, self._low, self._high, average, self._finite)
        return Collected(*ends, counts, self._start, width, self._zeros)

    def _widen(self) -> None:
        """Bins for the whole range, what was counted before added up in them."""
        if self._counts is None:
            return
        exponent = _exponent(self._low, self._high)
        start = math.floor(math.ldexp(self._low, -exponent))
        if (exponent, start) == (self._exponent, self._start):
            return
        used = np.flatnonzero(self._counts)
        places = ((self._start + used) >> min(exponent - self._exponent, 62)) - start
        counts = np.zeros(BINS, np.int64)
        np.add.at(counts, places, self._counts[used])
        self._counts, self._start, self._exponent = counts, start, exponent

    def _count(self, values: Array, counts: Histogram) -> None:
        """Add values to bins, a part that stays in the processor's cache at a time: twice as fast as all at once."""
        inverse, start = map(np.float32, self.places)
        numbers, places = np.empty(CACHED, np.float32), np.empty(CACHED, np.intp)
        for i in range(0, values.size, CACHED):
            part = values[i : i + CACHED]
            number, place = numbers[: part.size], places[: part.size]
            np.floor(np.multiply(part, inverse, out=number), out=number)
            place[:] = np.subtract(number, start, out=number)
            found = np.bincount(place, minlength=BINS)
            counts += found[:BINS]
            counts[-1] += found[BINS:].sum()  # a tiny negative value underflows to the bin of 0
            self._zeros += part.size - int(np.count_nonzero(part))


def resolve(
    collected: Collected, method: RangeMethod, percentile: float = 99.99, *, bits: int = 8
) -> tuple[float, float]:
    """(low, high): the range of a tensor, within its least and greatest value.

    minmax: these themselves. moving_average: that of each image's. percentile: holds this share of all values, in
    percent; the rest is cut evenly from both ends. entropy: the threshold around 0 that keeps most of the values'
    distribution on 2**bits levels. mse: the ends with the least mean squared error of rounding and clipping to them.

    Raises ValueError for values that were not finite, and where a method needs a histogram that was not collected.
    """
    if not collected.finite:
        raise ValueError("values are not finite")
    if method == "minmax" or collected.low == collected.high:
        return collected.low, collected.high
    if method == "moving_average":
        return collected.average
    if method == "percentile":
        low, high = _percentile(collected, percentile)
    elif method == "entropy":
        low, high = _entropy(collected, 2**bits)
    else:
        low, high = _mse(collected, 2**bits)
    return max(low, collected.low), min(high, collected.high)


def _exponent(low: float, high: float) -> int:
    """The least k for which BINS bins of width 2**k, at multiples of it, hold both ends."""
    largest = math.frexp(max(abs(low), abs(high)))[1]
    spread = math.frexp((high - low) / BINS)[1] - 1 if high > low else EXPONENTS[0]
    k = max(EXPONENTS[0], largest - EXPONENTS[1], spread)
    while math.floor(math.ldexp(high, -k)) - math.floor(math.ldexp(low, -k)) >= BINS:
        k += 1
    return k


def _percentile(collected: Collected, percentile: float) -> tuple[float, float]:
    """Where the share to cut has gone by from either end, linearly within a bin; of a gap its inner edge.

    In the outermost bin it is the end itself: what many values share (white pixels, 6 behind a ReLU6) is not cut off.
    """
    counts, edges = collected._counts(), collected.edges
    used = np.flatnonzero(counts)
    after = np.cumsum(counts[used])
    before, total = after - counts[used], after[-1]
    cut = (100 - percentile) / 200 * total
    i = int(np.searchsorted(after, cut, side="right"))
    j = int(np.searchsorted(before, total - cut, side="left")) - 1
    low = edges[used[i]] + (cut - before[i]) / counts[used[i]] * collected.width
    high = edges[used[j]] + (total - cut - before[j]) / counts[used[j]] * collected.width
    return float(low) if i else collected.low, float(high) if j < len(used) - 1 else collected.high


def _entropy(collected: Collected, levels: int) -> tuple[float, float]:
    """The threshold t for which the values clipped to -t..t differ least from what `levels` levels keep of them."""
    counts = collected._counts().copy()
    counts[-collected.start if collected.zeros else 0] -= collected.zeros  # any range holds 0 exactly
    first, last = np.flatnonzero(counts)[[0, -1]].tolist()
    counts, start, stop = counts[first : last + 1], collected.start + first, collected.start + last + 1
    widest, nearest = max(-start, stop), max(start, -stop, 0)  # in bins
    sides = (start < 0) + (stop > 0)
    narrowest = min(widest, nearest + -(-levels // sides))  # fewer bins than levels: nothing left to compare
    tried = np.unique(np.linspace(narrowest, widest, CANDIDATES).round().astype(int))[::-1].tolist()
    losses = [_divergence(counts, max(start, -t) - start, min(stop, t) - start, levels) for t in tried]
    threshold = tried[int(np.argmin(losses))] * collected.width  # of equals the widest
    return -threshold, threshold


def _divergence(counts: Histogram, left: int, right: int, levels: int) -> float:
    """Kullback-Leibler divergence of the values clipped to bins left..right-1 from those bins merged to `levels`."""
    inside = counts[left:right]
    group = np.arange(len(inside)) * levels // len(inside) if len(inside) > levels else np.arange(len(inside))
    held = np.bincount(group, inside) / np.maximum(np.bincount(group, inside > 0), 1)
    merged = np.where(inside > 0, held[group], 0.0)
    clipped = inside.astype(np.float64)
    clipped[0] += counts[:left].sum()
    clipped[-1] += counts[right:].sum()
    if not merged.sum():
        return math.inf
    some = clipped > 0
    p = clipped[some] / clipped.sum()
    q = np.maximum(merged[some] / merged.sum(), UNSEEN)
    return float((p * np.log(p / q)).sum())


def _mse(collected: Collected, levels: int) -> tuple[float, float]:
    """Of all pairs of ends: rounding costs step**2 / 12 for each value but 0, clipping its squared distance."""
    counts, middles = collected._counts(), collected.edges[:-1] + collected.width / 2
    used = counts > 0
    counts, middles = counts[used], middles[used]
    lows, highs = _ends(min(collected.low, 0.0)), _ends(max(collected.high, 0.0))
    under = np.maximum(lows[:, None] - middles, 0)
    over = np.maximum(middles - highs[:, None], 0)
    clipped = (under**2 @ counts)[:, None] + over**2 @ counts
    rounded = collected.values - collected.zeros - ((under > 0) @ counts)[:, None] - (over > 0) @ counts
    step = (highs - lows[:, None]) / (levels - 1)
    cost = np.where(step > 0, clipped + rounded * step**2 / 12, np.inf)
    i, j = np.unravel_index(np.argmin(cost), cost.shape)
    return float(lows[i]), float(highs[j])


def _ends(end: float) -> NDArray[np.float64]:
    """Ends between the outermost one, which comes first, and 0."""
    return np.array([0.0]) if end == 0 else end * np.arange(CANDIDATES, 0, -1) / CANDIDATES
