"""Latency from the samples of several processes, by estimators that hold on a shared host.

One process's median varies by half there: a slow state lasts seconds. The smallest of the processes' medians varies by
2-4% with eight processes. It compares models, and it hides throttling.
"""

from __future__ import annotations

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
    """Milliseconds. p50: smallest median of a process; p5: smallest 5th percentile; p90, p99: over all samples."""

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
    p90, p99 = np.percentile(pooled, (90, 99))
    return Estimate(
        p50=min(medians) / 1e6,
        p5=min(float(np.percentile(samples, 5)) for samples in processes) / 1e6,
        p90=float(p90) / 1e6,
        p99=float(p99) / 1e6,
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


def p50_interval(processes: Sequence[Array]) -> tuple[float, float]:
    """Milliseconds: from the least 5th percentile of a process to the second smallest median (the only one, if one).

    A range and no confidence interval: the fast state's own inferences below, the next process that found it above.
    What the host did all the time it was watched is in neither.
    """
    medians = sorted(float(np.median(samples)) for samples in processes)
    low = min(float(np.percentile(samples, 5)) for samples in processes)
    return low / 1e6, medians[min(1, len(medians) - 1)] / 1e6


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
