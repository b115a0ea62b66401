"""The linter's report for a person."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from toolkit.tensorrt.lint_types import Finding, Pair, Report

SHOWN = 5  # findings of one rule that are named; the rest is counted
MANY = 30  # pairs of activations that are all named
TITLES = {"refused": "refused:", "slow": "slow:", "note": "notes:"}


def lines(report: Report, title: str = "TensorRT") -> Iterator[str]:
    """title: what the file was looked at for."""
    yield f"{title}: {'; '.join(_counts(report))}. Not verified on a device."
    for severity, heading in TITLES.items():
        found = [finding for finding in report.findings if finding.severity == severity]
        yield from (f"  {heading}" if index == 0 else f"    {line}" for index, line in enumerate(_findings(found)))
    yield from _pairs(report)
    yield from _left(report)
    if report.summary:
        yield "  in short:" if report.of("refused") else "  why int8 is not faster:"
        yield from (f"    {line}" for line in report.summary)


def _counts(report: Report) -> Iterator[str]:
    counts = report.counts
    if report.of("refused"):
        yield "is refused"
    if not report.pairs:
        yield f"no Q/DQ, everything is {report.floats}"
        return
    yield f"{counts.int8_convolutions} of {counts.convolutions} convolutions in int8"
    if counts.products:
        yield f"{counts.int8_products} of {counts.products} dense layers in int8"
    yield f"{counts.reformats} conversion{'s' * (counts.reformats != 1)} between int8 and floating point"
    yield f"{counts.islands} island{'s' * (counts.islands != 1)}"
    yield f"the rest is {report.floats}"


def _findings(found: list[Finding]) -> Iterator[str]:
    """A heading's place, then the findings, those of one rule together."""
    if found:
        yield ""
    order = list(dict.fromkeys(finding.rule for finding in found))
    for rule, group in groupby(sorted(found, key=lambda each: order.index(each.rule)), key=lambda each: each.rule):
        every = list(group)
        for finding in every[:SHOWN]:
            fix = f" Fix: {finding.fix}." if finding.fix else ""
            yield f"{finding.where}: {finding.what}.{fix} [{finding.rule}]"
        if len(every) > SHOWN:
            yield f"and {len(every) - SHOWN} more [{rule}]"


def _pairs(report: Report) -> Iterator[str]:
    """Activations one by one, of many only those that cost something; weights stored as they should be are counted."""
    if not report.pairs:
        return
    stored = sum(pair.fate == "weights" for pair in report.pairs)
    shown: list[Pair] = [pair for pair in report.pairs if pair.fate != "weights"]
    free = [pair for pair in shown if pair.fate == "fused" and not pair.reformats] if len(shown) > MANY else []
    yield "  Q/DQ pairs:"
    yield from (f"    {pair.tensor} ({pair.fate}): {pair.words}" for pair in shown if pair not in free)
    if free:
        yield f"    {len(free)} more (fused): written and read as int8 (--json names them)"
    yield f"    {stored} of weights: stored as int8 in the engine"


def _left(report: Report) -> Iterator[str]:
    """Layers in floating point, those of one reason together."""
    reasons = dict.fromkeys(layer.reason for layer in report.left)
    if reasons:
        yield "  in floating point:"
    for reason in reasons:
        names = [layer.where for layer in report.left if layer.reason == reason]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        yield f"    {', '.join(names[:SHOWN])}{more}: {reason}"
