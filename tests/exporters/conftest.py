"""Tiny seeded networks and data for the exporters' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest

from toolkit.core import Batch, Model, QuantSpec, Signature, TensorSpec

if TYPE_CHECKING:
    from toolkit.core import Array, Labels

SIZE = (12, 8)  # height, width: not square
L = keras.layers


@dataclass(frozen=True)
class Images:
    """`count` random images for each input, 0..1, brighter from channel to channel."""

    inputs: tuple[TensorSpec, ...]
    count: int = 12
    poison: float | None = None
    name: str = "images"
    fingerprint: str = "0"
    classes: tuple[str, ...] = ()

    @property
    def labels(self) -> Labels:
        return np.zeros(self.count, np.int64)

    def __len__(self) -> int:
        return self.count

    def arrays(self) -> list[dict[str, Array]]:
        generator = np.random.default_rng(5)
        return [{spec.name: self._image(generator, spec) for spec in self.inputs} for _ in range(self.count)]

    def _image(self, generator: np.random.Generator, spec: TensorSpec) -> Array:
        shape = tuple(1 if length is None else length for length in spec.shape)
        image = generator.random(shape).astype("float32") * np.linspace(0.3, 1, shape[-1], dtype="float32")
        if self.poison is not None:
            image[..., 0] = self.poison
        return image

    def batches(self, size: int) -> Iterator[Batch]:
        arrays = self.arrays()
        for start in range(0, self.count, size):
            part = arrays[start : start + size]
            stacked = {key: np.concatenate([example[key] for example in part]) for key in part[0]}
            yield Batch(stacked, {}, tuple(f"image-{start + i}" for i in range(len(part))))


def as_model(graph: keras.Model, *, outputs: tuple[str, ...] = ("scores",), quant: QuantSpec | None = None) -> Model:
    ends = (
        tuple(TensorSpec(t.name, tuple(t.shape), "float32", "image", "NHWC") for t in graph.inputs),
        tuple(
            TensorSpec(name, tuple(t.shape), "float32", "softmax")
            for name, t in zip(outputs, graph.outputs, strict=True)
        ),
    )
    return Model("keras", graph, Signature(*ends), quant=quant or QuantSpec())


def scatter(graph: keras.Model) -> keras.Model:
    """Give BatchNormalization statistics and biases values that matter."""
    generator = np.random.default_rng(2)
    for weight in graph.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(generator.normal(0, 0.2, weight.shape))
    return graph


def classifier() -> keras.Model:
    """Convolution with BatchNormalization, depthwise convolution, pool, dense, softmax."""
    keras.utils.set_random_seed(1)
    image = keras.Input((*SIZE, 3), name="image")
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = L.BatchNormalization(name="stem_bn")(x)
    x = L.ReLU(name="stem_relu")(x)
    x = L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = L.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="conv2d")(x)
    x = L.Conv2D(12, 1, name="conv2d_1")(x)
    x = L.MaxPooling2D(2, name="pool")(x)
    x = L.Flatten(name="flat")(x)
    return scatter(keras.Model(image, L.Dense(5, activation="softmax", name="classes")(x), name="net"))


def pair() -> keras.Model:
    """Two inputs of one shape and two outputs of one shape, none in alphabetical order."""
    keras.utils.set_random_seed(3)
    right, left = keras.Input((*SIZE, 3), name="right"), keras.Input((*SIZE, 3), name="left")
    a = L.Conv2D(4, 3, activation="relu", name="conv_a")(right)
    b = L.Conv2D(4, 3, activation="relu", name="conv_b")(left)
    x = L.GlobalAveragePooling2D(name="gap")(L.Subtract(name="difference")([a, b]))
    outputs = [L.Dense(5, activation="softmax", name="zeta")(x), L.Dense(5, activation="softmax", name="alpha")(x)]
    return scatter(keras.Model([right, left], outputs, name="pair"))


def plain(layer: keras.layers.Layer | None = None) -> keras.Model:
    """Input, one convolution without BatchNormalization, perhaps a layer, pool, dense."""
    keras.utils.set_random_seed(4)
    image = keras.Input((*SIZE, 3), name="image")
    x = L.Conv2D(6, 3, name="conv")(image)
    x = layer(x) if layer is not None else x
    x = L.GlobalAveragePooling2D(name="gap")(x)
    return scatter(keras.Model(image, L.Dense(4, name="classes")(x), name="plain"))


@pytest.fixture(scope="session")
def classifier_model() -> Model:
    return as_model(classifier())


@pytest.fixture(scope="session")
def pair_model() -> Model:
    return as_model(pair(), outputs=("second:0", "first one"))


@pytest.fixture(scope="session")
def plain_model() -> Model:
    return as_model(plain())


@pytest.fixture(scope="session")
def plain_with() -> Callable[[keras.layers.Layer], Model]:
    """A plain network with one more layer in its middle."""
    return lambda layer: as_model(plain(layer))


@pytest.fixture(scope="session")
def images() -> Callable[..., Images]:
    """images(model, poison=...): calibration data for the model's inputs."""
    return lambda model, **how: Images(model.signature.inputs, **how)


@keras.saving.register_keras_serializable("edgekit_tests")
class Apply(keras.layers.Layer):  # type: ignore[misc]
    """A TensorFlow function as a layer."""

    def __init__(self, function: Callable[[Array], Array], **how: str) -> None:
        super().__init__(**how)
        self.function = function

    def call(self, x: Array) -> Array:
        return self.function(x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "function": self.function}


@pytest.fixture(scope="session")
def apply() -> type[Apply]:
    return Apply
