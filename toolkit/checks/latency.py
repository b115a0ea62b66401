"""Latency of artifacts on one device: fresh processes, interleaved, until two of them agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import Artifact, Interval, Measurement, MeasureSpec, Progress, Session

if TYPE_CHECKING:
    from toolkit.engine.latency import Estimate

P50_RANGE = "range: least p5 to second smallest median of a process"
BOOTSTRAP = "bootstrap of processes"
CONFIDENCE = 0.95
MORE = 2  # times as many processes at most, for an artifact that is not stable
TIMEOUT_S = 300.0  # beside the job's own seconds: loading, first inference
BUILDING_S = 3600.0  # ... where the worker builds an engine first: many minutes on a small Jetson


def measure(  # one argument for each thing it needs, in the order they come to be
    artifacts: Sequence[Artifact],
    session: Session,
    spec: MeasureSpec,
    device: str,
    *,
    runtimes: Mapping[str, tuple[str, str]],
    samples: Path,
    emit: Callable[[Progress], None],
) -> tuple[Measurement, ...]:
    """Time every artifact; runtimes: artifact -> (runtime, delegate).

    Round r times one process of each artifact. After `spec.processes` rounds only artifacts whose two best medians
    differ by more than 2% go on, up to twice as many. Raw samples go to `samples/<artifact>@<device>.latency.npz`.
    """
    results: dict[str, list[dict[str, Any]]] = {artifact.name: [] for artifact in artifacts}
    rounds = spec.processes * MORE
    for artifact in artifacts:
        session.push(artifact.path)  # files travel before the host is taken
    with session.alone():
        emit(Progress(f"timing {len(artifacts)} file{'s' * (len(artifacts) != 1)} on {device}", keep=True))
        for number in range(rounds):
            todo = [
                artifact for artifact in artifacts if number < spec.processes or not _stable(results[artifact.name])
            ]
            for artifact in todo:
                emit(Progress(f"timing {artifact.name}, process {number + 1}", min(1.0, number / spec.processes)))
                results[artifact.name].append(_time(artifact, session, spec, runtimes[artifact.name]))
        emit(Progress(f"timed on {device}", keep=True))
    return tuple(
        measurement
        for artifact in artifacts
        for measurement in _measurements(artifact, results[artifact.name], device, samples)
    )


def _time(artifact: Artifact, session: Session, spec: MeasureSpec, runtime: tuple[str, str]) -> dict[str, Any]:
    job = {
        "kind": "bench",
        "runtime": runtime[0],
        "delegate": runtime[1],
        "threads": spec.threads,
        "seconds": spec.seconds,
        "warmup_seconds": spec.warmup_seconds,
        "seed": 0,
        "name": artifact.name,
        "model": session.push(artifact.path),
    }
    loading = BUILDING_S if "tensorrt" in runtime else TIMEOUT_S
    found = session.run(job, timeout_s=loading + 10 * (spec.seconds + spec.warmup_seconds))
    return {**found, "runtime": runtime[0]}


def _stable(results: Sequence[Mapping[str, Any]]) -> bool:
    from statistics import median

    from toolkit.engine.latency import stable

    return stable([median(result["samples_ns"]) for result in results])


def _measurements(
    artifact: Artifact, results: Sequence[Mapping[str, Any]], device: str, samples: Path
) -> tuple[Measurement, ...]:
    import numpy as np

    from toolkit.engine.latency import estimate, p50_interval, pooled_interval

    raw = [np.asarray(result["samples_ns"], dtype=np.int64) for result in results]
    np.savez_compressed(samples / f"{artifact.name}@{device}.latency.npz", *raw)
    found = estimate(raw)
    p50 = Interval(*p50_interval(raw), 0.0, P50_RANGE)
    p90 = Interval(*pooled_interval(raw, 90, CONFIDENCE), CONFIDENCE, BOOTSTRAP)
    how = _how(results[0], found)
    best = {name: min(result[name] for result in results) for name in ("load_ms", "first_inference_ms")}
    numbers = [
        ("latency_p50_ms", found.p50, "ms", p50, "smallest median of a process"),
        ("latency_p90_ms", found.p90, "ms", p90, "all samples"),
        ("latency_p99_ms", found.p99, "ms", None, "all samples"),
        ("latency_min_ms", found.least, "ms", None, "all samples"),
        ("latency_p5_ms", found.p5, "ms", None, "smallest 5th percentile of a process"),
        ("throughput_per_s", 1000 / found.p50, "1/s", None, "1 / latency_p50_ms"),
        ("first_inference_ms", best["first_inference_ms"], "ms", None, "smallest of the processes"),
        ("load_ms", best["load_ms"], "ms", None, "smallest of the processes"),
    ]
    arena = results[0].get("arena_bytes")
    if arena:
        numbers.append(("arena_kib", arena / 1024, "KiB", None, "span of the tensors under the built-in kernels"))
    own = [result["gpu_ms"] for result in results if result.get("gpu_ms")]  # of the GPU alone, by its own clock
    if own:
        least = min(own, key=lambda item: item["median"])
        estimator = f"smallest median of a process, {least['how']}"
        numbers += [
            ("gpu_compute_p50_ms", least["median"], "ms", None, estimator),
            (
                "gpu_compute_p99_ms",
                max(item["p99"] for item in own),
                "ms",
                None,
                f"largest of a process, {least['how']}",
            ),
        ]
    return tuple(
        Measurement(artifact.name, name, value, unit, "measured", device, interval, {**how, "estimator": estimator})
        for name, value, unit, interval, estimator in numbers
    )


def _how(result: Mapping[str, Any], found: Estimate) -> dict[str, Any]:
    return {
        "runtime": result["runtime"],
        "version": result["versions"].get(result["runtime"], ""),
        "threads": result["threads"],
        "delegate": result["delegate"],
        "kernels": result["kernel_path"],
        "batch": 1,
        "processes": found.processes,
        "samples": found.samples,
        "stable": found.stable,
    }
