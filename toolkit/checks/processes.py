"""What several processes say of a latency: the limits of a typical one, and what a gate makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from toolkit.core import Interval, Measurement

CONFIDENCE = 0.95
EACH = "process_ms"  # in `how`: this number of each process
# measurements that gates judge -> percentile of a process's samples
PERCENTILES = MappingProxyType({"latency_p50_ms": 50, "latency_p90_ms": 90})
# how much slower a process may be than any that was seen, where these are too few to hold a typical one: measured on a
# shared host, a slow state lasts seconds and takes 1.5 to 1.75 times as long, and preemption makes a 90th percentile 10
# to 20 times the median
UNSEEN = MappingProxyType({"latency_p50_ms": 2.0, "latency_p90_ms": 20.0})


def each(raw: Sequence[Any], name: str) -> tuple[float, ...]:
    """What each process gave of a measurement that gates judge, in milliseconds, from its samples in nanoseconds."""
    from toolkit.engine.latency import quantiles

    return quantiles(raw, PERCENTILES[name])


def told(values: Sequence[float]) -> dict[str, list[float]]:
    """For `how`, to six digits."""
    return {EACH: [float(f"{value:.6g}") for value in values]}


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Of a typical process, with the confidence it has; the least value, which is quoted, is never left out."""
    from toolkit.engine.latency import typical_interval

    found = typical_interval(values, confidence)
    return Interval(min(values), found.high, found.confidence, f"order statistics of {_counted(values)}")


def judged(name: str, values: Sequence[float], confidence: float) -> tuple[Interval, str]:
    """The interval that a gate judges on, and why it is wider than what was seen, or "".

    Too few processes for this confidence leave room for a state of the host that none of them met (`UNSEEN`).
    """
    from toolkit.engine.latency import processes_needed, typical_interval

    found = typical_interval(values, confidence)
    method = f"order statistics of {_counted(values)}"
    if found.enough:
        return Interval(found.low, found.high, found.confidence, method), ""
    factor = UNSEEN[name]
    few = f"{_counted(values)} are too few for {100 * confidence:.4g}%, so {factor:g} times as fast or slow is "
    few += f"allowed for; {processes_needed(confidence)} would do without (measure.processes)"
    return Interval(found.low / factor, found.high * factor, confidence, f"{method}, x{factor:g} beyond"), few


def values_of(measurement: Measurement) -> tuple[float, ...]:
    """What each process gave, () where the measurement does not say."""
    return tuple(map(float, measurement.how.get(EACH, ())))


def _counted(values: Sequence[float]) -> str:
    return f"{len(values)} process{'es' * (len(values) != 1)}"
