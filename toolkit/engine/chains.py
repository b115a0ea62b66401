"""Pairs of layers with weights between which a channel may be scaled or doubled while the graph computes the same.

Between the two stands nothing, or only layers that treat each channel alone and commute with a positive factor: ReLU,
leaky ReLU, pooling, padding with zeros, dropout, flattening; and nothing else reads what is between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import layers

from toolkit.engine.graph import Call, Graph, walk
from toolkit.engine.prepare import WEIGHTED

PASSING = (
    *(layers.MaxPooling2D, layers.AveragePooling2D, layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D),
    *(layers.ZeroPadding2D, layers.Cropping2D, layers.Dropout, layers.SpatialDropout2D, layers.Flatten),
    layers.LeakyReLU,
)
ACTIVATIONS = (layers.ReLU, layers.LeakyReLU, layers.Activation)
COMMUTING = ("linear", "relu", "leaky_relu")  # activations by function name


@dataclass(frozen=True)
class Pair:
    """first's output channels are second's input channels.

    bound: the clip of a ReLU6 between them, else None. between: the layer that clips, else the last activation, else
    first; what comes after it makes no value larger. repeats: how often each channel comes in second's input (behind
    Flatten).
    """

    first: str
    second: str
    between: str
    bound: float | None = None
    repeats: int = 1


@dataclass(frozen=True)
class Broken:
    """A layer with weights whose channels must stay as they are, and why."""

    layer: str
    reason: str


def find_pairs(model: Any) -> tuple[tuple[Pair, ...], tuple[Broken, ...]]:
    """All pairs of a prepared graph, in topological order, and the layers with weights that head none."""
    graph = walk(model)
    uses: dict[str, int] = {}
    for call in graph.calls:
        uses[call.name] = uses.get(call.name, 0) + 1
    pairs, broken = [], []
    for call in graph.calls:
        if isinstance(call.layer, WEIGHTED):
            found = _follow(graph, call, uses)
            if isinstance(found, Pair):
                pairs.append(found)
            else:
                broken.append(Broken(call.name, found))
    return tuple(pairs), tuple(broken)


def clip(layer: Any) -> float | None:
    """Where a ReLU clips: 6 for ReLU6, None where it does not clip or the layer is no ReLU."""
    if isinstance(layer, layers.ReLU):
        return None if layer.max_value is None else float(layer.max_value)
    return 6.0 if getattr(getattr(layer, "activation", None), "__name__", "") == "relu6" else None


def _follow(graph: Graph, first: Call, uses: dict[str, int]) -> Pair | str:
    """The pair that a call heads, or why there is none."""
    outputs = {edge.call for edge in graph.outputs}
    bounds: list[tuple[str, float]] = []
    call, between = first, first
    while True:
        if uses[call.name] > 1:
            return f"{call.name} is used more than once"
        if call is not first and isinstance(call.layer, WEIGHTED):
            return _paired(first, call, between, bounds)
        if call is not first and (reason := _stops(call)):
            return reason
        if (bound := clip(call.layer)) is not None:
            bounds.append((call.name, bound))
        if call.index in outputs:
            return f"{call.name} is an output of the model"
        if len(call.consumers) != 1:
            return f"several layers read {call.name}" if call.consumers else f"nothing reads {call.name}"
        between = call if isinstance(call.layer, ACTIVATIONS) else between
        call = graph.calls[call.consumers[0]]


def _paired(first: Call, second: Call, between: Call, bounds: list[tuple[str, float]]) -> Pair | str:
    if getattr(second.layer, "groups", 1) != 1:
        return f"{second.name} has groups"
    for call in (first, second):
        if getattr(call.layer, "data_format", "channels_last") != "channels_last":
            return f"{call.name} has channels first"
    repeats, rest = divmod(int(second.input_shapes[0][-1] or 0), int(first.output_shapes[0][-1] or 1))
    if rest:
        return f"{second.name} mixes the channels of {first.name}"
    if len(bounds) > 1:
        return f"{bounds[0][0]} and {bounds[1][0]} both clip"
    name, bound = bounds[0] if bounds else (between.name, None)
    return Pair(first.name, second.name, name, bound, repeats)


def _stops(call: Call) -> str:
    """Why a channel's factor does not pass this layer, or ""."""
    layer = call.layer
    if len(call.inputs) != 1:
        return f"{call.name} ({call.kind}) joins several tensors"
    if isinstance(layer, layers.ReLU):
        return f"{call.name} has a threshold" if layer.threshold else ""
    if isinstance(layer, layers.Activation):
        name = getattr(layer.activation, "__name__", "")
        return "" if name in (*COMMUTING, "relu6") else f"{call.name} ({name}) does not commute with a factor"
    if isinstance(layer, PASSING) and getattr(layer, "data_format", "channels_last") == "channels_last":
        return ""
    return f"{call.name} ({call.kind}) does not commute with a factor"
