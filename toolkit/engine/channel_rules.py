"""How each kind of layer treats channels: the rules from which groups.py finds what must be cut together.

A rule takes the atoms of a call's inputs and gives those of its outputs, binds the axes of the layer's weights to
atoms, and joins atoms that can only be cut together. It raises `Opaque` where it cannot follow; then all that the
layer touches stays whole.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import keras
import numpy as np
from keras import activations, layers

from toolkit.engine.channels import Atoms, Channels, Opaque
from toolkit.engine.graph import Call, Shape

Rule = Callable[[Channels, Call, list[Atoms]], list[Atoms]]


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


def _softmax(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    _apart_from_channels(call, call.layer.axis, "mixes channels")
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


def _group_normalization(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    """Channels normalized together go together: without all of a group, no other group's values change."""
    layer, rank = call.layer, len(call.input_shapes[0])
    if layer.axis % rank != rank - 1:
        raise Opaque(f"normalizes axis {layer.axis}, not the last")
    if layer.groups == 1 < len(inputs[0]):
        raise Opaque("normalizes all channels together, so that each depends on the others")
    groups = inputs[0].reshape(layer.groups, -1)
    for other in groups.T[1:]:
        channels.join(groups[:, 0], other)
    for weight in layer.weights:
        channels.bind(layer, weight, 0, inputs[0], "through")
    channels.bind_setting(layer, "groups", groups[:, 0])
    return [inputs[0]]


def _normalization_over_axes(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    """LayerNormalization and its like: over the channels their number is in each value, over other axes it is not."""
    _apart_from_channels(call, call.layer.axis, "normalizes over the channels, so that each depends on the others")
    return [inputs[0]]


def _layer_scale(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    channels.bind(call.layer, call.layer.gamma, 0, inputs[0], "through")
    channels.bind_setting(call.layer, "projection_dim", inputs[0])
    return [inputs[0]]


def _apart_from_channels(call: Call, axis: Any, problem: str) -> None:
    """Opaque if one of these axes (None: all) is the last."""
    rank = len(call.input_shapes[0])
    axes = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
    if rank - 1 in [each % rank for each in axes]:
        raise Opaque(problem)


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
    places = _closed(call.input_shapes[0][1 : -inputs[0].ndim], "flattens an open spatial dimension")
    return [np.tile(inputs[0].ravel(), prod(places))]


def _reshape(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    """Row-major. Channels that would spread over several axes are joined, so that they differ along one alone."""
    atoms, target = inputs[0], call.output_shapes[0][1:]
    if target and target[-1] == atoms.shape[-1] and atoms.ndim == 1:
        return [_bound_target(channels, call, atoms)]
    _closed(call.input_shapes[0][1:], "reshapes an open dimension")
    target = _closed(target, "reshapes an open dimension")
    if atoms.ndim == 1 and target[-1] % len(atoms) and len(atoms) % target[-1]:
        raise Opaque(f"cuts {len(atoms)} channels into {target[-1]}")
    count = next((n for n in range(1, len(target) + 1) if prod(target[-n:]) % atoms.size == 0), 0)
    if not count:
        raise Opaque("mixes channels with the batch")
    shaped = np.tile(atoms.ravel(), prod(target[-count:]) // atoms.size).reshape(target[-count:])
    if len(channels.axes(shaped)) > 1:
        if atoms.ndim > 1:
            raise Opaque("cuts channels that lie along several axes")
        rows = shaped.reshape(-1, shaped.shape[-1])
        for row in rows[1:]:
            channels.join(rows[0], row)
    return [_bound_target(channels, call, shaped)]


def _bound_target(channels: Channels, call: Call, atoms: Atoms) -> Atoms:
    """Tie the entry of the target shape that counts these atoms, unless Keras works it out (-1)."""
    setting = "target_shape" if isinstance(call.layer, layers.Reshape) else "newshape"
    target = getattr(call.layer, setting)
    for axis in channels.axes(atoms):
        place = len(target) - atoms.ndim + axis
        if target[place] != -1:
            line = np.moveaxis(atoms, axis, -1).reshape(-1, atoms.shape[axis])[0]
            channels.bind_setting(call.layer, setting, line, axis=place)
    return atoms


def _permute(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    return [_moved(call, inputs[0], [dim - 1 for dim in call.layer.dims])]


def _transpose(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    axes, rank = call.layer.axes, len(call.input_shapes[0])
    if axes is None or axes[0] % rank:
        raise Opaque("moves the batch to another axis")
    return [_moved(call, inputs[0], [axis % rank - 1 for axis in axes[1:]])]


def _moved(call: Call, atoms: Atoms, axes: list[int]) -> Atoms:
    """The atoms with the axes behind the batch in another order; leading axes along which nothing changes fall away."""
    shape = call.input_shapes[0][1:]
    still = next((n for n, axis in enumerate(axes) if n != axis), len(axes))
    count = max(atoms.ndim, len(axes) - still)
    spread = np.broadcast_to(atoms, _closed(shape[-count:], "moves the channels past an open dimension"))
    atoms = spread.transpose([axis - len(axes) + count for axis in axes[-count:]])
    while atoms.ndim > 1 and (atoms == atoms[:1]).all():
        atoms = atoms[0]
    return atoms


def _closed(shape: Shape, problem: str) -> tuple[int, ...]:
    sizes = tuple(size for size in shape if size is not None)
    if len(sizes) < len(shape):
        raise Opaque(problem)
    return sizes


_PASSING = (
    "SpatialDropout1D SpatialDropout2D SpatialDropout3D Resizing CenterCrop RepeatVector "
    "MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D GlobalMaxPooling1D "
    "GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
    "AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D "
    "AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D "
    "ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D UpSampling3D"
)
_PASSING_VALUES = (
    "ReLU LeakyReLU ELU Identity ActivityRegularization Dropout GaussianNoise GaussianDropout AlphaDropout"
)


def _rules(names: str, rule: Rule) -> dict[type, Rule]:
    return {getattr(layers, name): rule for name in names.split()}


RULES: dict[type, Rule] = {  # by exact class: a subclass may do anything
    **_rules(f"{_PASSING} {_PASSING_VALUES}", _pass),
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
    layers.GroupNormalization: _group_normalization,
    **_rules("LayerNormalization RMSNormalization UnitNormalization", _normalization_over_axes),
    layers.Softmax: _softmax,
    layers.PReLU: _prelu,
    layers.Dense: _dense,
    layers.Concatenate: _concatenate,
    layers.Flatten: _flatten,
    layers.Reshape: _reshape,
    layers.Permute: _permute,
}

# layers that keras.applications builds its networks of, in modules that are not public: module and class name
_OF_APPLICATIONS: dict[tuple[str, str], Rule] = {
    ("convnext", "LayerScale"): _layer_scale,
    ("convnext", "StochasticDepth"): _pass,
    ("inception_resnet_v2", "CustomScaleLayer"): _elementwise,
}

# element-wise operations of keras.ops that a graph may hold without a layer: `x + 3`, `a * b`
_OPERATIONS = (
    "Add Subtract Multiply TrueDivide Divide Maximum Minimum Negative Absolute Square Sqrt Exp Clip "
    "Cast Relu Relu6 Sigmoid Silu HardSigmoid HardSilu Tanh Elu Selu LeakyRelu Gelu Softplus Softsign Erf"
)


def _bare_operation(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    if any(np.ndim(value) for value in call.constants):
        raise Opaque("holds constants for each channel")
    return _elementwise(channels, call, inputs)


def _reduction(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    _apart_from_channels(call, call.layer.axis, "mixes channels")
    return [inputs[0]]


def _padding(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    if any(call.layer.pad_width[-1]):
        raise Opaque("adds channels")
    return [inputs[0]]


def _expansion(channels: Channels, call: Call, inputs: list[Atoms]) -> list[Atoms]:
    rank, axis = len(call.output_shapes[0]), call.layer.axis
    if rank - 1 in [each % rank for each in ([axis] if isinstance(axis, int) else axis)]:
        raise Opaque("moves the channels to another axis")
    return [inputs[0]]


_OF_OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys(_OPERATIONS.split(), _bare_operation),
    **dict.fromkeys(("Mean", "Sum", "Max", "Min", "Amax", "Amin", "Squeeze"), _reduction),
    "Concatenate": _concatenate,
    "Pad": _padding,
    "ExpandDims": _expansion,
    "Transpose": _transpose,
    "Reshape": _reshape,
}

# the rules that take atoms along several axes; the others read channels along the last one
SPREAD: frozenset[Rule] = frozenset((_activation, _flatten, _reshape, _permute, _transpose))


def rule_of(layer: Any) -> Rule | None:
    """The rule for a layer or a bare operation of Keras, or None where there is none."""
    kind = type(layer)
    if isinstance(layer, keras.Layer):
        package, _, module = kind.__module__.rpartition(".")
        named = _OF_APPLICATIONS.get((module, kind.__name__)) if package == "keras.src.applications" else None
        return RULES.get(kind) or named
    return _OF_OPERATIONS.get(kind.__name__) if kind.__module__.startswith("keras.src.ops.") else None


def takes_several_axes(call: Call, rule: Rule) -> bool:
    """Whether the rule follows channels that a Reshape or a Permute has spread over several axes."""
    return rule in SPREAD or type(call.layer).__name__ in _PASSING_VALUES.split()
