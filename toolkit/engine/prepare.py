"""A flat Keras graph in the form that quantized files compute: every tensor that gets a range is a layer's output.

BatchNormalization goes into the weights before it (Jacob et al. 2018, arXiv:1712.05877, section 3.2) or, where there is
none, becomes a 1x1 depthwise convolution; a number added to what a layer gives goes into its bias (as TensorFlow's
converter has it); a separable convolution becomes its two; activations inside layers become layers of their own; swish
becomes a sigmoid and a product; a Rescaling or Normalization of images a 1x1 depthwise convolution; average pooling
whose window is the whole image the mean it is, which has a scale of its own, where pooling keeps that of its input
("LiteRT 8-bit quantization specification"). A scaling stands before a Resizing that makes the image larger. What the
graph computes stays; preparing twice changes nothing.

One Rescaling of all channels stays: of pixels, whose file form is a product with a number and a sum with one, which
round once between them (the product's integers are those it reads) and take a tenth of a convolution's time over 3
channels. Not where TensorFlow's converter would join them with what is behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.flatten import Builder
from toolkit.engine.graph import Call, Edge, Graph, walk

Array = NDArray[Any]
WEIGHTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Conv2DTranspose, layers.Dense)
OFFSET = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)  # whose bias takes in a number added
SWISH = ("silu", "swish")
SCALING = (layers.Rescaling, layers.Normalization)
AVERAGING = ("bilinear", "nearest")  # interpolations that give means of pixels: resize(a x + b) = a resize(x) + b


@dataclass(frozen=True)
class Rewrite:
    """One layer that was made into something else, in words."""

    layer: str
    before: str
    after: str


@dataclass(frozen=True)
class Prepared:
    """graph: a new flat functional model, or the one given where nothing had to change."""

    graph: Any
    rewrites: tuple[Rewrite, ...]


@dataclass(frozen=True)
class Norm:
    """Statistics of what a folded kernel gives before its bias, as BatchNormalization keeps them: (channels,) each."""

    mean: Array
    variance: Array
    epsilon: Array


def prepare(model: Any, *, scalings: bool = True) -> Prepared:
    """The prepared form of a flat functional model; names of inputs, outputs' order and kept layers stay.

    scalings: False leaves Rescaling and Normalization as they are: for targets that compute them in float, and would
    lose a bit of the pixels, which have no sign, to symmetric integers. Layers' names are the same.
    """
    builder = _Preparer(model, scalings=scalings)
    inputs = [keras.Input(tuple(t.shape[1:]), dtype=t.dtype, name=t.name) for t in model.inputs]
    outputs = builder.run(model, inputs, prefix="")
    if not builder.rewrites:
        return Prepared(model, ())
    one = len(inputs) == 1, len(outputs) == 1
    graph = keras.Model(inputs[0] if one[0] else inputs, outputs[0] if one[1] else outputs, name=model.name)
    return Prepared(graph, tuple(builder.rewrites))


def folded_norms(model: Any) -> dict[str, Norm]:
    """What `prepare` folds into weights: name of the layer in the prepared graph -> its BatchNormalization.

    The folded kernel gives `scale` times what the layer gave: its statistics are those of the layer in that unit.
    """
    graph, found = walk(model), {}
    for layer, norm in _folds(graph, _shared(graph)):
        scale = affine(norm)[0]
        bias = np.asarray(layer.bias) if layer.use_bias else np.float32(0)
        mean, variance = np.asarray(norm.moving_mean) - bias, np.asarray(norm.moving_variance)
        square = np.square(scale)
        found[str(layer.name)] = Norm(scale * mean, square * variance, square * np.float32(norm.epsilon))
    return found


def kernel_axis(layer: Any) -> int:
    """Axis of the output channels in the kernel of a Conv2D, Conv2DTranspose or Dense (a depthwise one has two)."""
    return -2 if isinstance(layer, layers.Conv2DTranspose) else -1


def split_weights(layer: Any) -> tuple[Array, Array | None]:
    """Kernel and bias (None where there is none) of a layer of WEIGHTED."""
    kernel, *rest = (np.asarray(weight) for weight in layer.get_weights())
    return kernel, rest[0] if rest else None


class _Preparer(Builder):
    def __init__(self, model: Any, *, scalings: bool) -> None:
        super().__init__({tensor.name for tensor in model.inputs})
        self._scalings = scalings
        self.rewrites: list[Rewrite] = []
        self._taken |= {layer.name for layer in model.layers}  # so that new layers take no name of an old one
        graph = walk(model)
        self._shared = _shared(graph)
        folds = _folds(graph, self._shared)
        self._folds = {id(bn): conv for conv, bn in folds}
        self._norms = {id(conv): bn for conv, bn in folds}
        self._offsets = _offsets(graph, self._shared)
        self._offset_layers = {id(add) for add, _ in self._offsets.values()}
        self._ahead = _ahead(graph, self._shared) if scalings else {}
        self._kept = _pixel_scalings(graph, self._shared, self._ahead)
        self._moved = {id(scaling) for moved in self._ahead.values() for scaling in moved}
        self._made: dict[int, tuple[Any, ...]] = {}

    def call(self, node: Any, values: dict[int, Any], prefix: str) -> list[Any]:
        operation = node.operation
        tensors = [values[id(tensor)] for tensor in node.input_tensors]
        if id(operation) in self._folds or id(operation) in self._offset_layers or id(operation) in self._moved:
            return tensors
        if id(operation) not in self._made:
            self._made[id(operation)] = self._replacement(operation, node)
        made = self._made[id(operation)]
        if not made:
            return super().call(node, values, prefix)
        (x,) = tensors
        for step in made:
            x = step(x)
        return [x]

    def unique(self, name: str, prefix: str = "") -> str:
        """Old layers keep their names, which nothing else has taken."""
        if name in self._taken and name not in {clone.name for clone in self._clones.values()} and not prefix:
            return name
        return super().unique(name, prefix)

    # ------------------------------------------------------------ one layer

    def _replacement(self, layer: Any, node: Any) -> tuple[Any, ...]:
        """What is called one after the other instead of a layer; empty where it stays."""
        if isinstance(layer, layers.SeparableConv2D):
            return self._separated(layer)
        if isinstance(layer, layers.BatchNormalization):
            return self._standalone(layer, tuple(node.input_tensors[0].shape), "BatchNormalization", affine)
        if self._scalings and isinstance(layer, SCALING) and id(layer) not in self._kept:
            return self._standalone(layer, tuple(node.input_tensors[0].shape), type(layer).__name__, _scaling)
        if _is_whole(layer, tuple(node.input_tensors[0].shape)) and id(layer) not in self._shared:
            self._tell(layer, "AveragePooling2D over the whole image", "its mean, with a range of its own")
            return (layers.GlobalAveragePooling2D(keepdims=True, name=layer.name),)
        if id(layer) in self._ahead:
            return self._scaled_before(layer, tuple(node.input_tensors[0].shape))
        if _is_swish(layer):
            self._tell(layer, "swish", "sigmoid, then a product")
            return (_swish(self.new(f"{layer.name}_sigmoid"), layer.name),)
        changed = id(layer) in self._norms or id(layer) in self._offsets or not _is_linear(layer)
        if isinstance(layer, WEIGHTED) and changed:
            return self._weighted(layer)
        return ()

    def _weighted(self, layer: Any) -> tuple[Any, ...]:
        norm = self._norms.get(id(layer))
        kernel, bias = split_weights(layer)
        if norm is not None:
            self._tell(norm, "BatchNormalization", f"in the weights of {layer.name}")
            kernel, bias = _folded(layer, kernel, bias, norm)
        if id(layer) in self._offsets:
            add, number = self._offsets[id(layer)]
            self._tell(add, "a number added", f"in the bias of {layer.name}")
            channels = layer.compute_output_shape(tuple(layer.input.shape))[-1]
            bias = number + (np.zeros(channels, np.float32) if bias is None else bias)
        config = {**layer.get_config(), "activation": "linear", "use_bias": bias is not None}
        twin = _built(type(layer).from_config(config), layer, [kernel, bias] if bias is not None else [kernel])
        return (twin, *self._activation(layer))

    def _activation(self, layer: Any) -> tuple[Any, ...]:
        """The activation inside a layer as layers behind it."""
        if _is_linear(layer):
            return ()
        named = keras.activations.serialize(layer.activation)
        name = str(getattr(layer.activation, "__name__", "activation"))
        self._tell(layer, f"{name} inside", "a layer behind it")
        own = self.new(f"{layer.name}_{name}")
        if name in SWISH:
            return (_swish(self.new(f"{layer.name}_sigmoid"), own),)
        return (layers.Activation(named, name=own),)

    def _separated(self, layer: Any) -> tuple[Any, ...]:
        self._tell(layer, "SeparableConv2D", "a depthwise and a 1x1 convolution")
        depthwise, pointwise, *rest = (np.asarray(weight) for weight in layer.get_weights())
        bias = rest[0] if rest else None
        if (norm := self._norms.get(id(layer))) is not None:
            self._tell(norm, "BatchNormalization", f"in the weights of {layer.name}")
            pointwise, bias = _folded(layer, pointwise, bias, norm)
        first = layers.DepthwiseConv2D(
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            depth_multiplier=layer.depth_multiplier,
            use_bias=False,
            name=self.new(f"{layer.name}_depthwise"),
        )
        second = layers.Conv2D(layer.filters, 1, use_bias=bias is not None, name=layer.name)
        shape = tuple(layer.input.shape)
        first.build(shape)
        first.set_weights([depthwise])
        second.build(first.compute_output_shape(shape))
        second.set_weights([pointwise, bias] if bias is not None else [pointwise])
        return (first, second, *self._activation(layer))

    def _scaled_before(self, layer: Any, shape: tuple[int | None, ...]) -> tuple[Any, ...]:
        """The scalings that stand behind a Resizing, and then the Resizing."""
        scalings = self._ahead[id(layer)]
        self._tell(layer, "Resizing", f"behind {', '.join(scaling.name for scaling in scalings)}")
        made: list[Any] = []
        for one in scalings:
            kept = id(one) in self._kept
            made += [self._clone(one, "")] if kept else self._standalone(one, shape, type(one).__name__, _scaling)
        return (*made, self._clone(layer, ""))

    def _standalone(
        self, layer: Any, shape: tuple[int | None, ...], kind: str, found: Callable[[Any, int], tuple[Array, Array]]
    ) -> tuple[Any, ...]:
        """A scale and an offset with no weights before it, over the channels of an image: one rounding, not two."""
        channels = shape[-1] if _is_of_channels(layer, shape) else None
        if channels is None:
            return ()
        self._tell(layer, kind, "a 1x1 depthwise convolution")
        scale, offset = found(layer, channels)
        twin = layers.DepthwiseConv2D(1, name=layer.name)
        twin.build(shape)
        twin.set_weights([scale[None, None, :, None], offset])
        return (twin,)

    def new(self, name: str) -> str:
        """A name for an added layer."""
        return Builder.unique(self, name)

    def _tell(self, layer: Any, before: str, after: str) -> None:
        self.rewrites.append(Rewrite(str(layer.name), before, after))


def affine(norm: Any, channels: int = 0) -> tuple[Array, Array]:
    """(scale, offset), each (channels,): what a BatchNormalization computes in inference, as x * scale + offset."""
    mean, variance = np.asarray(norm.moving_mean, np.float64), np.asarray(norm.moving_variance, np.float64)
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.gamma is not None:
        scale = scale * np.asarray(norm.gamma, np.float64)
    offset = -mean * scale
    if norm.beta is not None:
        offset = offset + np.asarray(norm.beta, np.float64)
    return scale.astype(np.float32), offset.astype(np.float32)


def _scaling(layer: Any, channels: int) -> tuple[Array, Array]:
    """(scale, offset), each (channels,), of a Rescaling or Normalization layer."""
    if isinstance(layer, layers.Normalization):
        mean, variance = (np.asarray(values, np.float64).ravel() for values in (layer.mean, layer.variance))
        scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
        offset = -mean * scale
    else:
        scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    wide = (np.broadcast_to(values, (channels,)).astype(np.float32) for values in (scale, offset))
    return tuple(wide)  # type: ignore[return-value]


def _is_of_channels(layer: Any, shape: tuple[int | None, ...]) -> bool:
    """Whether a scaling of what has this shape is one of the channels of images."""
    last = getattr(layer, "axis", -1) in (-1, 3, (), (-1,), (3,))
    return len(shape) == 4 and shape[-1] is not None and last and not getattr(layer, "invert", False)


def _folded(layer: Any, kernel: Array, bias: Array | None, norm: Any) -> tuple[Array, Array]:
    """Kernel and bias of the layer and the BatchNormalization behind it as one."""
    scale, offset = affine(norm)
    shaped = scale.reshape(kernel.shape[-2:]) if isinstance(layer, layers.DepthwiseConv2D) else scale
    if isinstance(layer, layers.Conv2DTranspose):
        shaped = scale[:, None]
    return kernel * shaped, offset + (bias * scale if bias is not None else 0)


def _shared(graph: Graph) -> set[int]:
    """Layers that are called more than once."""
    uses = Counter(id(call.layer) for call in graph.calls)
    return {key for key, count in uses.items() if count > 1}


def _folds(graph: Graph, shared: set[int]) -> list[tuple[Any, Any]]:
    """(layer with weights, BatchNormalization) where the second reads the first, and nothing else does."""
    outputs = {edge.call for edge in graph.outputs}
    found = []
    for call in graph.calls:
        if not isinstance(call.layer, layers.BatchNormalization) or id(call.layer) in shared:
            continue
        before = graph.calls[call.inputs[0].call]
        free = before.index not in outputs and before.consumers == (call.index,) and id(before.layer) not in shared
        if (
            free
            and _takes_norm(before)
            and call.layer.axis % len(call.input_shapes[0]) == len(call.input_shapes[0]) - 1
        ):
            found.append((before.layer, call.layer))
    return found


def _offsets(graph: Graph, shared: set[int]) -> dict[int, tuple[Any, float]]:
    """id of a layer with weights -> (`x + number`, the number) where nothing else reads what the layer gives.

    There may be a BatchNormalization in between that goes into the weights too.
    """
    folds = {id(norm): layer for layer, norm in _folds(graph, shared)}
    outputs = {edge.call for edge in graph.outputs}
    found: dict[int, tuple[Any, float]] = {}
    for call in graph.calls:
        numbers = [value for value in call.constants if isinstance(value, int | float)]
        if call.kind != "Add" or (len(call.inputs), len(call.constants), len(numbers)) != (1, 1, 1):
            continue
        before = graph.calls[call.inputs[0].call]
        layer = folds.get(id(before.layer), before.layer)
        free = before.index not in outputs and before.consumers == (call.index,)
        if free and not {id(layer), id(call.layer)} & shared and isinstance(layer, OFFSET) and _is_linear(layer):
            found[id(layer)] = (call.layer, float(numbers[0]))
    return found


def _ahead(graph: Graph, shared: set[int]) -> dict[int, list[Any]]:
    """id of a Resizing that enlarges -> the scalings behind it, which cost less in front of it, in their order."""
    outputs = {edge.call for edge in graph.outputs}
    resizing: dict[int, Any] = {}  # by index of a call that only the next one reads: it, or the one before its scalings
    found: dict[int, list[Any]] = {}
    for call in graph.calls:
        if id(call.layer) in shared or call.index in outputs:
            continue
        start = call.layer if _enlarges(call) else None
        if isinstance(call.layer, SCALING) and _is_of_channels(call.layer, call.input_shapes[0]):
            start = resizing.get(call.inputs[0].call)
            if start is not None:
                found.setdefault(id(start), []).append(call.layer)
        if start is not None and len(call.consumers) == 1:
            resizing[call.index] = start
    return found


def _pixel_scalings(graph: Graph, shared: set[int], ahead: dict[int, list[Any]]) -> set[int]:
    """ids of the Rescaling layers that stay: one scale and offset, of an input, or of one that is resized after it."""
    alone = {id(scalings[0]) for scalings in ahead.values() if len(scalings) == 1}
    found = set()
    for call in graph.calls:
        if not isinstance(call.layer, layers.Rescaling) or id(call.layer) in shared or not _is_plain(call):
            continue
        moved = id(call.layer) in alone
        before = graph.calls[call.inputs[0].call]
        reads = graph.calls[before.inputs[0].call] if moved else before
        apart = moved or all(_pads(graph.calls[index].layer) for index in call.consumers)
        if reads.kind == "InputLayer" and apart and Edge(call.index) not in graph.outputs:
            found.add(id(call.layer))
    return found


def _is_plain(call: Call) -> bool:
    """Whether a Rescaling of images is a product with a number above 0 and a sum with another, neither for nothing."""
    scale, offset = np.asarray(call.layer.scale), np.asarray(call.layer.offset)
    numbers = (scale.size, offset.size) == (1, 1) and _is_of_channels(call.layer, call.input_shapes[0])
    return bool(numbers and scale > 0 and scale != 1 and offset != 0)


def _pads(layer: Any) -> bool:
    """Whether a layer puts zeros around images first, so that no sum before it can go into its bias."""
    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.SeparableConv2D):
        return bool(layer.padding == "same" and min(layer.kernel_size) > 1)
    return isinstance(layer, layers.ZeroPadding2D | layers.Resizing)


def _enlarges(call: Call) -> bool:
    """Whether a call is a Resizing to more pixels, each a mean of old ones."""
    layer = call.layer
    if not isinstance(layer, layers.Resizing) or layer.data_format != "channels_last" or layer.pad_to_aspect_ratio:
        return False
    sides = [side for side in call.input_shapes[0][1:3] if side]
    larger = len(sides) == 2 and sides[0] * sides[1] < layer.height * layer.width
    return larger and layer.interpolation in AVERAGING


def _takes_norm(call: Call) -> bool:
    kinds = (*WEIGHTED, layers.SeparableConv2D)
    last = getattr(call.layer, "data_format", "channels_last") == "channels_last"
    return isinstance(call.layer, kinds) and _is_linear(call.layer) and last


def _is_linear(layer: Any) -> bool:
    return getattr(layer, "activation", None) in (None, keras.activations.linear)


def _is_whole(layer: Any, shape: tuple[int | None, ...]) -> bool:
    """Whether a pooling gives the one average of a whole image of several places."""
    if not isinstance(layer, layers.AveragePooling2D) or layer.data_format != "channels_last" or None in shape[1:3]:
        return False
    one = tuple(layer.compute_output_shape(shape))[1:3] == (1, 1)
    covered = all(window >= side for window, side in zip(layer.pool_size, shape[1:3], strict=True))
    return one and covered and shape[1:3] != (1, 1)


def _is_swish(layer: Any) -> bool:
    return type(layer).__name__ == "Activation" and getattr(layer.activation, "__name__", "") in SWISH


def _swish(sigmoid: str, product: str) -> Any:
    gate, times = layers.Activation("sigmoid", name=sigmoid), layers.Multiply(name=product)
    return lambda x: times([x, gate(x)])


def _built(twin: Any, layer: Any, weights: list[Array]) -> Any:
    twin.build(tuple(layer.input.shape))
    twin.set_weights(weights)
    return twin
