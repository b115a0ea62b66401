"""Quantization-aware training: what is trained is what a simulated file computes; what is learned lies on its grid."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.loss import Target
from toolkit.engine.prepare import prepare
from toolkit.engine.qat import Rounding, find_ranges, learned, rounding_graph
from toolkit.engine.rounded_layers import RoundedConv2D, TrackedRange
from toolkit.engine.simulate import simulate
from toolkit.engine.teaching import Teaching
from toolkit.engine.train import fit


@pytest.fixture(scope="module")
def prepared() -> Any:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    x = layers.Concatenate(name="join")(
        [x, layers.Activation("swish", name="swish")(layers.Conv2D(4, 1, name="one")(x))]
    )
    x = layers.Add(name="add")([x, layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)])
    x = layers.AveragePooling2D(2, name="average")(layers.ZeroPadding2D(1)(x))
    x = layers.Conv2DTranspose(4, 2, strides=2, activation="tanh", name="up")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return prepare(keras.Model(image, layers.Dense(3, activation="softmax", name="head")(x))).graph


@pytest.fixture(scope="module")
def images() -> Any:
    return np.random.default_rng(0).normal(size=(48, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def ranges(prepared: Any, images: Any) -> Any:
    return find_ranges(prepared, {"image": images})


def taught(prepared: Any, ranges: Any, images: Any, how: Rounding, **more: Any) -> Any:
    teaching = Teaching(2, batch_size=16, learning_rate=3e-3, target=Target(alpha=1.0), **more)
    return fit(rounding_graph(prepared, ranges, how), prepared, images, np.zeros(48), how=teaching).model


def test_find_ranges_are_least_and_largest_values(prepared: Any, images: Any, ranges: Any) -> None:
    values = np.asarray(keras.Model(prepared.inputs[0], prepared.get_layer("add").output)(images))
    assert ranges["add"] == pytest.approx((values.min(), values.max()), rel=1e-5)
    assert ranges["image"] == (images.min(), images.max())
    assert ranges["conv"][1] == ranges["relu"][1]  # what the ReLU behind it does not cut


@pytest.mark.parametrize("flavour", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_rounding_graph_computes_what_the_simulated_file_does(
    prepared: Any, images: Any, ranges: Any, flavour: Any, granularity: Any
) -> None:
    trained = rounding_graph(prepared, ranges, Rounding(flavour, granularity))
    file = simulate(prepared, ranges, flavour=flavour, granularity=granularity)
    step = 1 / 256  # the output's; biases are not rounded while training
    assert np.abs(np.asarray(trained(images)) - file(images)).max() <= 1.5 * step


def test_learned_graph_simulates_to_what_was_trained(prepared: Any, images: Any, ranges: Any) -> None:
    how = Rounding(moving_steps=4)
    trained = taught(prepared, ranges, images, how)
    found = learned(prepared, trained, how)
    file = simulate(found.graph, found.ranges)
    assert np.abs(np.asarray(trained(images)) - file(images)).max() <= 1.5 / 256
    assert not {type(layer).__module__ for layer in found.graph.layers} & {TrackedRange.__module__}
    kernel = found.graph.get_layer("conv").get_weights()[0]
    steps = kernel / (np.abs(kernel).max(axis=(0, 1, 2)) / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert (np.abs(steps).max(axis=(0, 1, 2)) > 126.999).all()
    before = prepared.get_layer("conv").get_weights()[0]
    assert np.abs(kernel - before).max() > 1e-3


def test_tensors_that_are_joined_learn_one_range(prepared: Any, images: Any, ranges: Any) -> None:
    how = Rounding(moving_steps=100)
    found = learned(prepared, taught(prepared, ranges, images, how), how).ranges
    assert found["relu"] == found["swish"] == found["join"]
    assert found["average"] == found["add"]
    low, high = found["join"]
    assert 0 < -255 * low / (high - low) < 255
    assert -255 * low / (high - low) == pytest.approx(round(-255 * low / (high - low)), abs=1e-4)
    assert found["up_tanh"] == (-1.0, 127 / 128)


def test_ranges_follow_batches_then_freeze() -> None:
    layer = TrackedRange(-1.0, 3.0, symmetric=False, moving_steps=2)
    batch = np.array([[-2.0, 5.0]], np.float32)
    layer(batch, training=True)
    assert (float(layer.low.numpy()), float(layer.high.numpy())) == pytest.approx((-1.01, 3.02))
    layer(batch, training=True)
    assert (float(layer.low.numpy()), float(layer.high.numpy())) == pytest.approx((-1.0199, 3.0398))
    layer(batch, training=True)
    layer(batch)
    assert (float(layer.low.numpy()), float(layer.high.numpy())) == pytest.approx((-1.0199, 3.0398))


def test_a_joined_range_moves_once_a_step_to_all_its_tensors() -> None:
    layer = TrackedRange(-1.0, 3.0, symmetric=False, moving_steps=9)
    layer(np.array([[-2.0]], np.float32), part="gather", training=True)
    layer(np.array([[5.0]], np.float32), part="gather", training=True)
    assert float(layer.high.numpy()) == 3.0
    layer(np.array([[1.0]], np.float32), part="settle", training=True)
    assert (float(layer.low.numpy()), float(layer.high.numpy())) == pytest.approx((-1.01, 3.02))
    assert (float(layer.least.numpy()), float(layer.most.numpy())) == (0.0, 0.0)


def test_small_weights_learn_at_the_pace_of_large_ones() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 2)).astype(np.float32) * [1.0, 1e-3]
    layer = RoundedConv2D(2, 3)
    layer.build((None, 8, 8, 4))
    layer.take(kernel, np.array([0.5, 0.5]), size=2.0)
    assert np.square(layer.kernel.numpy()).mean(axis=(0, 1, 2)) == pytest.approx(2 / 36, rel=1e-4)
    found, bias = layer.weights_learned()
    np.testing.assert_allclose(found, kernel, rtol=1e-5)
    np.testing.assert_allclose(bias, 0.5, rtol=1e-5)
