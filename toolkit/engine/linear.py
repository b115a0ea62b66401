"""Layers with weights as linear regressions: what each output is computed from, as rows of features.

A convolution's features are the values under its window at some of its places (im2col), a dense layer's its inputs, a
separable convolution's what its depthwise half gives; a depthwise or grouped convolution is several regressions beside
each other, and BatchNormalization in inference one with a single feature for each channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.graph import Call

Array = NDArray[Any]
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D, layers.DepthwiseConv2D)
MOST_FEATURES = 8192  # of one output: their Gram matrix has 512 MiB
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)


@dataclass(frozen=True)
class Window:
    """How a convolution moves: entries for each spatial dimension."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str

    def places(self, sides: Sequence[int]) -> tuple[int, ...]:
        """Extents of the output for an input of these extents."""
        if self.padding in ("same", "causal"):
            return tuple(-(-side // stride) for side, stride in zip(sides, self.strides, strict=True))
        reach = [(size - 1) * step + 1 for size, step in zip(self.size, self.dilation, strict=True)]
        return tuple((side - far) // stride + 1 for side, far, stride in zip(sides, reach, self.strides, strict=True))

    def before(self, sides: Sequence[int]) -> tuple[int, ...]:
        """Zeros in front of the input (TensorFlow's rule for "same": the odd one goes behind)."""
        found = []
        parts = zip(sides, self.places(sides), self.size, self.strides, self.dilation, strict=True)
        for side, places, size, stride, step in parts:
            reach = (size - 1) * step
            total = max((places - 1) * stride + reach + 1 - side, 0)
            found.append({"same": total // 2, "causal": reach}.get(self.padding, 0))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Linear:
    """A layer's weights as `count` regressions.

    kernel: (count, f, o), f running over the window, then over the channels; bias: (count, o), zeros where the layer
    has none. Outputs are numbered count first.
    """

    layer: Any
    kernel: Array
    bias: Array
    has_bias: bool
    channels: int  # of the input, that one regression reads
    window: Window | None = None

    def places(self, inputs: Array) -> int:
        """Outputs of one channel in one image."""
        sides = inputs.shape[1:-1]
        return prod(self.window.places(sides) if self.window else sides)

    def features(self, inputs: Array, places: Array) -> Array:
        """(count, images * places, f) float64, of the places with these flat numbers."""
        if self.window is None or isinstance(self.layer, _SEPARABLE):
            values = self._halfway(inputs)
            taps = [values.reshape(len(values), -1, values.shape[-1])[:, places]]
        else:
            taps = _taps(inputs, self.window, places)
        rows, count = np.stack(taps, axis=2), len(self.kernel)  # images, places, taps, channels
        split = rows.reshape(-1, rows.shape[2], count, rows.shape[3] // count)
        return np.asarray(split.transpose(2, 0, 1, 3).reshape(count, len(split), -1), np.float64)

    def outputs(self, features: Array) -> Array:
        """(count, rows, o), before any activation."""
        found: Array = features @ self.kernel + self.bias[:, None]
        return found

    def write(self, kernel: Array, bias: Array) -> None:
        """Give the layer these weights. Not for BatchNormalization."""
        layer = self.layer
        variable = layer.pointwise_kernel if isinstance(layer, _SEPARABLE) else layer.kernel
        shape = tuple(variable.shape)
        flat = kernel.transpose(1, 0, 2).reshape(kernel.shape[1], -1)  # f, outputs
        variable.assign(flat.reshape(shape))
        if self.has_bias:
            layer.bias.assign(bias.reshape(-1))

    def _halfway(self, inputs: Array) -> Array:
        """What a separable convolution's second half reads; of other layers the input itself."""
        layer = self.layer
        if not isinstance(layer, _SEPARABLE):
            return inputs
        kernel, strides = layer.depthwise_kernel, layer.strides[0]  # TensorFlow knows equal strides only
        given = keras.ops.convert_to_tensor(inputs)
        rate = layer.dilation_rate
        return np.asarray(keras.ops.depthwise_conv(given, kernel, strides, layer.padding, dilation_rate=rate))


def _taps(values: Array, window: Window, places: Array) -> list[Array]:
    """The values that each weight of the window meets: (images, places, channels) each, zero beyond the edges."""
    sides = values.shape[1:-1]
    corners, before = np.unravel_index(places, window.places(sides)), window.before(sides)
    found = []
    for tap in np.ndindex(*window.size):
        parts = zip(corners, window.strides, tap, window.dilation, before, strict=True)
        indexes = [corner * stride + at * step - front for corner, stride, at, step, front in parts]
        inside = np.all([(i >= 0) & (i < side) for i, side in zip(indexes, sides, strict=True)], axis=0)
        clipped = tuple(np.clip(i, 0, side - 1) for i, side in zip(indexes, sides, strict=True))
        found.append(values[(slice(None), *clipped)] * inside[:, None])
    return found


def linear(call: Call) -> Linear | str:
    """The layer of a call as regressions, or why it cannot be one ("" for a layer without weights)."""
    layer = call.layer
    if not getattr(layer, "weights", ()):
        return ""
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return "has its channels first"
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return "is quantized or carries a LoRA branch"
    if type(layer) is layers.BatchNormalization:
        return _normalization(layer, len(call.input_shapes[0]))
    if type(layer) is layers.Dense:
        return _weighted(layer, np.asarray(layer.kernel, np.float64), 1, None)
    if type(layer) in _CONVOLUTIONS:
        return _convolution(layer, int(call.input_shapes[0][-1] or 0))
    if type(layer) in _SEPARABLE:
        kernel = np.asarray(layer.pointwise_kernel, np.float64)
        return _weighted(layer, kernel.reshape(kernel.shape[-2], -1), 1, _window(layer))
    return f"{type(layer).__name__} is not refitted"


def _weighted(layer: Any, kernel: Array, count: int, window: Window | None) -> Linear:
    """kernel: (f, outputs), the outputs of each regression together."""
    split = kernel.reshape(len(kernel), count, -1).transpose(1, 0, 2)
    has = layer.bias is not None
    bias = np.asarray(layer.bias, np.float64) if has else np.zeros(kernel.shape[1])
    taps = prod(layer.kernel_size) if window and not isinstance(layer, _SEPARABLE) else 1
    return Linear(layer, split, bias.reshape(count, -1), has, len(kernel) // taps, window)


def _convolution(layer: Any, channels: int) -> Linear:
    kernel = np.asarray(layer.kernel, np.float64)
    depthwise = isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D)
    taps = prod(layer.kernel_size) * (1 if depthwise else kernel.shape[-2])
    return _weighted(layer, kernel.reshape(taps, -1), channels if depthwise else layer.groups, _window(layer))


def _window(layer: Any) -> Window:
    size = tuple(layer.kernel_size)
    return Window(size, _each(layer.strides, size), _each(layer.dilation_rate, size), layer.padding)


def _each(value: Any, size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (int(value),) * len(size)


def _normalization(layer: Any, rank: int) -> Linear | str:
    if layer.axis % rank != rank - 1:
        return f"normalizes axis {layer.axis}, not the last"
    mean, variance = np.asarray(layer.moving_mean, np.float64), np.asarray(layer.moving_variance, np.float64)
    gain = 1 / np.sqrt(variance + layer.epsilon)
    gain = gain * np.asarray(layer.gamma, np.float64) if layer.scale else gain
    bias = (np.asarray(layer.beta, np.float64) if layer.center else 0.0) - mean * gain
    return Linear(layer, gain[:, None, None], bias[:, None], True, 1)
