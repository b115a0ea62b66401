"""Split channels compute the same with a smaller largest weight; clipping lowers the error of what it leaves."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.outliers import clip_weights, split_channels
from toolkit.engine.simulate import on_grid, simulate, weight_scales

IMAGES = np.random.default_rng(0).normal(size=(8, 6, 6, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def spiky() -> Any:
    """Two input channels of `second` and of `head` have weights twenty times as large as the rest."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 4), name="image")
    x = layers.ReLU(6.0)(layers.Conv2D(40, 3, name="first")(x))
    x = layers.ReLU()(layers.Conv2D(40, 3, use_bias=False, name="second")(layers.AveragePooling2D(1)(x)))
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))
    generator = np.random.default_rng(1)
    for name, axis in (("second", 2), ("head", 0)):
        kernel, *bias = model.get_layer(name).get_weights()
        kernel = generator.normal(size=kernel.shape).clip(-2, 2) / 100
        np.moveaxis(kernel, axis, 0)[[3, 17]] *= 20
        model.get_layer(name).set_weights([kernel, *bias])
    return model


def errors(model: Any, expected: Any, **settings: Any) -> float:
    simulated = simulate(model, {}, activation_bits=None, **settings)
    return float(np.mean((np.asarray(simulated(IMAGES)) - expected) ** 2))


def test_split_channels_compute_the_same(spiky: Any) -> None:
    wide, rows = split_channels(spiky)
    expected = np.asarray(spiky(IMAGES))
    np.testing.assert_allclose(wide(IMAGES), expected, atol=1e-5 * np.abs(expected).max())
    done = {row.layer: row.done for row in rows if row.done}
    assert done == {"second": "2 channels of first doubled", "head": "2 channels of second doubled"}
    assert wide.get_layer("first").filters == wide.get_layer("second").filters == 42
    assert [row.reason for row in rows if row.layer == "first"] == ["no single layer with weights gives its input"]


def test_splitting_halves_the_step_of_a_tensor(spiky: Any) -> None:
    wide, rows = split_channels(spiky)
    before, after = (np.abs(model.get_layer("second").get_weights()[0]).max() for model in (spiky, wide))
    assert after == pytest.approx(before / 2, rel=0.01)
    assert all(row.after < 0.6 * row.before for row in rows if row.done)  # the error goes with the step


def test_splitting_pays_for_one_scale_a_tensor(spiky: Any) -> None:
    expected = np.asarray(spiky(IMAGES))
    wide, _ = split_channels(spiky, bits=6)
    settings = {"weight_bits": 6, "granularity": "per_tensor"}
    assert errors(wide, expected, **settings) < 0.6 * errors(spiky, expected, **settings)


def test_two_halves_rounded_add_up_to_the_weight_rounded() -> None:
    inputs = keras.Input((3,), name="image")
    model = keras.Model(inputs, layers.Dense(50, name="wide")(layers.Dense(20, name="first")(inputs)))
    kernel = np.random.default_rng(1).uniform(-0.1, 0.1, (20, 50)).astype(np.float32)
    kernel[7] *= 20
    model.get_layer("wide").set_weights([kernel, np.zeros(50)])
    wide, _ = split_channels(model)
    layer = wide.get_layer("wide")
    scale = weight_scales(layer, layer.get_weights()[0], granularity="per_tensor")
    rounded = on_grid(layer.get_weights()[0], scale)
    joined = rounded[7] + rounded[20]
    assert np.abs(joined - kernel[7]).max() <= 0.52 * scale.max()  # plain halves would be off by up to a whole step


def test_depthwise_layers_are_not_split() -> None:
    inputs = keras.Input((6, 6, 4), name="image")
    x = layers.DepthwiseConv2D(3, name="deep")(layers.Conv2D(30, 1, name="first")(inputs))
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="last")(x))
    same, rows = split_channels(model)
    assert same is model
    reasons = {row.layer: row.reason for row in rows}
    assert reasons["deep"] == "each channel of a depthwise layer has its own weights alone"
    assert reasons["last"] == "deep gives no channel twice without reading one twice"


def test_one_large_weight_is_clipped_at_4_bits_and_not_at_16() -> None:
    inputs = keras.Input((100,), name="image")
    model = keras.Model(inputs, layers.Dense(2, name="head")(inputs))
    kernel = np.random.default_rng(0).uniform(-1, 1, (100, 2)).astype(np.float32)
    kernel[5, 1] = 2.5  # among 100 weights up to 1: their step is 2.5 times what it could be
    model.get_layer("head").set_weights([kernel, np.zeros(2)])
    clipped, (row,) = clip_weights(model, bits=4)
    found = clipped.get_layer("head").get_weights()[0]
    assert row.done == "weights clipped in 1 of 2 scales"
    np.testing.assert_array_equal(found[:, 0], kernel[:, 0])
    assert 1 <= found[5, 1] < 2.5
    errors = [
        ((on_grid(k, weight_scales(model.layers[1], k, bits=4), 4) - kernel) ** 2).mean() for k in (kernel, found)
    ]
    assert errors[1] < 0.9 * errors[0]
    assert row.before**2 == pytest.approx(errors[0], rel=1e-4)
    assert row.after**2 == pytest.approx(errors[1], rel=1e-4)
    same, (row,) = clip_weights(model, bits=16)
    assert same is model
    assert row.reason == "clipping does not pay"
