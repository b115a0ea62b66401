"""The last lines of a run on the terminal: one row per file, what was won, the outcome, what to type next."""

from __future__ import annotations

from pathlib import Path

from toolkit.core import Measurement
from toolkit.report import calibration, clusters, inside, matrix, speed, zeros
from toolkit.report.numbers import plain, quantity, show
from toolkit.report.sentences import change_of_drop, outcome_sentence, outcome_word, share_text, win_sentence
from toolkit.report.view import ORIGINAL, View
from toolkit.runs import ArtifactRecord, Manifest

MOST_REASONS = 8
LONGEST_RULE = 120  # characters under a table's head
HEADINGS = ("", "accuracy", "change", "agreement", "size", "latency p50", "verdict")


def summary_lines(manifest: Manifest) -> list[str]:
    """A table of the original and every artifact, why a gate did not pass, the gain in one sentence, the outcome."""
    view = View(manifest)
    lines = table([tuple(plain(cell) for cell in row) for row in (headings(view), *rows_of(view))])
    won = plain(win_sentence(view))
    outcome = plain(f"{outcome_word(view)}: {outcome_sentence(view)}")
    return [*lines, "", *map(plain, (*reasons(manifest), *findings(view))), *([won] if won else []), outcome]


def findings(view: View) -> list[str]:
    """What the checks have to say, a line each: what explains the verdicts first, what is good to know last."""
    return [line for section in (inside, matrix, calibration, zeros, clusters, speed) for line in section.lines(view)]


def headings(view: View) -> tuple[str, ...]:
    """Of the table of the original and every file."""
    return (HEADINGS[0], quantity(view.score).label, *HEADINGS[2:])


def rows_of(view: View) -> list[tuple[str, ...]]:
    """The original, then one row for each file and device."""
    return [_original(view), *(row for item in view.manifest.artifacts for row in _rows(view, item))]


def next_steps(folder: Path, manifest: Manifest) -> list[str]:
    """What to look at and what to type next; a file that failed is not offered for delivery."""
    view = View(manifest)
    best = view.headline()
    good = [best.name] if best and view.outcome(best.name) != "FAIL" else []
    return [
        f"report:      {folder / 'report.html'}",
        f"files:       {folder / 'artifacts'}",
        *(f"deliver:     edgekit bundle {folder} {name}  (edgekit deploy: to a device)" for name in good),
        "your model:  edgekit run prune-distill-int8 --model MODEL.keras --data IMAGES --set data.preprocess=HOW",
        "             (edgekit list recipes; edgekit inspect MODEL.keras)",
    ]


def reasons(manifest: Manifest) -> list[str]:
    """Why each gate that did not pass did not, the failed ones first."""
    unsettled = [verdict for verdict in manifest.verdicts if verdict.outcome != "PASS"]
    unsettled.sort(key=lambda verdict: verdict.outcome != "FAIL")
    several = len({verdict.device for verdict in manifest.verdicts if verdict.device}) > 1
    where = {verdict.device: f" on {verdict.device}" if several and verdict.device else "" for verdict in unsettled}
    lines = [
        f"{verdict.outcome}  {verdict.artifact}{where[verdict.device]}, "
        f"{quantity(verdict.gate).label}: {verdict.reason}"
        for verdict in unsettled[:MOST_REASONS]
    ]
    more = len(unsettled) - MOST_REASONS
    return [*lines, f"and {more} more, in the report"] if more > 0 else lines


def table(rows: list[tuple[str, ...]], *, left: int = 1) -> list[str]:
    """Rows in columns, the first one underlined; all but the first `left` and the last are right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first = (cell.ljust(width) for cell, width in zip(row[:left], widths[:left], strict=True))
        middle = (cell.rjust(width) for cell, width in zip(row[left:-1], widths[left:-1], strict=True))
        lines.append("  ".join([*first, *middle, *row[max(left, len(row) - 1) :]]).rstrip())
    return [lines[0], "-" * min(sum(widths) + 2 * len(widths) - 2, LONGEST_RULE), *lines[1:]]


def _original(view: View) -> tuple[str, ...]:
    accuracy, size = view.find(ORIGINAL, view.score), view.find(ORIGINAL, "size_bytes")
    time = view.find(ORIGINAL, "latency_p50_ms")
    shown = show("latency_p50_ms", time.value) if time else "-"
    return (ORIGINAL, share_text(accuracy), "-", "-", show("size_bytes", size.value if size else None), shown, "-")


def _rows(view: View, artifact: ArtifactRecord) -> list[tuple[str, ...]]:
    """One row, or one for each device where there are several."""
    devices = view.devices_of(artifact.name)
    name = artifact.name
    return [
        (name if len(devices) == 1 else f"{name} on {device}", *_cells(view, artifact, device)) for device in devices
    ]


def _got(found: Measurement | None) -> str:
    """What stands behind a number that was neither measured nor counted."""
    return f", {found.source}" if found and found.source not in ("measured", "computed") else ""


def _cells(view: View, artifact: ArtifactRecord, device: str) -> tuple[str, ...]:
    def cell(name: str) -> str:
        found = view.number(artifact, name, device)
        return show(name, found.value if found else None) + _got(found)

    drop = view.drop(artifact, device)
    reference = artifact.variant == ORIGINAL
    missing = "-" if reference else show("top1", None)
    accuracy = view.find(artifact.name, view.score, device)
    return (
        share_text(accuracy) + _got(accuracy) if accuracy or not reference else "-",
        change_of_drop(drop) if drop else missing,
        cell("agreement") if view.find(artifact.name, "agreement", device) or not reference else "-",
        cell("size_bytes"),
        cell("latency_p50_ms"),
        view.outcome(artifact.name, device) or ("reference" if reference else "no gate"),
    )
