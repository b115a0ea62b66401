"""A flat functional Keras model as a list of calls in the order they run: what each reads, gives, and who reads it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import prod
from typing import Any

import keras

from toolkit.errors import InputError

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Edge:
    """One tensor: output number `output` of call number `call`."""

    call: int
    output: int = 0


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer (or of a bare operation such as `x + 3`). A shared layer has one call for each use.

    constants: arguments that are not tensors of the graph. consumers: indexes of the calls that read an output.
    node: Keras's own record of the call.
    """

    index: int
    layer: Any
    inputs: tuple[Edge, ...]
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    constants: tuple[Any, ...]
    consumers: tuple[int, ...]
    node: Any = None

    @property
    def name(self) -> str:
        return str(self.layer.name)

    @property
    def kind(self) -> str:
        """Class name of the layer."""
        return type(self.layer).__name__


@dataclass(frozen=True, eq=False)
class Graph:
    """Calls in topological order; the model's inputs and outputs in its own order."""

    calls: tuple[Call, ...]
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]


@dataclass(frozen=True)
class LayerRow:
    """One line of a model summary. macs: for one image, over all calls; None where the shape leaves them open."""

    layer: str
    kind: str
    output_shape: Shape
    parameters: int
    macs: int | None


def walk(model: Any) -> Graph:
    """The calls of a flat functional model; InputError if it is a Sequential, subclassed or nested one."""
    check_flat(model)
    depths = model._nodes_by_depth  # the order in which Keras itself runs them; there is no public name for it
    nodes = [node for depth in sorted(depths, reverse=True) for node in depths[depth]]
    edges = {id(tensor): Edge(i, j) for i, node in enumerate(nodes) for j, tensor in enumerate(node.outputs)}
    consumers: dict[int, list[int]] = defaultdict(list)
    for i, node in enumerate(nodes):
        for source in dict.fromkeys(edges[id(tensor)].call for tensor in node.input_tensors):
            consumers[source].append(i)
    calls = tuple(_call(i, node, edges, tuple(consumers[i])) for i, node in enumerate(nodes))
    return Graph(
        calls,
        inputs=tuple(edges[id(tensor)] for tensor in model.inputs),
        outputs=tuple(edges[id(tensor)] for tensor in model.outputs),
    )


def check_flat(model: Any) -> None:
    """InputError unless `model` is a functional keras.Model without models inside."""
    where = str(getattr(model, "name", model))
    if not (isinstance(model, keras.Model) and isinstance(model, keras.Function)):
        raise InputError(where, f"is a {type(model).__name__}, not a functional keras.Model", "flatten it first")
    nested = [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
    if nested:
        raise InputError(where, f"has models inside: {', '.join(nested)}", "flatten it first")


def parameters(layer: Any) -> int:
    """Number of values in the layer's weights, moving statistics included."""
    return sum(prod(weight.shape) for weight in getattr(layer, "weights", ()))


def summarize(model: Any) -> tuple[LayerRow, ...]:
    """One row a layer, in the order of first use. A shared layer's parameters count once, its MACs at each use."""
    from toolkit.engine.cost import call_macs

    rows: dict[str, LayerRow] = {}
    for call in walk(model).calls:
        try:
            macs: int | None = call_macs(call)
        except InputError:
            macs = None
        before = rows.get(call.name)
        if before is not None:
            macs = None if macs is None or before.macs is None else before.macs + macs
        rows[call.name] = LayerRow(call.name, call.kind, call.output_shapes[0], parameters(call.layer), macs)
    return tuple(rows.values())


def _call(index: int, node: Any, edges: dict[int, Edge], consumers: tuple[int, ...]) -> Call:
    arguments = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    return Call(
        index=index,
        layer=node.operation,
        inputs=tuple(edges[id(tensor)] for tensor in node.input_tensors),
        input_shapes=tuple(tuple(tensor.shape) for tensor in node.input_tensors),
        output_shapes=tuple(tuple(tensor.shape) for tensor in node.outputs),
        constants=tuple(value for value in arguments if not isinstance(value, keras.KerasTensor)),
        consumers=consumers,
        node=node,
    )
