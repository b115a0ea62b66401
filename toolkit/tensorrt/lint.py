"""Says of an ONNX file what TensorRT would do with it: what is refused, what is slow, what becomes of each Q/DQ pair.

Rules: NVIDIA's "Working with Quantized Types" and what tensorrt_rtx's parser and builder do; nothing is built here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from graphlib import CycleError
from typing import Any

from toolkit.tensorrt import lint_notes, lint_pairs, lint_refused, lint_slow
from toolkit.tensorrt.lint_flow import Flow
from toolkit.tensorrt.lint_graph import Graph
from toolkit.tensorrt.lint_target import wants
from toolkit.tensorrt.lint_types import Finding, Report
from toolkit.tensorrt.types import Target

ORDER = {"refused": 0, "slow": 1, "note": 2}
SHOWN = 3  # layers named in one line of the summary


def lint(proto: Any, *, target: Target | None = None) -> Report:
    """proto: an onnx.ModelProto, which stays as it is. target: what it is for, for what depends on it."""
    graph = Graph(proto)
    if broken := tuple(_malformed(graph)):
        return _with_summary(Report(broken))
    flow, wanted = Flow(graph), wants(target)
    found = [*lint_refused.findings(flow, wanted), *lint_slow.findings(flow), *lint_notes.findings(flow, wanted)]
    found.sort(key=lambda finding: ORDER[finding.severity])
    pairs = lint_pairs.pairs(flow)
    report = Report(
        findings=tuple(dict.fromkeys(found)),
        pairs=pairs,
        counts=lint_pairs.counts(flow, pairs, lint_slow.islands(flow)),
        left=tuple(lint_pairs.left(flow)),
        floats=lint_notes.floats(graph),
    )
    return _with_summary(report)


def _with_summary(report: Report) -> Report:
    return replace(report, summary=tuple(_summary(report)))


def _malformed(graph: Graph) -> Iterator[Finding]:
    """What is no graph at all: nothing more can be said of it."""
    import onnx

    again = "export the model again"
    for node in graph.nodes:
        version = (graph.opset, "") if onnx.defs.has(node.op_type, graph.opset, "") else ()
        least = onnx.defs.get_schema(node.op_type, *version).min_input if onnx.defs.has(node.op_type) else 0
        if len(node.input) < least or not node.output:
            what = (
                f"it has {len(node.input)} inputs and {len(node.output)} outputs, and {least} inputs at least are asked"
            )
            yield Finding("malformed", "refused", graph.where(node), what, again)
    if circular(graph):
        what = "its nodes read each other in a circle, or a tensor is given twice"
        yield Finding("circle", "refused", "the file", what, again)


def circular(graph: Graph) -> bool:
    """Whether the nodes have no order in which each comes after those it reads, or a name has two makers."""
    names = [name for node in graph.nodes for name in node.output if name]
    try:
        return len(set(names)) < len(names) or len(graph.ordered) < len(graph.nodes)
    except CycleError:
        return True


def _summary(report: Report) -> Iterator[str]:
    """Why int8 is not faster than it is, in a few lines; nothing where there is nothing to say."""
    counts, refused = report.counts, report.of("refused")
    if refused:
        yield f"no engine: {len(refused)} finding{'s' * (len(refused) > 1)} that the parser or builder ends at"
        return
    if not report.pairs:
        return
    missing = counts.convolutions - counts.int8_convolutions
    if missing:
        reasons = Counter(layer.reason for layer in report.left if layer.where.startswith("Conv"))
        why = "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common(SHOWN))
        yield f"{missing} of {counts.convolutions} convolutions compute in floating point ({why})"
    if counts.islands:
        yield f"{counts.islands} int8 island{'s' * (counts.islands > 1)}: conversions around little or nothing"
    if counts.reformats:
        yield f"{counts.reformats} conversion{'s' * (counts.reformats > 1)} between int8 and floating point at run time"
    slow = Counter(finding.rule for finding in report.of("slow") if finding.rule not in ("island", "lone-int8"))
    if slow:
        yield "slow places: " + ", ".join(f"{rule} {count}x" for rule, count in slow.most_common())
    if report.floats == "float32":
        yield "what is not int8 is float32: float16 there often wins more than int8 did"
