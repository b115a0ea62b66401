"""Networks drawn at random from all the layers whose channels are followed, put together as no designer would.

All images between are 8 x 8, so that any two can meet. STEPS names what a network may be made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

SIDE = 8
ACTIVATIONS = ("relu", "silu", "gelu", "hard_sigmoid", "tanh", "leaky_relu")


@dataclass
class Draw:
    """The tensors so far, and the dice."""

    rng: np.random.Generator
    pool: list[Any]

    def any(self) -> Any:
        """One of the tensors, the latest most often."""
        return self.pool[max(0, len(self.pool) - 1 - self.rng.geometric(0.5) + 1)]

    def of(self, *values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def filters(self, multiple: int = 1) -> int:
        return multiple * int(self.rng.integers(2, 8))

    def like(self, x: Any) -> Any:
        """Another tensor with as many channels: one there is, or a projection."""
        same = [y for y in self.pool if y.shape == x.shape and y is not x]
        return self.of(*same) if same and self.rng.random() < 0.5 else layers.Conv2D(x.shape[-1], 1)(self.any())


def convolution(draw: Draw, x: Any) -> Any:
    activation = draw.of(None, *ACTIVATIONS)
    options = {"padding": "same", "use_bias": draw.of(True, False), "activation": activation}
    return layers.Conv2D(draw.filters(), draw.of(1, 3), dilation_rate=draw.of(1, 2), **options)(x)


def strided(draw: Draw, x: Any) -> Any:
    x = layers.Conv2D(draw.filters(), 3, strides=2, padding="same")(x)
    return draw.of(layers.UpSampling2D(2), layers.Conv2DTranspose(draw.filters(), 2, strides=2))(x)


def grouped(draw: Draw, x: Any) -> Any:
    groups = draw.of(*(n for n in range(1, x.shape[-1] + 1) if x.shape[-1] % n == 0))
    return layers.Conv2D(draw.filters(groups), 3, groups=groups, padding="same")(x)


def depthwise(draw: Draw, x: Any) -> Any:
    return layers.DepthwiseConv2D(3, depth_multiplier=draw.of(1, 2), padding="same", use_bias=draw.of(True, False))(x)


def separable(draw: Draw, x: Any) -> Any:
    return layers.SeparableConv2D(draw.filters(), 3, depth_multiplier=draw.of(1, 2), padding="same")(x)


def batch_normalization(draw: Draw, x: Any) -> Any:
    return layers.BatchNormalization(center=draw.of(True, False), scale=draw.of(True, False))(x)


def group_normalization(draw: Draw, x: Any) -> Any:
    groups = draw.of(-1, *(n for n in range(2, x.shape[-1] + 1) if x.shape[-1] % n == 0))
    return layers.GroupNormalization(groups, center=draw.of(True, False), scale=draw.of(True, False))(x)


def layer_normalization(draw: Draw, x: Any) -> Any:
    return layers.LayerNormalization(axis=draw.of(-1, [1, 2], [1, 2]))(x)


def activation(draw: Draw, x: Any) -> Any:
    shared = draw.of([1, 2], [1, 2, 3], None)
    return draw.of(
        layers.ReLU(6.0), layers.LeakyReLU(), layers.PReLU(shared_axes=shared), layers.Activation(draw.of(*ACTIVATIONS))
    )(x)


def layer_scale(draw: Draw, x: Any) -> Any:
    from keras.src.applications.convnext import LayerScale

    return LayerScale(1.0, x.shape[-1])(x)


def pooling(draw: Draw, x: Any) -> Any:
    kind = draw.of(layers.MaxPooling2D, layers.AveragePooling2D)
    return layers.Cropping2D(1)(layers.ZeroPadding2D(1)(kind(3, strides=1, padding="same")(x)))


def squeeze_and_excitation(draw: Draw, x: Any) -> Any:
    size = x.shape[-1]
    mean = draw.of(
        layers.GlobalAveragePooling2D(keepdims=True),
        lambda y: layers.Reshape((1, 1, size))(layers.GlobalMaxPooling2D()(y)),
        lambda y: ops.mean(y, axis=(1, 2), keepdims=True),
    )(x)
    gate = draw.of(layers.Conv2D(size, 1), layers.Dense(size))(
        layers.Conv2D(draw.filters(), 1, activation="relu")(mean)
    )
    return layers.Multiply()([x, draw.of(layers.Activation("sigmoid"), lambda y: ops.relu6(y + 3.0) / 6.0)(gate)])


def gate_for_all(draw: Draw, x: Any) -> Any:
    return x * layers.Conv2D(1, 1, activation="sigmoid")(draw.any())


def merge(draw: Draw, x: Any) -> Any:
    kind = draw.of(*["Add"] * 4, "Subtract", "Multiply", "Average", "Maximum", "Minimum")
    return getattr(layers, kind)()([x, draw.like(x)])


def concatenation(draw: Draw, x: Any) -> Any:
    y = draw.any()
    return draw.of(lambda: layers.Concatenate()([x, y]), lambda: ops.concatenate([y, x, x], axis=-1))()


def concatenation_of_places(draw: Draw, x: Any) -> Any:
    return layers.MaxPooling2D((2, 1))(layers.Concatenate(axis=1)([x, draw.like(x)]))


def shuffle(draw: Draw, x: Any) -> Any:
    size = x.shape[-1]
    groups = draw.of(*(n for n in range(1, size + 1) if size % n == 0))
    if draw.of(True, False):
        x = layers.Permute((1, 2, 4, 3))(layers.Reshape((SIDE, SIDE, groups, size // groups))(x))
        return layers.Reshape((SIDE, SIDE, size))(x)
    x = ops.transpose(ops.reshape(x, (-1, SIDE, SIDE, groups, size // groups)), (0, 1, 2, 4, 3))
    return ops.reshape(x, (-1, SIDE, SIDE, size))


def sequence(draw: Draw, x: Any) -> Any:
    x = layers.Conv1D(draw.filters(), 3, padding="same")(layers.Reshape((SIDE * SIDE, x.shape[-1]))(x))
    return layers.Reshape((SIDE, SIDE, -1))(layers.BatchNormalization()(x))


def turned(draw: Draw, x: Any) -> Any:
    return draw.of(layers.Permute((2, 1, 3)), lambda y: ops.transpose(ops.transpose(y, (0, 3, 1, 2)), (0, 2, 3, 1)))(x)


def shared(draw: Draw, x: Any) -> Any:
    layer = layers.Conv2D(draw.filters(), 3, padding="same")
    return layers.Concatenate()([layer(x), layer(draw.like(x))])


def arithmetic(draw: Draw, x: Any) -> Any:
    return draw.of(lambda: x * 0.5 + 1.0, lambda: ops.hard_silu(x), lambda: ops.maximum(x, draw.like(x)), lambda: -x)()


def pixelwise(draw: Draw, x: Any) -> Any:
    return layers.Dropout(0.5)(layers.Dense(draw.filters(), activation=draw.of(*ACTIVATIONS))(x))


STEPS: tuple[Callable[[Draw, Any], Any], ...] = (
    *(convolution, strided, grouped, depthwise, separable, batch_normalization, group_normalization),
    *(layer_normalization, activation, layer_scale, pooling, squeeze_and_excitation, gate_for_all, merge, merge),
    *(concatenation, concatenation_of_places, shuffle, sequence, turned, shared, arithmetic, pixelwise, convolution),
)


def ending(draw: Draw, x: Any) -> Any:
    x = draw.of(
        layers.GlobalAveragePooling2D(),
        layers.Flatten(),
        lambda y: layers.Flatten()(layers.Permute((3, 1, 2))(y)),
        lambda y: layers.Reshape((-1,))(layers.MaxPooling2D(4)(y)),
        lambda y: ops.reshape(layers.AveragePooling2D(4)(y), (-1, 4 * y.shape[-1])),
    )(x)
    x = layers.Dense(draw.filters(), activation=draw.of(*ACTIVATIONS))(x)
    return layers.Dense(3)(x)


def random_network(seed: int, length: int = 9) -> tuple[Any, tuple[str, ...]]:
    """A model with one or two inputs and outputs, and the names of the steps it was made of."""
    rng = np.random.default_rng(seed)
    inputs = [keras.Input((SIDE, SIDE, n + 2), name=f"image{n}") for n in range(rng.integers(1, 3))]
    draw = Draw(rng, [layers.Conv2D(6, 3, padding="same")(image) for image in inputs])
    taken = []
    for _ in range(length):
        step = draw.of(*STEPS)
        draw.pool.append(step(draw, draw.any()))
        taken.append(step.__name__)
    whole = layers.Concatenate()([draw.pool[-1], *draw.pool[: len(inputs)]])
    outputs = [ending(draw, x) for x in [whole, draw.any()][: rng.integers(1, 3)]]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs), tuple(taken)
