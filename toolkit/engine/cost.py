"""Parameters and multiply-accumulates (MACs) of a Keras model, for one image.

One MAC is one multiplication and the addition that follows it; two floating-point operations. Counted are convolutions
and dense layers, the convention of the MobileNet papers (Howard et al. 2017, arXiv:1704.04861, section 3.1: a
convolution costs `kernel values x output positions`). Bias, normalization, activation, pooling and element-wise layers
count 0: exporters fold or fuse them. A transposed convolution applies its kernel at each input position.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from keras import layers

from toolkit.engine.graph import Call, parameters, walk
from toolkit.errors import InputError

_CONVOLUTIONS: tuple[type, ...] = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
_TRANSPOSED: tuple[type, ...] = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DEPTHWISE: tuple[type, ...] = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_COUNTED: tuple[type, ...] = (*_CONVOLUTIONS, *_TRANSPOSED, layers.Dense)
_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")  # the weights whose values are multiplied with pixels


@dataclass(frozen=True)
class LayerCost:
    """One layer: parameters (moving statistics included), and MACs over all its uses."""

    layer: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """A whole model, layer by layer in the order of first use."""

    layers: tuple[LayerCost, ...]

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.layers)

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.layers)


def cost(model: Any) -> Cost:
    """Parameters and MACs of a flat functional model; InputError if a shape that matters is open."""
    rows: dict[str, LayerCost] = {}
    for call in walk(model).calls:
        earlier = rows[call.name].macs if call.name in rows else 0
        rows[call.name] = LayerCost(call.name, parameters(call.layer), earlier + call_macs(call))
    return Cost(tuple(rows.values()))


def call_macs(call: Call) -> int:
    """MACs of one use of a layer."""
    return sum(places * prod(call.layer.weights[index].shape) for index, places in weight_macs(call).items())


def weight_macs(call: Call) -> dict[int, int]:
    """Index of each weight that is multiplied with pixels -> how many MACs one of its values takes in this use."""
    layer: Any = call.layer
    if not isinstance(call.layer, _COUNTED):
        return {}
    places = _positions(call)
    return {index: places for index, weight in enumerate(layer.weights) if weight.name in _KERNELS}


def made_axis(layer: Any, index: int) -> int:
    """The axis of a kernel along which its layer makes channels (a depthwise one: those it takes)."""
    weight = layer.weights[index]
    from_end = 2 if isinstance(layer, (*_DEPTHWISE, *_TRANSPOSED)) or weight.name == "depthwise_kernel" else 1
    return len(weight.shape) - from_end


def _positions(call: Call) -> int:
    """How many times the layer applies its kernel to one image."""
    shape = call.input_shapes[0] if isinstance(call.layer, _TRANSPOSED) else call.output_shapes[0]
    first = getattr(call.layer, "data_format", "channels_last") == "channels_first"
    places = shape[2:] if first else shape[1:-1]
    if any(size is None for size in places):
        problem = f"MACs cannot be counted: shape {tuple(shape)} leaves a spatial dimension open"
        raise InputError(call.name, problem, "give the model an input of fixed height and width")
    return prod(size for size in places if size is not None)
