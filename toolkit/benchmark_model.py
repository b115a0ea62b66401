"""TFLite's own `benchmark_model` on a device without Python: its command line, and what it prints.

It keeps no samples. Newer ones print the median and the 5th and 95th percentile, older ones only mean, least and
largest: what it does not print is not measured.
Pages: tensorflow/lite/tools/benchmark, README.md and benchmark_model.cc.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.checks import processes
from toolkit.core import Artifact, Completed, Interval, Measurement, MeasureSpec, Session
from toolkit.devices import DeviceProfile
from toolkit.errors import InputError, StageError, UnavailableError, UnsupportedError

MARGIN_S = 300.0  # beyond the timed seconds: loading, first inference
FEWEST_RUNS = 5
# node type, start (not in old ones), first, avg_ms, %, cdf%, mem KB, times called, name: both texts may hold commas
ROW = re.compile(
    r"^(?P<kind>.*?), (?:[\d.e+-]+, )?[\d.e+-]+, (?P<avg>[\d.e+-]+), "
    r"[\d.e+-]+%, [\d.e+-]+%, [\d.e+-]+, \d+, (?P<name>.*)$"
)
REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs:"
TIMINGS = re.compile(
    r"Inference timings in us: Init: ([\d.e+]+), First inference: ([\d.e+]+), "
    r"Warmup \(avg\): ([\d.e+]+), Inference \(avg\): ([\d.e+]+)"
)
COUNT = re.compile(r"\bcount=\d+ [^\n]*")
PEAK = re.compile(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([\d.]+)")
FOOTPRINT = re.compile(r"Memory footprint delta from the start of the tool \(MB\): init=([\d.]+) overall=([\d.]+)")
PARTITIONS = re.compile(
    r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\)[^\n]*? yielding (\d+) partitions"
)
REFUSED = re.compile(r"[Uu]nconsumed cmdline flags?: ([^\n]*)")
TAKEN = {"xnnpack": "true", "none": "false"}  # delegate -> --use_xnnpack


@dataclass(frozen=True)
class Timed:
    """One process, milliseconds. median, p5, p95: None where this benchmark_model does not print them."""

    count: int
    mean: float
    least: float
    largest: float
    deviation: float
    load: float
    first: float
    median: float | None
    p5: float | None
    p95: float | None
    footprint_mib: float | None
    kernels: str


@dataclass(frozen=True)
class OperatorTime:
    """One row of its profile by operator. share: 0..1 of all of them."""

    name: str
    kind: str
    share: float


def command(
    program: str,
    graph: str,
    spec: MeasureSpec,
    *,
    delegate: str,
    profile_to: str = "",
) -> list[str]:
    """Its command line. profile_to: file there for the profile by operator, which slows everything down."""
    if delegate not in TAKEN:
        raise UnsupportedError("benchmark_model", f"no option for delegate {delegate!r}", f"use {' or '.join(TAKEN)}")
    if spec.batch != 1:
        raise UnsupportedError("benchmark_model", f"is given no batch here, {spec.batch} was asked for", "use batch 1")
    options = {
        "graph": graph,
        "num_threads": spec.threads,
        "warmup_runs": 1,
        "warmup_min_secs": f"{spec.warmup_seconds:g}",
        "num_runs": FEWEST_RUNS,
        "min_secs": f"{spec.seconds:g}",
        "max_secs": f"{MARGIN_S / 2 + spec.seconds:g}",
        "use_xnnpack": TAKEN[delegate],
        "report_peak_memory_footprint": "true" if profile_to == "" else "false",
    }
    if profile_to:
        options |= {"enable_op_profiling": "true", "op_profiling_output_mode": "csv"}
        options |= {"op_profiling_output_file": profile_to}
    asked = [program, *(f"--{name}={value}" for name, value in options.items())]
    if spec.cores:
        mask = sum(1 << core for core in set(spec.cores))
        return ["taskset", f"{mask:x}", *asked]
    return asked


def parse(text: str, delegate: str = "xnnpack") -> Timed:
    """What one run printed; StageError where it holds no timing, saying what it holds instead."""
    timings, counts = TIMINGS.search(text), COUNT.findall(text)
    if not timings or not counts:
        raise StageError("benchmark_model", f"printed no timing: {_last(text)}")
    found = {key: float(value) for key, value in re.findall(r"(\w+)=([\d.e+-]+)", counts[-1])}  # the first: warm-up
    peak, footprint = PEAK.search(text), FOOTPRINT.search(text)

    def ms(name: str) -> float | None:
        return found[name] / 1000 if name in found else None

    return Timed(
        count=int(found["count"]),
        mean=found["avg"] / 1000,
        least=found["min"] / 1000,
        largest=found["max"] / 1000,
        deviation=found.get("std", math.nan) / 1000,
        load=float(timings[1]) / 1000,
        first=float(timings[2]) / 1000,
        median=ms("median"),
        p5=ms("p5"),
        p95=ms("p95"),
        footprint_mib=float(peak[1]) if peak else float(footprint[2]) if footprint else None,
        kernels=_kernels(text, delegate),
    )


def _kernels(text: str, delegate: str) -> str:
    """What computes; an error where the delegate that was asked for took nothing."""
    taken = PARTITIONS.findall(text)
    if delegate == "none":
        return "built-in kernels"
    if taken:
        nodes, of, name, partitions = taken[-1]
        return f"{name} ({nodes} of {of} nodes, {partitions} partitions)"
    if "XNNPACK delegate" in text or "XNNPack delegate" in text:
        return "XNNPACK (as benchmark_model says; how much of the file it does not)"
    raise UnavailableError("benchmark_model", "does not say that XNNPACK took any operator", "use delegate none")


def operators(text: str) -> tuple[OperatorTime, ...]:
    """The rows of its profile in CSV, in the order they ran; StageError where there are none."""
    tables = text.rpartition(REGULAR)[2]  # those of loading stand before
    first = tables.partition("Top by")[0]
    rows = [found for line in first.splitlines() if (found := ROW.match(line.strip()))]
    if not rows:
        raise StageError("benchmark_model", f"wrote no profile by operator: {_last(text)}")
    total = sum(float(row["avg"]) for row in rows)
    return tuple(
        OperatorTime(_name(i, row["name"], row["kind"]), row["kind"], float(row["avg"]) / total if total else 0.0)
        for i, row in enumerate(rows)
    )


def _name(place: int, name: str, kind: str) -> str:
    """`[model/conv/Relu]:3` is model/conv/Relu; what a delegate took has no name of its own."""
    inner = re.sub(r"^\[(.*)\](:\d+)?$", r"\1", name)
    return inner if inner and inner not in ("Delegate", "Builtin") else f"{place:02d} {kind}"


def run(artifact: Artifact, session: Session, spec: MeasureSpec, profile: DeviceProfile, delegate: str) -> Timed:
    """One process of it on the device."""
    asked = _asked(artifact, session, spec, profile, delegate=delegate)
    done = session.execute(asked, timeout_s=MARGIN_S + 10 * (spec.seconds + spec.warmup_seconds))
    return parse(_checked(artifact, profile, done), delegate)


def by_operator(
    artifact: Artifact, session: Session, spec: MeasureSpec, profile: DeviceProfile, delegate: str
) -> tuple[OperatorTime, ...]:
    """Each operator's share, in a run of its own."""
    there = f"{session.folder()}/profile.csv"
    asked = _asked(artifact, session, spec, profile, delegate=delegate, profile_to=there)
    _checked(artifact, profile, session.execute(asked, timeout_s=MARGIN_S + 10 * spec.seconds))
    return operators(session.execute(["cat", there], timeout_s=MARGIN_S).stdout)


def _asked(
    artifact: Artifact,
    session: Session,
    spec: MeasureSpec,
    profile: DeviceProfile,
    *,
    delegate: str,
    profile_to: str = "",
) -> list[str]:
    if artifact.format != "tflite":
        problem = f"has no Python, and benchmark_model runs .tflite files, not {artifact.format}"
        raise UnsupportedError(profile.name, problem, "set python in its profile")
    program = profile.benchmark_model
    return command(program, session.push(artifact.path), spec, delegate=delegate, profile_to=profile_to)


def _checked(artifact: Artifact, profile: DeviceProfile, done: Completed) -> str:
    text = f"{done.stdout}\n{done.stderr}"
    refused = REFUSED.search(text)
    if refused:
        raise UnavailableError(
            f"{profile.name}: benchmark_model", f"does not know {refused[1].strip()}", "take a newer one"
        )
    if done.returncode == 127 or "not found" in done.stderr or "No such file" in done.stderr.split("\n", 1)[0]:
        fix = "put TFLite's benchmark_model there, and its path in the profile (benchmark_model)"
        raise UnavailableError(f"{profile.name}: {profile.benchmark_model}", "is not there", fix)
    if done.returncode and done.stderr.startswith("taskset:"):
        problem = f"the cores that were asked for cannot be had: {_last(done.stderr)}"
        raise InputError(profile.name, problem, "give --cores, or measure.cores, that are there")
    if done.returncode:
        raise InputError(artifact.name, f"benchmark_model ended with exit code {done.returncode}: {_last(text)}")
    return text


def measurements(
    artifact: Artifact, results: Sequence[Timed], profile: DeviceProfile, *, how: Mapping[str, Any]
) -> Iterator[Measurement]:
    """What the processes said together; the best one's median is quoted, where it has one."""
    medians = sorted(found.median for found in results if found.median is not None)
    rows: list[tuple[str, float, str, Interval | None, str]] = []
    if medians:
        rows.append(("latency_p50_ms", medians[0], "ms", processes.interval(medians), "smallest median of a process"))
    rows += [
        ("latency_mean_ms", min(found.mean for found in results), "ms", None, "smallest mean of a process"),
        ("latency_min_ms", min(found.least for found in results), "ms", None, "all samples"),
        ("first_inference_ms", min(found.first for found in results), "ms", None, "smallest of the processes"),
        ("load_ms", min(found.load for found in results), "ms", None, "smallest of the processes"),
    ]
    p95 = [found.p95 for found in results if found.p95 is not None]
    if p95:
        rows.append(("latency_p95_ms", max(p95), "ms", None, "largest 95th percentile of a process"))
    memory = [found.footprint_mib for found in results if found.footprint_mib is not None]
    if memory:
        estimator = "largest of the processes; benchmark_model's own reading of the whole process"
        rows.append(("peak_rss_kib", max(memory) * 1024, "KiB", None, estimator))
    told = {
        **how,
        "tool": "benchmark_model",
        "kernels": results[0].kernels,
        "processes": len(results),
        "samples": sum(found.count for found in results),
        **profile.how,
    }
    for name, value, unit, interval, estimator in rows:
        source = profile.provenance
        how_it_was = {**told, "estimator": estimator}
        how_it_was |= processes.told(medians) if name == "latency_p50_ms" else {}
        yield Measurement(artifact.name, name, value, unit, source, profile.name, interval, how_it_was)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if line.startswith(("ERROR", "error", "Failed"))]
    told = (wrong or lines or ["nothing"])[-1][:200]
    return told if told.isprintable() else repr(told)
