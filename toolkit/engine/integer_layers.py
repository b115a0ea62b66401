"""Layers that compute what int8 kernels do, in their integers: for a simulation that differs from the file nowhere.

Sums of products of integers are exact in float32 up to 2^24, whatever their order; then comes the one rounding of
XNNPACK's kernels (github.com/google/XNNPACK, `qs8-requantization` "fp32" and `qs8-vadd`): accumulator times
float32(scale of input * scale of weight / scale of output), halves to even; fixed-point factors of 20 bits for a sum.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

Array = NDArray[Any]
FACTOR_BITS = 20  # of the larger factor of a sum, before its leading one (xnn_init_qs8_add_minmax_scalar_params)


class IntegerLayer(layers.Layer):  # type: ignore[misc]
    """A convolution or dense layer on integers. Takes and gives reals that lie on the grids of their scales.

    inner: the layer with integers for weights and bias. steps: (channels,) scale of input times scale of weight.
    """

    def __init__(self, inner: Any, in_scale: float, steps: Array, out_scale: float, **rest: Any) -> None:
        super().__init__(**rest)
        self.inner, self._in, self._out = inner, np.float32(in_scale), np.float32(out_scale)
        self._factors = tf.constant(np.asarray(steps, np.float32) / self._out)

    def call(self, inputs: Any) -> Any:
        sums = self.inner(tf.round(inputs / self._in))
        return tf.round(sums * self._factors) * self._out

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.inner.compute_output_shape(input_shape)


class IntegerAdd(layers.Layer):  # type: ignore[misc]
    """The sum of two tensors on their grids, on the grid of the output; halves go up."""

    def __init__(self, in_scales: tuple[float, float], out_scale: float, **rest: Any) -> None:
        super().__init__(**rest)
        self._in: Array = np.asarray(in_scales, np.float32)
        self._out = np.float32(out_scale)
        factors = self._in / self._out
        self._shift = FACTOR_BITS - (int(np.frexp(factors.max())[1]) - 1)
        self._factors = [round(float(factor) * 2.0**self._shift) for factor in factors]

    def call(self, inputs: Any) -> Any:
        first, second = (tf.cast(tf.round(inputs[i] / self._in[i]), tf.int32) * self._factors[i] for i in (0, 1))
        sums = first + second + (1 << self._shift - 1)
        return tf.cast(tf.bitwise.right_shift(sums, self._shift), tf.float32) * self._out

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]


def of_weights(layer: Any, shape: Any, integers: tuple[Array, Array | None]) -> Any:
    """A linear layer of the same kind with these integers for kernel and bias, built for inputs of `shape`."""
    kernel, bias = integers
    made = type(layer).from_config({**layer.get_config(), "name": f"{layer.name}_integers"})
    made.build(tuple(shape))
    made.set_weights([kernel] if bias is None else [kernel, bias])
    return made


def is_exact(layer: Any, kernel: Array) -> bool:
    """Whether no sum of int8 products of the layer can pass 2^24, up to which float32 has all integers."""
    axes = (0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else tuple(range(kernel.ndim - 1))
    return bool(np.abs(kernel).sum(axis=axes).max() * 255 < 2**24)
