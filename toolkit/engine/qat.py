"""Quantization-aware training: a prepared graph with the rounding of a quantized file in it, and what it has learned.

Jacob et al. 2018, arXiv:1712.05877, section 3. BatchNormalization is in the weights already; its statistics stay, or
follow the batches for a part of the training (Krishnamoorthi 2018, arXiv:1806.08342, section 3.2.2). What comes out is
the prepared graph with weights on their grid, and ranges that exporters take as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
from numpy.typing import NDArray

from toolkit.engine.bias_correction import correct_measured, with_biases
from toolkit.engine.calibrate import batch_size, calibrate
from toolkit.engine.flatten import Builder
from toolkit.engine.graph import Edge
from toolkit.engine.prepare import WEIGHTED, Norm, split_weights
from toolkit.engine.ranges import NEEDS_HISTOGRAM
from toolkit.engine.rounded_layers import ROUNDED, TrackedRange
from toolkit.engine.simulate import (
    FakeQuantize,
    Flavour,
    Granularity,
    asymmetric,
    new_name,
    on_grid,
    simulate,
    symmetric,
    weight_scales,
)
from toolkit.engine.stored import Range, Stored, edges_of, stored
from toolkit.engine.surgery import rebuild
from toolkit.quantization import RangeMethod

Array = NDArray[Any]
USUAL = 3.0  # standard deviations that a range is wide, to each side
HEADS = ("softmax", "sigmoid")  # that training drops as outputs (engine.heads)


@dataclass(frozen=True)
class Rounding:
    """How the file will round. moving_steps: of training, during which ranges follow the batches.

    norms: layers whose folded BatchNormalization works by the batch's statistics for norm_steps (prepare.folded_norms);
    without them it stays as it came.
    """

    flavour: Flavour = "asymmetric"
    granularity: Granularity = "per_channel"
    moving_steps: int = 0
    norm_steps: int = 0
    norms: Mapping[str, Norm] = field(default_factory=dict)


@dataclass(frozen=True)
class Learned:
    """A prepared graph with weights on their grid, and what its tensors have integers for, by their names."""

    graph: Any
    ranges: Mapping[str, Range]


def rounding_graph(prepared: Any, ranges: Mapping[str, Range], how: Rounding) -> Any:
    """The graph to train: rounds weights, and activations wherever the file stores one.

    Only a softmax or sigmoid that is an output stays as it is, for the loss to be taken before it. Layers keep names.
    """
    return _Rounder(prepared, ranges, how).graph(prepared)


def learned(prepared: Any, trained: Any, how: Rounding) -> Learned:
    """What a trained `rounding_graph` of this graph has come to; the graph given stays as it is."""
    weights = {layer.name: _settled(layer, trained.get_layer(layer.name), how) for layer in prepared.layers}
    tensors = stored(prepared)
    old = {layer.name for layer in prepared.layers}
    found: dict[str, Range] = {}
    for edge in tensors.source:
        owner = tensors.owner(edge)
        if _prescribed(tensors, edge, how):
            found[tensors.names[edge]] = tensors.fixed[owner]
        elif tensors.activation(edge) == "softmax":
            found[tensors.names[edge]] = (0.0, 1.0)
        else:
            own = trained.get_layer(new_name(tensors.names[owner], "range", old))
            found[tensors.names[edge]] = _exact(float(own.low.numpy()), float(own.high.numpy()), how.flavour)
    return Learned(rebuild(prepared, weights), found)


def find_ranges(prepared: Any, inputs: Mapping[str, Array], method: RangeMethod = "minmax") -> dict[str, Range]:
    """The range of every tensor over whole arrays of images."""
    found = calibrate(prepared, _batches(prepared, inputs), histograms=method in NEEDS_HISTOGRAM).ranges(method)
    return {name: (own.low, own.high) for name, own in found.items()}


def corrected(prepared: Any, ranges: Mapping[str, Range], inputs: Mapping[str, Array], how: Rounding) -> Any:
    """The graph with biases that take back the shift of means by rounding, measured on whole arrays of images."""
    graph = with_biases(prepared)
    simulated = simulate(graph, ranges, flavour=how.flavour, granularity=how.granularity)
    biases, _ = correct_measured(graph, simulated, lambda: _batches(graph, inputs))
    weights = {name: [split_weights(graph.get_layer(name))[0], bias] for name, bias in biases.items()}
    return rebuild(graph, weights)


def _batches(graph: Any, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    size, count = batch_size(graph), len(next(iter(inputs.values())))
    return ({name: array[i : i + size] for name, array in inputs.items()} for i in range(0, count, size))


class _Rounder(Builder):
    """Clones the graph with rounding layers; tensors that have one encoding go through one layer."""

    def __init__(self, model: Any, ranges: Mapping[str, Range], how: Rounding) -> None:
        super().__init__({tensor.name for tensor in model.inputs})
        self._old = {layer.name for layer in model.layers}
        self._tensors, self._how, self._edges = stored(model), how, edges_of(model)
        self._starts = self._tensors.ranges(ranges, fixed=how.flavour == "asymmetric")
        self._ends = {self._tensors.source[edge] for edge in self._tensors.graph.outputs}
        self._layers: dict[Edge, Any] = {}

    def graph(self, model: Any) -> Any:
        """The whole graph."""
        inputs = [keras.Input(tuple(t.shape[1:]), dtype=t.dtype, name=t.name) for t in model.inputs]
        given = [self._round(self._edges[id(old)], new) for old, new in zip(model.inputs, inputs, strict=True)]
        outputs = self.run(model, given, prefix="")
        one = len(inputs) == 1, len(outputs) == 1
        return keras.Model(inputs[0] if one[0] else inputs, outputs[0] if one[1] else outputs, name=model.name)

    def call(self, node: Any, values: dict[int, Any], prefix: str) -> list[Any]:
        results = super().call(node, values, prefix)
        return [self._round(self._edges[id(old)], x) for old, x in zip(node.outputs, results, strict=True)]

    def _clone(self, operation: Any, prefix: str) -> Any:
        kind = ROUNDED.get(type(operation))
        if kind is None or id(operation) in self._clones:
            return super()._clone(operation, prefix)
        norm = self._how.norms.get(operation.name)
        own = {"granularity": self._how.granularity, "norm_steps": self._how.norm_steps if norm else 0}
        clone: Any = kind.from_config({**operation.get_config(), **own})
        clone.build(tuple(operation._inbound_nodes[0].input_tensors[0].shape))
        low, high = self._starts[self._edges[id(operation._inbound_nodes[0].input_tensors[0])]]
        clone.take(*split_weights(operation), size=max(-low, high) / USUAL)
        if norm and clone.norm_steps:
            clone.take_norm(norm)
        self._clones[id(operation)] = clone
        return clone

    def _round(self, edge: Edge, x: Any) -> Any:
        tensors, how = self._tensors, self._how
        if not tensors.rounds(edge) or self._is_head(edge):
            return x
        if _prescribed(tensors, edge, how):
            own = asymmetric(*tensors.fixed[tensors.source[edge]])
            name = new_name(tensors.names[edge], "quantized", self._old)
            return FakeQuantize(own.scale, own.zero_point, name=name)(x)
        return self._layer(edge)(x, part=_part(tensors, edge))

    def _is_head(self, edge: Edge) -> bool:
        """Whether it is an output that probabilities are, or a softmax that stays in float."""
        kind = self._tensors.activation(edge)
        return (kind in HEADS and self._tensors.source[edge] in self._ends) or (
            kind == "softmax" and self._how.flavour == "symmetric"
        )

    def _layer(self, edge: Edge) -> Any:
        owner = self._tensors.owner(edge)
        if owner not in self._layers:
            self._layers[owner] = TrackedRange(
                *self._starts[edge],
                symmetric=self._how.flavour == "symmetric",
                moving_steps=self._how.moving_steps,
                name=new_name(self._tensors.names[owner], "range", self._old),
            )
        return self._layers[owner]


def _part(tensors: Stored, edge: Edge) -> str:
    """What a tensor does for the range it has (of TrackedRange)."""
    joined = tensors.shared.get(tensors.source[edge])
    if joined is None:
        return "whole" if tensors.source[edge] == edge else "none"
    if edge == max(joined, key=lambda other: other.call):  # the last to run
        return "settle"
    return "gather" if tensors.source[edge] == edge and edge not in joined else "none"


def _prescribed(tensors: Stored, edge: Edge, how: Rounding) -> bool:
    return how.flavour == "asymmetric" and tensors.source[edge] in tensors.fixed


def _exact(low: float, high: float, flavour: Flavour) -> Range:
    """The range whose scale and zero point are those that training rounded with."""
    if flavour == "symmetric":
        most = symmetric(low, high).high
        return -most, most
    own = asymmetric(low, high)
    return own.low, own.high


def _settled(layer: Any, trained: Any, how: Rounding) -> list[Array]:
    """What a layer has learned, its kernel on the grid."""
    if not isinstance(layer, WEIGHTED):
        return list(trained.get_weights())
    kernel, bias = trained.weights_learned()
    rounded = on_grid(kernel, weight_scales(layer, kernel, granularity=how.granularity))
    return [rounded] if bias is None else [rounded, bias]
