"""Numbers to words: how many digits each quantity deserves, its unit, and which way is better.

Values follow the manifest: accuracies, drops and agreement are fractions; sizes are bytes unless the
name says KiB. A missing number or NaN reads "not measured", never 0 or an empty cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from toolkit.core import Interval

Kind = Literal["share", "points", "growth", "score", "bytes", "kib", "count", "ms", "rate", "mj", "mw", "db", "plain"]

MISSING = "not measured"
SPACE = "\u00a0"  # between number and unit: never a line break
MINUS = "\u2212"


@dataclass(frozen=True)
class Quantity:
    """What a measurement's name means. better: which way is good, "" where neither is."""

    label: str
    kind: Kind
    better: Literal["lower", "higher", ""] = ""


QUANTITIES: dict[str, Quantity] = {
    "top1": Quantity("accuracy", "share", "higher"),
    "top1_drop": Quantity("accuracy drop", "points", "lower"),
    "top5": Quantity("top-5 accuracy", "share", "higher"),
    "precision": Quantity("precision, macro", "share", "higher"),
    "recall": Quantity("recall, macro", "share", "higher"),
    "f1": Quantity("F1, macro", "share", "higher"),
    "precision_weighted": Quantity("precision, weighted", "share", "higher"),
    "recall_weighted": Quantity("recall, weighted", "share", "higher"),
    "f1_weighted": Quantity("F1, weighted", "share", "higher"),
    "auc": Quantity("area under ROC", "score", "higher"),
    "ece": Quantity("calibration error", "share", "lower"),
    "mean_average_precision": Quantity("mean average precision", "share", "higher"),
    "mean_average_precision_drop": Quantity("drop of mean average precision", "points", "lower"),
    "label_f1": Quantity("F1 of labels", "share", "higher"),
    "exact_match": Quantity("exact match", "share", "higher"),
    "retrieval_at_1": Quantity("retrieval at 1", "share", "higher"),
    "retrieval_at_1_drop": Quantity("drop of retrieval at 1", "points", "lower"),
    "cosine": Quantity("cosine with the original", "score", "higher"),
    "mae": Quantity("mean absolute error", "plain", "lower"),
    "mae_increase": Quantity("growth of the mean absolute error", "growth", "lower"),
    "rmse": Quantity("root mean squared error", "plain", "lower"),
    "class_drop": Quantity("drop of the worst class", "points", "lower"),
    "agreement": Quantity("agreement with the original", "share", "higher"),
    "host_agreement": Quantity("agreement with this machine", "share", "higher"),
    "host_max_abs_diff": Quantity("largest difference from this machine", "plain", "lower"),
    "size_bytes": Quantity("size", "bytes", "lower"),
    "gzip_bytes": Quantity("size, gzip", "bytes", "lower"),
    "entropy_bytes": Quantity("weights, entropy-coded (estimated bound)", "bytes", "lower"),
    "zeros": Quantity("zeros in the weights", "share"),
    "clusters": Quantity("weights that share values", "share"),
    "macs": Quantity("MACs", "count", "lower"),
    "parameters": Quantity("parameters", "count", "lower"),
    "max_abs_diff": Quantity("largest difference of outputs", "plain", "lower"),
    "mean_abs_diff": Quantity("mean difference of outputs", "plain", "lower"),
    "sqnr_db": Quantity("SQNR of the logits", "db", "higher"),
    "output_sqnr_db": Quantity("SQNR of the outputs", "db", "higher"),
    "latency_p50_ms": Quantity("latency p50", "ms", "lower"),
    "latency_p90_ms": Quantity("latency p90", "ms", "lower"),
    "latency_p99_ms": Quantity("latency p99", "ms", "lower"),
    "latency_p5_ms": Quantity("latency p5", "ms", "lower"),
    "latency_p95_ms": Quantity("latency p95", "ms", "lower"),
    "latency_mean_ms": Quantity("latency, mean", "ms", "lower"),
    "latency_min_ms": Quantity("latency, least", "ms", "lower"),
    "throughput_per_s": Quantity("throughput", "rate", "higher"),
    "first_inference_ms": Quantity("first inference", "ms", "lower"),
    "load_ms": Quantity("load time", "ms", "lower"),
    "gpu_compute_p50_ms": Quantity("GPU compute p50", "ms", "lower"),
    "gpu_compute_p99_ms": Quantity("GPU compute p99", "ms", "lower"),
    "energy_per_inference_mj": Quantity("energy of an inference", "mj", "lower"),
    "energy_per_inference_net_mj": Quantity("energy of an inference, beyond rest", "mj", "lower"),
    "power_mw": Quantity("power", "mw", "lower"),
    "sustained_p50_ms": Quantity("sustained latency p50", "ms", "lower"),
    "sustained_p90_ms": Quantity("sustained latency p90", "ms", "lower"),
    "sustained_p99_ms": Quantity("sustained latency p99", "ms", "lower"),
    "sustained_last_p50_ms": Quantity("latency p50 of the last tenth", "ms", "lower"),
    "peak_rss_kib": Quantity("peak memory of the process", "kib", "lower"),
    "arena_kib": Quantity("tensor arena", "kib", "lower"),
    "npu_cycles": Quantity("NPU cycles", "count", "lower"),
    "sram_kib": Quantity("SRAM", "kib", "lower"),
    "flash_kib": Quantity("flash", "kib", "lower"),
    "dram_kib": Quantity("DRAM", "kib", "lower"),
    "ties": Quantity("images with a tied decision", "count", "lower"),
    "unusable_outputs": Quantity("images with unusable outputs", "count", "lower"),
}

TIMES = (
    *(name for name, quantity in QUANTITIES.items() if quantity.kind in ("ms", "rate", "mj", "mw")),
    "sustained_slowdown",
    "peak_rss_kib",
)
"""Measurements that depend on the machine: how fast, how busy, in which power mode, with which libraries."""

GATES: dict[str, Quantity] = {
    "max_accuracy_drop": Quantity("accuracy drop", "points", "lower"),
    "max_class_drop": Quantity("drop of the worst class", "points", "lower"),
    "max_error_increase": Quantity("growth of the error", "growth", "lower"),
    "min_cosine": Quantity("cosine", "score", "higher"),
    "min_agreement": Quantity("agreement", "share", "higher"),
    "max_size_kib": Quantity("size", "kib", "lower"),
    "max_latency_p50_ms": Quantity("latency p50", "ms", "lower"),
    "max_latency_p90_ms": Quantity("latency p90", "ms", "lower"),
    "max_macs": Quantity("MACs", "count", "lower"),
    "max_arena_kib": Quantity("tensor arena", "kib", "lower"),
}


def quantity(name: str) -> Quantity:
    """What `name` (a measurement or a gate) means; an unknown name is its own label."""
    known = QUANTITIES.get(name) or GATES.get(name)
    if known is None and name.startswith("top") and name[3:].isdigit():
        return Quantity(f"top-{name[3:]} accuracy", "share", "higher")
    return known or Quantity(name.replace("_", " "), "plain")


def show(name: str, value: float | None, unit: str = "") -> str:
    """`value` of the measurement or gate `name` with sensible digits and its unit (`unit` for unknown names)."""
    if value is None or math.isnan(value):
        return MISSING
    meaning = quantity(name)
    text = _infinite(value) or _FORMATS[meaning.kind](value)
    return text + (SPACE + unit if unit and meaning.kind == "plain" else "")


def show_change(name: str, change: float | None) -> str:
    """A difference of two values of `name`, with its sign; accuracies differ in points."""
    if change is None or math.isnan(change):
        return MISSING
    kind = quantity(name).kind
    text = _infinite(abs(change)) or _FORMATS["points" if kind == "share" else kind](abs(change))
    zero = not any(digit in text for digit in "123456789∞")
    return text if zero else ("+" if change > 0 else MINUS) + text


def show_interval(name: str, interval: Interval | None) -> str:
    """ "95.1 to 98.6%" or "" """
    if interval is None or math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    return f"{_bare(show(name, interval.low))} to {show(name, interval.high)}"


def show_change_interval(name: str, interval: Interval | None) -> str:
    """As `show_interval`, for an interval of a difference."""
    if interval is None or math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    return f"{_bare(show_change(name, interval.low))} to {show_change(name, interval.high)}"


def sureness(interval: Interval | None) -> str:
    """ "at 95%", or "" for a range that claims no confidence."""
    return f"at {show('agreement', interval.confidence)}" if interval and interval.confidence else ""


def show_limit(gate: str, limit: float) -> str:
    """A gate's limit: "≤ 1.0 points"."""
    return f"{'≥' if quantity(gate).better == 'higher' else '≤'}{SPACE}{show(gate, limit)}"


def factor(before: float | None, after: float | None, *, words: tuple[str, str]) -> str:
    """ "3.2× smaller", words = ("smaller", "larger"); "about the same" within 2%; "" where it cannot be said."""
    if not before or not after or not math.isfinite(before) or not math.isfinite(after) or before < 0 or after < 0:
        return ""
    ratio = max(before, after) / min(before, after)
    if ratio < 1.02:
        return "about the same"
    return f"{_ratio(ratio)}× {words[0] if after < before else words[1]}"


def significant(value: float, digits: int = 3) -> str:
    """`value` to `digits` significant digits, with thousands separators; an exponent only below 0.0001."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".rpartition("e")[2])
    if exponent < -4 or exponent > 14:
        return _minus(f"{value:.{digits - 1}e}")
    return _minus(f"{value:,.{max(0, digits - 1 - exponent)}f}")


def moment(text: str) -> str:
    """An ISO 8601 time as a reader writes it: "2026-11-22 05:50:42 UTC"."""
    plain_end = text.removesuffix("Z") + "+00:00" if text.endswith("Z") else text
    return plain_end.replace("T", " ", 1).replace("+00:00", f"{SPACE}UTC")


def extent(low: float, high: float) -> str:
    """A range of values of a tensor: "−1.5 to 6"."""
    return f"{_minus(f'{low:.3g}')} to {_minus(f'{high:.3g}')}"


def decibels(value: float) -> str:
    """Without its unit, which a table's head has: "−3.0"."""
    return _minus(f"{round(value, 1) + 0.0:.1f}")


def seconds(value: float) -> str:
    """A duration: "0.84 s", "42 s", "3 min 05 s", "2 h 10 min"."""
    if not math.isfinite(value):
        return MISSING
    if value < 60:
        return f"{significant(value, 2)}{SPACE}s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min {rest:02d}{SPACE}s"
    return f"{minutes // 60}{SPACE}h {minutes % 60:02d}{SPACE}min"


def plain(text: str) -> str:
    """`text` for a terminal: ASCII signs, and control characters (escape sequences too) replaced."""
    text = text.translate(_ASCII)
    return "".join(char if char.isprintable() else "?" for char in text)


_ASCII = str.maketrans({SPACE: " ", MINUS: "-", "×": "x", "≤": "<=", "≥": ">=", "∞": "inf", "–": "-"})


def _minus(text: str) -> str:
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def _infinite(value: float) -> str:
    return (MINUS if value < 0 else "") + "∞" if math.isinf(value) else ""


def _ratio(ratio: float) -> str:
    return significant(ratio, 2 if ratio < 9.95 else 3) if ratio < 99.5 else f"{ratio:,.0f}"


def _bare(text: str) -> str:
    """Without the unit, which the other end of the interval shows."""
    return text.removesuffix("%").partition(SPACE)[0]


def _percent(value: float) -> str:
    """One decimal, more where rounding would turn "almost all" into 100% or "hardly any" into 0%."""
    for decimals in (1, 2, 3):
        text = f"{100 * value:.{decimals}f}"
        if value in (0, 1) or float(text) not in (0.0, 100.0):
            break
    return f"{_minus(text)}%"


def _points(value: float) -> str:
    text = f"{100 * value:.1f}"
    if float(text) == 0 and value != 0:
        text = f"{100 * value:.2f}"
    return f"{_minus('0.0' if float(text) == 0 else text)}{SPACE}points"


def _growth(value: float) -> str:
    text = f"{100 * value:.1f}"
    if float(text) == 0 and value != 0:
        text = f"{100 * value:.2g}"
    return f"{_minus('0.0' if float(text) == 0 else text)}%"


def _score(value: float) -> str:
    """Three decimals, more where rounding would make 1 of what is not."""
    digits = next((digits for digits in (3, 4, 5) if abs(float(f"{value:.{digits}f}")) != 1), 3)
    return _minus(f"{value:.{digits}f}")


def _bytes(value: float) -> str:
    if value < 1024:
        return f"{value:,.0f}{SPACE}B"
    return _kib(value / 1024)


def _kib(value: float) -> str:
    if value >= 10 * 1024:
        return f"{significant(value / 1024)}{SPACE}MiB"
    return f"{significant(value) if value < 1000 else f'{value:,.0f}'}{SPACE}KiB"


def _count(value: float) -> str:
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{significant(value / (1e3 if suffix == 'k' else size))}{SPACE}{suffix}"
    return f"{value:,.0f}" if value == int(value) else significant(value)


_FORMATS: dict[Kind, Callable[[float], str]] = {
    "share": _percent,
    "points": _points,
    "growth": _growth,
    "score": _score,
    "bytes": _bytes,
    "kib": _kib,
    "count": _count,
    "ms": lambda value: f"{significant(value)}{SPACE}ms",
    "rate": lambda value: f"{significant(value)}{SPACE}/s",
    "mj": lambda value: f"{significant(value)}{SPACE}mJ",
    "mw": lambda value: f"{significant(value)}{SPACE}mW",
    "db": lambda value: f"{value:.1f}{SPACE}dB".replace("-", MINUS),
    "plain": significant,
}
