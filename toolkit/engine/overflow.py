"""Where a network leaves the numbers that float16 has: float16 files, and GPU delegates, which compute in it.

What layers give was measured; an average is a sum before it is divided; how far the sum of a convolution or dense layer
can get on its way is bounded from its weights and the range of what it reads. IEEE 754-2019, binary16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.graph import Call, walk
from toolkit.engine.prepare import WEIGHTED, kernel_axis, split_weights
from toolkit.engine.stored import Range, edge_names

Array = NDArray[Any]
FLOAT16_MAX = 65504.0
AVERAGES = ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "AveragePooling1D", "AveragePooling2D", "Mean")


@dataclass(frozen=True)
class Overflow:
    """A number beyond float16. what: a weight, a value measured on images, an average's sum, or a bound of a sum."""

    layer: str
    largest: float
    what: Literal["weight", "value", "sum", "bound"]

    def __str__(self) -> str:
        words = {
            "weight": "has a weight of {}",
            "value": "gives values up to {}",
            "sum": "adds up to {} before it divides",
            "bound": "may add up to {} on its way (a bound, from its weights and the range of its input)",
        }[self.what]
        return f"{words.format(f'{self.largest:.4g}')}; float16 ends at {FLOAT16_MAX:,.0f}"


def overflows(prepared_graph: Any, ranges: Mapping[str, Range]) -> tuple[Overflow, ...]:
    """The worst of each layer, in the order they run; ranges: of the graph's tensors, by name as in Statistics."""
    graph = walk(prepared_graph)
    names = edge_names(graph)
    by_edge = {edge: ranges[name] for edge, name in names.items() if name in ranges}
    found: dict[str, Overflow] = {}
    for call in graph.calls:
        given = by_edge.get(call.inputs[0]) if call.inputs else None
        outputs = [by_edge[edge] for edge in names if edge.call == call.index and edge in by_edge]
        for item in _of(call, given, max((_largest(own) for own in outputs), default=0.0)):
            if item.largest > FLOAT16_MAX:
                found.setdefault(call.name, item)
    return tuple(found.values())


def wide_weights(graph: Any) -> tuple[Overflow, ...]:
    """Layers with a weight that float16 cannot hold."""
    largest = {
        layer.name: max((_most(weight) for weight in layer.get_weights()), default=0.0) for layer in graph.layers
    }
    return tuple(Overflow(str(name), most, "weight") for name, most in largest.items() if most > FLOAT16_MAX)


def reach(layer: Any, given: Range) -> float:
    """Largest absolute value that a partial sum of a layer of WEIGHTED can have, in whatever order it adds.

    At most all products of one sign add up; padding gives 0, so that 0 counts as part of the input's range.
    """
    kernel, bias = split_weights(layer)
    low, high = min(given[0], 0.0), max(given[1], 0.0)
    kept = (-2, -1) if isinstance(layer, layers.DepthwiseConv2D) else (kernel_axis(layer),)
    axes = tuple(axis for axis in range(kernel.ndim) if axis - kernel.ndim not in kept)
    up, down = np.maximum(kernel, 0).sum(axes, np.float64), np.minimum(kernel, 0).sum(axes, np.float64)
    offset = np.abs(bias).reshape(up.shape) if bias is not None else 0.0
    return float((np.maximum(up * high + down * low, -(up * low + down * high)) + offset).max())


def _of(call: Call, given: Range | None, measured: float) -> Iterator[Overflow]:
    yield Overflow(call.name, measured, "value")
    if call.kind in AVERAGES:
        yield Overflow(call.name, measured * _averaged(call), "sum")
    if given is not None and isinstance(call.layer, WEIGHTED):
        yield Overflow(call.name, reach(call.layer, given), "bound")


def _averaged(call: Call) -> int:
    """How many values go into one average."""
    if pool := getattr(call.layer, "pool_size", None):
        return prod(pool) if isinstance(pool, tuple) else int(pool)
    before, after = call.input_shapes[0][1:], call.output_shapes[0][1:]
    return prod(side or 1 for side in before) // max(prod(side or 1 for side in after), 1)


def _largest(ends: Range) -> float:
    return max(abs(ends[0]), abs(ends[1]))


def _most(weight: Any) -> float:
    values = np.asarray(weight)
    return float(np.abs(values).max()) if values.size and values.dtype.kind == "f" else 0.0
