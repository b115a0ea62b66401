"""Layers that compute what int8 kernels do, in their integers: for a simulation that differs from the file nowhere.

Sums of products of integers are exact in float32 up to 2^24, whatever their order, and in float64 beyond; then comes
the one rounding of XNNPACK's kernels (github.com/google/XNNPACK, `qs8-requantization` "fp32" and `qs8-vadd`):
accumulator times float32(scale of input * scale of weight / scale of output), halves to even; fixed-point factors of
20 bits for a sum. A product (`qs8-vmul`) and the sum of a mean (`qs8-rdsum`) are rounded like an accumulator.
Products are of the type int32, so that TensorFlow's optimizer of graphs joins no factors of theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

Array = NDArray[Any]
OFFSET_STEPS = 255  # a number by itself has a range from 0 to itself: the last of 8 bits
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
        sums = self.inner(tf.cast(tf.round(inputs / self._in), self.inner.compute_dtype))
        return tf.round(tf.cast(sums, tf.float32) * self._factors) * self._out

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


class IntegerMean(layers.Layer):  # type: ignore[misc]
    """The mean over an image of a tensor on its grid, on the grid of the output; halves go to even."""

    def __init__(self, in_scale: float, out_scale: float, *, keepdims: bool = False, **rest: Any) -> None:
        super().__init__(**rest)
        self._in, self._out, self._keepdims = np.float32(in_scale), np.float32(out_scale), keepdims

    def call(self, inputs: Any) -> Any:
        sums = tf.reduce_sum(tf.round(inputs / self._in), axis=(1, 2), keepdims=self._keepdims)
        places = tf.cast(tf.shape(inputs)[1] * tf.shape(inputs)[2], tf.float32)
        return tf.round(sums * (self._in / self._out / places)) * self._out


class IntegerMultiply(layers.Layer):  # type: ignore[misc]
    """The product of two tensors on their grids, on the grid of the output; halves go to even."""

    def __init__(self, in_scales: tuple[float, float], out_scale: float, **rest: Any) -> None:
        super().__init__(**rest)
        self._in: Array = np.asarray(in_scales, np.float32)
        self._out = np.float32(out_scale)
        self._factor = np.float32(self._in[0] * self._in[1]) / self._out

    def call(self, inputs: Any) -> Any:
        first, second = (tf.cast(tf.round(inputs[i] / self._in[i]), tf.int32) for i in (0, 1))
        return tf.round(tf.cast(first * second, tf.float32) * self._factor) * self._out


class IntegerScaling(layers.Layer):  # type: ignore[misc]
    """The product of a tensor on its grid with a number, which is stored as `steps` of `scale`; halves go to even."""

    def __init__(self, in_scale: float, number: tuple[int, float], out_scale: float, **rest: Any) -> None:
        super().__init__(**rest)
        self._in, self._out, self._steps = np.float32(in_scale), np.float32(out_scale), number[0]
        self._factor = np.float32(self._in * np.float32(number[1])) / self._out

    def call(self, inputs: Any) -> Any:
        products = tf.cast(tf.round(inputs / self._in), tf.int32) * self._steps
        return tf.round(tf.cast(products, tf.float32) * self._factor) * self._out

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class IntegerRescaling(layers.Layer):  # type: ignore[misc]
    """x * scale + offset with a scale above 0 and an offset unlike 0, on the grid of the output.

    The product lies on the input's grid times `scale`, so that its integers are the input's; the sum is rounded.
    """

    def __init__(self, in_scale: float, numbers: tuple[float, float], out_scale: float, **rest: Any) -> None:
        super().__init__(**rest)
        self._in = np.float32(in_scale)
        self._offset = np.float32(numbers[1])
        product = float(self._in * np.float32(numbers[0]))
        self._ratio = np.float32(product) / self._in
        step = abs(numbers[1]) / OFFSET_STEPS
        self._sum = IntegerAdd((product, step), out_scale, name=f"{self.name}_sum")

    def call(self, inputs: Any) -> Any:
        return self._sum([inputs * self._ratio, self._offset])

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class IntegerTable(layers.Layer):  # type: ignore[misc]
    """A function of one number as a table. taken, given: (scale, zero point) of the grids of input and output.

    table: (256,) what each integer from -128 to 127 becomes.
    """

    def __init__(self, table: Array, taken: tuple[float, int], given: tuple[float, int], **rest: Any) -> None:
        super().__init__(**rest)
        self._in, self._zero = np.float32(taken[0]), taken[1]
        self._values = tf.constant((table - given[1]).astype(np.float32) * np.float32(given[0]))

    def call(self, inputs: Any) -> Any:
        steps = tf.cast(tf.round(inputs / self._in), tf.int32) + self._zero
        return tf.gather(self._values, tf.clip_by_value(steps + 128, 0, 255))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def of_weights(layer: Any, shape: Any, integers: tuple[Array, Array | None]) -> Any:
    """A linear layer of the same kind with these integers for kernel and bias, built for inputs of `shape`."""
    kernel, bias = integers
    dtype = "float32" if fits_float32(layer, kernel, bias) else "float64"
    made = type(layer).from_config({**layer.get_config(), "name": f"{layer.name}_integers", "dtype": dtype})
    made.build(tuple(shape))
    made.set_weights([kernel] if bias is None else [kernel, bias])
    return made


def fits_float32(layer: Any, kernel: Array, bias: Array | None) -> bool:
    """Whether no sum of int8 products of the layer can pass 2^24, up to which float32 has all integers."""
    axes = (0, 1) if isinstance(layer, layers.DepthwiseConv2D) else tuple(range(kernel.ndim - 1))
    most = np.abs(kernel).sum(axis=axes).max() * 255 + (0 if bias is None else np.abs(bias).max())
    return bool(most < 2**24)
