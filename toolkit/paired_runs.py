"""Scores of two runs' files on the same test images, paired: only images on which they differ tell them apart.

Two accuracies with intervals of their own (MOVER) leave a loss of three points in a thousand images unseen; the paired
interval is that of the gate, with the first run's file in the original's place.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from toolkit.checks.gate import NAMES
from toolkit.compare import Change, Comparison, direction
from toolkit.core import Interval, Measurement
from toolkit.errors import InputError
from toolkit.kept import UNREADABLE, Kept
from toolkit.runs import Manifest

CONFIDENCE = 0.95
PAIRED = {name: name.removesuffix("_drop") for name, field in NAMES.items() if field == "accuracy_drop"}
"""A loss between two models -> the score that was lost."""


def paired(comparison: Comparison, before: tuple[Path, Manifest], after: tuple[Path, Manifest]) -> Comparison:
    """The comparison with paired intervals in the place of MOVER's, where both runs kept what that takes."""
    from toolkit.engine.statistics import bonferroni

    one, two = Kept(*before), Kept(*after)
    if one.fingerprint() != two.fingerprint() or not one.fingerprint():
        return comparison
    scores = [change for change in comparison.measurements if change.name in PAIRED.values() and change.device]
    confidence = bonferroni(CONFIDENCE, len(scores))
    judged = {change: _paired(one, two, change, confidence) for change in scores}
    return replace(comparison, measurements=tuple(judged.get(change, change) for change in comparison.measurements))


def _paired(one: Kept, two: Kept, change: Change, confidence: float) -> Change:
    """The change by the paired interval; where a run keeps too little, MOVER's, and why."""
    from toolkit.checks.accuracy import measure_accuracy

    try:
        first, second = (kept.predictions(change.subject, change.device) for kept in (one, two))
        found = measure_accuracy(second, one.labels(), original=first, confidence=confidence).measurements
    except (*UNREADABLE, InputError) as error:
        reason = f"{change.reason}; not paired: {error}" if change.reason else f"not paired: {error}"
        return change if change.judgement == "same" else replace(change, reason=reason)
    loss = next((item for item in found if PAIRED.get(item.name) == change.name), None)
    return change if loss is None else _judged(change, loss)


def _judged(change: Change, loss: Measurement) -> Change:
    """A loss is a change with the other sign."""
    lost = loss.interval
    if lost is None or change.before is None or change.after is None:
        return change
    interval = Interval(0.0 - lost.high, 0.0 - lost.low, lost.confidence, lost.method)
    held = interval.low <= 0 <= interval.high
    same = held and change.change == 0
    judgement = "same" if same else "unclear" if held else direction(change.name, change.change or 0.0)
    images = f"paired on {loss.how['images']:,} images"
    reason = f"{images}; the interval holds 0" if judgement == "unclear" else images
    return replace(change, interval=interval, judgement=judgement, reason="" if same else reason)  # type: ignore[arg-type]
