"""A comparison in words: lines for a terminal, Markdown for a comment on a pull request.

Names are data: in Markdown they stand in code spans or are escaped, so that none can mention a person, open a tag or
break a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolkit.report.escaped import code as _code
from toolkit.report.escaped import cut
from toolkit.report.escaped import fold as _fold
from toolkit.report.escaped import words as _words
from toolkit.report.numbers import TIMES, plain, quantity, show, show_change, show_change_interval
from toolkit.report.text import table
from toolkit.report.view import SCORES

if TYPE_CHECKING:
    from toolkit.compare import Change, Comparison, Difference

FIRST = (*SCORES, "agreement", "size_bytes", "latency_p50_ms")
"""What a comment shows before one opens the rest."""
SIGNS = {"better": "▲ better", "worse": "▼ worse"}


def text(comparison: Comparison) -> str:
    """The comparison for a terminal, in lines."""
    found = [f"{comparison.before} ({comparison.outcomes[0]}) -> {comparison.after} ({comparison.outcomes[1]})"]
    found += [hosts(comparison), ""]
    for title, items in _blocks(comparison):
        found += [f"{title}:", *(f"  {item.where}: {item.before or '-'} -> {item.after or '-'}" for item in items), ""]
    changes = [item for item in comparison.measurements if item.judgement != "same"]
    same = len(comparison.measurements) - len(changes)
    if changes:
        rows = [("", "before", "after", "change", "judgement"), *(_row(item) for item in changes)]
        found += table([tuple(plain(cell) for cell in row) for row in rows])
    found.append(f"{same} of {len(comparison.measurements)} measurements are the same.")
    return "\n".join(plain(line) for line in found)


def hosts(comparison: Comparison) -> str:
    """What the hosts allow to be said of times."""
    if comparison.same_host:
        return "Same host. Times were taken at different moments; both interleaved in one job would be stronger."
    if comparison.same_host is None:
        return "A run does not say which host it ran on: no verdict on latency."
    parts = ", ".join(f"{item.where} {item.before or '-'} -> {item.after or '-'}" for item in comparison.host)
    return f"The hosts differ ({parts}): no verdict on latency."


def markdown(comparison: Comparison) -> str:
    """The comparison as a comment on a pull request."""
    before, after = comparison.outcomes
    head = [
        f"### Edgekit: {_words(before)} → {_words(after)}",
        f"{_code(comparison.before)} → {_code(comparison.after)}",
    ]
    head.append(_words(hosts(comparison)))
    worse = sum(item.judgement == "worse" for item in comparison.measurements)
    better = sum(item.judgement == "better" for item in comparison.measurements)
    head.append(f"{worse} measurements worse, {better} better, {len(comparison.measurements)} in all.")
    shown = [item for item in comparison.measurements if item.name in FIRST and _delivered(item)]
    rest = [item for item in comparison.measurements if item not in shown and item.judgement != "same"]
    blocks = [*head, _table(shown), *(_fold(title, _list(items)) for title, items in _blocks(comparison))]
    whole = "\n\n".join(filter(None, [*blocks, _fold("Everything else that changed", _table(rest))]))
    return cut(whole, more="`edgekit compare` shows all.") + "\n"


def _delivered(item: Change) -> bool:
    """Not a stage: names of stages start with their number, after the variant's name."""
    return not re.match(r"\d+-", item.subject.rpartition("/")[2])


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
