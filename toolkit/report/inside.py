"""What was found inside quantized files: error by layer and which is at fault; and what was done to repair them."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.checks.diagnosis import Diagnosis
from toolkit.checks.layers import DECIBELS, LayerError
from toolkit.report.drawing import colour, drawing
from toolkit.report.markup import Markup, join, tag
from toolkit.report.numbers import MISSING, decibels, extent, seconds, show
from toolkit.report.overview import absent, badge, capital, number, section, table
from toolkit.report.view import View
from toolkit.report.zeros import shortened
from toolkit.runs import RepairRecord, RepairTrial

BARS = 24  # layers of the picture: the worst
ROWS = 200  # layers of the table
LONGEST = 22  # characters of a layer's name in the picture; its title has all
UNSETTLED = ("FAIL", "INCONCLUSIVE")
MOST_DB = 60.0  # where bars end: better than any 8-bit tensor


def lines(view: View) -> list[str]:
    """For a terminal: of each file that does not pass, the layer at fault or the first to diverge, and what to do."""
    known = ((name, record.diagnosis) for name, record in view.manifest.diagnoses.items())
    found = [f"layers: {name}: {_advised(each)}" for name, each in known if view.outcome(name) in UNSETTLED]
    return shortened(found, "layers")


def _advised(found: Diagnosis) -> str:
    """What diagnoses of earlier versions do not have is left out."""
    if found.first is None or found.first.layer == found.culprit:
        return found.advice
    return f"{found.advice}; the first layer to diverge is {found.first.layer}"


def diagnosis(view: View) -> Markup:
    """One part for each file that was looked into."""
    found = [record.diagnosis for record in view.manifest.diagnoses.values()]
    if not found:
        said = (
            "No quantized file failed a gate on its answers, no file differs from its model by more than its scheme "
            "explains, and the recipe has no [diagnosis]."
        )
        return absent("diagnosis", "Inside the files", said)
    lead = "Own error: signal to error of a layer fed with the file's own inputs; larger is better."
    return section("diagnosis", "Inside the files", (_one(each) for each in found), lead=lead)


def repairs(view: View) -> Markup:
    """The repair ladder of each variant: what was tried, what it cost, what it won."""
    found = view.manifest.repairs.values()
    if not found:
        said = "The recipe has no [repair], or nothing to repair."
        return absent("repairs", "Repair", said)
    lead = "Judged on the selection split, in the runtime of the files; the verdict above is the test split's."
    return section("repairs", "Repair", map(_ladder, found), lead=lead)


def _ladder(found: RepairRecord) -> Markup:
    headings = ("Rung", "Outcome", "Loss", "Agreement", "SQNR, dB", "Size", "Latency p50", "Took", "Why")
    rows = [_trial(trial, chosen=place == found.chosen) for place, trial in enumerate(found.trials)]
    chosen = found.trials[found.chosen]
    told = tag("p", tag("b", found.variant), f": {len(found.trials) - 1} tried; what stays: {chosen.change}.")
    return join(told, table(headings, rows, label=f"Repair of {found.variant}", class_="rungs"))


def _trial(trial: RepairTrial, *, chosen: bool) -> Markup:
    name = tag("b", trial.change) if chosen else trial.change
    numbers = (
        f"{100 * trial.loss:.2f} points" if trial.loss is not None else MISSING,
        show("agreement", trial.agreement),
        f"{trial.sqnr_db:.1f}" if trial.sqnr_db is not None else MISSING,
        show("size_bytes", trial.size_bytes),
        show("latency_p50_ms", trial.latency_ms),
        seconds(trial.seconds),
    )
    return tag(
        "tr",
        tag("th", name, tag("small", trial.rung), scope="row", class_="name"),
        tag("td", badge(trial.outcome)),
        map(number, numbers) if trial.use else (tag("td", "–", class_="n quiet") for _ in numbers),
        tag("td", trial.reason, class_="why"),
    )


def _one(found: Diagnosis) -> Markup:
    gains = {row.layer: row.gain_db for row in found.sensitive}
    rows = [_row(row, gains) for row in found.errors[:ROWS]]
    headings = (
        "Layer",
        "Own error, dB",
        "With all before, dB",
        "Beyond range",
        "Values",
        "Scale",
        "Float wins back, dB",
    )
    told = [tag("b", found.artifact), f": {found.advice}."]
    diverging = f"{capital(found.diverging())}." if found.first or not found.floats else None
    picture = tag("figure", tag("figcaption", f"Own error by layer of {found.artifact}"), _bars(found))
    more = len(found.errors) - len(rows)
    return join(
        tag("p", told),
        tag("p", diverging) if found.scheme and diverging else None,
        tag("div", picture, class_="charts"),
        tag("p", _simulated(found), class_="quiet"),
        tag(
            "details",
            tag("summary", f"Layers of {found.artifact}"),
            table(headings, rows, label=f"Layers of {found.artifact}"),
            tag("p", f"{more} more in the manifest.", class_="quiet") if more > 0 else None,
        ),
    )


def _simulated(found: Diagnosis) -> str:
    text = f"{found.images} images."
    if found.all_db is not None:
        text += f" Simulated with every layer quantized: {found.all_db:.1f} dB at the output"
        text += "." if found.all_agreement is None else f", {100 * found.all_agreement:.0f}% of decisions kept."
    return text


def _row(row: LayerError, gains: dict[str, float]) -> Markup:
    gain = next((gains[name] for name in row.layers if name in gains), None)
    fused = " + ".join(row.layers) if len(row.layers) > 1 else row.operator
    beyond = f"{100 * row.saturated:.2g}%"
    return tag(
        "tr",
        tag("th", row.layer, tag("small", fused), scope="row", class_="name"),
        number(_level(row.alone_db), row.alone_db),
        number(_level(row.sqnr_db), row.sqnr_db),
        number(beyond, row.saturated),
        number(extent(row.low, row.high), row.high),
        number(f"{row.scale:.3g}" if row.scale else "float", row.scale),
        number(MISSING if gain is None else decibels(gain), gain),
    )


def _level(db: float) -> str:
    return "no error" if db >= DECIBELS else decibels(db)


def _bars(found: Diagnosis) -> Markup:
    """A bar a layer, the worst first."""
    rows = found.errors[:BARS]
    low = min(0.0, *(max(row.alone_db, -20.0) for row in rows))
    with drawing(440, 16 * len(rows) + 8, left=150, right=56, top=4, bottom=4) as made:
        made.axes.set(xlim=(low, MOST_DB), ylim=(len(rows) - 0.5, -0.5))
        made.axes.set_axis_off()
        made.axes.axvline(0, color=colour("soft"), linewidth=1)
        for place, row in enumerate(rows):
            short = row.layer if len(row.layer) <= LONGEST else row.layer[: LONGEST - 1] + "…"
            made.text((low, place), short, (-8, 0), ha="right")
            culprit, end = found.faulty and found.culprit in row.layers, min(max(row.alone_db, low), MOST_DB)
            (bar,) = made.axes.barh(place, end, 0.7, color=colour("worse" if culprit else "data"))
            made.tell(bar, f"{row.layer}: {row.alone_db:.1f} dB", class_="culprit" if culprit else "sound")
            made.text((max(0.0, end), place), _level(row.alone_db), (5, 0), ha="left")
        summary = f"Own error by layer of {found.artifact}, worst first: " + _spoken(rows)
        return made.svg(role="img", aria_label=summary)


def _spoken(rows: Sequence[LayerError]) -> str:
    return "; ".join(f"{row.layer} {row.alone_db:.1f} dB" for row in rows) + "."
