"""How each kind of layer treats channels: the rules from which groups.py finds what must be cut together.

A tensor is the array of atoms along its last axis. A rule takes the atoms of a call's inputs and gives those of its
outputs, binds the axes of the layer's weights to atoms, and joins atoms that can only be cut together. It raises
`Opaque` where it cannot follow; then all that the layer touches stays whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import keras
import numpy as np
from keras import activations, layers
from numpy.typing import NDArray

from toolkit.engine.graph import Call

Atoms = NDArray[np.intp]


class Opaque(Exception):  # noqa: N818 - a signal between rules and groups.py, never an error of the user
    """Says, in words that follow the layer's name, why a rule cannot follow the channels."""


@dataclass(frozen=True, eq=False)
class Binding:
    """An axis of a weight and the atom at each of its positions; the fields are those of groups.Slot."""

    layer: str
    weight: str
    index: int
    axis: int
    side: Literal["out", "in", "through"]
    atoms: Atoms


class Channels:
    """Union-find over atoms, the weights bound to them, and why some must stay.

    reasons: frozen atom -> why. opaque: layer that could not be followed -> why.
    """

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.reasons: dict[int, str] = {}
        self.slots: dict[tuple[str, int, int], Binding] = {}
        self.opaque: dict[str, str] = {}

    def fresh(self, count: int, reason: str = "") -> Atoms:
        """New atoms, frozen if a reason is given."""
        atoms = np.arange(len(self.parent), len(self.parent) + count, dtype=np.intp)
        self.parent.extend(atoms.tolist())
        if reason:
            self.freeze(atoms, reason)
        return atoms

    def join(self, first: Atoms, second: Atoms) -> None:
        """Make the atoms at equal places one channel."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            if a != b:
                low, high = sorted((self.root(a), self.root(b)))
                self.parent[high] = low

    def root(self, atom: int) -> int:
        """The smallest atom joined with this one."""
        while self.parent[atom] != atom:
            self.parent[atom] = atom = self.parent[self.parent[atom]]
        return atom

    def roots(self) -> Atoms:
        return np.array([self.root(atom) for atom in range(len(self.parent))], np.intp)

    def freeze(self, atoms: Atoms, reason: str) -> None:
        for atom in atoms.tolist():
            self.reasons.setdefault(atom, reason)

    def bind(self, layer: Any, weight: Any, axis: int, atoms: Atoms, side: Literal["in", "through"]) -> None:
        """Tie an axis of a weight to atoms. At a second use of the layer they are joined with those of the first."""
        if weight.shape[axis] != len(atoms):
            raise Opaque(f"has a {weight.name} of shape {tuple(weight.shape)} for {len(atoms)} channels")
        self._tie(Binding(layer.name, weight.name, _index(layer, weight), axis % len(weight.shape), side, atoms))

    def make(self, layer: Any, weight: Any, axis: int) -> Atoms:
        """The atoms a layer makes, one for each position of its weight's output axis: the same ones at each use."""
        index, axis = _index(layer, weight), axis % len(weight.shape)
        bound = self.slots.get((layer.name, index, axis))
        atoms = bound.atoms if bound else self.fresh(weight.shape[axis])
        self._tie(Binding(layer.name, weight.name, index, axis, "out", atoms))
        if layer.bias is not None:
            self._tie(Binding(layer.name, "bias", _index(layer, layer.bias), 0, "out", atoms))
        return atoms

    def bind_target(self, layer: Any, atoms: Atoms) -> None:
        """Tie the last entry of a Reshape's target shape."""
        self._tie(Binding(layer.name, "target_shape", -1, len(layer.target_shape) - 1, "through", atoms))

    def _tie(self, binding: Binding) -> None:
        first = self.slots.setdefault((binding.layer, binding.index, binding.axis), binding)
        self.join(first.atoms, binding.atoms)


Rule = Callable[[Channels, Call, list[Atoms]], list[Atoms]]


def _index(layer: Any, weight: Any) -> int:
    """Place of a variable in layer.weights; Opaque where the layer computes it (LoRA, quantized kernels)."""
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise Opaque("is quantized or carries a LoRA branch")
    return [own is weight for own in layer.weights].index(True)


def _fold(channels: Channels, atoms: Atoms, parts: int) -> Atoms:
    """Join place i of all `parts` equal runs of atoms; the first run."""
    first, *others = np.split(atoms, parts)
    for run in others:
        channels.join(first, run)
    return first


# ---------------------------------------------------------------- layers that only carry channels on

_VALUE_BY_VALUE = (
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid mish relu "
    "relu6 selu sigmoid silu soft_shrink softplus softsign sparse_plus sparse_sigmoid squareplus tanh tanh_shrink "
    "threshold"
)
_ACTIVATIONS = frozenset(getattr(activations, name) for name in _VALUE_BY_VALUE.split())


def _each_channel_alone(activation: Any) -> bool:
    """Whether an activation treats each value by itself (softmax, glu and unknown functions are taken not to)."""
    if isinstance(activation, layers.Layer):
        return type(activation) in (layers.ReLU, layers.LeakyReLU, layers.ELU)
    return activation is None or (callable(activation) and activation in _ACTIVATIONS)


def _input(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    shape = call.output_shapes[0]
    size = (shape[-1] or 0) if len(shape) > 1 else 0
    return [channels.fresh(size, f"{call.name!r} is an input of the model")]


def _pass(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    return [inputs[0]]


def _activation(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    if not _each_channel_alone(call.layer.activation):
        raise Opaque("mixes channels")
    return [inputs[0]]


def _rescaling(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    if np.ndim(call.layer.scale) or np.ndim(call.layer.offset):
        raise Opaque("holds constants for each channel")
    return [inputs[0]]


def _normalization(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    raise Opaque("holds statistics for each channel")


def _batch_normalization(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    layer, rank = call.layer, len(call.input_shapes[0])
    if layer.axis % rank != rank - 1:
        raise Opaque(f"normalizes axis {layer.axis}, not the last")
    for weight in layer.weights:
        channels.bind(layer, weight, 0, inputs[0], "through")
    return [inputs[0]]


def _prelu(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    layer, rank = call.layer, len(call.input_shapes[0])
    if rank - 1 not in (layer.shared_axes or ()):
        channels.bind(layer, layer.alpha, rank - 2, inputs[0], "through")
    return [inputs[0]]


# ---------------------------------------------------------------- layers that mix channels


def _output(channels: Channels, call: Call, atoms: Atoms) -> list[Atoms]:
    if not _each_channel_alone(call.layer.activation):
        channels.freeze(atoms, f"the activation of {call.kind} {call.name!r} mixes channels")
    return [atoms]


def _dense(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    channels.bind(call.layer, call.layer.kernel, 0, inputs[0], "in")
    return _output(channels, call, channels.make(call.layer, call.layer.kernel, 1))


def _convolution(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    """kernel: (..., in / groups, out). Where it is grouped, place i of each group goes together."""
    layer, groups = call.layer, call.layer.groups
    if groups > 1 and groups == len(inputs[0]):
        return _output(channels, call, _carry(channels, layer, np.repeat(inputs[0], layer.filters // groups)))
    channels.bind(layer, layer.kernel, -2, _fold(channels, inputs[0], groups), "in")
    atoms = channels.make(layer, layer.kernel, -1)
    _fold(channels, atoms, groups)
    return _output(channels, call, atoms)


def _transposed(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    """kernel: (..., out, in)."""
    if getattr(call.layer, "groups", 1) != 1:
        raise Opaque("is a grouped transposed convolution")
    channels.bind(call.layer, call.layer.kernel, -1, inputs[0], "in")
    return _output(channels, call, channels.make(call.layer, call.layer.kernel, -2))


def _depthwise(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    """kernel: (..., in, multiplier); output channel c * multiplier + j comes from input channel c."""
    layer = call.layer
    channels.bind(layer, layer.kernel, -2, inputs[0], "through")
    atoms = np.repeat(inputs[0], layer.depth_multiplier)
    if layer.bias is not None:
        channels.bind(layer, layer.bias, 0, atoms, "through")
    return _output(channels, call, atoms)


def _separable(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    """depthwise_kernel: (..., in, multiplier); pointwise_kernel: (1, ..., in * multiplier, out)."""
    layer = call.layer
    channels.bind(layer, layer.depthwise_kernel, -2, inputs[0], "in")
    channels.bind(layer, layer.pointwise_kernel, -2, np.repeat(inputs[0], layer.depth_multiplier), "in")
    return _output(channels, call, channels.make(layer, layer.pointwise_kernel, -1))


def _carry(channels: Channels, layer: Any, atoms: Atoms) -> Atoms:
    """A convolution with one group for each input channel: a depthwise one in other words."""
    channels.bind(layer, layer.kernel, -1, atoms, "through")
    if layer.bias is not None:
        channels.bind(layer, layer.bias, 0, atoms, "through")
    return atoms


# ---------------------------------------------------------------- layers that join or move channels


def _elementwise(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    """Operands channel by channel; one with a single channel meets all the others', so that it must stay."""
    size = max(len(atoms) for atoms in inputs)
    whole = [atoms for atoms in inputs if len(atoms) == size]
    for atoms in whole[1:]:
        channels.join(whole[0], atoms)
    for atoms in inputs:
        if len(atoms) != size:
            channels.freeze(atoms, f"{call.kind} {call.name!r} spreads its one channel over {size}")
    return [whole[0]]


def _concatenate(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    rank = len(call.output_shapes[0])
    if call.layer.axis % rank == rank - 1:
        return [np.concatenate(inputs)]
    return _elementwise(channels, call, inputs)


def _flatten(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    places = call.input_shapes[0][1:-1]
    if None in places:
        raise Opaque("flattens an open spatial dimension")
    return [np.tile(inputs[0], prod(size for size in places if size is not None))]


def _reshape(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    """Row-major: the last axes of both shapes must divide one another, so that atoms repeat with the longer one."""
    size, target = len(inputs[0]), call.output_shapes[0][-1]
    if not target or not size or None in call.input_shapes[0][1:]:
        raise Opaque("reshapes an open dimension")
    if target % size and size % target:
        raise Opaque(f"cuts {size} channels into {target}")
    atoms = np.tile(inputs[0], target // size) if target >= size else _fold(channels, inputs[0], size // target)
    if call.layer.target_shape[-1] != -1:
        channels.bind_target(call.layer, atoms)
    return [atoms]


def _permute(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    if call.layer.dims[-1] != len(call.layer.dims):
        raise Opaque("moves the channels to another axis")
    return [inputs[0]]


_PASSING = (
    "ReLU LeakyReLU ELU Identity ActivityRegularization Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D "
    "GaussianNoise GaussianDropout AlphaDropout Resizing RepeatVector "
    "MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D GlobalMaxPooling1D "
    "GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
    "ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D UpSampling3D"
)


def _rules(names: str, rule: Rule) -> dict[type, Rule]:
    return {getattr(layers, name): rule for name in names.split()}


RULES: dict[type, Rule] = {  # by exact class: a subclass may do anything
    **_rules(_PASSING, _pass),
    **_rules("Add Subtract Multiply Maximum Minimum Average", _elementwise),
    **_rules("Conv1D Conv2D Conv3D", _convolution),
    **_rules("Conv1DTranspose Conv2DTranspose Conv3DTranspose", _transposed),
    **_rules("DepthwiseConv1D DepthwiseConv2D", _depthwise),
    **_rules("SeparableConv1D SeparableConv2D", _separable),
    layers.InputLayer: _input,
    layers.Activation: _activation,
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization,
    layers.BatchNormalization: _batch_normalization,
    layers.PReLU: _prelu,
    layers.Dense: _dense,
    layers.Concatenate: _concatenate,
    layers.Flatten: _flatten,
    layers.Reshape: _reshape,
    layers.Permute: _permute,
}

# element-wise operations of keras.ops that a graph may hold without a layer: `x + 3`, `a * b`
_OPERATIONS = (
    "Add Subtract Multiply TrueDivide Maximum Minimum Negative Absolute Square Sqrt Exp Clip "
    "Relu Relu6 Sigmoid Silu HardSigmoid HardSilu Tanh Elu LeakyRelu Gelu Softplus Softsign"
)


def operation_rule(operation: Any) -> Rule | None:
    """The rule for a bare operation of Keras, or None where there is none."""
    known = type(operation).__module__.startswith("keras.src.ops.") and type(operation).__name__ in _OPERATIONS.split()
    return _bare_operation if known and not isinstance(operation, keras.Layer) else None


def _bare_operation(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    if any(np.ndim(value) for value in call.constants):
        raise Opaque("holds constants for each channel")
    return _elementwise(channels, call, inputs)
