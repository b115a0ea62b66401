"""What a run came to, in plain sentences: the same words on the terminal and at the head of the page."""

from __future__ import annotations

from dataclasses import replace

from toolkit.core import Measurement, Outcome
from toolkit.report.numbers import SPACE, factor, quantity, show, show_change, show_change_interval
from toolkit.report.view import Gain, View
from toolkit.runs import ArtifactRecord

GAINS: dict[str, tuple[str, tuple[str, str]]] = {
    "size_bytes": ("is", ("smaller", "larger")),
    "macs": ("needs", ("fewer MACs", "more MACs")),
    "latency_p50_ms": ("runs", ("faster", "slower")),
}
SAME = "about the same"


def outcome_word(view: View) -> str:
    """The run's outcome in one or two words."""
    manifest = view.manifest
    unfinished = {"running": "NOT FINISHED", "failed": "STOPPED"}
    return unfinished.get(manifest.status) or manifest.outcome or "NO GATE"


def outcome_sentence(view: View) -> str:
    """Why the run's outcome is what it is."""
    manifest = view.manifest
    if manifest.status == "failed":
        return f"The run stopped before its end. {manifest.error}".rstrip()
    if manifest.status == "running":
        return "The run has not ended; this is what is known so far."
    if not manifest.verdicts:
        return "Nothing was judged: the recipe sets no budget."
    outcomes: tuple[Outcome, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
    return "; ".join(part for outcome in outcomes if (part := _of_outcome(view, outcome))) + "."


def _of_outcome(view: View, outcome: Outcome) -> str:
    judged = list(dict.fromkeys(item.artifact for item in view.manifest.verdicts))
    names = [name for name in judged if view.outcome(name) == outcome]
    if not names:
        return ""
    if outcome == "PASS":
        who = f"All {len(names)} artifacts" if len(names) == len(judged) > 1 else _list(names)
        return f"{who} {'holds' if len(names) == 1 else 'hold'} every gate"
    one, many = ("fails", "fail") if outcome == "FAIL" else ("is undecided", "are undecided")
    return f"{_list(names)} {one if len(names) == 1 else many} on {_list(_gates(view, names, outcome))}"


def _gates(view: View, names: list[str], outcome: Outcome) -> list[str]:
    found = (item for item in view.manifest.verdicts if item.artifact in names and item.outcome == outcome)
    return list(dict.fromkeys(quantity(item.gate).label for item in found))


def win_sentence(view: View) -> str:
    """What the headline artifact won against the original; "" where nothing was delivered."""
    artifact = view.headline()
    if artifact is None:
        return ""
    won, unsure = _gains(view, artifact)
    aside = {"FAIL": " (which fails)", "INCONCLUSIVE": " (which is undecided)"}.get(
        view.outcome(artifact.name) or "", ""
    )
    first = f"{_list(won)} than the original" if won else "is no smaller and no faster than the original"
    drop = view.drop(artifact)
    label = quantity(view.score).label
    accuracy = f"{label} changes by {change_of_drop(drop)}" if drop else f"its {label} was not measured"
    return "; ".join([f"{artifact.name}{aside} {first}", *unsure, accuracy]) + "."


def _gains(view: View, artifact: ArtifactRecord) -> tuple[list[str], list[str]]:
    """What can be said to have changed, and what cannot."""
    won: list[str] = []
    unsure: list[str] = []
    for name, (verb, words) in GAINS.items():
        gain = view.gain(artifact, name, view.first_device(name))
        text, label = gain_text(gain, words), quantity(name).label
        untimed = "" if gain is None or gain.measured else " (not measured on a device)"
        if gain is None or not text:
            unsure.append(f"{label} against the original not measured")
        elif text == SAME:
            if name != "macs":  # quantization alone leaves the work as it is, which is no news
                unsure.append(f"{label} is {SAME}")
        elif gain.clear is False:
            unsure.append(f"{label} is not clearly different{untimed}")
        else:
            won.append(f"{verb} {text}{untimed}")
    return won, unsure


def gain_text(gain: Gain | None, words: tuple[str, str]) -> str:
    """ "3.2× smaller"; "" where it cannot be said."""
    return factor(gain.before, gain.after, words=words) if gain else ""


def change_of_drop(drop: Measurement) -> str:
    """A drop of 0.003 as "−0.3 points (−1.7 to +0.9)"; growth of an error keeps its sign: "+3.0%"."""
    name, turn = drop.name, quantity(drop.name).kind != "growth"
    change = show_change(name, -drop.value if turn else drop.value)
    if drop.interval is None:
        return change
    low, high = drop.interval.low, drop.interval.high
    turned = replace(drop.interval, low=-high, high=-low) if turn else drop.interval
    interval = show_change_interval(name, turned).removesuffix(f"{SPACE}points")
    return f"{change} ({interval})" if interval else change


def share_text(found: Measurement | None) -> str:
    """A score and its interval: "98.1% (96.0 to 99.1)"."""
    if found is None:
        return show("top1", None)
    text = show(found.name, found.value)
    if found.interval is None:
        return text
    low, high = (show(found.name, end).rstrip("%") for end in (found.interval.low, found.interval.high))
    return f"{text} ({low} to {high})"


def _list(items: list[str]) -> str:
    """ "a, b and c" """
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
