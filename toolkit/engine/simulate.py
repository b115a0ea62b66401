"""A quantized file simulated in Keras: weights on their grid, rounding wherever the file stores a tensor.

Weights are symmetric, activations have scale (high - low) / 255 and a rounded zero point, with 0 in every range;
biases are integers on the scale of input times weight. Pages: "LiteRT 8-bit quantization specification"
(ai.google.dev/edge/litert); Jacob et al. 2018, arXiv:1712.05877, section 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.flatten import Builder
from toolkit.engine.graph import Call, Edge
from toolkit.engine.hard_swish import hard_swish_table
from toolkit.engine.integer_layers import (
    IntegerAdd,
    IntegerLayer,
    IntegerMean,
    IntegerMultiply,
    IntegerRescaling,
    IntegerScaling,
    IntegerTable,
    of_weights,
)
from toolkit.engine.prepare import WEIGHTED, kernel_axis, split_weights
from toolkit.engine.stored import AVERAGES, Range, Stored, activation, chosen, edges_of, fused, stored
from toolkit.errors import InputError

Array = NDArray[Any]
Flavour = Literal["asymmetric", "symmetric"]
Granularity = Literal["per_channel", "per_tensor"]
SNAP = 1e-4  # steps: float32 has a half as somewhat less; averages of up to 5,000 integers are not nearer to one
HARD_SWISH = ("hard_silu", "hard_swish")
OF_TWO = {"Add": IntegerAdd, "Multiply": IntegerMultiply}
LEAST = 1e-9  # of a range, so that no scale is 0 (as ai-edge-quantizer has it)


@dataclass(frozen=True)
class Encoding:
    """real = scale * (integer - zero_point), for integers of `bits` bits with a sign."""

    scale: float
    zero_point: int
    bits: int

    @property
    def low(self) -> float:
        """Value of the least integer."""
        return self.scale * (-(1 << self.bits - 1) - self.zero_point)

    @property
    def high(self) -> float:
        """Value of the largest integer."""
        return self.scale * ((1 << self.bits - 1) - 1 - self.zero_point)


def asymmetric(low: float, high: float, bits: int = 8) -> Encoding:
    """The encoding of a range, widened to hold 0, whose zero point is rounded to an integer.

    The scale is found in float32, as ai-edge-quantizer does: one that is off by its last bit turns roundings elsewhere.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    width: Any = max(np.float32(high) - np.float32(low), np.float32(LEAST))
    scale = float(width / np.float32(2**bits - 1))
    least = -(2 ** (bits - 1))
    return Encoding(scale, int(np.clip(np.rint(least - low / scale), least, -least - 1)), bits)


def symmetric(low: float, high: float, bits: int = 8) -> Encoding:
    """The encoding of a range with zero point 0: scale = max|.| / 127 for 8 bits."""
    return Encoding(max(abs(low), abs(high), LEAST) / (2 ** (bits - 1) - 1), 0, bits)


def encodings(
    tensors: Stored, ranges: Mapping[str, Range], *, bits: int = 8, flavour: Flavour = "asymmetric"
) -> dict[Edge, Encoding]:
    """What each stored tensor is stored as.

    16 bits are symmetric; softmax, sigmoid and tanh then have the scale 1/32768. Symmetric 8 bits (TensorRT) prescribe
    no scale; a softmax stays in float there.
    """
    prescribed = bits == 16 or flavour == "asymmetric"
    found = tensors.ranges(ranges, fixed=prescribed)
    if not prescribed:
        found = {edge: ends for edge, ends in found.items() if tensors.activation(edge) != "softmax"}
    if bits == 16:
        unit = Encoding(1 / 2**15, 0, 16)
        return {e: unit if tensors.source[e] in tensors.fixed else symmetric(*ends, 16) for e, ends in found.items()}
    rule = asymmetric if flavour == "asymmetric" else symmetric
    return {edge: rule(*ends, bits) for edge, ends in found.items()}


def weight_scales(layer: Any, kernel: Array, *, bits: int = 8, granularity: Granularity = "per_channel") -> Array:
    """max|w| / (2**(bits-1) - 1) over an output channel, or over all, in a shape that divides the kernel."""
    axes = tuple(range(kernel.ndim))
    if granularity == "per_channel" and isinstance(layer, layers.DepthwiseConv2D):
        axes = (0, 1)
    elif granularity == "per_channel":
        axes = tuple(axis for axis in axes if axis != kernel_axis(layer) % kernel.ndim)
    most = np.abs(kernel).max(axis=axes, keepdims=True)
    scales: Array = (np.maximum(most, LEAST) / (2 ** (bits - 1) - 1)).astype(np.float32)
    return scales


def on_grid(values: Array, scales: Array, bits: int = 8) -> Array:
    """Values rounded to multiples of their scales, from -127 to 127 of them for 8 bits."""
    most = 2 ** (bits - 1) - 1
    rounded: Array = (np.clip(np.rint(values / scales), -most, most) * scales).astype(np.float32)
    return rounded


def rounded(values: Any, encoding: Encoding, *, away: bool = False) -> Any:
    """A tensor at the nearest integers of an encoding, as reals.

    Halves go to even integers, as in XNNPACK's kernels; or away from the integer 0, as LiteRT's averages do, which
    halves are common in. (TensorFlow's own fake quantization sends all of them up.)
    """
    own, least = encoding, -(1 << encoding.bits - 1)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def through(x: Any) -> Any:
        steps = x / own.scale
        if away:
            raw = steps + own.zero_point
            steps = tf.sign(raw) * tf.floor(tf.abs(raw) + 0.5 + SNAP) - own.zero_point
        steps = tf.clip_by_value(tf.round(steps), least - own.zero_point, -least - 1 - own.zero_point)
        kept = tf.logical_and(x >= own.low, x <= own.high)
        return steps * own.scale, lambda upstream: tf.where(kept, upstream, 0.0)

    return through(values)


@keras.saving.register_keras_serializable("edgekit")
class FakeQuantize(layers.Layer):  # type: ignore[misc]
    """Rounds to the integers of an encoding; the gradient passes where nothing was clipped."""

    def __init__(self, scale: float, zero_point: int, bits: int = 8, *, away: bool = False, **rest: Any) -> None:
        super().__init__(**rest)
        self.encoding, self.away = Encoding(scale, zero_point, bits), away

    def call(self, inputs: Any) -> Any:
        return rounded(inputs, self.encoding, away=self.away)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = self.encoding
        mine = {"scale": own.scale, "zero_point": own.zero_point, "bits": own.bits, "away": self.away}
        return {**super().get_config(), **mine}


def simulate(
    prepared_graph: Any,
    ranges: Mapping[str, Range],
    *,
    weight_bits: int = 8,
    activation_bits: int | None = 8,
    flavour: Flavour = "asymmetric",
    granularity: Granularity = "per_channel",
    layers: Collection[str] | None = None,
    exact: bool = False,
) -> Any:
    """A keras.Model with the inputs and outputs of the graph, computing what a quantized file does.

    ranges: (low, high) by layer name, as in Statistics. activation_bits: 8 or 16; None leaves activations in float.
    layers: only these are quantized, with the tensors they read and give; None for all. InputError for a layer that
    is not there, or a tensor without a range. exact: what has weights, sums and products of two, means over an image
    and hard-swish compute on integers and round as LiteRT with XNNPACK does; their weights are then inside. Otherwise
    they sum reals in float32, whose error turns one of some 100,000 roundings, which in a deep network spreads.
    """
    tensors = stored(prepared_graph)
    unknown = sorted(set(layers or ()) - {call.name for call in tensors.graph.calls})
    if unknown:
        raise InputError(unknown[0], "is no layer of the prepared graph", "take names from its layers")
    found = encodings(tensors, ranges, bits=activation_bits, flavour=flavour) if activation_bits else {}
    builder = _Simulator(prepared_graph, tensors, found, chosen(tensors, layers))
    if exact and weight_bits == 8 and activation_bits == 8:
        builder.granularity = granularity
    graph = builder.graph(prepared_graph)
    for call in tensors.graph.calls:
        if call.index in builder.chosen - builder.exact and isinstance(call.layer, WEIGHTED):
            given = found.get(call.inputs[0])
            weights = _weights(call.layer, given, weight_bits, granularity)
            graph.get_layer(call.name).set_weights(weights)
    return graph


class _Simulator(Builder):
    """Clones the graph with a rounding behind (or, for what stays float, in front of) each chosen call."""

    def __init__(self, model: Any, tensors: Stored, found: Mapping[Edge, Encoding], chosen: set[int]) -> None:
        super().__init__({tensor.name for tensor in model.inputs})
        self._old = {layer.name for layer in model.layers}
        self._tensors, self._found, self.chosen = tensors, found, chosen
        self._edges = edges_of(model)
        self._uses = Counter(call.name for call in tensors.graph.calls)
        self._rounded: dict[Edge, Any] = {}
        self.granularity: Granularity | None = None  # of weights, where integers are computed with
        self.exact: set[int] = set()  # calls that do

    def graph(self, model: Any) -> Any:
        """The whole simulated model."""
        inputs = [keras.Input(tuple(t.shape[1:]), dtype=t.dtype, name=t.name) for t in model.inputs]
        given = [
            self._round(self._edges[id(old)], new) if self._edges[id(old)].call in self.chosen else new
            for old, new in zip(model.inputs, inputs, strict=True)
        ]
        outputs = self.run(model, given, prefix="")
        one = len(inputs) == 1, len(outputs) == 1
        return keras.Model(inputs[0] if one[0] else inputs, outputs[0] if one[1] else outputs, name=model.name)

    def call(self, node: Any, values: dict[int, Any], prefix: str) -> list[Any]:
        edge = self._edges[id(node.outputs[0])]
        if edge.call not in self.chosen:
            return super().call(node, values, prefix)
        read = {id(t): self._round(self._edges[id(t)], values[id(t)]) for t in node.input_tensors}
        given = [read[id(tensor)] for tensor in node.input_tensors]
        on_integers = self._on_integers(self._tensors.graph.calls[edge.call], given) if self.granularity else None
        results = [on_integers(given)] if on_integers else super().call(node, {**values, **read}, prefix)
        made = [self._edges[id(tensor)] for tensor in node.outputs]
        return [self._round(e, x) if self._tensors.rounds(e) else x for e, x in zip(made, results, strict=True)]

    def _on_integers(self, call: Call, given: list[Any]) -> Any:
        """What computes a call on integers; None where its tensors have none, or no such layer is known."""
        after = fused(self._tensors.graph, call)
        own = self._found.get(Edge(after.index if after else call.index))
        taken = [self._found[edge] for edge in call.inputs if edge in self._found]
        if own is None or len(taken) != len(call.inputs) or not (after or self._tensors.rounds(Edge(call.index))):
            return None
        if id(call.layer) in self._clones or self._uses[call.name] > 1:
            return None
        made = _without_weights(call, taken, own)
        if made is None and isinstance(call.layer, WEIGHTED):
            made = _with_weights(call, given[0], (taken[0], own), self.granularity or "per_channel")
        if made is None:
            return None
        self.exact.add(call.index)
        return made if len(taken) == 2 else lambda tensors: made(tensors[0])

    def _round(self, edge: Edge, value: Any) -> Any:
        """The tensor rounded as it is stored, once; as it is where no file stores it, or it holds integers already."""
        call = self._tensors.graph.calls[edge.call]
        passed = not self._tensors.rounds(edge) and call.index in self.chosen
        if edge in self._rounded or self._tensors.inner(edge) or passed or edge not in self._found:
            return self._rounded.get(edge, value)
        own = self._found[edge]
        name = new_name(self._tensors.names[edge], "quantized", self._old)
        away = call.kind in AVERAGES
        layer = FakeQuantize(own.scale, own.zero_point, own.bits, away=away, name=name)
        self._rounded[edge] = layer(value)
        return self._rounded[edge]


def _without_weights(call: Call, taken: list[Encoding], own: Encoding) -> Any:
    """The layer on integers for sums, products, means over an image and hard-swish; None for any other."""
    if (of_two := OF_TWO.get(call.kind)) and len(taken) == 2:
        return of_two((taken[0].scale, taken[1].scale), own.scale, name=call.name)
    if call.kind == "Multiply" and len(call.constants) == 1 and isinstance(call.constants[0], int | float):
        number = asymmetric(call.constants[0], call.constants[0])  # its range is from 0 to itself
        steps = round(call.constants[0] / number.scale)
        return IntegerScaling(taken[0].scale, (steps, number.scale), own.scale, name=call.name)
    if call.kind == "Rescaling" and np.size(call.layer.scale) == np.size(call.layer.offset) == 1:
        numbers = float(np.squeeze(call.layer.scale)), float(np.squeeze(call.layer.offset))
        if numbers[0] > 0 and numbers[1]:
            return IntegerRescaling(taken[0].scale, numbers, own.scale, name=call.name)
    if call.kind == "GlobalAveragePooling2D" and call.layer.data_format == "channels_last":
        return IntegerMean(taken[0].scale, own.scale, keepdims=call.layer.keepdims, name=call.name)
    if activation(call) in HARD_SWISH:
        ends = (taken[0].scale, taken[0].zero_point), (own.scale, own.zero_point)
        return IntegerTable(hard_swish_table(*ends), *ends, name=call.name)
    return None


def _with_weights(call: Call, given: Any, ends: tuple[Encoding, Encoding], granularity: Granularity) -> Any:
    """A convolution or dense layer on integers. ends: encodings of input and output."""
    kernel, bias = split_weights(call.layer)
    scales = weight_scales(call.layer, kernel, granularity=granularity)
    rounded = np.rint(on_grid(kernel, scales) / scales)
    step = scales.reshape(-1) * np.float32(ends[0].scale)  # biases are rounded in float32 too
    steps = np.broadcast_to(step, (call.output_shapes[0][-1] or 0,))
    inner = of_weights(call.layer, given.shape, (rounded, None if bias is None else np.rint(bias / steps)))
    return IntegerLayer(inner, ends[0].scale, steps, ends[1].scale, name=call.name)


def new_name(tensor: str, what: str, taken: Collection[str]) -> str:
    """The name of a layer that rounds a tensor; no layer of the graph has it."""
    name = f"{tensor.replace(':', '_')}_{what}"
    while name in taken:
        name += "_"
    return name


def _weights(layer: Any, given: Encoding | None, bits: int, granularity: Granularity) -> list[Array]:
    """A layer's weights on their grid, and its bias on the scale of input times weight."""
    kernel, bias = split_weights(layer)
    scales = weight_scales(layer, kernel, bits=bits, granularity=granularity)
    rounded = on_grid(kernel, scales, bits)
    if bias is None:
        return [rounded]
    if given is None:
        return [rounded, bias]
    step = np.broadcast_to(scales.reshape(-1) * np.float64(given.scale), bias.shape)
    return [rounded, (np.rint(bias / step) * step).astype(np.float32)]
