"""Keras layers that learn under rounding: weights to the grid they will be stored on, activations to tracked ranges.

The gradient passes straight through the rounding (Bengio, Leonard, Courville 2013, arXiv:1308.3432). Ranges follow
moving averages of what batches hold and are then frozen (Jacob et al. 2018, arXiv:1712.05877, section 3.1).
keras.quantizers is of no use here: on symbolic tensors (Keras 3.15) it drops the number of bits and the axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from toolkit.engine.prepare import Norm, kernel_axis

MOMENTUM = 0.99  # of moving averages of ranges: about a hundred batches ("close to 1", section 3.1 of the paper)
MOST = 127  # steps of a weight's grid, and of a symmetric range, to each side
LEAST = 1e-9  # of a range, so that no scale is 0
FAINT = 1e-3  # of the layer's usual weights: a channel of smaller ones learns as if it had these


@tf.custom_gradient  # type: ignore[untyped-decorator]
def to_grid(kernel: Any, scales: Any) -> Any:
    """Multiples of the scales; for the gradient, nothing was rounded."""
    return tf.round(kernel / scales) * scales, lambda upstream: (upstream, None)


class _OnGrid(layers.Layer):  # type: ignore[misc]
    """A layer whose kernel is rounded, symmetrically, whenever it is used.

    What learns is the kernel in units of its channel, the bias in units of what the channel gives, so that a step of
    the optimizer is as large a change here as in a network with BatchNormalization: folding that into the weights, or
    inputs of 0 to 255, make some channels' weights thousands of times smaller than others'. granularity: of the grid.

    norm_steps: for so many steps of training the BatchNormalization that was folded in works by the batch's statistics
    (Krishnamoorthi 2018, arXiv:1806.08342, section 3.2.2). The kernel that is rounded has the moving statistics in it,
    as in the file, so that its grid does not jump from batch to batch; its sums are corrected by the ratio of moving to
    batch deviation. From then on the moving statistics stay, and training computes what the file does.
    """

    def __init__(self, *given: Any, granularity: str = "per_channel", norm_steps: int = 0, **rest: Any) -> None:
        super().__init__(*given, **rest)
        self.granularity, self.norm_steps = granularity, norm_steps

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        shape = tuple(1 if axis in self._channel() else size for axis, size in enumerate(self.kernel.shape))
        self.unit = self.add_weight(shape=shape, initializer="ones", trainable=False, name="unit")
        if self.use_bias:
            shape = self.bias.shape
            self.bias_unit = self.add_weight(shape=shape, initializer="ones", trainable=False, name="bias_unit")
        if self.norm_steps:
            self.gain = self.add_weight(shape=shape, initializer="ones", name="gain")
            for name in ("mean", "variance", "epsilon", "start"):
                setattr(self, name, self.add_weight(shape=shape, initializer="ones", trainable=False, name=name))
            self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "granularity": self.granularity, "norm_steps": self.norm_steps}

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training and self.norm_steps:
            return self._corrected(inputs)
        x = self.linear(inputs, self._rounded())
        return x + self._offset() if self.use_bias else x

    def linear(self, x: Any, kernel: Any) -> Any:
        """What the layer computes before its bias."""
        raise NotImplementedError

    def take(self, kernel: Any, bias: Any | None, size: float) -> None:
        """Have these weights, of a network that is trained. size: what is a usual value of the layer's inputs.

        The unit makes a channel's root mean square what He et al. 2015 (arXiv:1502.01852) start training from.
        """
        square = np.mean(np.square(kernel, dtype=np.float64), axis=self._channel(), keepdims=True)
        inputs = np.prod([kernel.shape[axis] for axis in self._channel()])
        floor = max(float(np.mean(square)) * FAINT**2, LEAST**2)
        unit = np.sqrt(np.maximum(square, floor) * inputs / 2).astype(np.float32)
        self.unit.assign(unit)
        self.kernel.assign(kernel / unit)
        if bias is not None:
            self.bias_unit.assign(np.broadcast_to(unit.reshape(-1) * size, bias.shape))
            self.bias.assign(bias / self.bias_unit.numpy())

    def take_norm(self, norm: Norm) -> None:
        """Have this BatchNormalization, which the weights taken have inside; to be called after `take`."""
        epsilon = np.maximum(norm.epsilon, LEAST**2)  # a dead channel's is 0, and so is its variance
        given = (norm.mean, norm.variance, epsilon, np.sqrt(norm.variance + epsilon))
        for weight, value in zip((self.mean, self.variance, self.epsilon, self.start), given, strict=True):
            weight.assign(value)
        self.bias.assign_add(norm.mean / self.bias_unit.numpy())

    def weights_learned(self) -> tuple[Any, Any | None]:
        """Kernel, not yet rounded, and bias."""
        return self._whole().numpy(), self._offset().numpy() if self.use_bias else None

    def _channel(self) -> tuple[int, ...]:
        """Axes of the kernel over which an output channel lies."""
        if isinstance(self, layers.DepthwiseConv2D):
            return (0, 1)
        axes = list(range(len(self.kernel.shape)))
        axes.pop(kernel_axis(self))
        return tuple(axes)

    def _corrected(self, inputs: Any) -> Any:
        """The layer in a step of training; moving statistics follow the batch's as long as these are used."""
        moves = self.steps.value < self.norm_steps
        moving = self.mean.value, self.variance.value
        float_kernel = tf.convert_to_tensor(self.kernel) * tf.convert_to_tensor(self.unit)

        def of_batch() -> Any:
            x = self.linear(inputs, float_kernel)
            return tuple(tf.nn.moments(x, list(range(len(x.shape) - 1))))

        mean, variance = tf.cond(moves, of_batch, lambda: moving)
        whole, spread = self._spread(moving[1]), self._spread(variance)
        x = self.linear(inputs, self._rounded()) * (whole / spread)
        rate = tf.where(moves, 1 - MOMENTUM, 0.0)
        for weight, value, before in zip((self.mean, self.variance), (mean, variance), moving, strict=True):
            weight.assign(before + rate * (tf.stop_gradient(value) - before))
        self.steps.assign_add(1.0)
        return x + self._bias() - tf.convert_to_tensor(self.gain) * mean / spread

    def _spread(self, variance: Any) -> Any:
        """Standard deviation of a channel, relative to that at the start."""
        return tf.sqrt(variance + tf.convert_to_tensor(self.epsilon)) / tf.convert_to_tensor(self.start)

    def _bias(self) -> Any:
        return tf.convert_to_tensor(self.bias) * tf.convert_to_tensor(self.bias_unit)

    def _offset(self) -> Any:
        """The bias of the file."""
        if not self.norm_steps:
            return self._bias()
        scale = tf.convert_to_tensor(self.gain) / self._spread(tf.convert_to_tensor(self.variance))
        return self._bias() - scale * tf.convert_to_tensor(self.mean)

    def _whole(self) -> Any:
        """The kernel of the file, not yet rounded."""
        kernel = tf.convert_to_tensor(self.kernel) * tf.convert_to_tensor(self.unit)
        if not self.norm_steps:
            return kernel
        scale = tf.convert_to_tensor(self.gain) / self._spread(tf.convert_to_tensor(self.variance))
        return kernel * tf.reshape(scale, self.unit.shape)

    def _rounded(self) -> Any:
        """The kernel on its grid of max|w| / 127 of its output channel, or of all of it."""
        kernel = self._whole()
        axes = self._channel() if self.granularity == "per_channel" else None
        most = tf.stop_gradient(tf.reduce_max(tf.abs(kernel), axis=axes, keepdims=True))
        return to_grid(kernel, tf.maximum(most, LEAST) / MOST)


@keras.saving.register_keras_serializable("edgekit")
class RoundedConv2D(_OnGrid, layers.Conv2D):  # type: ignore[misc]
    """A Conv2D with its kernel on the grid."""

    def linear(self, x: Any, kernel: Any) -> Any:
        return self.convolution_op(x, kernel)


@keras.saving.register_keras_serializable("edgekit")
class RoundedDepthwiseConv2D(_OnGrid, layers.DepthwiseConv2D):  # type: ignore[misc]
    """A DepthwiseConv2D with its kernel on the grid."""

    def linear(self, x: Any, kernel: Any) -> Any:
        return ops.depthwise_conv(
            x, kernel, strides=self.strides, padding=self.padding, dilation_rate=self.dilation_rate
        )


@keras.saving.register_keras_serializable("edgekit")
class RoundedConv2DTranspose(_OnGrid, layers.Conv2DTranspose):  # type: ignore[misc]
    """A Conv2DTranspose with its kernel on the grid."""

    def linear(self, x: Any, kernel: Any) -> Any:
        return ops.conv_transpose(
            x,
            kernel,
            strides=list(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
        )


@keras.saving.register_keras_serializable("edgekit")
class RoundedDense(_OnGrid, layers.Dense):  # type: ignore[misc]
    """A Dense with its kernel on the grid."""

    def linear(self, x: Any, kernel: Any) -> Any:
        return ops.matmul(x, kernel)


ROUNDED: Mapping[type, Any] = {
    layers.Conv2D: RoundedConv2D,
    layers.DepthwiseConv2D: RoundedDepthwiseConv2D,
    layers.Conv2DTranspose: RoundedConv2DTranspose,
    layers.Dense: RoundedDense,
}


@keras.saving.register_keras_serializable("edgekit")
class TrackedRange(layers.Layer):  # type: ignore[misc]
    """Rounds to 8 bits over a range that follows what comes in, for the first `moving_steps` of training.

    The range starts at (low, high). Asymmetric ones hold 0; symmetric ones have it in the middle. What is called for
    several tensors has one range for all of them: `part` is "gather" for each, and "settle" for the last of a step,
    when the range moves; "whole" for a tensor alone; "none" rounds and no more.
    """

    def __init__(self, low: float, high: float, *, symmetric: bool, moving_steps: int, **rest: Any) -> None:
        super().__init__(**rest)
        self._start = min(low, 0.0), max(high, 0.0, low + LEAST)
        self.symmetric, self.moving_steps = symmetric, moving_steps

    def build(self, input_shape: Any) -> None:
        def scalar(name: str, value: float) -> Any:
            return self.add_weight(shape=(), initializer=keras.initializers.Constant(value), trainable=False, name=name)

        self.low, self.high = scalar("low", self._start[0]), scalar("high", self._start[1])
        self.least, self.most = scalar("least", 0.0), scalar("most", 0.0)  # of this step so far
        self.steps = scalar("steps", 0.0)

    def call(self, inputs: Any, part: str = "whole", training: bool = False) -> Any:
        low, high = tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        if self.symmetric:
            high = tf.maximum(-low, high)
            low = -high * (MOST + 1) / MOST
        rounded = tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)
        if training and part != "none" and self.moving_steps:
            self._follow(tf.stop_gradient(inputs), settles=part != "gather")
        return rounded

    def compute_output_shape(self, input_shape: Any, **_: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        low, high = self._start
        own = {"low": low, "high": high, "symmetric": self.symmetric, "moving_steps": self.moving_steps}
        return {**super().get_config(), **own}

    def _follow(self, inputs: Any, *, settles: bool) -> None:
        """Note the batch's least and largest value; move the range towards those of the step."""
        moves = self.steps.value < self.moving_steps
        ends = (self.least.value, self.most.value)
        least, most = tf.cond(moves, lambda: _widened(inputs, *ends), lambda: ends)
        if settles:
            rate = tf.where(moves, 1 - MOMENTUM, 0.0)
            self.low.assign_add(rate * (least - self.low.value))
            self.high.assign_add(rate * (most - self.high.value))
            self.steps.assign_add(1.0)
            least, most = tf.zeros(()), tf.zeros(())
        self.least.assign(least)
        self.most.assign(most)


def _widened(inputs: Any, least: Any, most: Any) -> tuple[Any, Any]:
    return tf.minimum(tf.reduce_min(inputs), least), tf.maximum(tf.reduce_max(inputs), most)
