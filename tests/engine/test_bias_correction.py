"""Corrected biases bring the mean of quantized outputs back; from images, or from BatchNormalization alone."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.bias_correction import correct_analytic, correct_measured, with_biases
from toolkit.engine.channel_values import channel_means
from toolkit.engine.expected import Normal, clipped_mean, expected_inputs, norm_statistics
from toolkit.engine.prepare import prepare
from toolkit.engine.simulate import simulate

IMAGES = np.random.default_rng(0).normal(size=(32, 6, 6, 3)).astype(np.float32)


def batches() -> Any:
    """Two batches of unequal size."""
    return iter([{"image": IMAGES[:20]}, {"image": IMAGES[20:]}])


@pytest.fixture(scope="module")
def net() -> Any:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 3), name="image")
    x = layers.ReLU()(layers.Conv2D(6, 3, use_bias=False, name="conv")(x))
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="same", name="deep")(x))
    return with_biases(keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(x))))


def test_added_biases_change_nothing(net: Any) -> None:
    x = inputs = keras.Input((6, 6, 3), name="image")
    model = keras.Model(inputs, layers.Conv2D(2, 3, use_bias=False, name="conv")(x))
    np.testing.assert_array_equal(with_biases(model)(IMAGES), model(IMAGES))
    assert with_biases(net) is net


def test_channel_means_are_those_of_all_images_whatever_the_batches(net: Any) -> None:
    means = channel_means(net, ["conv", "head"])(batches)
    expected = np.asarray(keras.Model(net.input, net.get_layer("conv").output)(IMAGES)).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(means["conv"], expected, atol=1e-6)
    np.testing.assert_allclose(means["head"], np.asarray(net(IMAGES)).mean(axis=0), atol=1e-6)


def test_measured_correction_restores_the_mean_of_every_layer(net: Any) -> None:
    simulated = simulate(net, {}, weight_bits=3, activation_bits=None)
    names = ["conv", "deep", "head"]
    expected = channel_means(net, names)(batches)
    shifted = channel_means(simulated, names)(batches)
    assert max(np.abs(shifted[name] - expected[name]).max() for name in names) > 0.02
    biases, rows = correct_measured(net, simulated, batches)
    restored = channel_means(simulated, names)(batches)
    for name in names:
        np.testing.assert_allclose(restored[name], expected[name], atol=2e-5)
        np.testing.assert_array_equal(simulated.get_layer(name).get_weights()[1], biases[name])
    assert [row.layer for row in rows] == names
    assert all(row.before > row.after == 0 for row in rows)


def test_layers_called_twice_are_left_alone() -> None:
    inputs = keras.Input((6, 6, 3), name="image")
    twice = layers.Conv2D(3, 1, name="twice")
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="last")(twice(twice(inputs))))
    biases, _ = correct_measured(model, simulate(model, {}, weight_bits=3, activation_bits=None), batches)
    assert list(biases) == ["last"]


@pytest.mark.parametrize("high", [math.inf, 6.0, 0.5])
def test_mean_of_a_clipped_normal_is_that_of_many_draws(high: float) -> None:
    normal = Normal(np.array([0.0, 1.0, -2.0, 5.0]), np.array([1.0, 0.5, 1.5, 3.0]))
    draws = np.random.default_rng(0).normal(normal.mean, normal.deviation, (400_000, 4)).clip(0, high)
    np.testing.assert_allclose(clipped_mean(normal, high), draws.mean(axis=0), atol=0.015)
    assert clipped_mean(Normal(np.zeros(1), np.ones(1)))[0] == pytest.approx(1 / math.sqrt(2 * math.pi))


def test_expected_inputs_follow_sums_pools_and_clips() -> None:
    x = inputs = keras.Input((4, 4, 2), name="image")
    one = layers.BatchNormalization(name="n1")(layers.Conv2D(3, 1, name="one")(x))
    two = layers.BatchNormalization(name="n2")(layers.Conv2D(3, 1, name="two")(x))
    both = layers.Add()([one, layers.ReLU(6.0)(two)])
    after = layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(both))
    model = keras.Model(inputs, layers.Dense(1, name="end")(layers.Activation("tanh")(after)))
    model.get_layer("n1").set_weights([np.ones(3), np.array([1.0, 2, 3]), np.zeros(3), np.ones(3)])
    model.get_layer("n2").set_weights([-np.ones(3), np.zeros(3), np.zeros(3), np.ones(3)])
    found = expected_inputs(prepare(model).graph, norm_statistics(model))
    np.testing.assert_allclose(found["head"], np.array([1, 2, 3]) + 1 / math.sqrt(2 * math.pi), atol=1e-6)
    assert set(found) == {"head"}  # nothing tells the means of the image and behind tanh


def test_analytic_correction_equals_the_measured_one_for_normal_channels() -> None:
    x = inputs = keras.Input((8, 8, 4), name="image")
    x = layers.BatchNormalization(name="norm", epsilon=0.0)(layers.Conv2D(4, 1, use_bias=False, name="first")(x))
    x = layers.Conv2D(5, 3, name="second")(layers.ReLU(6.0)(x))
    x = layers.DepthwiseConv2D(3, name="alone")(x)
    flat = keras.Model(inputs, x)
    generator = np.random.default_rng(3)
    flat.get_layer("first").set_weights([np.eye(4)[None, None]])  # channels of the images are independent normals
    beta, gamma = generator.normal(0.5, 1, 4), generator.uniform(0.5, 3, 4)
    flat.get_layer("norm").set_weights([gamma, beta, np.zeros(4), np.ones(4)])
    graph = prepare(flat).graph
    images = generator.normal(size=(600, 8, 8, 4)).astype(np.float32)
    simulated = simulate(graph, {}, weight_bits=3, activation_bits=None)
    rounded = {name: simulated.get_layer(name).get_weights()[0] for name in ("first", "second", "alone")}
    simulated.get_layer("first").set_weights(graph.get_layer("first").get_weights())
    simulated.get_layer("alone").set_weights(graph.get_layer("alone").get_weights())
    analytic, rows = correct_analytic(graph, rounded, expected_inputs(graph, norm_statistics(flat)))
    measured, _ = correct_measured(graph, simulated, lambda: [{"image": images}])
    before = graph.get_layer("second").get_weights()[1]
    moved = np.abs(measured["second"] - before).max()
    assert moved > 0.1
    assert np.abs(analytic["second"] - measured["second"]).max() < 0.05 * moved
    assert {row.layer: row.reason for row in rows}["alone"] == "no BatchNormalization tells the mean of its input"
