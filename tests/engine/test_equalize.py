"""Equalization leaves what the graph computes, and evens the ranges that share one scale."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.chains import find_pairs
from toolkit.engine.channel_values import channel_peaks
from toolkit.engine.equalize import equalize, peak_layers

IMAGES = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype(np.float32)


def uneven(model: Any) -> Any:
    """Output channels of every layer scaled by 0.03 to 30."""
    generator = np.random.default_rng(1)
    for layer in model.layers:
        if layer.get_weights():
            kernel, *bias = layer.get_weights()
            if isinstance(layer, layers.DepthwiseConv2D):
                factor = np.exp(generator.uniform(-3.5, 3.5, kernel.shape[2:]))
            else:
                factor = np.exp(generator.uniform(-3.5, 3.5, kernel.shape[-1]))
            layer.set_weights([kernel * factor, *(generator.normal(0, 0.3, b.shape) for b in bias)])
    return model


def chain(activation: str = "relu") -> Any:
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Activation(activation, name="a1")(layers.Conv2D(6, 3, name="conv")(x))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Activation(activation, name="a2")(layers.DepthwiseConv2D(3, depth_multiplier=2, name="deep")(x))
    x = layers.MaxPooling2D()(x)
    x = layers.Activation(activation, name="a3")(layers.Conv2D(5, 1, use_bias=False, name="point")(x))
    x = layers.Flatten()(x)
    return uneven(keras.Model(inputs, layers.Dense(4, name="head")(x)))


def peaks_of(model: Any) -> dict[str, Any]:
    return channel_peaks(model, peak_layers(model), lambda: [{"image": IMAGES[:10]}, {"image": IMAGES[10:]}])


def evened_by(model: Any, **how: Any) -> tuple[Any, Any]:
    found = equalize(model, **how)
    return found.graph, found.rows


def test_channel_peaks_are_the_largest_values_over_all_batches() -> None:
    model = chain()
    found = np.abs(np.asarray(keras.Model(model.input, model.get_layer("a2").output)(IMAGES))).max(axis=(0, 1, 2))
    np.testing.assert_allclose(peaks_of(model)["a2"], found, rtol=1e-5)


def test_pairs_are_found_through_activations_pools_and_flatten() -> None:
    pairs, broken = find_pairs(chain())
    assert [(p.first, p.second, p.repeats) for p in pairs] == [
        ("conv", "deep", 1),
        ("deep", "point", 1),
        ("point", "head", 9),
    ]
    assert [item.layer for item in broken] == ["head"]


def test_equalized_weights_compute_the_same_in_even_ranges() -> None:
    model = chain()
    evened, rows = evened_by(model)
    expected = np.asarray(model(IMAGES))
    assert np.abs(np.asarray(evened(IMAGES)) - expected).max() <= 1e-5 * np.abs(expected).max()
    for first, second in (("conv", "deep"), ("deep", "point")):  # r1 = r2 = sqrt(r1 * r2) in every channel
        one, two = (evened.get_layer(name).get_weights()[0] for name in (first, second))
        left = np.abs(one).max(axis=(0, 1)).ravel() if first == "deep" else np.abs(one).max(axis=(0, 1, 2))
        right = np.abs(two).max(axis=(0, 1, 3))
        np.testing.assert_allclose(left, right, rtol=0.01)
    assert all(row.after < row.before for row in rows if row.second == "point")
    assert rows[-1].reason == "head is an output of the model"


def test_two_layers_are_scaled_by_the_papers_factor() -> None:
    inputs = keras.Input((1, 1, 1))
    x = layers.Conv2D(2, 1, name="first")(inputs)
    model = keras.Model(inputs, layers.Conv2D(1, 1, name="second")(layers.ReLU()(x)))
    model.get_layer("first").set_weights([np.array([[[[8.0, -1.0]]]]), np.array([4.0, 1.0])])
    model.get_layer("second").set_weights([np.array([[[[2.0], [4.0]]]]), np.array([0.5])])
    evened, _ = evened_by(model)  # s = sqrt(8 * 2) / 2 = 2 and sqrt(1 * 4) / 4 = 0.5
    kernel, bias = evened.get_layer("first").get_weights()
    assert kernel.ravel().tolist() == pytest.approx([4, -2])
    assert bias.tolist() == pytest.approx([2, 2])
    assert evened.get_layer("second").get_weights()[0].ravel().tolist() == pytest.approx([4, 2])


def test_relu6_is_skipped_with_its_reason_when_activations_are_not_known() -> None:
    model = chain("relu6")
    evened, rows = evened_by(model)
    assert evened is model
    assert "a1 clips at 6: not scale-equivariant" in [row.reason for row in rows]


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_relu6_is_exact_on_the_images_that_were_measured(granularity: Any) -> None:
    model = chain("relu6")
    peaks = peaks_of(model)
    assert any((peak >= 6).any() for peak in peaks.values())  # some channels clip
    evened, rows = evened_by(model, peaks=peaks, granularity=granularity)
    expected = np.asarray(model(IMAGES))
    assert np.abs(np.asarray(evened(IMAGES)) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert any(row.after < 0.9 * row.before for row in rows)


def test_activations_before_a_depthwise_layer_get_one_range_for_all_channels() -> None:
    model = chain()
    evened, _ = evened_by(model, peaks=peaks_of(model), granularity="per_channel")
    before, after = peaks_of(model), peaks_of(evened)
    name = next(iter(before))
    alive = before[name] > 0
    np.testing.assert_allclose(after[name][alive], before[name].max(), rtol=1e-3)


def test_per_channel_weights_without_measured_activations_stay() -> None:
    model = chain()
    evened, rows = evened_by(model, granularity="per_channel")
    assert evened is model
    assert all(row.reason for row in rows)


def test_branches_swish_and_shared_layers_are_named() -> None:
    x = inputs = keras.Input((8, 8, 3))
    twice = layers.Conv2D(3, 1, name="twice")
    x = twice(twice(x))
    split = layers.Conv2D(3, 1, name="split")(x)
    other = layers.Activation("swish", name="swish")(layers.Conv2D(3, 1, name="smooth")(split))
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="last")(layers.Add(name="add")([split, other])))
    _, broken = find_pairs(model)
    reasons = {item.layer: item.reason for item in broken}
    assert reasons["twice"] == "twice is used more than once"
    assert reasons["split"] == "several layers read split"
    assert reasons["smooth"] == "swish (silu) does not commute with a factor"
