"""A run's summary in Markdown, from the same view as the page and the terminal's last lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from toolkit.report.details import command, hashes
from toolkit.report.escaped import code, cut, fold, words
from toolkit.report.numbers import quantity, show, show_change_interval, show_interval, show_limit
from toolkit.report.sentences import outcome_sentence, outcome_word, win_sentence
from toolkit.report.text import findings, headings, reasons, rows_of
from toolkit.report.view import View
from toolkit.runs import Manifest

SIGNS = {"PASS": "✅ PASS", "FAIL": "❌ FAIL", "INCONCLUSIVE": "❔ INCONCLUSIVE"}


def summary(manifest: Manifest) -> str:
    """The outcome, a row for each file, reasons, what the checks found, every gate, warnings, how to do it again."""
    view, word = View(manifest), outcome_word(View(manifest))
    told = [words(line) for line in (*reasons(manifest), *findings(view))]
    blocks = [
        f"### {code(manifest.name)}: {SIGNS.get(word, word)}",
        words(outcome_sentence(view)),
        words(win_sentence(view)),
        grid(headings(view), _rows(view)),
        "\n".join(f"- {line}" for line in told),
        fold(f"Gates ({len(manifest.verdicts)})", _gates(manifest)),
        fold(f"Warnings ({len(manifest.warnings)})", "\n".join(f"- {words(line)}" for line in manifest.warnings)),
        fold("How to do it again", _again(manifest)),
    ]
    return cut("\n\n".join(filter(None, blocks)), more="the run's report.html has all.") + "\n"


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first and the last right-aligned. Cells are Markdown already."""
    rule = ["---", *["---:"] * (len(heads) - 2), "---"]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def _rows(view: View) -> list[list[str]]:
    return [[code(row[0]), *map(words, row[1:-1]), SIGNS.get(row[-1], words(row[-1]))] for row in rows_of(view)]


def _gates(manifest: Manifest) -> str:
    rows = []
    for verdict in manifest.verdicts:
        points = quantity(verdict.gate).kind in ("points", "growth")
        interval = (show_change_interval if points else show_interval)(verdict.gate, verdict.interval)
        value = show(verdict.gate, verdict.value) + (f" ({interval})" if interval else "")
        gate = f"{quantity(verdict.gate).label} {show_limit(verdict.gate, verdict.limit)}"
        where = code(verdict.device) if verdict.device else ""
        outcome = SIGNS.get(verdict.outcome, verdict.outcome)
        rows.append([code(verdict.artifact), where, words(gate), words(value), outcome, words(verdict.reason)])
    return grid(("artifact", "device", "gate", "value", "verdict", "why"), rows) if rows else ""


def _again(manifest: Manifest) -> str:
    """The command, and the hashes that must come out again."""
    lines = [f"- command: {code(command(manifest))}", f"- seed: {manifest.seed}"]
    lines += [f"- {code(name)} {words(version)}" for name, version in manifest.versions.items()]
    lines += [f"- {kind} {code(name)}: {code(digest)}" for kind, name, digest in hashes(manifest)]
    return "\n".join(lines)
