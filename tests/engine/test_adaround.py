"""Adaptive rounding stays on the grid, is never worse than plain rounding, and is clearly better at 4 bits."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.adaround import Settings, adaround
from toolkit.engine.places import from_grouped, grouped, sample
from toolkit.engine.simulate import on_grid, simulate, weight_scales

QUICK = Settings(bits=4, iterations=300, places=1024, batch=128)


def correlated(count: int) -> Any:
    """Smooth images: neighbouring pixels and channels are alike, which is what makes plain rounding not the best."""
    generator = np.random.default_rng(0)
    coarse = generator.normal(size=(count, 4, 4, 3)).repeat(2, axis=1).repeat(2, axis=2)
    return (coarse + 0.1 * generator.normal(size=(count, 8, 8, 3)) + 0.5).astype(np.float32)


IMAGES = correlated(64)


def batches() -> Any:
    return iter([{"image": IMAGES[:40]}, {"image": IMAGES[40:]}])


@pytest.fixture(scope="module")
def net() -> Any:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU()(layers.Conv2D(12, 3, strides=2, padding="same", name="conv")(x))
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="deep")(x))
    x = layers.ReLU()(layers.Conv2D(8, 3, groups=2, dilation_rate=1, name="groups")(x))
    x = layers.Conv2DTranspose(4, 2, name="up")(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def solved(net: Any) -> tuple[Any, Any, Any]:
    simulated = simulate(net, {}, weight_bits=4, activation_bits=None)
    kernels, rows = adaround(net, simulated, batches, QUICK)
    return simulated, kernels, rows


@pytest.mark.parametrize("name", ["conv", "deep", "groups", "head"])
def test_sampled_rows_times_weights_are_the_layers_outputs(net: Any, name: str) -> None:
    layer = net.get_layer(name)
    read, given = (keras.Model(net.input, tensor) for tensor in (layer.input, layer.output))
    pairs = ((read(batch["image"]), given(batch["image"])) for batch in batches())
    taken, wanted = sample(layer, pairs, places=5, seed=1)
    kernel, bias = layer.get_weights()
    weights = grouped(layer, kernel)
    given = np.einsum("nkgi,kgio->ngo", taken, weights).reshape(wanted.shape) + bias
    np.testing.assert_allclose(given, wanted, atol=1e-5)
    np.testing.assert_array_equal(from_grouped(layer, weights, kernel.shape), kernel)
    assert len(taken) == 64 * (1 if name == "head" else 4 if name == "groups" else 5)


def test_no_layer_is_worse_than_plain_rounding_and_most_are_clearly_better(solved: Any) -> None:
    rows = {row.layer: row for row in solved[2]}
    assert all(row.adaptive <= row.nearest for row in rows.values())
    assert rows["conv"].adaptive < 0.8 * rows["conv"].nearest
    assert rows["up"].reason == "transposed convolutions keep plain rounding"
    assert 0 < rows["conv"].turned < 0.6


def test_weights_lie_on_the_grid_next_to_the_float_ones(net: Any, solved: Any) -> None:
    for name, kernel in solved[1].items():
        layer = net.get_layer(name)
        float_kernel = layer.get_weights()[0]
        scales = weight_scales(layer, float_kernel, bits=4)
        np.testing.assert_allclose(weight_scales(layer, kernel, bits=4), scales, rtol=1e-5)  # the same grid again
        np.testing.assert_allclose(on_grid(kernel, scales, 4), kernel, rtol=1e-5, atol=1e-7)
        assert (np.abs(kernel - float_kernel) <= scales * 1.001).all()


def test_the_whole_network_comes_nearer_to_the_float_one(net: Any, solved: Any) -> None:
    plain = simulate(net, {}, weight_bits=4, activation_bits=None)
    fresh = correlated(200)[64:]
    expected = np.asarray(net(fresh))
    errors = [np.mean((np.asarray(model(fresh)) - expected) ** 2) for model in (plain, solved[0])]
    assert errors[1] < 0.7 * errors[0]


def test_same_seed_gives_same_weights(net: Any, solved: Any) -> None:
    again, _ = adaround(net, simulate(net, {}, weight_bits=4, activation_bits=None), batches, QUICK)
    assert all(np.array_equal(again[name], kernel) for name, kernel in solved[1].items())


def test_weights_on_the_grid_already_are_left(net: Any) -> None:
    gridded = simulate(net, {}, weight_bits=4, activation_bits=None)
    _, rows = adaround(gridded, simulate(gridded, {}, weight_bits=4, activation_bits=None), batches, QUICK)
    assert {row.reason for row in rows if row.layer != "up"} == {"plain rounding is exact"}
