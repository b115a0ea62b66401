"""What trtexec says: its log, every sample of a timing, times by layer. Times are in milliseconds.

Formats and laws: samples/common/sampleReporting.cpp of NVIDIA/TensorRT (8.0 to 10.16).
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolkit.errors import InputError
from toolkit.tensorrt.trtexec import TimingSpec, version_from

ENQUEUE_BOUND = 0.8  # of the compute median: kENQUEUE_BOUND_REPORTING_THRESHOLD
UNSTABLE = 0.025  # of the mean; trtexec itself warns from 1 % on (8.4 to 10.9), which few unlocked GPUs keep to

LINE = re.compile(r"^(?:\[[\d/:. -]+\]\s*)?\[(?P<level>[IWEFV])\]\s?(?P<text>.*)$")
SUMMARY = re.compile(r"^(?P<name>[\w -]+?): min = ")
FIELD = re.compile(r"(?P<name>\w+(?:\([\d.]+%\))?) = (?P<value>[-+.\deE]+|-?nan|-?inf) ms")
SETTING = re.compile(
    r"^(?P<name>Data transfers|Spin-wait|CUDA Graph|Streams|Duration|Iterations|DLACore): ?(?P<value>.*)$"
)
NUMBER = r"[-+]?(?:nan|inf|[\d.]+(?:[eE][-+]?\d+)?)"
LAYER = re.compile(
    rf'\{{\s*"name"\s*:\s*"(?P<name>.*?)"\s*,\s*"timeMs"\s*:\s*(?P<time>{NUMBER})\s*,'
    rf'\s*"averageMs"\s*:\s*(?P<mean>{NUMBER})\s*,(?:\s*"medianMs"\s*:\s*(?P<median>{NUMBER})\s*,)?'
    rf'\s*"percentage"\s*:\s*(?P<share>{NUMBER})\s*\}}',
    re.DOTALL,
)
COUNT = re.compile(r'\{\s*"count"\s*:\s*(\d+)\s*\}')

FATAL = ("deserializ", "set up failed", "building engine failed", "failed to create engine", "unknown option")
# what an [E] line means for whoever asked: (part of the line, words)
MEANINGS = (
    ("Unknown option: --fp16", "TensorRT 11 has no precision options: the types are those of the ONNX file"),
    ("Unknown option: --int8", "TensorRT 11 has no precision options: the types are those of the ONNX file"),
    ("Unknown option: --stronglyTyped", "this TensorRT knows no such option: before 9 there was none, 11 is always so"),
    ("Unknown option", "this trtexec is of another version than the one that was asked"),
    ("Static model does not take explicit shapes", "the ONNX file has fixed shapes: build it without shapes"),
    ("not compatible with this version of TensorRT", "the engine is another TensorRT version's: build it here"),
    ("Version tag does not match", "the engine is another TensorRT version's: build it here"),
    ("incompatible device", "the engine is another GPU's: build it here"),
    ("engine plan file is generated on", "the engine is another GPU's: build it here"),
    ("Could not find any implementation", "no kernel for that layer in these types and this workspace"),
    ("Cannot create DLA engine", "the module has no such DLA core"),
    ("no CUDA-capable device", "no GPU is visible to this process"),
    ("out of memory", "the GPU's memory is full: a smaller workspace, or less beside it"),
    ("OutOfMemory", "the GPU's memory is full: a smaller workspace, or less beside it"),
    ("Could not open file", "the file is not there, or may not be read"),
    ("Error opening engine file", "the file is not there, or may not be read"),
)


@dataclass(frozen=True)
class Timing:
    """One inference. latency is h2d + compute + d2h; enqueue is the host's, beside it."""

    enqueue_ms: float
    h2d_ms: float
    compute_ms: float
    d2h_ms: float
    latency_ms: float


@dataclass(frozen=True)
class Spread:
    """Samples summed up, by trtexec's own laws, so that its numbers and ours agree. cv: deviation / mean."""

    count: int
    low: float
    median: float
    mean: float
    p90: float
    p99: float
    high: float
    cv: float


@dataclass(frozen=True)
class Summary:
    """One line of trtexec's performance summary. percentiles: by percent, those it was asked for."""

    low: float
    high: float
    mean: float
    median: float
    percentiles: Mapping[float, float]


@dataclass(frozen=True)
class Log:
    """trtexec's stdout and stderr. settings: its own words, "Enabled" or "Disabled" for most.

    passed: it says PASSED, and no line says that an engine was not built or loaded (it exits with 0 where one that
    nobody runs did not load). Other errors may stand beside it: a kernel that was too large to be tried is one.
    """

    version: str
    passed: bool
    warnings: tuple[str, ...]
    errors: tuple[str, ...]
    throughput_qps: float | None
    summaries: Mapping[str, Summary]
    settings: Mapping[str, str]


@dataclass(frozen=True)
class LayerTime:
    """One layer of a profile; percent: of all layers' time. median_ms: None where the version gives none."""

    name: str
    mean_ms: float
    median_ms: float | None
    percent: float


@dataclass(frozen=True)
class Profile:
    """Times by layer over `iterations` runs. unread: entries whose numbers were not finite, by name."""

    iterations: int
    layers: tuple[LayerTime, ...]
    unread: tuple[str, ...] = ()


def percentile(values: Sequence[float], percent: float) -> float:
    """The value trtexec calls percentile(`percent`%): sorted[n - 1 - int((1 - percent / 100) * n)], in its float32.

    In float32 99 % of 100 values leaves none out, and the value is the greatest.
    """
    if not values or not 0 <= percent <= 100:
        raise InputError("percentile", f"{percent} % of {len(values)} values", "give 0 to 100 % of at least one value")
    left_out = int(_single(_single(1 - _single(percent / 100)) * len(values)))
    return sorted(values)[max(len(values) - 1 - left_out, 0)]


def spread(values: Sequence[float]) -> Spread:
    """Median, percentiles, mean and coefficient of variation of the samples."""
    if not values or not all(map(math.isfinite, values)):
        raise InputError("samples", "none, or one that is no number", "take the timing again")
    ordered, count = sorted(values), len(values)
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / count)
    return Spread(
        count=count,
        low=ordered[0],
        median=(ordered[(count - 1) // 2] + ordered[count // 2]) / 2,
        mean=mean,
        p90=percentile(values, 90),
        p99=percentile(values, 99),
        high=ordered[-1],
        cv=deviation / mean if mean else math.inf,
    )


def timings(text: str, where: str = "exportTimes") -> tuple[Timing, ...]:
    """Every sample of `--exportTimes`. The file keeps six digits, so enqueue times late in a run are coarse."""
    try:
        rows = json.loads(re.sub(r":\s*[-+]?(nan|inf)\b", ": null", text))
    except ValueError as error:
        raise InputError(where, f"not trtexec's JSON: {error}", "run trtexec again; it may have been stopped") from None
    if not isinstance(rows, list) or not rows:
        raise InputError(where, "no samples", "run for longer")
    return tuple(_timing(row, f"{where}: sample {place}") for place, row in enumerate(rows))


def _timing(row: object, where: str) -> Timing:
    try:
        h2d, compute, d2h = (float(row[key]) for key in ("h2dMs", "computeMs", "d2hMs"))  # type: ignore[index]
        enqueue = float(row["endEnqMs"]) - float(row["startEnqMs"])  # type: ignore[index]
        latency = float(row["latencyMs"])  # type: ignore[index]
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(where, f"not a sample of trtexec ({error})", "use the file that --exportTimes wrote") from None
    return Timing(enqueue, h2d, compute, d2h, latency)


def profile(text: str, where: str = "exportProfile") -> Profile:
    """Times by layer of `--exportProfile`, whose names are not escaped, so that it often is no JSON."""
    count = COUNT.search(text)
    entries = re.split(r'(?=\{\s*"name"\s*:)', text)[1:]
    found = [LAYER.match(entry) for entry in entries]
    if count is None or not entries or None in found:
        problem = "not a profile of trtexec, or cut short, or of no layers"
        raise InputError(where, problem, "run trtexec with --exportProfile again")
    layers, unread = [], []
    for item in filter(None, found):
        mean, share = float(item["mean"]), float(item["share"])
        if math.isfinite(mean) and math.isfinite(share):
            median = float(item["median"]) if item["median"] else None
            layers.append(LayerTime(item["name"], mean, median, share))
        else:
            unread.append(item["name"])
    return Profile(int(count[1]), tuple(layers), tuple(unread))


def read_log(text: str) -> Log:
    """The parts of trtexec's output that say how it went."""
    lines = list(_lines(text))
    bare = [line for _, line in lines]
    errors = tuple(dict.fromkeys(line for level, line in lines if level in ("E", "F")))
    speed = next((match for line in bare if (match := re.match(r"Throughput: ([\d.eE+]+) qps", line))), None)
    return Log(
        version=version_from(text) or "",
        passed="&&&& PASSED" in text and not any(part in line.lower() for part in FATAL for line in errors),
        warnings=_warnings(lines),
        errors=errors,
        throughput_qps=float(speed[1]) if speed else None,
        summaries={name: item for line in bare for name, item in _summary(line)},
        settings={match["name"]: match["value"] for line in bare if (match := SETTING.match(line))},
    )


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """(level, text) of each line; "" where a line has no level."""
    for line in text.splitlines():
        found = LINE.match(line.rstrip())
        yield (found["level"], found["text"]) if found else ("", line.strip())


def _warnings(lines: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """[W] lines, each once; one that begins with spaces goes on with the one before."""
    found: list[str] = []
    for level, line in lines:
        if level == "W" and line.startswith("  ") and found:
            found[-1] = f"{found[-1]} {line.strip()}"
        elif level == "W" and line.strip():
            found.append(line.strip().removeprefix("* "))
        elif level == "I" and "throttl" in line.lower():
            found.append(line.strip())
    return tuple(dict.fromkeys(found))


def _summary(line: str) -> Iterator[tuple[str, Summary]]:
    named = SUMMARY.match(line)
    if named is None:
        return
    values = {item["name"]: float(item["value"]) for item in FIELD.finditer(line)}
    if {"min", "max", "mean", "median"} <= values.keys():
        shares = {float(name[11:-2]): value for name, value in values.items() if name.startswith("percentile(")}
        yield named["name"], Summary(values["min"], values["max"], values["mean"], values["median"], shares)


def errors_in_words(log: Log) -> tuple[str, ...]:
    """Each error with what it means, where that is known; says so where the run ended without a verdict."""
    found = []
    for line in log.errors:
        meaning = next((words for part, words in MEANINGS if part.lower() in line.lower()), "")
        found.append(f"{line.strip()} ({meaning})" if meaning else line.strip())
    if not found and not log.passed:
        found.append("trtexec ended without PASSED and without an error: it was stopped, or crashed")
    return tuple(found)


def doubts(log: Log, samples: Sequence[Timing]) -> tuple[str, ...]:
    """What trtexec warns of, errors it went on after, then what speaks against these samples."""
    found = [*log.warnings, *(f"trtexec went on after: {line.strip()}" for line in log.errors)]
    compute = spread([item.compute_ms for item in samples])
    given = log.summaries.get("Enqueue Time")
    enqueue = given.median if given else spread([item.enqueue_ms for item in samples]).median
    if enqueue > ENQUEUE_BOUND * compute.median:
        found.append(
            f"the host needs {enqueue:.3g} ms to enqueue what the GPU computes in {compute.median:.3g} ms:"
            " the host may be what is measured"
        )
    if compute.cv > UNSTABLE:
        found.append(
            f"compute times vary by {compute.cv:.1%} of their mean: clocks not locked, other work, or throttling"
        )
    return tuple(found)


def unmet(log: Log, spec: TimingSpec, *, transfers: bool) -> tuple[str, ...]:
    """What was asked of a timing and, by trtexec's own words, not done."""
    graph = spec.cuda_graph and spec.dla_core is None
    asked = {"Data transfers": transfers, "Spin-wait": spec.spin_wait, "CUDA Graph": graph}
    found = [
        f"{name} should be {'on' if wanted else 'off'}, trtexec says {log.settings[name]}"
        for name, wanted in asked.items()
        if name in log.settings and (log.settings[name] == "Enabled") != wanted
    ]
    if graph and any("without using CUDA graph" in line for line in log.warnings):
        found.append("CUDA Graph should be on, and could not be captured")
    return tuple(found)


def _single(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])
