"""Latency from the samples of several processes, by estimators that hold on a shared host.

One process's median varies by half there: a slow state lasts seconds. The smallest of the processes' medians varies by
2-4% with eight processes. It compares models, and it hides throttling. What is judged is a typical process: the median
of all that could be started, within limits that order statistics of those that were give (Conover, Practical
Nonparametric Statistics, section 3.2). They suppose nothing of the distribution, so that slow states and outliers do no
harm, and processes need not be alike: drift makes the limits wider than they need be (Hoeffding, Annals of Mathematical
Statistics 27, 1956). They suppose that one process tells nothing of the next, which holds where these are further
apart than a slow state lasts, as interleaved files are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
AGREE = 0.02  # the two smallest medians of a stable measurement differ by less
RESAMPLES = 500


@dataclass(frozen=True)
class Estimate:
    """Milliseconds. p50, p5: smallest of a process's; p90: median of the processes'; p99, least: over all samples."""

    p50: float
    p5: float
    p90: float
    p99: float
    least: float
    samples: int
    processes: int
    stable: bool


def estimate(processes: Sequence[Array]) -> Estimate:
    """Of raw samples in nanoseconds, one array for each process."""
    medians = [float(np.median(samples)) for samples in processes]
    pooled = np.concatenate([np.asarray(samples, dtype=np.float64) for samples in processes])
    p90 = np.median([np.percentile(samples, 90) for samples in processes])
    return Estimate(
        p50=min(medians) / 1e6,
        p5=min(float(np.percentile(samples, 5)) for samples in processes) / 1e6,
        p90=float(p90) / 1e6,
        p99=float(np.percentile(pooled, 99)) / 1e6,
        least=float(pooled.min()) / 1e6,
        samples=len(pooled),
        processes=len(processes),
        stable=stable(medians),
    )


def stable(medians: Sequence[float]) -> bool:
    """Whether the two smallest medians agree within 2%: a second process found the same fast state."""
    if len(medians) < 2:
        return False
    first, second = sorted(medians)[:2]
    return second <= first * (1 + AGREE)


@dataclass(frozen=True)
class Typical:
    """Limits of a typical process's number. confidence: that both hold; enough: at least as much as was asked for."""

    low: float
    high: float
    confidence: float
    enough: bool


def quantiles(processes: Sequence[Array], percent: float) -> tuple[float, ...]:
    """Milliseconds: this percentile of each process's samples."""
    return tuple(float(np.percentile(samples, percent)) / 1e6 for samples in processes)


def typical_interval(values: Sequence[float], confidence: float) -> Typical:
    """Limits of the median of what one process gives, from one value of each process.

    Each end leaves out as many of the values beyond it as the confidence allows: none of 8 at 0.95, 3 of 16. Fewer than
    `processes_needed` give the least and the largest value, `enough` false, and the lower confidence these have.
    """
    ordered, count = sorted(values), len(values)
    left_out = _left_out(count, (1 - confidence) / 2)
    held = 1 - 2 * _below(count, max(left_out, 0))
    place = max(left_out, 0)
    return Typical(ordered[place], ordered[count - 1 - place], max(held, 0.0), left_out >= 0)


def processes_needed(confidence: float) -> int:
    """The fewest processes whose least and largest value hold a typical one's with this confidence."""
    return max(2, math.ceil(round(-math.log2((1 - confidence) / 2), 9)))


def _left_out(count: int, level: float) -> int:
    """Most values beyond an end such that it is wrong no more often than `level`; -1 where even none is too many."""
    return next((number - 1 for number in range(count + 1) if _below(count, number) > level), count)


def _below(count: int, number: int) -> float:
    """How often at most `number` of `count` values lie on one side of their distribution's median."""
    return float(sum(math.comb(count, each) for each in range(number + 1)) / 2**count)


def pooled_interval(
    processes: Sequence[Array], percent: float, confidence: float, seed: int = 0
) -> tuple[float, float]:
    """Milliseconds: bootstrap interval of a percentile of all samples, whole processes redrawn (they differ most)."""
    rng = np.random.default_rng(seed)
    # a thousand samples of each process carry its percentile; redrawing all of them would only take longer
    thinned = [np.sort(samples)[:: max(1, len(samples) // 1000)] for samples in processes]
    chosen = rng.integers(0, len(thinned), (RESAMPLES, len(thinned)))
    found = [np.percentile(np.concatenate([thinned[i] for i in row]), percent) for row in chosen]
    low, high = np.quantile(found, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low) / 1e6, float(high) / 1e6
