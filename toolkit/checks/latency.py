"""Latency of artifacts on one device: fresh processes, interleaved, until two of them agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from toolkit import benchmark_model, registry
from toolkit.checks import processes
from toolkit.core import Artifact, Interval, Measurement, MeasureSpec, Progress, Session
from toolkit.devices import DeviceProfile

if TYPE_CHECKING:
    from toolkit.engine.latency import Estimate

ARENA = "span of the tensors under the built-in kernels"
MORE = 2  # times as many processes at most, for an artifact that is not stable
TIMEOUT_S = 300.0  # beside the job's own seconds: loading, first inference
BUILDING_S = 3600.0  # ... where the worker builds an engine first: many minutes on a small Jetson

Row = tuple[str, float, str, Interval | None, str]  # name, value, unit, interval, estimator


def measure(  # one argument for each thing it needs, in the order they come to be
    artifacts: Sequence[Artifact],
    session: Session,
    spec: MeasureSpec,
    profile: DeviceProfile,
    *,
    runtimes: Mapping[str, tuple[str, str]],
    samples: Path,
    emit: Callable[[Progress], None],
    threads: Sequence[int] = (),
) -> tuple[Measurement, ...]:
    """Time every artifact; runtimes: artifact -> (runtime, delegate). threads: to sweep over, interleaved as files are.

    Round r times one process of each artifact. After `spec.processes` rounds only artifacts whose two best medians
    differ by more than 2% go on, up to twice as many. Raw samples go to `samples/<artifact>@<device>.latency.npz`.
    A device without Python is timed by TFLite's benchmark_model.
    """
    todo = [
        _Timed(artifact, spec.model_copy(update={"threads": count}), runtimes[artifact.name], profile)
        for artifact in artifacts
        for count in (threads or (spec.threads,))
    ]
    for artifact in artifacts:
        session.push(artifact.path)  # files travel before the host is taken
    with session.alone():
        emit(Progress(f"timing {len(artifacts)} file{'s' * (len(artifacts) != 1)} on {profile.name}", keep=True))
        for number in range(spec.processes * MORE):
            again = [item for item in todo if number < spec.processes or not item.stable()]
            for place, timed in enumerate(again):
                words = f", {timed.spec.threads} threads" if len(threads) > 1 else ""
                done = number % spec.processes  # those that go on are timed as often again
                share = (done + place / len(again)) / spec.processes
                emit(Progress(f"timing {timed.artifact.name}{words}, process {number + 1}", share))
                timed.run(session)
        emit(Progress(f"timed on {profile.name}", keep=True))
    return tuple(found for timed in todo for found in timed.measurements(samples, swept=len(threads) > 1))


def limit_s(runtime: tuple[str, str], spec: MeasureSpec) -> float:
    """How long a process may take: some runtimes build before they run."""
    loading = BUILDING_S if "tensorrt" in runtime else TIMEOUT_S
    return loading + 10 * (spec.seconds + spec.warmup_seconds)


def job(kind: str, artifact: Artifact, session: Session, spec: MeasureSpec, runtime: tuple[str, str]) -> dict[str, Any]:
    """A worker job on this artifact, the file pushed."""
    asked = {
        "kind": kind,
        "runtime": runtime[0],
        "delegate": runtime[1],
        "threads": spec.threads,
        "seconds": spec.seconds,
        "warmup_seconds": spec.warmup_seconds,
        "seed": 0,
        "name": artifact.name,
        "model": session.push(artifact.path),
    }
    if spec.batch != 1:
        asked["batch"] = spec.batch
    if spec.cores:
        asked["cores"] = list(spec.cores)
    return asked


def how_it_ran(result: Mapping[str, Any], runtime: str, spec: MeasureSpec) -> dict[str, Any]:
    """What stands beside a number that a worker gave."""
    told = {
        "runtime": runtime,
        "version": result["versions"].get(runtime, ""),
        "threads": result["threads"],
        "delegate": result["delegate"],
        "kernels": result["kernel_path"],
        "batch": spec.batch,
    }
    return {**told, "cores": ",".join(map(str, result.get("cores", spec.cores)))} if spec.cores else told


class _Timed:
    """One artifact with one number of threads, and what its processes said."""

    def __init__(self, artifact: Artifact, spec: MeasureSpec, runtime: tuple[str, str], profile: DeviceProfile) -> None:
        self.artifact, self.spec, self.runtime, self.profile = artifact, spec, runtime, profile
        self.results: list[dict[str, Any]] = []
        self.printed: list[benchmark_model.Timed] = []  # by benchmark_model

    def run(self, session: Session) -> None:
        """One more process."""
        if not self.profile.python:
            found = benchmark_model.run(self.artifact, session, self.spec, self.profile, self.runtime[1])
            self.printed.append(found)
            return
        asked = job("bench", self.artifact, session, self.spec, self.runtime)
        self.results.append(session.run(asked, timeout_s=limit_s(self.runtime, self.spec)))

    def stable(self) -> bool:
        """Whether two processes agree; what prints no median is never known to be."""
        from toolkit.engine.latency import stable

        if self.printed:
            return stable([found.mean if found.median is None else found.median for found in self.printed])
        return stable([median(result["samples_ns"]) for result in self.results])

    def measurements(self, samples: Path, *, swept: bool) -> Iterator[Measurement]:
        """All its numbers; the raw samples are written."""
        if self.printed:
            how = {"runtime": self.runtime[0], "threads": self.spec.threads, "delegate": self.runtime[1], "batch": 1}
            how |= {"cores": ",".join(map(str, self.spec.cores))} if self.spec.cores else {}
            how |= {"stable": self.stable()}
            yield from benchmark_model.measurements(self.artifact, self.printed, self.profile, how=how)
            return
        import numpy as np

        from toolkit.engine.latency import estimate

        raw = [np.asarray(result["samples_ns"], dtype=np.int64) for result in self.results]
        name = f"{self.artifact.name}@{self.profile.name}{f'.{self.spec.threads}-threads' if swept else ''}"
        np.savez_compressed(samples / f"{name}.latency.npz", *raw)
        found = estimate(raw)
        how = {
            **how_it_ran(self.results[0], self.runtime[0], self.spec),
            "processes": found.processes,
            "samples": found.samples,
            "stable": found.stable,
            **self.profile.how,
        }
        source, device = self.profile.provenance, self.profile.name
        timed = getattr(registry.load("runtimes", self.runtime[0]), "timed", True)
        rows = [*_times(raw, found, self.spec.batch), *_beside(self.results), *_gpu(self.results)]
        for title, value, unit, interval, estimator in rows:
            if not timed and title != "arena_kib":
                continue
            told = {**how, "estimator": estimator}
            told |= processes.told(processes.each(raw, title)) if title in processes.PERCENTILES else {}
            yield Measurement(self.artifact.name, title, value, unit, source, device, interval, told)


def _times(raw: Sequence[Any], found: Estimate, batch: int) -> Iterator[Row]:
    p50, p90 = (processes.interval(processes.each(raw, name)) for name in processes.PERCENTILES)
    images = "1" if batch == 1 else f"{batch} images"
    yield "latency_p50_ms", found.p50, "ms", p50, "smallest median of a process"
    yield "latency_p90_ms", found.p90, "ms", p90, "median of the processes' 90th percentiles"
    yield "latency_p99_ms", found.p99, "ms", None, "all samples"
    yield "latency_min_ms", found.least, "ms", None, "all samples"
    yield "latency_p5_ms", found.p5, "ms", None, "smallest 5th percentile of a process"
    yield "throughput_per_s", 1000 * batch / found.p50, "1/s", None, f"{images} / latency_p50_ms"


def _beside(results: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Loading, the first inference, and memory."""
    for name in ("first_inference_ms", "load_ms"):
        yield name, min(result[name] for result in results), "ms", None, "smallest of the processes"
    arena = results[0].get("arena_bytes")
    if arena:
        yield "arena_kib", arena / 1024, "KiB", None, results[0].get("arena_how", ARENA)
    peaks = [result["peak_rss_kib"] for result in results if result.get("peak_rss_kib")]
    if peaks:
        before = max(result.get("rss_before_kib", 0) for result in results)
        words = f"largest of the processes; of it {before:.0f} KiB are Python and libraries, before the file was loaded"
        yield "peak_rss_kib", float(max(peaks)), "KiB", None, words


def _gpu(results: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Of the GPU alone, by its own clock."""
    own = [result["gpu_ms"] for result in results if result.get("gpu_ms")]
    if own:
        least = min(own, key=lambda item: item["median"])
        how = least["how"]
        yield "gpu_compute_p50_ms", least["median"], "ms", None, f"smallest median of a process, {how}"
        yield "gpu_compute_p99_ms", max(item["p99"] for item in own), "ms", None, f"largest of a process, {how}"
