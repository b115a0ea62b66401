"""Rounding in turn makes up for errors as worked by hand, stays on the grid, and is seldom worse on other images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.adaround import Settings
from toolkit.engine.gptq import gptq, rounded_in_turn
from toolkit.engine.simulate import on_grid, simulate, weight_scales


def correlated(count: int, seed: int) -> Any:
    """Smooth images: neighbouring pixels and channels are alike, so that errors of weights can make up for others."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(size=(count, 4, 4, 1)).repeat(2, axis=1).repeat(2, axis=2)
    return (coarse + 0.1 * generator.normal(size=(count, 8, 8, 3)) + 0.5).astype(np.float32)


IMAGES = correlated(64, 0)


def batches() -> Any:
    return iter([{"image": IMAGES[:40]}, {"image": IMAGES[40:]}])


@pytest.fixture(scope="module")
def net() -> Any:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU()(layers.Conv2D(12, 3, strides=2, padding="same", name="conv")(x))
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="deep")(x))
    x = layers.ReLU()(layers.Conv2D(8, 3, groups=2, name="groups")(x))
    x = layers.Conv2DTranspose(4, 2, name="up")(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def solved(net: Any) -> tuple[Any, Any, Any]:
    simulated = simulate(net, {}, weight_bits=4, activation_bits=None)
    return simulated, *gptq(net, simulated, batches, Settings(bits=4))


def test_an_error_is_made_up_for_by_the_next_weight_as_worked_by_hand() -> None:
    # H = [[1, 1], [1, 2]] is (U^T U)^-1 for U = [[s, -1/s], [0, 1/s]], s = sqrt(2): an error e of the first changes the
    # second by -e * U01 / U00 = +e / 2. 3.4 becomes 3, e = 0.4, and 1.4 becomes 1.6, which is rounded to 2.
    s = np.sqrt(2)
    spread = np.array([[s, -1 / s], [0, 1 / s]])
    np.testing.assert_allclose(np.linalg.inv(spread.T @ spread), [[1, 1], [1, 2]])
    np.testing.assert_array_equal(rounded_in_turn(np.array([3.4, 1.4]), spread, 7), [3, 2])
    np.testing.assert_array_equal(rounded_in_turn(np.array([3.4, 1.4]), np.eye(2), 7), [3, 1])


def test_what_reaches_the_end_of_the_grid_stays_there_whatever_was_spread() -> None:
    spread = np.array([[1.0, 2.0], [0, 1.0]])  # 1.4 becomes 1: the second would fall by 0.8, to 6
    np.testing.assert_array_equal(rounded_in_turn(np.array([1.4, 7.0]), spread, 7), [1, 7])
    np.testing.assert_array_equal(rounded_in_turn(np.array([-1.4, -7.0]), spread, 7), [-1, -7])
    np.testing.assert_array_equal(rounded_in_turn(np.array([1.4, 6.0]), spread, 7), [1, 5])


def test_zeros_stay_zero_and_the_next_weight_makes_up_for_what_was_spread_to_them() -> None:
    spread = np.array([[1.0, 2.0, 0.0], [0, 1.0, 0.5], [0, 0, 1.0]])  # 1.4 becomes 1: the zero would become -0.8
    np.testing.assert_array_equal(rounded_in_turn(np.array([1.4, 1e-9, 1.0]), spread, 7), [1, -1, 1])
    np.testing.assert_array_equal(rounded_in_turn(np.array([1.4, 0.0, 1.0]), spread, 7), [1, 0, 1])
    np.testing.assert_array_equal(rounded_in_turn(np.array([1.4, 0.0, 1.3]), spread, 7), [1, 0, 2])  # 1.3 + 0.8 / 2


def test_no_layer_is_worse_on_places_held_back_and_correlated_ones_are_clearly_better(solved: Any) -> None:
    rows = {row.layer: row for row in solved[2]}
    assert all(row.adaptive <= row.nearest for row in rows.values())
    assert rows["conv"].adaptive < 0.8 * rows["conv"].nearest
    assert 0 < rows["conv"].turned < 0.8
    assert rows["up"].reason == "transposed convolutions keep plain rounding"


def test_weights_lie_on_the_grid_that_exporters_find_again(net: Any, solved: Any) -> None:
    simulated, kernels, _ = solved
    for name, kernel in kernels.items():
        layer = net.get_layer(name)
        scales = weight_scales(layer, layer.get_weights()[0], bits=4)
        np.testing.assert_allclose(weight_scales(layer, kernel, bits=4), scales, rtol=1e-5)
        np.testing.assert_allclose(on_grid(kernel, scales, 4), kernel, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(simulated.get_layer(name).get_weights()[0], kernel)


def test_the_first_layer_errs_less_on_other_images_behind_its_relu(net: Any, solved: Any) -> None:
    other = correlated(64, 1)
    layer = net.get_layer("conv")
    kernel, bias = layer.get_weights()
    plain = on_grid(kernel, weight_scales(layer, kernel, bits=4), 4)

    def error(weights: Any) -> float:
        """Of outputs that pass the ReLU, without the mean of each channel."""
        wanted = np.asarray(keras.ops.conv(other, kernel, strides=2, padding="same")) + bias
        given = np.asarray(keras.ops.conv(other, weights, strides=2, padding="same")) + bias
        passed = [(given - wanted)[..., c][wanted[..., c] > 0] for c in range(12)]
        return float(sum(values.var() for values in passed))

    assert error(solved[1]["conv"]) < 0.8 * error(plain)


def test_many_inputs_share_one_matrix_and_gain_all_the_same(monkeypatch: pytest.MonkeyPatch, net: Any) -> None:
    monkeypatch.setattr("toolkit.engine.gptq.OWN_INPUTS", 1)
    simulated = simulate(net, {}, weight_bits=4, activation_bits=None)
    _, rows = gptq(net, simulated, batches, Settings(bits=4), names=["conv"])
    assert rows[0].adaptive < 0.9 * rows[0].nearest
