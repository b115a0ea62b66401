"""Whether the images were right: as the model was trained on (inputs), and enough to calibrate by."""

from __future__ import annotations

from toolkit.checks.coverage import CalibrationCheck, TensorCoverage
from toolkit.checks.inputs import Tried
from toolkit.report.markup import Markup, join, tag
from toolkit.report.numbers import MISSING, decibels, extent
from toolkit.report.overview import absent, number, section, table
from toolkit.report.view import View

ROWS = 100  # tensors of a table; the manifest has all


def lines(view: View) -> list[str]:
    """For a terminal: what is wrong with the inputs, and calibrations that were not enough."""
    found = view.manifest.inputs
    wrong = [f"inputs: {finding}" for finding in (found.findings if found else ())]
    checks = view.manifest.calibrations.values()
    return [*wrong, *(f"calibration of {each.stage}: {each.advice}" for each in checks if not each.enough)]


def inputs(view: View) -> Markup:
    """What was found where data and model meet, and what was tried."""
    found = view.manifest.inputs
    if found is None:
        said = "Not looked at: no images beside those that judge, or a model that takes no image alone."
        return absent("inputs", "Images as the model gets them", said)
    items = [
        tag("li", tag("b", finding.what), f": {finding.text}. ", tag("b", "Fix: "), finding.fix)
        for finding in found.findings
    ]
    well = f"Nothing wrong was found on {found.images} images: scale, order of channels, layout, numbers of the labels."
    told = tag("ul", items, class_="warnings") if items else tag("p", well)
    headings = ("Presented", "Images", "Labelled class gets", "Right", "Confidence", "Distance")
    lead = "The original on images as they are, and in ways that looked better on some of them."
    if found.layer:
        lead += f" Distance: of the inputs of {found.layer} from what it was trained on."
    rows = map(_tried, found.tried)
    return section("inputs", "Images as the model gets them", told, table(headings, rows, label="Presented"), lead=lead)


def _tried(row: Tried) -> Markup:
    shares = (_share(value) for value in (row.right, row.top1, row.confidence))
    distance = number(MISSING if row.distance is None else f"{row.distance:.3g}", row.distance)
    return tag("tr", tag("th", row.way, scope="row", class_="name"), number(f"{row.images}"), shares, distance)


def _share(value: float | None) -> Markup:
    return number(MISSING if value is None else f"{100 * value:.1f}%", value)


def calibration(view: View) -> Markup:
    """One part for each stage whose calibration was checked."""
    found = view.manifest.calibrations.values()
    if not found:
        said = "Not checked: no static quantization, or no [diagnosis] in the recipe; `edgekit diagnose RUN` does it."
        return absent("calibration", "Calibration", said)
    lead = "Ranges that are found anew on half of the images, and on as many others, beside those the files have."
    return section("calibration", "Calibration", map(_one, found), lead=lead)


def _one(found: CalibrationCheck) -> Markup:
    headings = ("Tensor", "Range", "Outside, others", "Moved by half, steps", "Moved by others, steps")
    more = len(found.tensors) - ROWS
    return join(
        tag("p", tag("b", found.stage), f": {found.advice}."),
        _outputs(found),
        table(headings, map(_row, found.tensors[:ROWS]), label=f"Ranges of {found.stage}"),
        tag("p", f"{more} more in the manifest.", class_="quiet") if more > 0 else None,
    )


def _outputs(found: CalibrationCheck) -> Markup:
    """What the ranges of each sample give at the output."""
    others = f"{found.others} others ({found.other})"
    samples = (
        (f"{found.images} images, as calibrated", found.sqnr_db),
        (f"half of them, {found.images // 2}", found.half_db),
        (others, found.other_db),
    )
    rows = (tag("tr", tag("th", name, scope="row", class_="name"), number(decibels(db), db)) for name, db in samples)
    headings = ("Ranges by", f"SQNR of the logits on {found.judged} images, dB")
    return table(headings, rows, label=f"Output of {found.stage} by calibration sample")


def _row(row: TensorCoverage) -> Markup:
    return tag(
        "tr",
        tag("th", row.layer, scope="row", class_="name"),
        number(extent(row.low, row.high), row.high, note=f"step {row.step:.3g}"),
        number(f"{100 * row.outside:.2g}%", row.outside),
        number(f"{row.half_steps:.1f}", row.half_steps),
        number(f"{row.other_steps:.1f}", row.other_steps),
    )
