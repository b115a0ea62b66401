"""A comparison in words: lines for a terminal, Markdown for a comment on a pull request.

Names are data: in Markdown they stand in code spans or are escaped, so that none can mention a person, open a tag or
break a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from toolkit.report.escaped import code as _code
from toolkit.report.escaped import cut
from toolkit.report.escaped import fold as _fold
from toolkit.report.escaped import words as _words
from toolkit.report.numbers import TIMES, plain, quantity, show, show_change, show_change_interval
from toolkit.report.text import table
from toolkit.report.view import SCORES

if TYPE_CHECKING:
    from toolkit.compare import Change, Comparison, Difference, Retimed

FIRST = (*SCORES, "agreement", "size_bytes", "latency_p50_ms")
"""What a comment shows before one opens the rest."""
MOST_WORSE = 20
"""Sentences at the top of a comment; the tables below have the rest."""
SIGNS = {"better": "▲ better", "worse": "▼ worse"}


def text(comparison: Comparison) -> str:
    """The comparison for a terminal, in lines."""
    found = [f"{comparison.before} ({comparison.outcomes[0]}) -> {comparison.after} ({comparison.outcomes[1]})"]
    found += [hosts(comparison), ""]
    for title, items in _blocks(comparison):
        found += [f"{title}:", *(f"  {item.where}: {item.before or '-'} -> {item.after or '-'}" for item in items), ""]
    found += _retimed_lines(comparison)
    changes = [item for item in comparison.measurements if item.judgement != "same"]
    same = len(comparison.measurements) - len(changes)
    if changes:
        rows = [("", "before", "after", "change", "judgement"), *(_row(item) for item in changes)]
        found += table([tuple(plain(cell) for cell in row) for row in rows])
    found.append(f"{same} of {len(comparison.measurements)} measurements are the same.")
    return "\n".join(plain(line) for line in found)


def hosts(comparison: Comparison) -> str:
    """What the hosts allow to be said of times."""
    if comparison.retimed:
        devices = ", ".join(dict.fromkeys(each.device for each in comparison.retimed))
        return f"Times of the files are judged as they were measured in one job, in turn, on {devices}."
    if comparison.same_host:
        return "Same host. Times were taken at different moments; both interleaved in one job would be stronger."
    if comparison.same_host is None:
        return "A run does not say which host it ran on: no verdict on latency."
    parts = ", ".join(f"{item.where} {item.before or '-'} -> {item.after or '-'}" for item in comparison.host)
    return f"The hosts differ ({parts}): no verdict on latency."


def markdown(comparison: Comparison, worse: Sequence[str] = (), untold: Sequence[str] = ()) -> str:
    """The comparison as a comment on a pull request. Said first, each a sentence: what fails it, what none can tell."""
    before, after = comparison.outcomes
    head = [
        f"### Edgekit: {_words(before)} → {_words(after)}",
        f"{_code(comparison.before)} → {_code(comparison.after)}",
    ]
    head.append(_words(hosts(comparison)))
    head += ["\n".join(["**Worse:**", *(f"- {_words(line)}" for line in worse[:MOST_WORSE])])] if worse else []
    head += [f"and {len(worse) - MOST_WORSE} more"] if len(worse) > MOST_WORSE else []
    head += (
        ["\n".join(["**Cannot be told:**", *(f"- {_words(line)}" for line in untold[:MOST_WORSE])])] if untold else []
    )
    count = sum(item.judgement == "worse" for item in comparison.measurements)
    better = sum(item.judgement == "better" for item in comparison.measurements)
    head.append(f"{count} measurements worse, {better} better, {len(comparison.measurements)} in all.")
    shown = [item for item in comparison.measurements if item.name in FIRST and delivered(item.subject)]
    rest = [item for item in comparison.measurements if item not in shown and item.judgement != "same"]
    blocks = [
        *head,
        _retimed_table(comparison),
        _table(shown),
        *(_fold(title, _list(items)) for title, items in _blocks(comparison)),
    ]
    whole = "\n\n".join(filter(None, [*blocks, _fold("Everything else that changed", _table(rest))]))
    return cut(whole, more="`edgekit compare` shows all.") + "\n"


def delivered(subject: str) -> bool:
    """Whether a measurement's subject is no stage: those are called 01-prune, or phone.02-quantize."""
    return not re.search(r"(^|[./])\d\d+-\w+$", subject)


RETIMED = ("file", "before", "after", "ratio", "judgement")


def _retimed_lines(comparison: Comparison) -> list[str]:
    if not comparison.retimed and not comparison.not_retimed:
        return []
    rows = [RETIMED, *map(_retimed_row, comparison.retimed)]
    lines = table([tuple(plain(cell) for cell in row) for row in rows]) if comparison.retimed else []
    return [*lines, *(f"not timed: {name}: {why}" for name, why in comparison.not_retimed.items()), ""]


def _retimed_table(comparison: Comparison) -> str:
    lines = [f"| {' | '.join(RETIMED)} |", "|---|---:|---:|---:|---|"] if comparison.retimed else []
    for each in comparison.retimed:
        subject, *numbers, judged = _retimed_row(each)
        lines.append(f"| {_code(subject)} | {' | '.join(map(_words, numbers))} | {SIGNS.get(judged, _words(judged))} |")
    left = [f"- not timed: {_code(name)}: {_words(why)}" for name, why in comparison.not_retimed.items()]
    return "\n".join([*lines, *([""] if lines and left else []), *left])


def _retimed_row(each: Retimed) -> tuple[str, ...]:
    if each.interval is None:
        return each.subject, "-", "-", "1", "same file"
    span = f"{each.ratio:.3f} ({each.interval.low:.3f} to {each.interval.high:.3f})"
    times = (show("latency_p50_ms", value) for value in (each.before_ms, each.after_ms))
    return (each.subject, *times, span, each.judgement)


def _blocks(comparison: Comparison) -> Iterator[tuple[str, tuple[Difference, ...]]]:
    """The parts that differ."""
    every = (
        ("Verdicts", comparison.verdicts),
        ("Recipe", comparison.recipe),
        ("Data", comparison.data),
        ("Versions", comparison.versions),
        ("Host", comparison.host),
    )
    return ((title, items) for title, items in every if items)


def _row(item: Change) -> tuple[str, ...]:
    return (_subject(item), *_numbers(item), _judged(item))


def _subject(item: Change) -> str:
    return f"{item.subject} {quantity(item.name).label}" + (f" on {item.device}" if item.device else "")


def _numbers(item: Change) -> tuple[str, str, str]:
    interval = show_change_interval(item.name, item.interval)
    change = show_change(item.name, item.change) if item.change is not None else "-"
    if item.judgement == "not compared" and item.name in TIMES:
        change, interval = "-", ""
    shown = f"{change} ({interval})" if interval else change
    return show(item.name, item.before, item.unit), show(item.name, item.after, item.unit), shown


def _judged(item: Change) -> str:
    return f"{item.judgement}: {item.reason}" if item.reason else item.judgement


def _table(items: list[Change]) -> str:
    if not items:
        return ""
    rows = ["| | before | after | change | |", "|---|---:|---:|---:|---|"]
    for item in items:
        judged = SIGNS.get(item.judgement, item.judgement) + (f": {item.reason}" if item.reason else "")
        device = f" on {_code(item.device)}" if item.device else ""
        subject = f"{_code(item.subject)} {_words(quantity(item.name).label)}{device}"
        rows.append(f"| {' | '.join([subject, *map(_words, _numbers(item)), _words(judged)])} |")
    return "\n".join(rows)


def _list(items: tuple[Difference, ...]) -> str:
    return "\n".join(
        f"- {_code(item.where)}: {_code(item.before or '-')} → {_code(item.after or '-')}" for item in items
    )
