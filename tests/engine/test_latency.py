"""Estimators on samples whose statistics are plain to see."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.engine.latency import estimate, p50_interval, pooled_interval, stable

MS = 1_000_000
FAST = np.array([1, 2, 3, 4, 5]) * MS  # median 3
SLOW = np.array([5, 6, 7, 8, 9]) * MS  # median 7
MIDDLE = np.array([2, 3, 3, 4, 8]) * MS  # median 3


def test_p50_is_the_smallest_median_and_tails_are_pooled() -> None:
    found = estimate([SLOW, FAST])
    assert found.p50 == 3
    assert found.least == 1
    assert found.p5 == pytest.approx(1.2)  # 5th percentile of 1..5, linear
    assert found.p90 == pytest.approx(8.1)  # of 1 2 3 4 5 5 6 7 8 9: rank 8.1
    assert (found.samples, found.processes, found.stable) == (10, 2, False)


@pytest.mark.parametrize(
    ("medians", "expected"),
    [([3.0], False), ([3.0, 3.05], True), ([3.0, 3.06, 9.0], True), ([3.0, 3.07], False), ([9.0, 3.0, 3.01], True)],
)
def test_stable_when_a_second_process_found_the_fast_state(medians: list[float], expected: bool) -> None:
    assert stable(medians) is expected


def test_p50_range_ends_at_the_second_smallest_median() -> None:
    assert p50_interval([SLOW, FAST, MIDDLE]) == (pytest.approx(1.2), 3.0)
    assert p50_interval([FAST]) == (pytest.approx(1.2), 3.0)


def test_pooled_interval_spans_the_processes_and_is_seeded() -> None:
    low, high = pooled_interval([FAST, SLOW], 50, 0.95)
    assert (low, high) == (3.0, 7.0)  # both redrawn alike: the median of one process alone
    assert pooled_interval([FAST, FAST], 50, 0.95) == (3.0, 3.0)
    assert pooled_interval([FAST, SLOW, MIDDLE], 90, 0.9) == pooled_interval([FAST, SLOW, MIDDLE], 90, 0.9)
