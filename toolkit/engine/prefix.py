"""Where a flat network can be cut in two at one tensor, and the part that a training leaves as it is.

What comes before the first layer that learns gives the same output in every epoch. It runs once; the epochs then train
the rest on what it gave.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import keras

from toolkit.engine.graph import Call, Edge, Graph, walk


def still_part(model: Any, frozen: Container[str]) -> tuple[Any, Any] | None:
    """(first part, rest): the longest first part in which nothing learns and nothing is left to chance.

    Both share their layers with `model`. None where nothing but the input is still.
    """
    graph = walk(model)
    last = len(graph.calls)
    for call in graph.calls:
        moving = call.layer.name not in frozen and (
            getattr(call.layer, "weights", None) or hasattr(call.layer, "seed_generator")
        )
        if moving:
            last = call.index
            break
    edge = last_waist(graph, lambda call: call.index < last and bool(call.inputs))
    if edge is None:
        return None
    tensor = tensor_of(model, graph, edge)
    return keras.Model(model.inputs[0], tensor), keras.Model(tensor, model.outputs[0])


def last_waist(graph: Graph, fits: Callable[[Call], bool]) -> Edge | None:
    """The last tensor that all of the first output is computed from, made by a call that fits."""
    needed = _ancestors(graph, graph.outputs[0].call)
    for call in reversed(graph.calls):
        if call.index in needed and len(call.output_shapes) == 1 and fits(call) and _is_waist(graph, call, needed):
            return Edge(call.index)
    return None


def waists(graph: Graph) -> tuple[Call, ...]:
    """Every call whose one output all of the first output is computed from, in order; the input is the first."""
    needed = _ancestors(graph, graph.outputs[0].call)
    calls = (call for call in graph.calls if call.index in needed and len(call.output_shapes) == 1)
    return tuple(call for call in calls if _is_waist(graph, call, needed))


def tensor_of(model: Any, graph: Graph, edge: Edge) -> Any:
    """The symbolic tensor that an edge is."""
    depths = model._nodes_by_depth  # in the order of graph.walk
    nodes = [node for depth in sorted(depths, reverse=True) for node in depths[depth]]
    return nodes[edge.call].outputs[edge.output]


def _is_waist(graph: Graph, waist: Call, needed: set[int]) -> bool:
    """Whether nothing behind the waist reads what was made before it."""
    behind = (graph.calls[index] for index in needed if index > waist.index)
    return all(edge.call >= waist.index for call in behind for edge in call.inputs)


def _ancestors(graph: Graph, end: int) -> set[int]:
    found: set[int] = set()
    waiting = [end]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += [edge.call for edge in graph.calls[index].inputs]
    return found
