"""Several runs side by side in one page: their files' numbers in columns, and what changed against the first one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolkit.compare import Change, Comparison, Difference, compare
from toolkit.report import charts, tradeoffs
from toolkit.report.compared import hosts
from toolkit.report.html import page
from toolkit.report.markup import Child, Markup, join, tag
from toolkit.report.numbers import (
    MISSING,
    TIMES,
    moment,
    quantity,
    seconds,
    show,
    show_change,
    show_change_interval,
    show_interval,
)
from toolkit.report.overview import badge, capital, number, section, table
from toolkit.report.sentences import outcome_sentence, outcome_word, share_text
from toolkit.report.view import ORIGINAL, View
from toolkit.runs import Manifest

BESIDE = ("agreement", "size_bytes", "macs", "latency_p50_ms", tradeoffs.ENERGY)
"""Quantities with a table of their own after the score, where any run has them."""
MOST_CHANGES = 300  # rows of one comparison; `edgekit compare` has all


def render(manifests: Sequence[Manifest], folders: Sequence[str]) -> str:
    """The whole page. folders: what each run's directory is called, since runs of one recipe share their name."""
    views = [View(manifest) for manifest in manifests]
    names = [f"{place}: {folder}" for place, folder in enumerate(folders, start=1)]
    compared = [compare(manifests[0], each) for each in manifests[1:]]
    parts = [
        ("runs", "Runs", _runs(views, names)),
        ("charts", "Charts", _charts(views, compared)),
        *(_changes(each, names, place) for place, each in enumerate(compared, start=1)),
        ("numbers", "Numbers", _numbers(views, names, compared)),
    ]
    title = f"{len(manifests)} runs side by side"
    head = tag("header", tag("div", tag("p", "Edgekit report", class_="kind"), tag("h1", title)))
    foot = tag("footer", tag("p", "Made by Edgekit from the runs' manifests and nothing else."))
    return page(title, head, parts, foot)


def _runs(views: Sequence[View], names: Sequence[str]) -> Markup:
    rows = [_run(view, name) for view, name in zip(views, names, strict=True)]
    headings = ("Run", "Outcome", "Why", "Started", "Took", "Host", "Test images")
    return section("runs", "The runs", table(headings, rows, label="The runs"))


def _run(view: View, name: str) -> Markup:
    manifest = view.manifest
    test = next((item for item in manifest.data if item.split == "test"), None)
    host = ", ".join(str(manifest.host[key]) for key in ("cpu", "system") if manifest.host.get(key))
    images = (
        join(f"{test.images:,}", tag("small", f"{test.fingerprint.removeprefix('sha256:')[:12]}")) if test else MISSING
    )
    return tag(
        "tr",
        tag("th", name, tag("small", manifest.name), scope="row", class_="name"),
        tag("td", badge(outcome_word(view))),
        tag("td", outcome_sentence(view), class_="why"),
        tag("td", moment(manifest.started), class_="why"),
        number(seconds(manifest.seconds) if manifest.seconds else MISSING),
        tag("td", host or MISSING, class_="why"),
        tag("td", images, class_="n"),
    )


# ---------------------------------------------------------------- charts


def _charts(views: Sequence[View], compared: Sequence[Comparison]) -> Markup:
    """Every run's files in one picture: against size, and against latency where all ran on one host."""
    one_host = all(each.same_host for each in compared)
    devices = list(dict.fromkeys(device for view in views for device in view.timed_on)) if one_host else []
    asked = [*(("latency_p50_ms", device) for device in devices), ("size_bytes", "")]
    figures = [found for name, device in asked if (found := _chart(views, name, device))]
    times = (
        None if one_host else tag("p", "Latency is not compared: the hosts differ, or are not known.", class_="quiet")
    )
    lead = "Each mark begins with its run's number. Point at one, tap it or tab to it."
    drawn = tag("div", figures, class_="charts") if figures else tag("p", MISSING, class_="quiet")
    return section("charts", "Score against cost", tradeoffs.key(views), drawn, times, lead=lead)


def _chart(views: Sequence[View], name: str, device: str) -> Markup | None:
    score = quantity(views[0].score)
    unit = max((tradeoffs.unit(view, name) for view in views), key=lambda unit: unit[0])
    points = [
        replace(point, label=f"{place} {point.label}", title=f"Run {place}, {point.title}")
        for place, view in enumerate(views, start=1)
        if view.score == views[0].score
        for point in tradeoffs.points(view, name, device, unit)
    ]
    if not points:
        return None
    points = tradeoffs.ranked(points, higher=score.better == "higher")
    label = f"{score.label} against {quantity(name).label}" + (f" on {device}" if device else "")
    axes = tradeoffs.axes(views[0], name, unit)
    summary = f"{label}: " + "; ".join(point.title for point in points) + "."
    return tag("figure", tag("figcaption", capital(label)), charts.scatter(points, *axes, summary=summary))


# ---------------------------------------------------------------- numbers


def _numbers(views: Sequence[View], names: Sequence[str], compared: Sequence[Comparison]) -> Markup:
    """A table for each quantity: files in rows, runs in columns."""
    quantities = dict.fromkeys((*(view.score for view in views), *BESIDE))
    tables = [_table(views, names, name) for name in quantities]
    one_host = all(each.same_host for each in compared)
    lead = "The same file in each run." + ("" if one_host else " Times of different hosts say nothing of each other.")
    return section("numbers", "Side by side", *filter(None, tables), lead=lead)


def _table(views: Sequence[View], names: Sequence[str], name: str) -> Markup | None:
    keys = dict.fromkeys(key for view in views for key in _subjects(view, name))
    if not keys:
        return None
    rows = [
        tag(
            "tr",
            tag("th", subject, tag("small", f"on {device}") if device else None, scope="row", class_="name"),
            (_cell(view, subject, name, device) for view in views),
        )
        for subject, device in keys
    ]
    caption = capital(quantity(name).label)
    headings: list[Child] = ["", *names]
    return join(tag("p", caption, class_="caption"), table(headings, rows, label=caption))


def _subjects(view: View, name: str) -> list[tuple[str, str]]:
    """What has this number in a run: the original and its files, on each device."""
    subjects = (ORIGINAL, *(item.name for item in view.manifest.artifacts))
    found = {(item.subject, item.device) for item in view.manifest.measurements if item.name == name}
    return [(subject, device) for subject in subjects for each, device in sorted(found) if each == subject]


def _cell(view: View, subject: str, name: str, device: str) -> Markup:
    found = view.find(subject, name, device)
    if found is None or found.device != device:
        return number(MISSING)
    if name == view.score:
        whole, _, interval = share_text(found).partition(" (")
        return number(whole, note=interval.rstrip(")") or None)
    return number(show(name, found.value, found.unit), note=show_interval(name, found.interval) or None)


# ---------------------------------------------------------------- changes


def _changes(found: Comparison, names: Sequence[str], place: int) -> tuple[str, str, Markup]:
    """What changed from the first run to another: what is more than noise, then all else."""
    key, title = f"change-{place + 1}", f"From run 1 to run {place + 1}"
    changed = [item for item in found.measurements if item.judgement != "same"]
    clear = [item for item in changed if item.judgement in ("better", "worse")]
    worse = sum(item.judgement == "worse" for item in clear)
    same = len(found.measurements) - len(changed)
    lead = f"{names[place]}: {worse} measurements worse, {len(clear) - worse} better, {same} the same. {hosts(found)}"
    rest = [item for item in changed if item not in clear]
    parts = [
        _change_table(clear, f"Better or worse in run {place + 1}") if clear else None,
        _folded("Other changes", _change_table(rest, f"Other changes in run {place + 1}"), len(rest)),
        *(_differences(what, items, place) for what, items in _asked(found)),
    ]
    return key, f"1 to {place + 1}", section(key, title, *parts, lead=lead)


def _asked(found: Comparison) -> list[tuple[str, tuple[Difference, ...]]]:
    named = {"Verdicts": found.verdicts, "Recipe": found.recipe, "Data": found.data, "Versions": found.versions}
    return [*named.items(), ("Host", found.host)]


def _folded(title: str, body: Markup, count: int) -> Markup | None:
    if not count:
        return None
    summary = tag("summary", tag("b", title), tag("span", f"{count}", class_="quiet"))
    return tag("details", summary, body)


def _change_table(items: Sequence[Change], label: str) -> Markup:
    headings = ("", "Quantity", "Run 1", "Then", "Change", "Judgement")
    inner = table(headings, map(_change, items[:MOST_CHANGES]), label=label)
    more = len(items) - MOST_CHANGES
    return join(inner, tag("p", f"{more} more: edgekit compare has all.", class_="quiet") if more > 0 else None)


def _change(item: Change) -> Markup:
    interval = show_change_interval(item.name, item.interval)
    told = item.change is not None and not (item.judgement == "not compared" and item.name in TIMES)
    device = tag("small", f"on {item.device}") if item.device else None
    sign = {"better": "▲ ", "worse": "▼ "}.get(item.judgement, "")
    return tag(
        "tr",
        tag("th", item.subject, device, scope="row", class_="name"),
        tag("td", quantity(item.name).label),
        number(show(item.name, item.before, item.unit)),
        number(show(item.name, item.after, item.unit)),
        number(show_change(item.name, item.change) if told else "–", note=interval if told and interval else None),
        tag("td", tag("span", f"{sign}{item.judgement}", class_=f"change {item.judgement}"), _why(item)),
    )


def _why(item: Change) -> Markup | None:
    return tag("small", item.reason) if item.reason else None


def _differences(what: str, items: Sequence[Difference], place: int) -> Markup | None:
    rows = [
        tag(
            "tr",
            tag("th", each.where, scope="row", class_="name"),
            tag("td", each.before or "–"),
            tag("td", each.after or "–"),
        )
        for each in items
    ]
    return _folded(what, table(("", "Run 1", f"Run {place + 1}"), rows, label=f"{what}, run {place + 1}"), len(rows))
