"""Files with zeros in their weights: whether each device's runtime makes use of them, by rule and by the clock.

The rule is that of the measurement `zeros`. The clock: the file's latency beside that of a dense file of the same
network and device in the same run, so that what packing or zeros cost is seen, whichever way it goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from toolkit.core import Measurement
from toolkit.report.markup import Markup, tag
from toolkit.report.numbers import show
from toolkit.report.overview import absent, capital, number, section, table
from toolkit.report.sentences import SAME, gain_text
from toolkit.report.view import Gain, View
from toolkit.runs import ArtifactRecord

LATENCY = "latency_p50_ms"
MOST = 8  # lines on a terminal
USED = {"no": "not used", "open": "open"}
SPEED = ("faster", "slower")


@dataclass(frozen=True)
class Row:
    """One file on one device. beside: its latency against a dense file's; None where the run has none to set beside."""

    artifact: ArtifactRecord
    found: Measurement
    beside: Gain | None

    @property
    def used(self) -> str:
        """Whether the runtime makes use of the zeros, by rule."""
        return USED.get(str(self.found.how.get("used", "")), "open")

    @property
    def speed(self) -> str:
        """What the clock says."""
        if self.beside is None:
            return "no dense file of the same network was timed beside it"
        text = gain_text(self.beside, SPEED)
        clear = self.beside.clear is not False or text == SAME
        said = f"{text} {'as' if text == SAME else 'than'}" if clear else "not clearly faster or slower than"
        untimed = "" if self.beside.measured else " (not measured on a device)"
        return f"{said} {self.beside.baseline}, which is dense{untimed}"


def rows(view: View, what: str = "zeros") -> Iterator[Row]:
    """Files that a measurement of this name speaks of, as the manifest has them."""
    by_name = {item.name: item for item in view.manifest.artifacts}
    for found in view.manifest.measurements:
        if found.name == what and found.subject in by_name:
            artifact = by_name[found.subject]
            yield Row(artifact, found, beside(view, artifact, found))


def lines(view: View) -> list[str]:
    """One line for each, for a terminal."""
    found = [
        f"zeros: {row.artifact.name} on {row.found.device}: {show('zeros', row.found.value)} of its weights, "
        f"{row.used}: {row.found.how.get('why', '')}; latency: {row.speed}"
        for row in rows(view)
    ]
    return shortened(found, "zeros")


def shortened(found: list[str], what: str) -> list[str]:
    """No more lines than a terminal is given."""
    more = len(found) - MOST
    return [*found[:MOST], f"{what}: {more} more, in the report"] if more > 0 else found


def zeros(view: View) -> Markup:
    """A table of all."""
    body = [_row(view, row) for row in rows(view)]
    if not body:
        return absent("zeros", "Zeros in the weights", "No file has many zeros in its weights.")
    headings = ("File", "Device", "Zeros", "Size", "Gzip", "By rule", "Latency p50", "Why")
    lead = "Whether the device's runtime makes use of them: by the rule of its source, and by the clock."
    return section("zeros", "Zeros in the weights", table(headings, body, label="Zeros in the weights"), lead=lead)


def _row(view: View, row: Row) -> Markup:
    name = row.artifact.name
    sizes = (view.number(row.artifact, "size_bytes"), view.find(name, "gzip_bytes"))
    time = view.find(name, LATENCY, row.found.device)
    return tag(
        "tr",
        tag("th", name, tag("small", f"packed: {row.found.how.get('packed', '-')}"), scope="row", class_="name"),
        tag("td", row.found.device, class_="n"),
        number(show("zeros", row.found.value), row.found.value, note=f"2:4: {row.found.how.get('2:4', '-')}"),
        *(number(show("size_bytes", each.value if each else None)) for each in sizes),
        tag("td", row.used),
        number(show(LATENCY, time.value if time else None), note=row.speed),
        tag("td", capital(str(row.found.how.get("why", ""))), tag("small", str(row.found.how.get("rule", "")))),
    )


def beside(view: View, artifact: ArtifactRecord, found: Measurement) -> Gain | None:
    """Its latency against a dense file's: of the same weights where it is packed itself, else of the original's."""
    after = view.find(artifact.name, LATENCY, found.device)
    for other in _dense(view, artifact, found):
        before = view.find(other.name, LATENCY, found.device)
        if after is not None and before is not None and before.device == after.device:
            return view.beside(before, after)
    return None


def _dense(view: View, artifact: ArtifactRecord, found: Measurement) -> Iterator[ArtifactRecord]:
    """Files to compare with, the best first: same format, scheme and work, all weights stored."""
    keys = {stage.name: stage.key for stage in view.manifest.stages}
    own, kind = view.number(artifact, "macs"), (artifact.format, artifact.scheme)
    alike = [x for x in view.manifest.artifacts if x.name != artifact.name and (x.format, x.scheme) == kind]
    for other in alike if _packed(found) else ():
        zeros = view.find(other.name, "zeros", found.device)
        same = keys.get(other.stage) == keys.get(artifact.stage) is not None
        if same and not (zeros and _packed(zeros)):
            yield other
    for other in alike:
        work = view.number(other, "macs")
        same = own is not None and work is not None and own.value == work.value
        if other in view.references and same and not view.find(other.name, "zeros", found.device):
            yield other


def _packed(found: Measurement) -> bool:
    return not str(found.how.get("packed", "0 ")).startswith("0 ")
