"""Simulated quantization: scales, zero points, weights and biases worked out by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.prepare import prepare
from toolkit.engine.simulate import FakeQuantize, asymmetric, on_grid, simulate, symmetric, weight_scales
from toolkit.errors import InputError


def test_asymmetric_widens_to_zero_and_rounds_the_zero_point() -> None:
    # 2.5 .. 5.1 becomes 0 .. 5.1: scale 0.02, zero at the least integer
    assert (asymmetric(2.5, 5.1).scale, asymmetric(2.5, 5.1).zero_point) == (pytest.approx(0.02), -128)
    # -1 .. 1.55: scale 0.01, -128 + 100 = -28
    assert (asymmetric(-1, 1.55).scale, asymmetric(-1, 1.55).zero_point) == (pytest.approx(0.01), -28)
    # -1 .. 1.6: scale 2.6 / 255, -128 + 98.08 rounds to -30, so the ends are -98 and 157 steps
    own = asymmetric(-1, 1.6)
    assert (own.low, own.high) == (pytest.approx(-98 * 2.6 / 255), pytest.approx(157 * 2.6 / 255))


def test_symmetric_has_zero_at_zero_and_127_at_the_largest() -> None:
    own = symmetric(-2.54, 1.0)
    assert (own.scale, own.zero_point, own.high) == (pytest.approx(0.02), 0, pytest.approx(2.54))
    assert symmetric(0, 32767, 16).scale == 1


def test_fake_quantize_rounds_and_clips() -> None:
    given = np.array([-1.0, -0.284, 0.004, 0.006, 0.994, 9.0], np.float32)
    rounded = FakeQuantize(0.01, -28)(given)  # integers -128 .. 127: -1.00 .. 1.55
    np.testing.assert_allclose(rounded, [-1.0, -0.28, 0.0, 0.01, 0.99, 1.55], atol=1e-6)


def test_halves_go_to_even_integers_and_in_averages_away_from_zero() -> None:
    given = np.array([0.5, 1.5, 2.5, -0.5, 3.5], np.float32)
    np.testing.assert_array_equal(FakeQuantize(1.0, 0)(given), [0, 2, 2, 0, 4])
    # with zero point -2 these are the integers -1.5, -0.5, 0.5, -2.5, 1.5
    np.testing.assert_array_equal(FakeQuantize(1.0, -2, away=True)(given), [0, 1, 3, -1, 4])


def test_fake_quantize_keeps_its_encoding_when_saved() -> None:
    layer = FakeQuantize(0.25, 3, 16, name="x")
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (twin.encoding, twin.name) == (layer.encoding, "x")


def test_weight_scales_are_per_output_channel() -> None:
    kernel = np.zeros((1, 1, 2, 3), np.float32)
    kernel[0, 0] = [[1.27, 0, -2.54], [-0.5, 0.127, 0]]
    conv = layers.Conv2D(3, 1)
    np.testing.assert_allclose(weight_scales(conv, kernel).ravel(), [0.01, 0.001, 0.02], rtol=1e-6)
    np.testing.assert_allclose(weight_scales(conv, kernel, granularity="per_tensor").ravel(), [0.02], rtol=1e-6)
    up = layers.Conv2DTranspose(2, 1)  # its kernel is (height, width, out, in)
    np.testing.assert_allclose(weight_scales(up, kernel).ravel(), [0.02, 0.5 / 127], rtol=1e-6)
    depthwise = layers.DepthwiseConv2D(1, depth_multiplier=3)
    assert weight_scales(depthwise, kernel).shape == (1, 1, 2, 3)
    assert weight_scales(conv, kernel, bits=4).ravel()[0] == pytest.approx(1.27 / 7)


def test_on_grid_rounds_to_multiples() -> None:
    np.testing.assert_allclose(
        on_grid(np.array([0.014, -0.016, 5.0]), np.array([0.01])), [0.01, -0.02, 1.27], rtol=1e-6
    )


@pytest.fixture(scope="module")
def net() -> Any:
    """Two numbers, a fully connected layer with a ReLU, and one behind it."""
    image = keras.Input((2,), name="image")
    x = layers.ReLU(name="relu")(layers.Dense(2, name="first")(image))
    model = keras.Model(image, layers.Dense(1, name="second")(x))
    model.get_layer("first").set_weights([np.array([[1.27, 0.101], [0.304, -1.27]]), np.array([0.00512, 0.0])])
    model.get_layer("second").set_weights([np.array([[1.27], [-0.5]]), np.array([0.0])])
    return model


RANGES = {"image": (0.0, 2.55), "first": (-9.0, 9.0), "relu": (0.0, 5.1), "second": (-1.28, 1.27)}


def test_simulate_computes_what_integers_give(net: Any) -> None:
    # input 1.004 -> 1.00, 2.0; weights to hundredths: [1.27, 0.10], [0.30, -1.27]; bias on 0.0001: 0.0051
    # first: 1.27 + 0.60 + 0.0051 = 1.8751 -> 1.88 on steps of 0.02; 0.1 - 2.54 -> 0
    # second: 1.27 * 1.88 = 2.3876 -> clipped to 1.27
    graph = simulate(net, RANGES)
    np.testing.assert_allclose(graph(np.array([[1.004, 2.0]])), [[1.27]], rtol=1e-6)
    # input 0, 1: 0.3051 -> 0.30, no second (-1.27); 1.27 * 0.30 = 0.381 -> 0.38 on steps of 0.01
    np.testing.assert_allclose(graph(np.array([[0.0, 1.0]])), [[0.38]], rtol=1e-5)
    np.testing.assert_allclose(graph.get_layer("first").get_weights()[1], [0.0051, 0.0], atol=1e-7)
    assert "first_quantized" not in {layer.name for layer in graph.layers}


def test_simulate_leaves_the_given_graph_and_its_signature(net: Any) -> None:
    before = [weight.copy() for weight in net.get_weights()]
    graph = simulate(net, RANGES)
    assert all((a == b).all() for a, b in zip(before, net.get_weights(), strict=True))
    assert (graph.inputs[0].name, graph.output_shape) == ("image", (None, 1))


def test_simulate_quantizes_only_the_layers_named(net: Any) -> None:
    images = np.random.default_rng(0).uniform(0, 2.5, (9, 2)).astype(np.float32)
    names = {layer.name for layer in simulate(net, RANGES, layers=["second"]).layers}
    assert names >= {"relu_quantized", "second_quantized"}
    assert "image_quantized" not in names
    np.testing.assert_array_equal(simulate(net, RANGES, layers=[])(images), net(images))


def test_simulate_without_activations_rounds_weights_alone(net: Any) -> None:
    graph = simulate(net, {}, weight_bits=4, activation_bits=None)
    kernel = graph.get_layer("second").get_weights()[0]
    np.testing.assert_allclose(kernel.ravel(), [1.27, -3 * 1.27 / 7], rtol=1e-6)
    assert len(graph.layers) == len(net.layers)


def test_simulate_names_a_layer_that_is_not_there(net: Any) -> None:
    with pytest.raises(InputError, match="third: is no layer"):
        simulate(net, RANGES, layers=["first", "third"])
    with pytest.raises(InputError, match="relu, second: has no range"):
        simulate(net, {"image": (0.0, 1.0)})


@pytest.mark.parametrize(("bits", "flavour"), [(8, "asymmetric"), (8, "symmetric"), (16, "asymmetric")])
def test_simulate_is_near_the_float_graph(bits: int, flavour: Any) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(image)
    x = layers.Concatenate(name="join")([x, layers.Activation("swish", name="swish")(layers.Conv2D(4, 1)(x))])
    x = layers.Add(name="add")([x, layers.DepthwiseConv2D(3, padding="same")(x)])
    x = layers.AveragePooling2D(2)(layers.ZeroPadding2D(1)(x))
    x = layers.Activation("tanh", name="tanh")(layers.Conv2DTranspose(4, 2, strides=2)(x))
    graph = prepare(keras.Model(image, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))).graph
    images = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype(np.float32)
    probe = keras.Model(graph.inputs[0], [layer.output for layer in graph.layers])
    values = dict(zip((layer.name for layer in graph.layers), map(np.asarray, probe(images)), strict=True))
    ranges = {name: (float(value.min()), float(value.max())) for name, value in values.items()}
    wrong = np.abs(np.asarray(simulate(graph, ranges, activation_bits=bits, flavour=flavour)(images)) - graph(images))
    assert wrong.max() < (0.02 if bits == 8 else 0.006)
    assert wrong.max() > 0
