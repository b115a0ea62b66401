"""Latency over minutes: what a device holds once it is warm, and what its clocks and temperatures did meanwhile.

A device's own limit (a frame budget) is judged on quantiles of all samples of such a run: best-of estimators, which
compare files, hide throttling.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checks.latency import TIMEOUT_S, how_it_ran, job
from toolkit.core import Artifact, Interval, Measurement, MeasureSpec, Session
from toolkit.devices import DeviceProfile
from toolkit.errors import UnavailableError

if TYPE_CHECKING:
    from toolkit.core import Array

BLOCKS = 20  # of the run, redrawn whole for its intervals: neighbours in time are alike
CONFIDENCE = 0.95
METHOD = "bootstrap of twenty blocks of time"
NO_ENERGY = "energy was not measured: no sensor of power can be read there"
LOST = "was lost on the way"
IDLE_S = 10.0  # of rest before the run, where power can be read
MOST_POINTS = 600  # of the series that is kept, one a second for ten minutes


@dataclass(frozen=True)
class Sustained:
    """measurements; series: {"t_s", "p50_ms", sensor: value}, a row an interval; notes: what was lost or not there."""

    measurements: tuple[Measurement, ...]
    series: tuple[dict[str, float], ...]
    units: Mapping[str, str]
    notes: tuple[str, ...]


def measure(
    artifact: Artifact,
    session: Session,
    spec: MeasureSpec,
    profile: DeviceProfile,
    *,
    runtime: tuple[str, str],
    minutes: float,
    samples: Path,
) -> Sustained:
    """Run one artifact for so long, without pause. All times go to `samples/<artifact>@<device>.sustained.npy`."""
    import numpy as np

    if not profile.python:
        raise UnavailableError(profile.name, "has no Python, which sustained runs need", "bench it without --sustained")
    seconds = minutes * 60
    there = f"{session.folder()}/sustained.npy"
    asked = job("sustain", artifact, session, spec, runtime)
    asked |= {"seconds": seconds, "idle_seconds": min(IDLE_S, seconds / 4), "samples": there}
    with session.alone():
        found = session.run(asked, timeout_s=seconds + TIMEOUT_S)
    kept = samples / f"{artifact.name}@{profile.name}.sustained.npy"
    session.pull(there, kept)
    times = np.load(kept)
    how = {**how_it_ran(found, runtime[0], spec), "minutes": round(minutes, 3), "samples": len(times), **profile.how}
    rows = [*_times(times), *_energy(found, len(times) * spec.batch)]
    source, name = profile.provenance, profile.name
    measured = tuple(
        Measurement(artifact.name, title, value, unit, source, name, interval, {**how, **more})
        for title, value, unit, interval, more in rows
    )
    series = tuple(_series(times, found["series"]))
    (samples / f"{artifact.name}@{name}.sustained.json").write_text(
        json.dumps({"units": found["units"], "series": series})
    )
    return Sustained(measured, series, found["units"], tuple(_notes(found)))


def _times(times: Array) -> Iterator[tuple[str, float, str, Interval | None, dict[str, str]]]:
    """Quantiles of all samples, and the medians of the first and last tenth of the time."""
    import numpy as np

    from toolkit.engine.latency import pooled_interval

    blocks = by_time(times, BLOCKS)
    for percent in (50, 90, 99):
        value = float(np.percentile(times[:, 1], percent)) / 1e6
        interval = Interval(*pooled_interval(blocks, percent, CONFIDENCE), CONFIDENCE, METHOD)
        yield f"sustained_p{percent}_ms", value, "ms", interval, {"estimator": "all samples of one run"}
    tenths = by_time(times, 10)
    first, last = (float(np.median(part)) / 1e6 for part in (tenths[0], tenths[-1]))
    yield "sustained_last_p50_ms", last, "ms", None, {"estimator": "median of the last tenth of the time"}
    words = "median of the last tenth of the time / of the first"
    yield "sustained_slowdown", last / first, "", None, {"estimator": words}


def by_time(times: Array, parts: int) -> list[Array]:
    """Lengths of the inferences that began in each of so many equal stretches of time; empty ones are left out."""
    import numpy as np

    end = times[-1, 0] + times[-1, 1]
    index = np.minimum(times[:, 0] * parts // max(1, end), parts - 1)
    return [times[index == part, 1] for part in range(parts) if np.any(index == part)]


def _series(times: Array, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, float]]:
    """Median and 90th percentile between readings of the sensors, beside what they read at its end."""
    import numpy as np

    step = -(-len(rows) // MOST_POINTS)
    before = 0.0
    for row in rows[step::step]:
        chosen = times[(times[:, 0] >= before * 1e9) & (times[:, 0] < row["t_s"] * 1e9), 1]
        if len(chosen):
            p50, p90 = (float(value) / 1e6 for value in np.percentile(chosen, (50, 90)))
            yield {"t_s": round(row["t_s"], 3), "p50_ms": p50, "p90_ms": p90, **row["values"]}
        before = row["t_s"]


def _energy(
    found: Mapping[str, Any], inferences: int
) -> Iterator[tuple[str, float, str, Interval | None, dict[str, Any]]]:
    """Of an image, with all the sensor sees, and beyond what it sees at rest."""
    work, idle = found.get("energy"), found.get("idle")
    if not work or not work["samples"] or any(name == work["sensor"] for name in found["lost"]):
        return
    rest = idle["milliwatts"] if idle else None
    told = {
        "sensor": work["sensor"],
        "kind": work["kind"],
        "rate_hz": round(work["rate_hz"], 2),
        "idle_mw": "not measured" if rest is None else round(rest, 1),
        "estimator": "energy of the whole run / images",
    }
    yield "energy_per_inference_mj", work["millijoules"] / inferences, "mJ", None, told
    if rest is not None:
        net = (work["millijoules"] - rest * work["seconds"]) / inferences
        yield "energy_per_inference_net_mj", net, "mJ", None, told


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
    """What the sensors tell in words: throttling, a clock that fell, sensors lost or never there."""
    rows, units = found["series"], found["units"]
    for name in sorted(units):
        values = [(row["t_s"], row["values"][name]) for row in rows if name in row["values"]]
        if values and name.startswith("throttling:"):
            yield _braked(name.partition(":")[2], values)
        elif values:
            seen, unit = [value for _, value in values], units[name]
            yield f"{name} {seen[0]:.0f} {unit} at first, {min(seen):.0f} to {max(seen):.0f}, {seen[-1]:.0f} at the end"
    for name, why in sorted(found["lost"].items()):
        yield f"{name} {LOST}: {why}"
    kinds = {name.partition(":")[0] for name in units}
    missing = [kind for kind in ("clock", "temperature", "throttling") if kind not in kinds]
    if missing:
        yield f"no sensor of {', '.join(missing)} can be read there: throttling shows in the latency alone"
    if not found.get("energy"):
        yield NO_ENERGY


def _braked(name: str, values: Sequence[tuple[float, float]]) -> str:
    held = [at for at, value in values if value]
    if not held:
        return f"{name}: no throttling seen"
    return f"{name} held the device back in {100 * len(held) / len(values):.0f}% of readings, first at {held[0]:.0f} s"
