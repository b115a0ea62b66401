"""What of a comparison fails a pull request: what is worse for sure, by more than a tolerance, in delivered files."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.checks.gate import LATENCY
from toolkit.compare import STEADY, Change, Comparison
from toolkit.plan import REFERENCE
from toolkit.report.compared import delivered
from toolkit.report.numbers import plain, quantity, show, show_change
from toolkit.report.view import SCORES

TOLERANCE = 0.02  # of a size or a time: an exporter's other version moves bytes, another layout in memory a per cent
WATCHED = (*SCORES, "agreement", "size_bytes", "macs", "arena_kib")
"""What is delivered, of which a loss is a regression; times only where both were measured in turn."""


def regressions(found: Comparison, tolerance: float = TOLERANCE) -> tuple[str, ...]:
    """Each regression in a sentence; none where nothing is worse for sure."""
    lines = [*_verdicts(found), *(_told(each) for each in found.measurements if _worse(each, tolerance))]
    for each in found.retimed:
        if each.judgement == "worse" and each.interval is not None:
            span = f"{each.interval.low:.3g} .. {each.interval.high:.3g}"
            lines.append(f"{each.subject} takes {each.ratio:.3g} times as long on {each.device} ({span})")
    return tuple(plain(line) for line in lines)


def untold(found: Comparison) -> tuple[str, ...]:
    """Scores of delivered files that could not be set against each other, and why: no regression of theirs is seen."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in found.measurements:
        if each.name in SCORES and each.judgement == "not compared" and each.device and _delivered(each):
            reasons.setdefault((quantity(each.name).label, each.reason), []).append(each.subject)
    return tuple(
        plain(f"{label} of {', '.join(subjects)} is not compared: {why}") for (label, why), subjects in reasons.items()
    )


def _delivered(change: Change) -> bool:
    return change.subject.partition(".")[0] != REFERENCE and delivered(change.subject)


def _worse(change: Change, tolerance: float) -> bool:
    if change.judgement != "worse" or change.name not in WATCHED or not _delivered(change):
        return False
    if change.name not in STEADY or not change.before:
        return True
    return abs(change.change or 0.0) > tolerance * abs(change.before)


def _told(change: Change) -> str:
    device = f" on {change.device}" if change.device else ""
    values = f"{show(change.name, change.before)} to {show(change.name, change.after)}"
    moved = show_change(change.name, change.change)
    why = f"; {change.reason}" if change.reason else ""
    return f"{change.subject}{device}: {quantity(change.name).label} {values} ({moved}{why})"


def _verdicts(found: Comparison) -> Iterator[str]:
    """Gates that failed anew; of latency only where both runs had one host."""
    for item in found.verdicts:
        timed = any(f" {gate}" in item.where for gate in LATENCY)
        if item.after == "FAIL" and not (timed and not found.same_host):
            yield f"{item.where}: {item.before or 'not judged'} before, FAIL now"
