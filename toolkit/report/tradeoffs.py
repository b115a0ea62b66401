"""Pareto charts: the score of every file against its latency, its size and its energy, and which files are on the
frontier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from toolkit.core import Measurement
from toolkit.report import charts
from toolkit.report.markup import Markup, tag
from toolkit.report.numbers import MISSING, SPACE, quantity, show
from toolkit.report.overview import absent, capital, section
from toolkit.report.sentences import share_text
from toolkit.report.view import ORIGINAL, View

ENERGY = "energy_per_inference_mj"
SHAPES = {"PASS": "pass", "FAIL": "fail", "INCONCLUSIVE": "inconclusive"}
KEY = (
    ("original", "original"),
    ("pass", "PASS"),
    ("inconclusive", "INCONCLUSIVE"),
    ("fail", "FAIL"),
    ("none", "no gate"),
)
WORDS = {shape: word for shape, word in KEY if shape not in ("original", "none")}


def tradeoffs(view: View) -> Markup:
    """The score against latency on each device, against size, and against energy where a device can tell it."""
    label = capital(quantity(view.score).label)
    figures = [_chart(view, "latency_p50_ms", device) for device in view.timed_on] or [_none(view, "latency")]
    figures.append(_chart(view, "size_bytes", ""))
    figures += [_chart(view, ENERGY, device) for device in _metered(view)]
    unknown = None if _metered(view) else _unmetered()
    if not any("<svg" in figure for figure in figures):
        return absent("tradeoffs", f"{label} against cost", f"No file has two such numbers: {MISSING}.")
    drawn = tag("div", figures, class_="charts")
    return section("tradeoffs", f"{label} against cost", key([view]), drawn, unknown, lead=_lead(view))


def _metered(view: View) -> list[str]:
    """Devices whose energy was measured or estimated."""
    found = (item.device for item in view.manifest.measurements if item.name == ENERGY and not math.isnan(item.value))
    return list(dict.fromkeys(found))


def _unmetered() -> Markup:
    """Why there is no chart of energy."""
    asked = tag("code", "measure.sustained_seconds")
    return tag("p", "Energy: not measured. It takes ", asked, " and a sensor of power on the device.", class_="quiet")


def key(views: Sequence[View]) -> Markup:
    """What the marks mean: those that there are."""
    there = {SHAPES.get(view.outcome(item.name) or "", "none") for view in views for item in view.delivered}
    there.add("original")
    parts = [tag("span", charts.key(shape), word) for shape, word in KEY if shape in there]
    return tag("p", parts, tag("span", charts.key("frontier"), "frontier"), class_="legend")


def _lead(view: View) -> str:
    way = "Up" if quantity(view.score).better == "higher" else "Down"
    lead = f"{way} and to the left is better. On the frontier: no other file is as good in both and better in one. "
    return f"{lead}Bars are confidence intervals; dashed lines are the budget. Point at a mark, tap it or tab to it."


def _none(view: View, what: str) -> Markup:
    return tag("p", f"{capital(quantity(view.score).label)} against {what}: {MISSING}.", class_="quiet")


def _chart(view: View, name: str, device: str) -> Markup:
    scale = unit(view, name)
    found = ranked(points(view, name, device, scale), higher=quantity(view.score).better == "higher")
    label = f"{quantity(view.score).label} against {quantity(name).label}" + (f" on {device}" if device else "")
    if not found:
        return _none(view, quantity(name).label)
    gate = {"latency_p50_ms": "max_latency_p50_ms", "size_bytes": "max_size_kib"}.get(name, "")
    limit = _limit(view, gate, device) if gate else None
    bytes_per = 1024 if gate == "max_size_kib" else 1
    at = (limit[0] * bytes_per / scale[0], limit[1]) if limit else None
    x_axis, y_axis = axes(view, name, scale)
    summary = f"{label}: " + "; ".join(point.title for point in found) + "."
    drawn = (replace(x_axis, limit=at), replace(y_axis, limit=_floor(view)))
    return tag("figure", tag("figcaption", capital(label)), charts.scatter(found, *drawn, summary=summary))


def axes(view: View, name: str, scale: Unit) -> tuple[charts.Axis, charts.Axis]:
    """Of cost and score, without the budget."""
    x_axis = charts.Axis(f"{quantity(name).label}, {scale[1]}", lambda value: f"{value:,.6g}")
    score = quantity(view.score)
    if score.kind == "share":
        return x_axis, charts.Axis(f"{score.label}, %", lambda value: f"{100 * value:.4g}")
    ceiling = 1.0 if score.kind == "score" else math.inf
    return x_axis, charts.Axis(score.label, lambda value: f"{value:.4g}", ceiling=ceiling)


Unit = tuple[float, str]  # how many of the measurement's own units it is, its name


def unit(view: View, name: str) -> Unit:
    """The unit of an axis: sizes in KiB or MiB, by the largest file."""
    if name != "size_bytes":
        return 1.0, "mJ" if name == ENERGY else "ms"
    largest = max((item.size_bytes for item in view.manifest.artifacts), default=0)
    return (1024.0, "KiB") if largest < 10 * 2**20 else (2.0**20, "MiB")


def points(view: View, name: str, device: str, unit: Unit) -> list[charts.Point]:
    """A mark for each file that has both numbers; in the place of the original's files, the model itself."""
    found = []
    original = view.find(ORIGINAL, view.score)
    for artifact in (*view.references, *view.delivered):
        reference = artifact in view.references
        accuracy = view.find(artifact.name, view.score, device) or (original if reference else None)
        cost = view.number(artifact, name, device)
        if accuracy and cost and math.isfinite(cost.value):
            outcome = view.outcome(artifact.name, device)
            shape = "original" if reference else SHAPES.get(outcome or "", "none")
            found.append(_point(artifact.name, cost, accuracy, shape=shape, unit=unit))
    cost = view.find(ORIGINAL, name, device)
    if original and cost and not view.references:
        found.append(_point(ORIGINAL, cost, original, shape="original", unit=unit))
    return found


def ranked(points: list[charts.Point], *, higher: bool) -> list[charts.Point]:
    """The same points, each saying whether it is on the frontier."""
    best = charts.frontier([(point.x[0], point.y[0]) for point in points], higher=higher)
    told = (
        f"{point.title}; {'' if there else 'not '}on the frontier" for point, there in zip(points, best, strict=True)
    )
    return [replace(point, best=there, title=title) for point, there, title in zip(points, best, told, strict=True)]


def _point(label: str, cost: Measurement, accuracy: Measurement, *, shape: str, unit: Unit) -> charts.Point:
    stands = "" if accuracy.subject == label else f" ({quantity(accuracy.name).label} of {accuracy.subject})"
    source = f" ({cost.source})" if cost.source not in ("measured", "computed") else ""
    word = WORDS.get(shape, "")
    title = f"{label}: {show(cost.name, cost.value)}{source}, {share_text(accuracy)}{stands}" + (word and f"; {word}")
    middle, low, high = (end / unit[0] for end in _ends(cost))
    return charts.Point(label, (middle, low, high), _ends(accuracy), shape, title)


def _ends(found: Measurement) -> tuple[float, float, float]:
    interval = found.interval
    if interval is None or not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return found.value, found.value, found.value
    return found.value, interval.low, interval.high


def _limit(view: View, gate: str, device: str) -> tuple[float, str] | None:
    """The one limit all artifacts share (on this device), if there is one."""
    limits = {
        item.limit for item in view.manifest.verdicts if item.gate == gate and (not device or item.device == device)
    }
    if len(limits) != 1:
        return None
    limit = limits.pop()
    return limit, f"budget {show(gate, limit)}"


def _floor(view: View) -> tuple[float, str] | None:
    gate = "max_error_increase" if view.score == "mae" else "max_accuracy_drop"
    found, original = _limit(view, gate, ""), view.find(ORIGINAL, view.score)
    if found is None or original is None:
        return None
    if view.score == "mae":
        return original.value * (1 + found[0]), f"original plus {show(gate, found[0])}".replace(SPACE, " ")
    return original.value - found[0], f"original less {show('max_accuracy_drop', found[0])}".replace(SPACE, " ")
