"""A runtime's profile matched to the operators of the file it ran.

XNNPACK's operators have no names: they run in the file's order, so that its weighted ones are the file's where both
have as many, kind by kind; the others are matched between those. ONNX Runtime names its nodes after the file's own
nodes or tensors, with what its passes add to that. What cannot be matched keeps the name that the runtime gives it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolkit.checks.speed_graph import Graph, Node
from toolkit.exporters.tflite_operators import WEIGHTED

# what XNNPACK calls an operator (its xnn_operator_type) -> the operators of a file that become one
XNNPACK = {
    "Add": ("ADD",),
    "Subtract": ("SUB",),
    "Multiply": ("MUL",),
    "Divide": ("DIV",),
    "Maximum": ("MAXIMUM",),
    "Minimum": ("MINIMUM",),
    "Softmax": ("SOFTMAX",),
    "Mean": ("MEAN",),
    "Global Average Pooling": ("MEAN", "AVERAGE_POOL_2D"),
    "Average Pooling": ("AVERAGE_POOL_2D",),
    "Max Pooling": ("MAX_POOL_2D",),
    "Resize Bilinear": ("RESIZE_BILINEAR",),
    "Concatenate": ("CONCATENATION",),
    "Constant Pad": ("PAD", "PADV2"),
    "Static Reshape": ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
    "Transpose": ("TRANSPOSE",),
    "Convert": ("QUANTIZE", "DEQUANTIZE"),
    "Clamp": ("RELU", "RELU6", "RELU_N1_TO_1"),
    "Sigmoid": ("LOGISTIC",),
    "Tanh": ("TANH",),
    "Hardswish": ("HARD_SWISH",),
}
WEIGHTED_ROWS = ("Convolution", "Fully Connected", "Deconvolution")
ADDED = re.compile(r"^fused |^InsertedPrecisionFreeCast_|_nchwc$|_token_\d+$|_quant$|/duplicated$")  # by its passes
AFTER = ("Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "FusedConv")


@dataclass(frozen=True)
class Row:
    """One row of a profile. by: what computed it. place: of its operator in the graph, None where that is not known.

    reads, writes: types, where the runtime tells.
    """

    name: str
    kind: str
    share: float
    by: str = ""
    place: int | None = None
    reads: str = ""
    writes: str = ""


def match(graph: Graph, found: Iterable[Mapping[str, Any]], pieces: Sequence[Sequence[int]] = ()) -> tuple[Row, ...]:
    """Rows of a worker's `layers` job, with their places; pieces: operators that a delegate took, as it says."""
    rows = [
        Row(
            str(row["name"]),
            str(row["kind"]),
            float(row["share"]),
            str(row.get("by", "")),
            _own_place(graph, row.get("operator")),
            str(row.get("reads", "")),
            str(row.get("writes", "")),
        )
        for row in found
    ]
    if graph.format == "onnx":
        return tuple(_with_nodes(graph, rows))
    return tuple(_with_pieces(graph, rows, pieces))


def _own_place(graph: Graph, operator: Any) -> int | None:
    node = graph.here(int(operator)) if operator is not None else None
    return None if node is None else node.place


# ---------------------------------------------------------------- XNNPACK


def _with_pieces(graph: Graph, rows: list[Row], pieces: Sequence[Sequence[int]]) -> Iterator[Row]:
    """All pieces together, else the largest: a later one's row goes into that of the same number and kind before it."""
    theirs = [row for row in rows if row.by == "delegate"]
    largest = max(pieces, key=len, default=())
    tried = ([place for piece in pieces for place in piece], largest)
    found = (dict(_aligned(theirs, [node for each in own if (node := graph.here(each))])) for own in tried)
    places: dict[str, int] = next(filter(None, found), {})
    known = {node.tensor: node.place for node in graph.nodes}
    for row in rows:
        own = known.get(row.name) if row.place is None else row.place  # benchmark_model names what LiteRT itself ran
        yield replace(row, place=places.get(row.name) if row.by == "delegate" else own)


def _aligned(rows: Sequence[Row], nodes: Sequence[Node]) -> Iterator[tuple[str, int]]:
    """(row, place) where the weighted ones of both are the same; nothing where they are not."""
    anchors = [i for i, row in enumerate(rows) if row.kind.startswith(WEIGHTED_ROWS)]
    weighted = [i for i, node in enumerate(nodes) if node.operator in WEIGHTED]
    pairs = list(zip(anchors, weighted, strict=False))
    if len(anchors) != len(weighted) or not all(_alike(rows[row], nodes[node]) for row, node in pairs):
        return
    before = (-1, -1)
    for row, node in [*pairs, (len(rows), len(nodes))]:
        yield from _between(rows[before[0] + 1 : row], nodes[before[1] + 1 : node])
        if row < len(rows):
            yield rows[row].name, nodes[node].place
        before = (row, node)


def _alike(row: Row, node: Node) -> bool:
    return node.operator == "DEPTHWISE_CONV_2D" or "DWConv" not in row.kind


def _between(rows: Sequence[Row], nodes: Sequence[Node]) -> Iterator[tuple[str, int]]:
    """Of what lies between two weighted ones: in order, what could be each other."""
    left = list(nodes)
    for row in rows:
        kinds = next((made for name, made in XNNPACK.items() if row.kind.startswith(name)), ())
        found = next((node for node in left if node.operator in kinds), None)
        if found is not None:
            left.remove(found)
            yield row.name, found.place


# ---------------------------------------------------------------- ONNX Runtime


def _with_nodes(graph: Graph, rows: Iterable[Row]) -> Iterator[Row]:
    known = {name: node for node in graph.nodes for name in (node.tensor, node.label) if name}
    for row in rows:
        name, node = row.name, known.get(row.name)
        while node is None and (shorter := ADDED.sub("", name, count=1)) != name:
            name, node = shorter, known.get(shorter)
        while node is not None and row.kind in AFTER and node.operator not in AFTER and len(node.reads) == 1:
            node = graph.by_place.get(node.reads[0])  # named after the activation that was fused into it
        yield replace(row, place=None if node is None else node.place)
