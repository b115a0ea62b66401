"""Which layers quantization hurts: one layer quantized at a time, and all but one, in one compiled graph with switches.

What a layer's switch turns on: its weights on their grid, and rounding of the tensors it reads and gives; a tensor
stays rounded as long as a layer on either side of it is quantized, as it does in a file (engine.simulate).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.engine.graph import Call, Edge
from toolkit.engine.numeric import HEADS, decisions, difference
from toolkit.engine.prepare import WEIGHTED
from toolkit.engine.replay import run
from toolkit.engine.simulate import Encoding, Flavour, Granularity, encodings, on_grid, weight_scales
from toolkit.engine.stored import Range, Stored, chosen, fused, stored

Array = NDArray[Any]
BATCH = 32  # images at once


@dataclass(frozen=True)
class Asked:
    """How everything is quantized. activation_bits: None leaves activations in float. left: layers that stay float."""

    weight_bits: int = 8
    activation_bits: int | None = 8
    flavour: Flavour = "asymmetric"
    granularity: Granularity = "per_channel"
    left: Collection[str] = ()


@dataclass(frozen=True)
class Score:
    """Of outputs against the float model's: SQNR of the logits; share of equal decisions, NaN where none are made."""

    sqnr_db: float
    agreement: float


@dataclass(frozen=True)
class LayerSensitivity:
    """alone: this layer quantized and no other. rest: all others. gain_db: what leaving it in float wins back."""

    layer: str
    kind: str
    alone: Score
    rest: Score
    gain_db: float


@dataclass(frozen=True)
class Sensitivities:
    """rows: in the order of the graph. all: every layer quantized that is to be."""

    rows: tuple[LayerSensitivity, ...]
    all: Score
    images: int

    def most_first(self) -> tuple[LayerSensitivity, ...]:
        """By what leaving a layer in float wins back, then by its error alone."""
        return tuple(sorted(self.rows, key=lambda row: (-round(row.gain_db, 2), row.alone.sqnr_db)))


def sensitivity(  # what is quantized how, and on what it is judged
    prepared_graph: Any,
    ranges: Mapping[str, Range] | None,
    images: Mapping[str, Array],
    *,
    head: str,
    asked: Asked = Asked(),
    emit: Callable[[str, float], None] = lambda text, fraction: None,
) -> Sensitivities:
    """Sensitivity of each layer of a prepared graph.

    ranges: (low, high) by layer name, as in Statistics; None for the extremes on these images. head: what the first
    output means (engine.numeric). InputError for a tensor without a range.
    """
    gated = Gated(prepared_graph, ranges or extremes(prepared_graph, images), asked)
    reference = gated.answers(images, np.zeros(gated.count))

    def score(gates: Array) -> Score:
        return _score(reference, gated.answers(images, gates), head)

    every, rows = score(gated.gates(None)), []
    for i, (name, kind) in enumerate(gated.units.items()):
        emit(f"sensitivity of {name}", i / len(gated.units))
        rest = score(gated.gates(set(gated.units) - {name}))
        gain = rest.sqnr_db - every.sqnr_db if math.isfinite(every.sqnr_db) else 0.0
        rows.append(LayerSensitivity(name, kind, score(gated.gates({name})), rest, gain))
    return Sensitivities(tuple(rows), every, len(next(iter(images.values()))))


def extremes(graph: Any, images: Mapping[str, Array]) -> dict[str, Range]:
    """Smallest and largest value of every layer's outputs on these images, by the names of Statistics."""
    tensors = stored(graph)
    found: dict[str, Range] = {}
    count = len(next(iter(images.values())))
    for start in range(0, count, BATCH):
        calls = tensors.graph
        given = {
            edge: np.asarray(images[calls.calls[edge.call].name][start : start + BATCH], np.float32)
            for edge in calls.inputs
        }
        for edge, values in run(calls, given, range(len(calls.calls))).items():
            name, (low, high) = tensors.names[edge], (float(values.min()), float(values.max()))
            known = found.get(name, (low, high))
            found[name] = (min(known[0], low), max(known[1], high))
    return found


class Gated:
    """A prepared graph whose layers are quantized, or not, by switches."""

    def __init__(self, model: Any, ranges: Mapping[str, Range], asked: Asked) -> None:
        self._tensors = stored(model)
        self._asked, bits = asked, asked.activation_bits
        self._found = encodings(self._tensors, ranges, bits=bits, flavour=asked.flavour) if bits else {}
        self.count = len(self._tensors.graph.calls)
        self._left = chosen(self._tensors, asked.left)
        self.units = _units(self._tensors, self._left)
        self._kernels = {call.index: self._kernel(call.layer) for call in self._weighted()}
        self._function = tf.function(self._compute, autograph=False)

    def gates(self, names: set[str] | None) -> Array:
        """Switches of the calls that are quantized where these layers are, or all are (None)."""
        on = np.zeros(self.count)
        on[sorted(chosen(self._tensors, names) - self._left)] = 1
        return on

    def answers(self, images: Mapping[str, Array], gates: Array) -> Array:
        """The first output for all images."""
        count, graph = len(next(iter(images.values()))), self._tensors.graph
        names = [graph.calls[edge.call].name for edge in graph.inputs]
        parts = []
        for start in range(0, count, BATCH):
            rows = [tf.constant(images[name][start : start + BATCH], tf.float32) for name in names]
            parts.append(self._function(rows, tf.constant(gates, tf.float32)).numpy())
        return np.concatenate(parts)

    def _compute(self, given: list[Any], gates: Any) -> Any:
        graph = self._tensors.graph
        values: dict[Edge, Any] = {}
        for edge, tensor in zip(graph.inputs, given, strict=True):
            values[edge] = self._rounded(edge, tensor, gates)
        for call in graph.calls:
            if not call.inputs:
                continue
            for i, output in enumerate(self._outputs(call, [values[edge] for edge in call.inputs], gates)):
                edge = Edge(call.index, i)
                values[edge] = self._rounded(edge, output, gates)
        return values[graph.outputs[0]]

    def _outputs(self, call: Call, inputs: list[Any], gates: Any) -> list[Any]:
        tensors = call.node.input_tensors
        args, kwargs = call.node.arguments.fill_in({id(t): x for t, x in zip(tensors, inputs, strict=True)})
        kwargs.pop("training", None)
        if not isinstance(call.layer, WEIGHTED):
            return list(keras.tree.flatten(call.layer(*args, **kwargs)))
        weights = tf.where(gates[call.index] > 0, *self._kernels[call.index])
        with keras.StatelessScope(state_mapping=[(call.layer.kernel, weights)]):
            return [call.layer(*args, **kwargs)]

    def _weighted(self) -> list[Call]:
        return [call for call in self._tensors.graph.calls if isinstance(call.layer, WEIGHTED)]

    def _kernel(self, layer: Any) -> tuple[Array, Array]:
        """A layer's weights on their grid, and as they are."""
        kernel, bits = np.asarray(layer.kernel), self._asked.weight_bits
        scales = weight_scales(layer, kernel, bits=bits, granularity=self._asked.granularity)
        return on_grid(kernel, scales, bits), kernel

    def _rounded(self, edge: Edge, value: Any, gates: Any) -> Any:
        """The tensor as it is stored, where a layer on one of its sides is quantized."""
        own: Encoding | None = self._found.get(edge)
        if own is None or self._tensors.inner(edge) or not self._tensors.rounds(edge):
            return value
        sides = [edge.call, *self._tensors.graph.calls[edge.call].consumers]
        on = tf.reduce_max(tf.gather(gates, sides)) > 0
        return tf.where(on, tf.quantization.fake_quant_with_min_max_args(value, own.low, own.high, own.bits), value)


def _units(tensors: Stored, left: set[int]) -> dict[str, str]:
    """What is quantized as one: name -> kind of every layer that computes; an activation goes with what takes it in."""
    graph = tensors.graph
    taken = {after.index for call in graph.calls if (after := fused(graph, call)) is not None}
    found: dict[str, str] = {}
    for call in graph.calls:
        new = tensors.rounds(Edge(call.index)) or tensors.inner(Edge(call.index))
        if call.inputs and call.index not in taken | left and new:
            found.setdefault(call.name, call.kind)
    return found


def _score(reference: Array, outputs: Array, head: str) -> Score:
    gap = difference(reference, outputs, head)
    agreement = math.nan
    if head in HEADS:
        agreement = float(np.mean(decisions(reference, head) == decisions(outputs, head)))
    return Score(gap.logits_sqnr_db, agreement)
