"""Why each file is no faster on each device: what was found, what shows it, and layers, measured beside estimated."""

from __future__ import annotations

from toolkit.checks.speed import CLEAN, Finding, Speed, SpeedLayer, strongest
from toolkit.report.markup import Markup, join, tag
from toolkit.report.overview import absent, capital, number, section, table
from toolkit.report.view import View

MOST = 3  # lines on a terminal
ROWS = 20  # layers of each table
SHOWN_BY = {
    "measured": "measured",
    "runtime": "told by the runtime",
    "file": "read from the file",
    "estimated": "estimated",
    "rule": "by rule",
}
TITLE = "What limits the speed"


def lines(view: View) -> list[str]:
    """The strongest findings, for a terminal: of what is delivered, not of the original's own files."""
    own = {item.name for item in view.references}
    found = strongest(each for each in _of(view) if each.artifact not in own)
    shown = [f"speed: {speed.artifact} on {speed.device}: {sentence}" for speed, sentence in found[:MOST]]
    more = len(found) - len(shown)
    return [*shown, f"speed: {more} more, in the report"] if more > 0 else shown


def _of(view: View) -> list[Speed]:
    """Those of the files as they are: a run that failed half way may have others than it had."""
    digests = {item.name: item.sha256 for item in view.manifest.artifacts}
    return [each for each in view.manifest.speeds if digests.get(each.artifact, each.sha256) == each.sha256]


def speed(view: View) -> Markup:
    """One part for each file on each device with something to say; a sentence for the others."""
    found = _of(view)
    if not found:
        said = "Nothing was looked for: the run timed no file, or was made before this was."
        return absent("speed", TITLE, said)
    rows = [row for each in found if each.findings for row in _rows(each)]
    headings = ("What takes time", "Share", "What to do", "Shown by", "Layers")
    findings = table(headings, rows, label="What takes time, by file", class_="speeds") if rows else None
    clean = [f"{each.artifact} on {each.device}" for each in found if not each.findings]
    quiet = tag("p", f"{capital(CLEAN)} in {', '.join(clean)}.", class_="quiet") if clean else None
    lead = "What takes time, the strongest first, and what shows it; shares are of one inference."
    return section("speed", TITLE, findings, quiet, *(_layers(each) for each in found), lead=lead)


def _rows(found: Speed) -> list[Markup]:
    """The file, then what was found in it."""
    told = join(tag("b", found.artifact), f" on {found.device} ({_ran(found)})")
    head = tag("tr", tag("th", told, colspan="5", scope="rowgroup"), class_="group")
    return [head, *map(_finding, found.findings)]


def _ran(found: Speed) -> str:
    count = f"{found.threads} thread{'s' * (found.threads != 1)}"
    return ", ".join(filter(None, (found.runtime, found.delegate, count)))


def _finding(found: Finding) -> Markup:
    share = found.share if found.share is not None else found.estimated
    text = "whole file" if found.whole else "-" if share is None else f"{100 * share:.0f}%"
    note = "estimated" if found.share is None and found.estimated is not None else None
    more = found.count - len(found.layers)
    names = ", ".join(found.layers) + (f" and {more} more" if more > 0 else "")
    return tag(
        "tr",
        tag("th", capital(found.text), scope="row"),
        number(text, share, note=note),
        tag("td", capital(found.advice)),
        tag("td", SHOWN_BY[found.shown_by], tag("small", found.evidence)),
        tag("td", names or "–", class_="layers"),
    )


def _layers(found: Speed) -> Markup | None:
    """Its layers, folded away: the largest by what was measured, else estimated."""
    if not found.layers:
        return None
    shown = found.layers[:ROWS]
    label = f"Layers of {found.artifact} on {found.device} by time"
    more = found.layer_count - len(shown)
    headings = ("Layer", "Measured", "Estimated", "MACs", "Computed by", "Limited by")
    return tag(
        "details",
        tag("summary", label),
        table(headings, map(_layer, shown), label=label),
        tag("p", f"Measured: {found.how}. Estimated: {found.estimated_by}.", class_="quiet"),
        tag("p", f"{more} more layers.", class_="quiet") if more > 0 else None,
    )


def _layer(layer: SpeedLayer) -> Markup:
    def share(value: float | None) -> Markup:
        return number("-" if value is None else f"{100 * value:.1f}%", value)

    return tag(
        "tr",
        tag("th", layer.name, tag("small", layer.operator), scope="row", class_="name"),
        *map(share, (layer.measured, layer.estimated, layer.macs)),
        tag("td", layer.by or "-"),
        tag("td", layer.limit or "-"),
    )
