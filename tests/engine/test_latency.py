"""Estimators on samples whose statistics are plain to see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from toolkit.engine.latency import estimate, pooled_interval, processes_needed, quantiles, stable, typical_interval

MS = 1_000_000
FAST = np.array([1, 2, 3, 4, 5]) * MS  # median 3
SLOW = np.array([5, 6, 7, 8, 9]) * MS  # median 7
MIDDLE = np.array([2, 3, 3, 4, 8]) * MS  # median 3


def test_p50_is_the_smallest_median_p90_a_typical_processes_and_p99_pooled() -> None:
    found = estimate([SLOW, FAST])
    assert found.p50 == 3
    assert found.least == 1
    assert found.p5 == pytest.approx(1.2)  # 5th percentile of 1..5, linear
    assert found.p90 == pytest.approx((4.6 + 8.6) / 2)  # of 1..5 and of 5..9, linear: a typical process's
    assert found.p99 == pytest.approx(8.91)  # of 1 2 3 4 5 5 6 7 8 9: rank 8.91
    assert (found.samples, found.processes, found.stable) == (10, 2, False)


@pytest.mark.parametrize(
    ("medians", "expected"),
    [([3.0], False), ([3.0, 3.05], True), ([3.0, 3.06, 9.0], True), ([3.0, 3.07], False), ([9.0, 3.0, 3.01], True)],
)
def test_stable_when_a_second_process_found_the_fast_state(medians: list[float], expected: bool) -> None:
    assert stable(medians) is expected


def test_quantiles_are_of_each_process() -> None:
    assert quantiles([SLOW, FAST], 50) == (7.0, 3.0)
    assert quantiles([FAST], 90) == (pytest.approx(4.6),)


@pytest.mark.parametrize("count", [6, 8, 11, 16, 30])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_typical_interval_leaves_out_as_many_as_the_sign_test_allows(count: int, confidence: float) -> None:
    """The binomial distribution by scipy: at most k of n on one side of the median."""
    found = typical_interval(list(range(count)), confidence)
    level = (1 - confidence) / 2
    allowed = [k for k in range(count) if stats.binom.cdf(k, count, 0.5) <= level]
    if not allowed:
        assert not found.enough
        assert (found.low, found.high) == (0, count - 1)
        return
    assert (found.low, found.high) == (allowed[-1], count - 1 - allowed[-1])
    assert found.confidence == pytest.approx(1 - 2 * stats.binom.cdf(allowed[-1], count, 0.5))
    assert found.confidence >= confidence


def test_too_few_processes_say_so_and_what_confidence_they_have() -> None:
    found = typical_interval([3.0, 1.0, 2.0, 5.0, 4.0], 0.95)
    assert (found.low, found.high, found.enough) == (1.0, 5.0, False)
    assert found.confidence == pytest.approx(1 - 2 / 32)
    assert typical_interval([3.0], 0.95).confidence == 0.0


@pytest.mark.parametrize(("confidence", "needed"), [(0.95, 6), (0.9375, 5), (0.995, 9), (0.5, 2), (0.51, 3)])
def test_fewest_processes_are_those_whose_ends_hold(confidence: float, needed: int) -> None:
    assert processes_needed(confidence) == needed
    assert typical_interval(range(needed), confidence).enough
    assert not typical_interval(range(needed - 1), confidence).enough


def test_pooled_interval_spans_the_processes_and_is_seeded() -> None:
    low, high = pooled_interval([FAST, SLOW], 50, 0.95)
    assert (low, high) == (3.0, 7.0)  # both redrawn alike: the median of one process alone
    assert pooled_interval([FAST, FAST], 50, 0.95) == (3.0, 3.0)
    assert pooled_interval([FAST, SLOW, MIDDLE], 90, 0.9) == pooled_interval([FAST, SLOW, MIDDLE], 90, 0.9)
