"""One file run for minutes: every inference's time, and beside it what clocks, temperatures and power did meanwhile.

Sensors are read between inferences, never inside one; the time that takes is idle time of the model, and is told.
"""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional, Tuple

import common
import numpy
import sensors

SAMPLE_S = 1.0  # between readings of the sensors
POWER_S = 0.1  # between readings of power: what hwmon drivers renew theirs in


def run(runner: Any, job: Dict[str, Any]) -> Dict[str, Any]:
    """The series; all times go to the .npy file the job names: (n, 2) int64, nanoseconds.

    job: seconds, idle_seconds (of rest before, for idle power), samples (path). No warm-up: heating up is the point.
    """
    found, meter = sensors.Sensors(job.get("root", "/")), sensors.meter(job.get("root", "/"))
    idle = _rest(meter, job.get("idle_seconds", 0.0))
    times, rows, spent = _loop(runner, job["seconds"], found, meter)
    numpy.save(job["samples"], numpy.asarray(times, dtype=numpy.int64).reshape(-1, 2))
    energy = sensors.described(meter) if meter else None
    return {
        "series": rows,
        "units": found.units(),
        "lost": dict(found.lost, **{meter.name: meter.lost} if meter and meter.lost else {}),
        "inferences": len(times),
        "sensor_seconds": spent,
        "energy": energy,
        "idle": idle,
    }


def _rest(meter: Optional[sensors.Meter], seconds: float) -> Optional[Dict[str, Any]]:
    """Power with nothing running."""
    if meter is None or seconds <= 0:
        return None
    meter.start()
    stop = time.monotonic() + seconds
    while time.monotonic() < stop and not meter.lost:
        time.sleep(POWER_S)
        meter.tick()
    found: Dict[str, Any] = sensors.described(meter)
    return found


def _loop(
    runner: Any, seconds: float, found: sensors.Sensors, meter: Optional[sensors.Meter]
) -> Tuple[List[Tuple[int, int]], List[Dict[str, Any]], float]:
    """(start, length) of every inference, what the sensors said, seconds spent on asking them."""
    invoke, clock = runner.invoke, time.perf_counter_ns
    times: List[Tuple[int, int]] = []
    rows: List[Dict[str, Any]] = [{"t_s": 0.0, "values": found.sample()}]
    if meter is not None:
        meter.start()
    start = clock()
    stop, spent = start + int(seconds * 1e9), 0
    next_row, next_power = start + int(SAMPLE_S * 1e9), start + int(POWER_S * 1e9)
    now = start
    while now < stop or len(times) < 2:
        before = clock()
        invoke()
        now = clock()
        times.append((before - start, now - before))
        if meter is not None and now >= next_power:
            meter.tick()
            next_power = now + int(POWER_S * 1e9)
        if now >= next_row or now >= stop:
            rows.append({"t_s": (now - start) / 1e9, "values": found.sample()})
            next_row = now + int(SAMPLE_S * 1e9)
        after = clock()
        spent += after - now
        now = after
    if meter is not None:
        meter.tick()
    return times, rows, spent / 1e9


def with_facts(runner: Any, job: Dict[str, Any]) -> Dict[str, Any]:
    """`run` on seeded noise, and what ran."""
    runner.set_inputs({})
    result = run(runner, job)
    result.update(runner.facts())
    result["batch"] = common.batch(job)
    return result
