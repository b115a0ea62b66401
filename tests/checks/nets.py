"""Tiny trained-looking networks of two families as int8 files, for the checks that look inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers

from toolkit.core import Batch

if TYPE_CHECKING:
    from toolkit.core import Array

SHAPE = (16, 16, 3)


@dataclass(frozen=True)
class Noise:
    """Seeded images as a dataset."""

    count: int = 32
    name: str = "noise"
    fingerprint: str = "noise"
    classes: tuple[str, ...] = tuple("0123456789")
    task: str = "classes"

    @property
    def images(self) -> Array:
        return np.random.default_rng(0).normal(size=(self.count, *SHAPE)).astype(np.float32)

    @property
    def labels(self) -> Array:
        return np.zeros(self.count, np.int64)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.count)))

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Any:
        for start in range(0, self.count, size):
            rows = slice(start, start + size)
            yield Batch({"image": self.images[rows]}, {"label": self.labels[rows]}, self.ids[rows])


@dataclass(frozen=True)
class Written:
    """A float graph and the int8 files of it."""

    graph: Any
    tflite: Path
    onnx: Path


def mobile() -> Any:
    """Inverted residuals, ReLU6 and depthwise convolutions, as MobileNetV2 has."""

    def unit(x: Any, convolution: Any, name: str) -> Any:
        return layers.ReLU(6.0, name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(convolution(x)))

    x = image = keras.Input(SHAPE, name="image")
    x = unit(x, layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem"), "stem")
    for block in (f"b{i}" for i in range(3)):
        y = unit(x, layers.Conv2D(24, 1, use_bias=False, name=f"{block}_expand"), f"{block}_expand")
        depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{block}_depthwise")
        y = unit(y, depthwise, f"{block}_depthwise")
        y = layers.Conv2D(8, 1, use_bias=False, name=f"{block}_project")(y)
        x = layers.Add(name=f"{block}_add")([x, layers.BatchNormalization(name=f"{block}_project_bn")(y)])
    x = unit(x, layers.Conv2D(32, 1, use_bias=False, name="top"), "top")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="head")(x))


def residual() -> Any:
    """Residual blocks with a rescaling in front, as ResNets for CIFAR-10 have."""

    def convolution(x: Any, name: str) -> Any:
        return layers.BatchNormalization(name=f"{name}_bn")(layers.Conv2D(8, 3, padding="same", name=name)(x))

    image = keras.Input(SHAPE, name="image")
    x = layers.Rescaling(0.5, offset=-0.2, name="rescale")(image)
    x = layers.ReLU(name="stem_relu")(convolution(x, "stem"))
    for block in (f"b{i}" for i in range(3)):
        y = layers.ReLU(name=f"{block}_relu1")(convolution(x, f"{block}_conv1"))
        x = layers.Add(name=f"{block}_add")([x, convolution(y, f"{block}_conv2")])
        x = layers.ReLU(name=f"{block}_relu2")(x)
    x = layers.Flatten(name="flat")(layers.AveragePooling2D(4, name="pool")(x))
    return keras.Model(image, layers.Dense(10, name="head")(x))


def lively(graph: Any) -> Any:
    """BatchNormalization with statistics as training leaves them."""
    generator = np.random.default_rng(3)
    for layer in graph.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape
            mean, shift = generator.normal(0, 0.3, size), generator.normal(0, 0.3, size)
            layer.set_weights([generator.uniform(0.5, 1.5, size), shift, mean, generator.uniform(0.1, 0.6, size)])
    return graph
