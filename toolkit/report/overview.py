"""The first half of the page: verdicts, what was won, the waterfall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from toolkit.core import Measurement, Verdict
from toolkit.report import bars
from toolkit.report.markup import Child, Markup, join, tag
from toolkit.report.numbers import (
    MISSING,
    quantity,
    show,
    show_change,
    show_change_interval,
    show_interval,
    show_limit,
    sureness,
)
from toolkit.report.sentences import (
    GAINS,
    change_of_drop,
    gain_text,
    outcome_sentence,
    outcome_word,
    share_text,
    win_sentence,
)
from toolkit.report.view import ORIGINAL, WORST_FIRST, Share, Step, View
from toolkit.runs import ArtifactRecord

SYMBOLS = {"PASS": "✓", "FAIL": "✕", "INCONCLUSIVE": "?", "STOPPED": "✕", "NOT FINISHED": "…", "NO GATE": "–"}


def section(key: str, title: str, *children: Child, lead: Child = None) -> Markup:
    """A numbered part of the page: its title in the margin, its content beside it."""
    heading = tag("h2", title, id=f"{key}-title")
    body = tag("div", tag("p", lead, class_="lead") if lead else None, *children, class_="body")
    return tag("section", heading, body, id=key, aria_labelledby=f"{key}-title")


class Absent(Markup):
    """A section that has nothing to show: `reason` says why, under `heading`."""

    heading: str
    reason: Markup


def absent(key: str, title: str, *reason: Child) -> Absent:
    """A section with nothing but the reason why; a page may gather them (html.py)."""
    said = join(*reason)
    made = Absent(section(key, title, tag("p", said, class_="quiet")))
    made.heading, made.reason = title, said
    return made


def table(headings: Iterable[Child], rows: Iterable[Markup], *, label: str, class_: str = "") -> Markup:
    """A table in a box of its own that scrolls sideways where the page is narrow."""
    spoken = tag("span", "Name", class_="spoken")  # a column of names says what it is to those who do not see it
    head = tag("thead", tag("tr", (tag("th", heading or spoken, scope="col") for heading in headings)))
    inner = tag("table", head, tag("tbody", rows), class_=class_ or None)
    return tag("div", inner, class_="scroll", tabindex="0", role="group", aria_label=label)


def number(text: str, value: float | None = None, *, note: Child = None) -> Markup:
    """A cell of figures; `value` sorts it."""
    quiet = " quiet" if text == MISSING else ""
    small = tag("small", note) if note else None
    key = None if value is None else repr(float(value))
    return tag("td", text, small, class_=f"n{quiet}", data_value=key)


def capital(text: str) -> str:
    """`text` with a capital letter first."""
    return text[:1].upper() + text[1:]


def badge(outcome: str) -> Markup:
    """An outcome as sign, word and colour."""
    sign = tag("span", SYMBOLS.get(outcome, "–"), aria_hidden="true", class_="sign")
    return tag("span", sign, outcome, class_=f"badge {outcome.lower().replace(' ', '-')}")


# ---------------------------------------------------------------- verdicts


def verdicts(view: View) -> Markup:
    """The run's outcome, why, and every gate."""
    word = outcome_word(view)
    kind = word.lower().replace(" ", "-")
    sign = tag("span", SYMBOLS.get(word, "–"), aria_hidden="true", class_="sign")
    banner = tag(
        "div",
        tag("p", sign, tag("span", word), class_="outcome"),
        tag("p", outcome_sentence(view)),
        class_=f"banner {kind}",
    )
    return section("verdicts", "Verdicts", banner, _board(view), _unsettled(view), _gates(view))


def _board(view: View) -> Markup | None:
    """Device x artifact x gate: a row for each file on each device, a column for each gate; the worst first."""
    found = view.manifest.verdicts
    if not found:
        return None
    gates = list(dict.fromkeys(item.gate for item in found))
    judged = list(dict.fromkeys(item.artifact for item in found))
    pairs = [(name, device) for name in judged for device in _judged_on(found, name)]
    pairs.sort(key=lambda pair: WORST_FIRST.index(view.outcome(*pair) or "PASS"))
    rows = []
    for name, device in pairs:
        cells = (_cell(found, name, device, gate) for gate in gates)
        verdict = tag("td", badge(view.outcome(name, device) or "NO GATE"))
        where = tag("td", device or "any", class_="n" if device else "n quiet")
        rows.append(tag("tr", tag("th", name, scope="row", class_="name"), where, verdict, cells))
    headings = ("Artifact", "Device", "Verdict", *(_gate_heading(found, gate) for gate in gates))
    return table(headings, rows, label="Verdicts by artifact, device and gate", class_="board")


def _judged_on(found: Sequence[Verdict], artifact: str) -> list[str]:
    """Devices with a gate of their own; a gate that needs none stands in each of their rows."""
    devices = dict.fromkeys(item.device for item in found if item.artifact == artifact)
    return [device for device in devices if device] or [""]


def _gate_heading(found: Sequence[Verdict], gate: str) -> Markup:
    """The gate's name, and its limit where all share it."""
    limits = {item.limit for item in found if item.gate == gate}
    limit = tag("small", show_limit(gate, limits.pop())) if len(limits) == 1 else None
    return join(capital(quantity(gate).label), limit)


def _cell(found: Sequence[Verdict], artifact: str, device: str, gate: str) -> Markup:
    """One gate: its sign and value; its limit too where not all share it."""
    own = [x for x in found if (x.artifact, x.gate) == (artifact, gate) and x.device in (device, "")]
    if not own:
        return tag("td", "–", class_="n quiet")
    verdict = own[0]
    sign = tag("span", SYMBOLS[verdict.outcome], aria_hidden="true", class_=f"sign {verdict.outcome.lower()}")
    same = len({item.limit for item in found if item.gate == gate}) == 1
    limit = None if same else tag("small", show_limit(gate, verdict.limit))
    said = tag("span", f"{verdict.outcome}: ", class_="spoken")
    return tag("td", sign, said, show(gate, verdict.value), limit, class_="n")


def _unsettled(view: View) -> Markup | None:
    """Why each gate that did not pass did not, and what was found inside those files."""
    found = [item for item in view.manifest.verdicts if item.outcome != "PASS"]
    found.sort(key=lambda item: WORST_FIRST.index(item.outcome))
    items = [
        tag(
            "li",
            badge(item.outcome),
            tag("b", f" {item.artifact}{f' on {item.device}' if item.device else ''}"),
            f", {quantity(item.gate).label}: {item.reason.rstrip('.')}.",
        )
        for item in found
    ]
    items += [
        _culprit(view, name) for name in dict.fromkeys(x.artifact for x in found) if name in view.manifest.diagnoses
    ]
    return tag("ul", items, class_="whys") if items else None


def _culprit(view: View, artifact: str) -> Markup:
    """What was found inside a file that did not pass."""
    advice = view.manifest.diagnoses[artifact].diagnosis.advice
    return tag("li", tag("a", f"Inside {artifact}", href="#diagnosis"), f": {advice}.")


def _gates(view: View) -> Markup | None:
    """One row for each artifact, device and gate; artifacts with the worst outcome first."""
    by_artifact: dict[str, list[Verdict]] = {}
    for verdict in view.manifest.verdicts:
        by_artifact.setdefault(verdict.artifact, []).append(verdict)
    if not by_artifact:
        return None
    worst = sorted(by_artifact, key=lambda name: WORST_FIRST.index(view.outcome(name) or "PASS"))
    rows = [
        _gate(verdict, len(found) * (not place))
        for found in map(by_artifact.__getitem__, worst)
        for place, verdict in enumerate(found)
    ]
    headings = ("Artifact", "Gate", "Verdict", "Value and interval", "Limit", "Device", "Why")
    summary = tag("summary", "Every gate with its interval and reason")
    return tag("details", summary, table(headings, rows, label="Every gate", class_="gates"))


def _gate(verdict: Verdict, rows: int) -> Markup:
    meaning = quantity(verdict.gate)
    shown = show_change_interval if meaning.kind in ("points", "growth") else show_interval
    interval = shown(verdict.gate, verdict.interval)
    confidence = sureness(verdict.interval) if interval else None
    artifact = tag("th", verdict.artifact, scope="rowgroup", rowspan=rows, class_="name") if rows else None
    return tag(
        "tr",
        artifact,
        tag("td", meaning.label, class_="n"),
        tag("td", badge(verdict.outcome)),
        number(show(verdict.gate, verdict.value), note=f"{interval} {confidence}".strip() if interval else None),
        number(show_limit(verdict.gate, verdict.limit)),
        tag("td", verdict.device or "not needed", class_="n" if verdict.device else "n quiet"),
        tag("td", capital(verdict.reason), class_="why"),
        class_="first" if rows else None,
    )


# ---------------------------------------------------------------- wins


def wins(view: View) -> Markup:
    """Figures of the artifact to speak of, then all of them beside the original."""
    artifact = view.headline()
    if artifact is None:
        return absent("wins", "Against the original", "No artifact was delivered.")
    return section("wins", "Against the original", _figures(view, artifact), _beside(view), lead=win_sentence(view))


def _figures(view: View, artifact: ArtifactRecord) -> Markup:
    items = [_figure(view, artifact, name, words) for name, (_, words) in GAINS.items()]
    drop = view.drop(artifact)
    change, _, interval = change_of_drop(drop).partition(" (") if drop else (MISSING, "", "")
    interval, score = interval.rstrip(")"), view.find(artifact.name, view.score)
    note = f"{interval}; now {show(score.name, score.value)}" if interval and score else interval
    items.append(_fact(f"{capital(quantity(view.score).label)} of {artifact.name}", change, note))
    return tag("dl", items, class_="figures")


def _figure(view: View, artifact: ArtifactRecord, name: str, words: tuple[str, str]) -> Markup:
    gain = view.gain(artifact, name, view.first_device(name))
    text = gain_text(gain, words).removesuffix(" MACs")
    if gain is None or not text:
        own = view.number(artifact, name, view.first_device(name))
        return _fact(capital(quantity(name).label), MISSING, f"here {show(name, own.value)}" if own else "")
    doubt = "" if gain.clear is not False else ", intervals overlap"
    note = f"{show(name, gain.before)} → {show(name, gain.after)}{doubt}"
    return _fact(f"{capital(quantity(name).label)} against {gain.baseline}", text, note)


def _fact(label: str, text: str, note: str) -> Markup:
    quiet = "quiet" if text == MISSING else None
    return tag("div", tag("dt", label), tag("dd", text, class_=quiet), tag("dd", note, class_="note"))


def _beside(view: View) -> Markup:
    headings = (
        "",
        capital(quantity(view.score).label),
        "Change",
        "Agreement",
        "Size",
        "MACs",
        "Latency p50",
        "Verdict",
    )
    rows = [_original_row(view)]
    artifacts = (*view.references, *view.delivered)
    rows += [_artifact_row(view, item, device) for item in artifacts for device in view.devices_of(item.name)]
    return table(headings, rows, label="The original and every artifact")


def _original_row(view: View) -> Markup:
    def cell(name: str) -> Markup:
        found = view.find(ORIGINAL, name)
        return number(show(name, found.value if found else None))

    accuracy = view.find(ORIGINAL, view.score)
    dash = number("–")
    cells = (_accuracy(accuracy), dash, dash, *map(cell, ("size_bytes", "macs", "latency_p50_ms")))
    return tag("tr", tag("th", ORIGINAL, scope="row", class_="name"), cells, tag("td", "baseline", class_="quiet"))


def _accuracy(found: Measurement | None) -> Markup:
    whole, _, interval = share_text(found).partition(" (")
    return number(whole, note=interval.rstrip(")") or None)


def _artifact_row(view: View, artifact: ArtifactRecord, device: str) -> Markup:
    drop, reference = view.drop(artifact, device), artifact in view.references
    change, _, interval = change_of_drop(drop).partition(" (") if drop else (MISSING, "", "")
    agreement = view.find(artifact.name, "agreement", device)
    outcome = view.outcome(artifact.name, device)
    note = f"on {device}" if len(view.devices_of(artifact.name)) > 1 else artifact.scheme
    return tag(
        "tr",
        tag("th", artifact.name, tag("small", note), scope="row", class_="name"),
        _accuracy(view.find(artifact.name, view.score, device)),
        number(change, note=interval.rstrip(")") or None),
        number(show("agreement", agreement.value if agreement else None)),
        (_compared(view, artifact, name, device) for name in GAINS),
        tag("td", badge(outcome) if outcome else tag("span", "reference" if reference else "no gate", class_="quiet")),
    )


def _compared(view: View, artifact: ArtifactRecord, name: str, device: str) -> Markup:
    found = view.number(artifact, name, device)
    reference = artifact in view.references
    gain = None if reference else view.gain(artifact, name, device)
    words = (
        ("smaller", "larger")
        if name == "size_bytes"
        else ("faster", "slower")
        if "latency" in name
        else ("fewer", "more")
    )
    note = gain_text(gain, words) + (", unclear" if gain and gain.clear is False else "")
    source = f"{found.source}" if found and found.source not in ("measured", "computed") else ""
    return number(show(name, found.value if found else None), note="; ".join(filter(None, (note, source))) or None)


# ---------------------------------------------------------------- waterfall


def waterfall(view: View) -> Markup:
    """Each stage's own share, measured on its output."""
    steps = view.steps()
    if not steps:
        return absent("waterfall", "Stage by stage", "No stage has run.")
    scales = {name: _bar_scale(name, steps) for name in view.waterfall}
    headings = [Markup("Stage"), *(_heading(view, name, scales[name]) for name in view.waterfall)]
    body: list[Markup] = []
    group = ""
    for step in steps:
        if step.group != group:
            group = step.group
            body.append(tag("tr", tag("th", _group_title(step), colspan="5", scope="rowgroup"), class_="group"))
        body.append(_step(step, scales))
    lead = "What each stage did, measured on that stage's own output. A bar runs from the stage before to this one. "
    if view.stage_format:
        lead += f"Size and latency of a stage are those of its model as a float32 .{view.stage_format} file. "
    higher = quantity(view.score).better == "higher"
    lead += f"Higher is better for {quantity(view.score).label}, lower for the rest." if higher else "Lower is better."
    return section("waterfall", "Stage by stage", table(headings, body, label="Waterfall", class_="falls"), lead=lead)


def _group_title(step: Step) -> str:
    source = f", from {step.parent}" if step.parent else ""
    return f"Original, as files to compare with{source}" if step.group == ORIGINAL else f"Variant {step.group}{source}"


def _bar_scale(name: str, steps: tuple[Step, ...]) -> bars.Scale:
    values = [share.value for step in steps if (share := step.shares[name]).value is not None] or [0.0, 1.0]
    values += [share.value - share.change for step in steps if (share := step.shares[name]).value and share.change]
    if quantity(name).kind in ("share", "score"):
        low, high = bars.span(values, floor=0.0, ceiling=1.0, least=0.02)
    else:
        low, high = 0.0, max(values) or 1.0
    return bars.Scale(low, high)


def _heading(view: View, name: str, scale: bars.Scale) -> Markup:
    device = view.first_device(name)
    place = tag("small", f"on {device}") if device else None
    extent = tag("small", f"{show(name, scale.low)} – {show(name, scale.high)}")
    return join(capital(quantity(name).label), place, extent)


def _step(step: Step, scales: dict[str, bars.Scale]) -> Markup:
    title = tag("small", step.title) if step.title != step.subject else None
    head = tag("th", step.subject, title, scope="row", class_="name")
    return tag("tr", head, (_share(name, step.shares[name], step, scale) for name, scale in scales.items()))


def _share(name: str, share: Share, step: Step, scale: bars.Scale) -> Markup:
    if share.value is None:
        return tag("td", "left to the exporter" if step.same_graph else MISSING, class_="quiet fallen")
    before = None if share.change is None else share.value - share.change
    better = _better(name, share.change) if share.clear else None
    word = {True: "better", False: "worse", None: ""}[better]
    change = None
    if share.change is not None:
        told = show_change(name, share.change) if share.change else "no change"
        spoken = tag("span", f" {word}", class_="spoken") if word else None
        change = tag("span", told if share.clear else "unclear", spoken, class_=f"change {word}")
    beyond = f"since {share.since}" if share.since and share.since != step.parent else None
    line = tag("span", tag("span", show(name, share.value)), change, class_="line")
    bar = bars.bar(scale, share.value, before, better=better)
    return tag("td", line, bar, tag("small", beyond) if beyond else None, class_="fallen")


def _better(name: str, change: float | None) -> bool | None:
    if not change:
        return None
    return (change > 0) == (quantity(name).better == "higher")
