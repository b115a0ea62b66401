"""The second half of the page: classes, layers, curves, data, where each number came from, how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from toolkit.core import Measurement
from toolkit.report import charts, recipe_text
from toolkit.report.markup import Child, Markup, join, tag
from toolkit.report.numbers import (
    MISSING,
    SPACE,
    quantity,
    seconds,
    show,
    show_change,
    show_change_interval,
    show_interval,
    sureness,
)
from toolkit.report.overview import absent, number, section, table
from toolkit.report.view import ORIGINAL, View
from toolkit.runs import DataRecord, Manifest, StageRecord

MOST_CLASSES = 60
"""Rows of the class table; of more classes, those that changed most are shown."""
FEW = 5
"""Test images a class: with fewer the table is folded away."""
MOST_LAYERS = 400
"""Rows of one stage's layer table."""
ALL_LAYERS = 2000
"""Rows of all of them together, in equal parts: a page stays under 2 MB."""
MOST_NUMBERS = 1500
"""Rows of the table of every number."""

# ---------------------------------------------------------------- classes


def classes(view: View) -> Markup:
    """Correct of total for each class, shaded by the change against the original."""
    counts = view.manifest.per_class
    names = view.manifest.classes
    if counts and not any(counts.values()):
        said = "Nothing this model gives is right or wrong by class."
        return absent("classes", "Class by class", said)
    if not counts or not names:
        return absent("classes", "Class by class", f"Accuracy of each class: {MISSING}.")
    base = counts.get(ORIGINAL)
    same = {item.name for item in view.references if counts.get(item.name) == base}  # and need no column
    files = [item.name for item in view.manifest.artifacts if item.name in counts and item.name not in same]
    subjects = files or [name for name in counts if name != ORIGINAL]
    chosen = _most_changed(len(names), [counts[name] for name in subjects], base)
    columns = ([ORIGINAL] if base else []) + subjects
    rows = [_class_row(names[place], place, [counts[name] for name in columns], base) for place in chosen]
    headings: list[Child] = [
        tag("button", "Class", type="button"),
        *(tag("span", name, class_="name") for name in columns),
    ]
    lead = "Correct of total on the test images. Shading and sign: its change against the original, in points."
    if len(chosen) < len(names):
        lead += f" Of {len(names)} classes, the {len(chosen)} that changed most; the manifest has all."
    drawn = table(headings, rows, label="Accuracy of each class", class_="classes")
    totals = [count["total"] for count in counts[columns[0]]]
    if totals and (each := median(totals)) < FEW:
        lead += f" With {each:g} image{'s' * (each != 1)} a class these say little of any one class."
        drawn = tag("details", tag("summary", tag("b", "Class by class"), tag("span", f"{len(rows)} classes")), drawn)
    return section("classes", "Class by class", drawn, lead=lead)


Counts = Sequence[Mapping[str, int]]


def _most_changed(total: int, others: Sequence[Counts], base: Counts | None) -> list[int]:
    if total <= MOST_CLASSES:
        return list(range(total))

    def worst(place: int) -> float:
        return min((_change(counts, base, place) or 0.0 for counts in others), default=0.0)

    return sorted(range(total), key=worst)[:MOST_CLASSES]


def _class_row(name: str, place: int, columns: Sequence[Counts], base: Counts | None) -> Markup:
    cells = []
    for counts in columns:
        share = _class_share(counts, place)
        if share is None:
            cells.append(number(MISSING))
            continue
        count = counts[place]
        text = join(show("top1", share), tag("small", f"{count['correct']}/{count['total']}"))
        change = None if counts is base else _change(counts, base, place)
        words = tag("span", show_change("top1", change).partition(SPACE)[0], class_="change") if change else None
        cells.append(tag("td", text, words, class_=f"n heat {_heat(change)}".rstrip(), data_value=repr(share)))
    return tag("tr", tag("th", name, scope="row", class_="name"), cells)


def _class_share(counts: Counts | None, place: int) -> float | None:
    if counts is None or place >= len(counts) or not counts[place].get("total"):
        return None
    return counts[place]["correct"] / counts[place]["total"]


def _change(counts: Counts, base: Counts | None, place: int) -> float | None:
    after, before = _class_share(counts, place), _class_share(base, place)
    return None if after is None or before is None else after - before


def _heat(change: float | None) -> str:
    """Three shades each way: up to 5 points, up to 15, more."""
    if not change:
        return ""
    size = 1 if abs(change) < 0.05 else 2 if abs(change) < 0.15 else 3
    return f"{'up' if change > 0 else 'down'}{size}"


# ---------------------------------------------------------------- stages and curves


def layers(view: View) -> Markup:
    """What ran, in which order, with what settings; what each stage changed, layer by layer."""
    stages = view.manifest.stages
    if not stages:
        return absent("layers", "Layer changes", "No stage has run.")
    changing = sum(bool(stage.changes) for stage in stages)
    most = min(MOST_LAYERS, ALL_LAYERS // max(changing, 1))
    made = [_stage(stage, most) for stage in stages if stage.kind != "check"]
    checks = [stage for stage in stages if stage.kind == "check"]
    return section("layers", "Layer changes", tag("div", made), _checks(checks) if checks else None)


def _checks(checks: Sequence[StageRecord]) -> Markup:
    """The stages that only measured, in one list."""
    rows = [
        tag(
            "tr",
            tag("th", stage.name, scope="row", class_="name"),
            tag("td", stage.use),
            tag("td", _time(stage), class_="n"),
            tag("td", _settings(stage), class_="how"),
        )
        for stage in checks
    ]
    took = seconds(sum(stage.seconds for stage in checks))
    summary = tag(
        "summary", tag("b", f"{len(checks)} check{'s' * (len(checks) > 1)}"), tag("span", took, class_="quiet")
    )
    return tag("details", summary, table(("Check", "By", "Took", "Settings"), rows, label="Checks"))


def _time(stage: StageRecord) -> str:
    return "reused from an earlier run" if stage.reused else seconds(stage.seconds)


def _settings(stage: StageRecord) -> str:
    """As a recipe would give them; what is not set is left out."""
    given = {key: item for key, item in stage.parameters.items() if item not in (None, "")}
    return "; ".join(f"{key} = {recipe_text.value(item)}" for key, item in given.items())


def _stage(stage: StageRecord, most: int) -> Markup:
    changed = sum(item.get("before") != item.get("after") for item in stage.changes)
    kept = len(stage.changes) - changed
    counts = [f"{changed} changed" if changed else "", f"{kept} left as they were" if kept else ""]
    said = ", ".join(filter(None, counts)) or ("no layer changed" if stage.kind == "pass" else stage.kind)
    summary = tag("summary", tag("b", stage.name), tag("span", said), tag("span", _time(stage), class_="quiet"))
    facts = _pairs({stage.kind: stage.use, "takes": stage.parent, "settings": _settings(stage), "key": stage.key})
    notes = tag("ul", (tag("li", note) for note in stage.notes), class_="notes") if stage.notes else None
    return tag("details", summary, facts, notes, _layer_table(stage, most))


def _layer_table(stage: StageRecord, most: int) -> Markup | None:
    if not stage.changes:
        return None
    rows = [_layer(item) for item in stage.changes[:most]]
    more = len(stage.changes) - len(rows)
    inner = table(("Layer", "", "Before", "After", "Reason"), rows, label=f"Layer changes of {stage.name}")
    return join(inner, tag("p", f"{more} more in the manifest.", class_="quiet") if more else None)


def _layer(item: Mapping[str, str]) -> Markup:
    before, after = item.get("before", ""), item.get("after", "")
    kind = "kept" if before == after else "changed"
    layer = tag("th", item.get("layer", ""), scope="row", class_="name")
    cells = (tag("td", kind, class_="quiet"), tag("td", before), tag("td", after), tag("td", item.get("reason", "")))
    return tag("tr", layer, cells, class_=kind)


def training(view: View) -> Markup:
    """Curves of every stage that trained: one chart for losses, one for accuracies, ..."""
    trained = [stage for stage in view.manifest.stages if stage.curves]
    if not trained:
        return absent("training", "Training", "No stage has trained.")
    figures = [figure for stage in trained for figure in _stage_curves(stage)]
    return section("training", "Training", tag("div", figures, class_="charts small"), lead="Values for each epoch.")


def _stage_curves(stage: StageRecord) -> list[Markup]:
    """Curves that share the last word of their name share a chart."""
    groups: dict[str, dict[str, tuple[float, ...]]] = {}
    for name, line in stage.curves.items():
        groups.setdefault(name.rpartition("_")[2], {})[name] = line
    return [_curve_figure(f"{stage.name}: {word}", lines) for word, lines in groups.items()]


def _curve_figure(title: str, lines: Mapping[str, tuple[float, ...]]) -> Markup:
    key = [tag("span", charts.key(place), name) for place, name in enumerate(lines)]
    picture = charts.curves(lines, title=title, show=lambda value: f"{value:.4g}")
    return tag("figure", tag("figcaption", title), picture, tag("p", key, class_="legend"))


# ---------------------------------------------------------------- data


def data(view: View) -> Markup:
    """The splits, what they hold, and every warning of the run."""
    warnings = view.manifest.warnings
    noted = tag("ul", (tag("li", text) for text in warnings), class_="warnings", id="warnings") if warnings else None
    if not view.manifest.data and not warnings:
        return absent("data", "Data", "No split was read.")
    if not view.manifest.data:
        return section("data", "Data", noted, tag("p", "No split was read.", class_="quiet"))
    rows = [_split(record) for record in view.manifest.data]
    headings = ("Split", "Images", "Images of a class", "Source", "Fingerprint")
    return section("data", "Data", noted, table(headings, rows, label="Data splits"))


def _split(record: DataRecord) -> Markup:
    least, most = (min(record.per_class), max(record.per_class)) if record.per_class else (None, None)
    spread = "not recorded" if least is None else f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return tag(
        "tr",
        tag("th", record.split, scope="row", class_="name"),
        number(f"{record.images:,}"),
        tag("td", spread, class_="n"),
        tag("td", record.source, class_="n"),
        tag("td", tag("code", record.fingerprint)),
    )


# ---------------------------------------------------------------- provenance


def provenance(view: View) -> Markup:
    """Every number and where it came from."""
    found = view.manifest.measurements
    if not found:
        return absent("provenance", "Where each number came from", "Nothing was measured.")
    names = ("Subject", "Quantity", "Number", "Interval", "Source", "Device", "How")
    headings = [tag("button", name, type="button") for name in names]
    more = len(found) - MOST_NUMBERS
    part = f"The first {MOST_NUMBERS:,} of {len(found):,} numbers; the manifest has all"
    which = part if more > 0 else f"All {len(found):,} numbers"
    lead = "Every number with its interval, source, device and settings. "
    lead += "Only what is measured on a device may pass a latency gate."
    inner = table(headings, map(_origin, found[:MOST_NUMBERS]), label="Every number", class_="origin")
    folded = tag("details", tag("summary", which), inner)
    return section("provenance", "Where each number came from", folded, lead=lead)


def _origin(item: Measurement) -> Markup:
    points = quantity(item.name).kind in ("points", "growth")
    interval = (show_change_interval if points else show_interval)(item.name, item.interval)
    how = "; ".join(f"{key}: {value}" for key, value in item.how.items())
    method = ", ".join(filter(None, (sureness(item.interval), item.interval.method))) if item.interval else None
    return tag(
        "tr",
        tag("th", item.subject, scope="row", class_="name"),
        tag("td", quantity(item.name).label),
        number(show(item.name, item.value, item.unit), item.value),
        tag("td", interval or "–", tag("small", method) if method else None),
        tag("td", tag("span", item.source, class_=f"source {item.source}")),
        tag("td", item.device or "–"),
        tag("td", how or "–", class_="how"),
    )


# ---------------------------------------------------------------- recipe, host, again


def recipe(view: View) -> Markup:
    """The recipe with every default and override filled in."""
    text = recipe_text.toml(view.manifest.recipe)
    if not text:
        return absent("recipe", "Recipe", "Not recorded.")
    body = tag("div", tag("pre", tag("code", text)), class_="scroll", tabindex="0", role="group", aria_label="Recipe")
    summary = tag("summary", "As resolved: defaults and overrides filled in")
    return section("recipe", "Recipe", tag("details", summary, body))


def host(view: View) -> Markup:
    """The machine that ran it, its packages, and the files with their hashes."""
    manifest = view.manifest
    rows = [
        tag(
            "tr",
            tag("th", item.name, scope="row", class_="name"),
            tag("td", tag("code", item.path)),
            tag("td", item.scheme),
            number(f"{item.size_bytes:,}", item.size_bytes),
            tag("td", tag("code", item.sha256)),
        )
        for item in manifest.artifacts
    ]
    files = table(("File", "Path", "Scheme", "Bytes", "SHA-256"), rows, label="Files") if rows else None
    if not (manifest.host or manifest.versions or files):
        return absent("host", "Host and versions", "Not recorded.")
    return section("host", "Host and versions", _pairs(manifest.host), _pairs(manifest.versions), files)


def again(view: View) -> Markup:
    """How to get the same run once more: the command, and the hashes of what goes in and what must come out."""
    manifest = view.manifest
    edgekit = manifest.versions.get("edgekit", "")
    steps = (
        f"Install Edgekit {edgekit} and the versions above; the run was made on the host above.".replace("  ", " "),
        "Give it the same model and data: the hashes below must come out again.",
        tag("span", "Run the command below; the seed was ", tag("code", str(manifest.seed)), "."),
        "Compare the two runs. Times can only be compared on the same host.",
    )
    commands = f"{command(manifest)}\nedgekit compare THIS-RUN THE-NEW-RUN"
    note = tag("p", tag("code", "recipe.toml"), " of the run directory is the recipe, byte for byte.", class_="quiet")
    rows = [
        tag("tr", tag("td", kind), tag("th", name, scope="row", class_="name"), tag("td", tag("code", digest)))
        for kind, name, digest in hashes(manifest)
    ]
    sums = table(("What", "Name", "SHA-256"), rows, label="Hashes") if rows else None
    listed = tag("ol", (tag("li", step) for step in steps))
    return section("again", "Do it again", listed, tag("pre", tag("code", commands)), note, sums)


def hashes(manifest: Manifest) -> list[tuple[str, str, str]]:
    """(what, name, hash) of the model that was read, the splits and the files that came out."""
    sources = [stage for stage in manifest.stages if stage.kind == "source" and stage.parameters.get("sha256")]
    found = [("model", str(each.parameters.get("file", each.name)), str(each.parameters["sha256"])) for each in sources]
    found += [("data", item.split, item.fingerprint.removeprefix("sha256:")) for item in manifest.data]
    return found + [("artifact", item.name, item.sha256) for item in manifest.artifacts]


def command(manifest: Manifest) -> str:
    """The command that made the run; `recipe.toml` of the run directory where that is not recorded."""
    called = manifest.invocation
    words = ["edgekit", "run", str(called.get("recipe") or "recipe.toml")]
    for key, option in (("model", "--model"), ("data", "--data")):
        words += [option, str(called[key])] if called.get(key) else []
    for key, option in (("devices", "--device"), ("overrides", "--set"), ("allow_code", "--allow-code")):
        words += [word for item in called.get(key) or () for word in (option, str(item))]
    return shlex.join(words)


def _pairs(items: Mapping[str, Any]) -> Markup | None:
    shown = [(key, str(value)) for key, value in items.items() if value not in ("", None)]
    if not shown:
        return None
    return tag("dl", (tag("div", tag("dt", key), tag("dd", text)) for key, text in shown), class_="pairs")
