"""The gate: from measurements and a budget to PASS, FAIL or INCONCLUSIVE, each with its reason.

Losses, agreement, similarity and latency are judged on the whole confidence interval, at the budget's confidence shared
out among all such verdicts of a run (Bonferroni). Intervals are two-sided, so a wrong PASS is as rare as
(1 - confidence) / 2. What was asked for and not measured is INCONCLUSIVE, never left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from toolkit.checks import processes
from toolkit.checks.accuracy import as_interval, paired_table
from toolkit.checks.evidence import Evidence
from toolkit.core import Budget, Interval, Measurement, Outcome, Verdict

WORST_FIRST: tuple[Outcome, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
RunOutcome = Literal["PASS", "FAIL", "INCONCLUSIVE", "NO GATE"]
STATISTICAL = ("max_accuracy_drop", "max_class_drop", "max_error_increase", "min_cosine", "min_agreement")
LATENCY = {"max_latency_p50_ms": "latency_p50_ms", "max_latency_p90_ms": "latency_p90_ms"}  # gate -> measurement
STATISTICAL_FACTS = ("accuracy_drop", "class_drop", "error_increase", "cosine")
FEWEST_PROCESSES = 2  # one says nothing of the next
_KIB = 1024.0


@dataclass(frozen=True)
class Facts:
    """What is known of one artifact on one device; None where nothing is."""

    accuracy_drop: Measurement | None = None
    class_drop: Measurement | None = None
    error_increase: Measurement | None = None
    cosine: Measurement | None = None
    agreement: Measurement | None = None
    size: Measurement | None = None
    latency_p50: Measurement | None = None
    latency_p90: Measurement | None = None
    macs: Measurement | None = None
    arena: Measurement | None = None
    evidence: Evidence = Evidence()


# measurement name -> field of Facts; an artifact has one head, so one of the first three
NAMES = {
    "top1_drop": "accuracy_drop",
    "retrieval_at_1_drop": "accuracy_drop",
    "mean_average_precision_drop": "accuracy_drop",
    "class_drop": "class_drop",
    "mae_increase": "error_increase",
    "cosine": "cosine",
    "agreement": "agreement",
    "size_bytes": "size",
    "latency_p50_ms": "latency_p50",
    "latency_p90_ms": "latency_p90",
    "macs": "macs",
    "arena_kib": "arena",
}
# gate -> field of Facts
JUDGED_ON = {
    "max_accuracy_drop": "accuracy_drop",
    "max_class_drop": "class_drop",
    "max_error_increase": "error_increase",
    "min_cosine": "cosine",
    "min_agreement": "agreement",
    "max_latency_p50_ms": "latency_p50",
    "max_latency_p90_ms": "latency_p90",
    "max_size_kib": "size",
    "max_macs": "macs",
    "max_arena_kib": "arena",
}
ON_ANSWERS = tuple(name for name, field in NAMES.items() if field in (*STATISTICAL_FACTS, "agreement"))
"""Measurements that depend on a file's answers alone, not on how fast they came."""


def gather(measurements: Iterable[Measurement], artifact: str, device: str) -> Facts:
    """Facts of one artifact on one device: measured there, or bound to no device; of several the last."""
    found: dict[str, Any] = {}
    for measurement in measurements:
        field = NAMES.get(measurement.name)
        if field is None or measurement.subject != artifact or measurement.device not in ("", device):
            continue
        if field not in found or measurement.device or not found[field].device:
            found[field] = measurement
    return Facts(**found)


def statistical_gates(budget: Budget) -> int:
    """How many statistical verdicts this budget asks for of one artifact; their sum over a run is `comparisons`."""
    return sum(getattr(budget, name) is not None for name in (*STATISTICAL, *LATENCY))


def gates_on_answers(budget: Budget) -> int:
    """How many of them rest on what a file answers."""
    return sum(getattr(budget, name) is not None for name in STATISTICAL)


def too_few_processes(asked: Iterable[tuple[str, int, Budget]]) -> Iterator[str]:
    """Of (device, processes, budget) of every file of a run: where latency gates will be wider than they need be."""
    asked = list(asked)
    comparisons = sum(statistical_gates(budget) for _, _, budget in asked)
    for device, count, budget in asked:
        if count and any(getattr(budget, name) is not None for name in LATENCY):
            from toolkit.engine.latency import processes_needed
            from toolkit.engine.statistics import bonferroni

            needed = processes_needed(bonferroni(budget.confidence, comparisons))
            if count < needed:
                few = f"{count} process{'es' * (count != 1)} cannot hold a latency gate at the run's confidence"
                yield f"{device}: {few}: measure.processes = {needed} would"


def judge(artifact: str, device: str, *, budget: Budget, facts: Facts, comparisons: int = 1) -> tuple[Verdict, ...]:
    """One verdict for each limit of the budget. comparisons: statistical verdicts in the whole run."""
    from toolkit.engine.statistics import bonferroni

    confidence = bonferroni(budget.confidence, max(1, comparisons))
    gates: dict[str, Callable[[float], Judged]] = {
        "max_accuracy_drop": lambda limit: _accuracy(facts, limit, confidence),
        "max_class_drop": lambda limit: _worst_class(facts, limit, confidence),
        "max_error_increase": lambda limit: _error(facts, limit, confidence),
        "min_cosine": lambda limit: _cosine(facts, limit, confidence),
        "min_agreement": lambda limit: _agreement(facts.agreement, limit, confidence),
        "max_latency_p50_ms": lambda limit: _latency(facts.latency_p50, limit, confidence, device=device),
        "max_latency_p90_ms": lambda limit: _latency(facts.latency_p90, limit, confidence, device=device),
        "max_size_kib": lambda limit: _exact(facts.size, limit, unit="KiB", scale=1 / _KIB),
        "max_macs": lambda limit: _exact(facts.macs, limit, unit="MACs"),
        "max_arena_kib": lambda limit: _exact(facts.arena, limit, unit="KiB of arena"),
    }
    verdicts = []
    for gate, decide in gates.items():
        limit = getattr(budget, gate)
        if limit is not None:
            found = decide(limit)
            reason = found.reason + _imitated(getattr(facts, JUDGED_ON[gate]))
            verdicts.append(Verdict(artifact, device, gate, found.outcome, found.value, limit, found.interval, reason))
    return tuple(verdicts)


def _imitated(number: Measurement | None) -> str:
    """What a verdict says beside its reason, where the device was imitated."""
    if number is None or number.source != "emulated":
        return ""
    by = number.how.get("emulated")
    return f"; emulated{f': {by}' if by else ''}"


def run_outcome(verdicts: Iterable[Verdict]) -> RunOutcome:
    """The worst of all: FAIL, then INCONCLUSIVE, then PASS; NO GATE where nothing was asked for."""
    found = {verdict.outcome for verdict in verdicts}
    return next((outcome for outcome in WORST_FIRST if outcome in found), "NO GATE")


@dataclass(frozen=True)
class Judged:
    """A verdict before it knows its artifact, in the unit of its limit."""

    outcome: Outcome
    reason: str
    value: float | None = None
    interval: Interval | None = None


def _accuracy(facts: Facts, limit: float, confidence: float) -> Judged:
    from toolkit.engine import statistics

    drop, missing = facts.accuracy_drop, _missing(facts.accuracy_drop)
    if drop is None or missing:
        return Judged("INCONCLUSIVE", missing)
    if drop.name == "mean_average_precision_drop":
        return _resampled(drop, facts.evidence, limit, confidence, words=_lost_words)
    table = paired_table(drop)
    limits = statistics.paired_interval(table, confidence)
    interval = as_interval(limits, confidence, statistics.PAIRED_METHOD)
    outcome = statistics.non_inferiority(limits, limit)
    reason = _lost_words(limit, table.drop, interval)
    if outcome == "INCONCLUSIVE":
        reason += _more(statistics.images_needed(table, limit, confidence), table.total)
    return Judged(outcome, reason, table.drop, interval)


def _lost_words(limit: float, value: float, interval: Interval) -> str:
    show = _points(limit, value, interval)
    lost = f"lost {show(value)} points" if value >= 0 else f"gained {show(-value)} points"
    span = f"({show(interval.low)} .. {show(interval.high)} at {_percent(interval.confidence)})"
    span = span if value >= 0 else f"(loss {span[1:]}"
    return f"{lost} {span}, budget {show(limit)}"


def _error(facts: Facts, limit: float, confidence: float) -> Judged:
    missing = _missing(facts.error_increase)
    if facts.error_increase is None or missing:
        return Judged("INCONCLUSIVE", missing)

    def words(limit: float, value: float, interval: Interval) -> str:
        show = _points(limit, value, interval)
        grew = (
            f"mean absolute error grew by {show(value)}%"
            if value >= 0
            else f"mean absolute error shrank by {show(-value)}%"
        )
        span = f"({show(interval.low)} .. {show(interval.high)} at {_percent(interval.confidence)})"
        return f"{grew} {span if value >= 0 else '(growth ' + span[1:]}, budget {show(limit)}%"

    return _resampled(facts.error_increase, facts.evidence, limit, confidence, words=words)


def _cosine(facts: Facts, limit: float, confidence: float) -> Judged:
    missing = _missing(facts.cosine)
    if facts.cosine is None or missing:
        return Judged("INCONCLUSIVE", missing)

    def words(limit: float, value: float, interval: Interval) -> str:
        span = f"({interval.low:.4g} .. {interval.high:.4g} at {_percent(interval.confidence)})"
        return f"mean cosine with the original's embedding {value:.4g} {span}, budget {limit:g}"

    return _resampled(facts.cosine, facts.evidence, limit, confidence, words=words, least=True)


def _resampled(
    number: Measurement,
    evidence: Evidence,
    limit: float,
    confidence: float,
    *,
    words: Callable[[float, float, Interval], str],
    least: bool = False,
) -> Judged:
    """Judged on the bootstrap's interval. least: the limit is the smallest allowed, not the largest."""
    from toolkit.engine import bootstrap, statistics

    drawn = evidence.draws.get(number.name)
    if drawn is None:
        return Judged("INCONCLUSIVE", "measured without its resamples", number.value)
    if not drawn.enough:
        reason = f"{drawn.examples} images are too few to resample; {bootstrap.FEWEST_EXAMPLES} or more would do"
        return Judged("INCONCLUSIVE", reason, drawn.estimate)
    limits = drawn.limits(confidence)
    interval = as_interval(limits, confidence, drawn.method)
    outcome = statistics.at_least(limits, limit) if least else statistics.non_inferiority(limits, limit)
    reason = words(limit, drawn.estimate, interval)
    if outcome == "INCONCLUSIVE":
        needed = statistics.images_needed_wide(drawn.estimate, limits, limit, drawn.examples)
        reason += _more(needed, drawn.examples)
    return Judged(outcome, reason, drawn.estimate, interval)


def _worst_class(facts: Facts, limit: float, confidence: float) -> Judged:
    """Every class's interval at once: FAIL where one lies wholly above the limit, PASS where all lie within."""
    import numpy as np

    from toolkit.engine import statistics

    missing = _missing(facts.class_drop)
    if facts.class_drop is None or missing:
        return Judged("INCONCLUSIVE", missing)
    classes = facts.evidence.classes
    if classes is None:
        return Judged("INCONCLUSIVE", "measured without its counts by class", facts.class_drop.value)
    each, count = classes.limits(confidence), len(classes.names)
    method = f"{statistics.PAIRED_METHOD}, Bonferroni over {count} classes"
    worst = statistics.worst_of(classes.tables, confidence)
    interval, value = as_interval(worst, confidence, method), float(np.max(classes.tables.drop))
    outcome = statistics.non_inferiority(worst, limit)
    place = int(np.argmax(each.low if outcome == "FAIL" else each.high))
    table, own = classes.table(place), Interval(float(each.low[place]), float(each.high[place]), confidence, method)
    across = f"all {count} classes at once" if count > 1 else "its one class"
    reason = f"class {classes.names[place]!r} ({_images(table.total)}): {_lost_words(limit, table.drop, own)}; {across}"
    if outcome == "FAIL":
        reason += _others(int(np.count_nonzero(each.low > limit)), "over the budget")
    if outcome == "INCONCLUSIVE":
        share = statistics.bonferroni(confidence, count)
        reason += _others(int(np.count_nonzero(each.high > limit)), "undecided")
        reason += _more(statistics.images_needed(table, limit, share), table.total, f" of {classes.names[place]!r}")
    return Judged(outcome, reason, value, interval)


def _images(count: float) -> str:
    return f"{count:g} image{'s' * (count != 1)}"


def _others(count: int, what: str) -> str:
    return f"; {count - 1} more {what}" if count > 1 else ""


def _agreement(agreement: Measurement | None, limit: float, confidence: float) -> Judged:
    from toolkit.engine import statistics

    missing = _missing(agreement)
    if agreement is None or missing:
        return Judged("INCONCLUSIVE", missing)
    agree, images = agreement.how["agree"], agreement.how["images"]
    limits = statistics.wilson(agree, images, confidence)
    interval = as_interval(limits, confidence, statistics.WILSON_METHOD)
    outcome = statistics.at_least(limits, limit)
    show = _points(limit, agree / images, interval)
    span = f"({show(interval.low)} .. {show(interval.high)} at {_percent(confidence)})"
    reason = f"decides as the original on {show(agree / images)}% of images {span}, budget {show(limit)}%"
    if outcome == "INCONCLUSIVE":
        needed = statistics.images_needed_share(agree, images, limit, confidence=confidence)
        reason += _more(needed, images)
    return Judged(outcome, reason, agree / images, interval)


def _latency(latency: Measurement | None, limit: float, confidence: float, *, device: str) -> Judged:
    """Only what several processes measured on the device is judged, on the whole interval of a typical one."""
    where = f" on {device}" if device else ""
    if latency is None or not math.isfinite(latency.value):
        return Judged("INCONCLUSIVE", f"not measured{where}")
    text = f"{latency.value:.3g} ms"
    batch = latency.how.get("batch", 1)
    if batch != 1:
        return Judged("INCONCLUSIVE", f"{text} is of {batch} images at once: the limit is of one", latency.value)
    if latency.source != "measured":
        known = latency.interval if latency.source == "estimated" else None
        span = f", {known.low:.3g} .. {known.high:.3g}" if known else ""
        return Judged("INCONCLUSIVE", f"only {latency.source} ({text}{span}), not measured{where}", latency.value)
    values = processes.values_of(latency)
    if len(values) < FEWEST_PROCESSES:
        told = "in one process" if values else "without what each process gave"
        return Judged("INCONCLUSIVE", f"{text} {told}: measure in several processes", latency.value)
    interval, few = processes.judged(latency.name, values, confidence)
    value = median(values)
    span = f"{value:.3g} ms ({interval.low:.3g} .. {interval.high:.3g} at {_percent(interval.confidence)})"
    if interval.high <= limit:
        return Judged("PASS", f"{span}, budget {limit:g} ms", value, interval)
    if interval.low > limit:
        return Judged("FAIL", f"{span}, over the budget of {limit:g} ms", value, interval)
    why = few or "more processes, or a quieter machine, would tell"
    return Judged("INCONCLUSIVE", f"{span} lies across the budget of {limit:g} ms; {why}", value, interval)


def _exact(number: Measurement | None, limit: float, *, unit: str, scale: float = 1.0) -> Judged:
    missing = _missing(number)
    if number is None or missing:
        return Judged("INCONCLUSIVE", missing)
    value = number.value * scale
    text, most = (f"{each:,.1f}".removesuffix(".0") for each in (value, limit))
    if value <= limit:
        return Judged("PASS", f"{text} {unit}, budget {most}", value)
    return Judged("FAIL", f"{text} {unit}, over the budget of {most}", value)


def _missing(number: Measurement | None) -> str:
    """Why this number cannot be judged, or ""."""
    if number is None or not math.isfinite(number.value):
        return "not measured"
    if number.source in ("estimated", "quoted"):
        return f"only {number.source} ({number.value:g} {number.unit}), not measured"
    return ""


def _points(limit: float, value: float, interval: Interval) -> Callable[[float], str]:
    """Writes fractions as points, with as many decimals as it takes to tell each number from the limit."""
    numbers = (value, interval.low, interval.high)
    digits = 1
    while digits < 3 and (
        abs(round(100 * limit, digits) - 100 * limit) > 1e-9
        or any(round(100 * number, digits) == round(100 * limit, digits) for number in numbers if number != limit)
    ):
        digits += 1
    return lambda number: f"{round(100 * number, digits) + 0.0:.{digits}f}"


def _more(needed: int | None, images: float, of: str = "") -> str:
    """What would settle an inconclusive verdict; the number is rounded up to two digits."""
    if needed is None or needed <= images:
        return "; too near the budget for more images to tell"
    more = needed - images
    step = 10 ** max(0, math.floor(math.log10(more)) - 1)
    return f"; about {math.ceil(more / step) * step:,} more images{of} would tell"


def _percent(confidence: float) -> str:
    """Of a confidence: never rounded up to 100%."""
    texts = [f"{100 * confidence:.{digits}g}" for digits in (3 if confidence < 0.999 else 5, 7, 9, 17)]
    return f"{next((text for text in texts if float(text) < 100), texts[-1])}%"
