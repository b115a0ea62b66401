from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.graph import walk
from toolkit.engine.linear import Linear, linear

LAYERS = {
    "dense": (layers.Dense(3), (5,)),
    "dense on places": (layers.Dense(3, use_bias=False), (4, 5)),
    "conv": (layers.Conv2D(4, (3, 2), padding="same"), (5, 6, 3)),
    "conv, strides": (layers.Conv2D(4, 3, strides=2, padding="same"), (6, 7, 3)),
    "conv, valid": (layers.Conv2D(4, 3, strides=(2, 1), padding="valid"), (7, 6, 3)),
    "conv, dilated": (layers.Conv2D(4, 3, dilation_rate=2, padding="same", use_bias=False), (8, 7, 2)),
    "conv, grouped": (layers.Conv2D(6, 3, groups=2, padding="same"), (5, 5, 4)),
    "conv, one channel a group": (layers.Conv2D(8, 3, groups=4, padding="same"), (5, 5, 4)),
    "conv, 1d causal": (layers.Conv1D(3, 3, dilation_rate=2, padding="causal"), (9, 2)),
    "conv, 3d": (layers.Conv3D(3, 2, strides=2, padding="same"), (5, 4, 3, 2)),
    "depthwise": (layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2), (7, 6, 3)),
    "depthwise, 1d": (layers.DepthwiseConv1D(3, padding="valid"), (7, 3)),
    "separable": (layers.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2), (7, 7, 3)),
    "normalization": (layers.BatchNormalization(), (4, 4, 3)),
    "normalization, bare": (layers.BatchNormalization(scale=False, center=False, epsilon=0.1), (3,)),
}


def called(layer: Any, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """The layer's call in a model, an input, and what Keras makes of it."""
    layer = type(layer).from_config(layer.get_config())
    image = keras.Input(shape)
    made = keras.Model(image, layer(image))
    rng = np.random.default_rng(1)
    weights = [
        np.abs(rng.normal(size=w.shape)) + 0.1 if "var" in w.name else rng.normal(size=w.shape) for w in layer.weights
    ]
    layer.set_weights(weights)
    values = rng.normal(size=(2, *shape)).astype("float32")
    return walk(made).calls[-1], values, np.asarray(made(values))


@pytest.mark.parametrize("name", LAYERS)
def test_linear_computes_what_keras_computes(name: str) -> None:
    call, values, wanted = called(*LAYERS[name])
    found = linear(call)
    assert isinstance(found, Linear)
    rows = wanted.reshape(2, -1, wanted.shape[-1])
    assert found.places(values) == rows.shape[1]
    places = np.arange(rows.shape[1])[::2]
    outputs = found.outputs(found.features(values, places))
    flat = outputs.transpose(1, 0, 2).reshape(2, len(places), -1)
    assert np.allclose(flat, rows[:, places], atol=1e-4)


@pytest.mark.parametrize("name", [name for name in LAYERS if "normalization" not in name])
def test_linear_writes_weights_where_it_read_them(name: str) -> None:
    call, values, wanted = called(*LAYERS[name])
    found = linear(call)
    assert isinstance(found, Linear)
    found.write(2 * found.kernel, 2 * found.bias)
    assert np.allclose(np.asarray(call.layer(values)), 2 * wanted, atol=1e-4)


def test_linear_says_why_a_layer_is_none() -> None:
    assert linear(called(layers.ReLU(), (4,))[0]) == ""
    assert "PReLU" in str(linear(called(layers.PReLU(), (4,))[0]))
    assert "Conv2DTranspose" in str(linear(called(layers.Conv2DTranspose(3, 3), (4, 4, 2))[0]))
    assert "axis 1" in str(linear(called(layers.BatchNormalization(axis=1), (4, 4))[0]))
