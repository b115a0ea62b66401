"""Flattening: the same function, no models inside, weights shared where they were."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from toolkit.engine.flatten import flatten


def scramble(model: Any) -> Any:
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 0.9, weight.shape))
    return model


def same(model: Any, flat: Any, *inputs: Any) -> None:
    given = list(inputs) if len(inputs) > 1 else inputs[0]
    for one, two in zip(keras.tree.flatten(model(given)), keras.tree.flatten(flat(given)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_transfer_model_is_flat_and_equal() -> None:
    backbone = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
    image = keras.Input((32, 32, 3))
    x = backbone(layers.Rescaling(1 / 127.5, offset=-1)(image), training=False)
    model = scramble(keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x))))
    for layer in backbone.layers:  # positive variances, so that nothing overflows
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 4.0))
    flat = flatten(model)
    assert not any(isinstance(layer, keras.Model) for layer in flat.layers)
    assert flat.count_params() == model.count_params()
    same(model, flat, np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32"))


def test_model_called_twice_stays_shared() -> None:
    tower = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="shared")])
    one, two = keras.Input((4,), name="one"), keras.Input((4,), name="two")
    model = scramble(keras.Model([one, two], layers.Subtract()([tower(one), tower(two)])))
    flat = flatten(model)
    assert flat.count_params() == 4 * 3 + 3
    assert [layer.name for layer in flat.layers].count("shared") == 1
    rng = np.random.default_rng(0)
    same(model, flat, *(rng.normal(size=(2, 4)).astype("float32") for _ in range(2)))


def test_equal_names_inside_and_outside_get_the_model_in_front() -> None:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense")], name="inner")
    image = keras.Input((4,))
    model = scramble(keras.Model(image, layers.Dense(2, name="head")(inner(layers.Dense(4, name="dense")(image)))))
    flat = flatten(model)
    assert [layer.name for layer in flat.layers[1:]] == ["dense", "inner_dense", "head"]
    same(model, flat, np.ones((2, 4), "float32"))


def test_two_outputs_keep_their_order_and_bare_operations_their_constants() -> None:
    image = keras.Input((4,), name="x")
    first, second = layers.Dense(2, name="a")(image) * 3.0 + 1.0, layers.Dense(2, name="b")(image)
    model = scramble(keras.Model(image, [second, first]))
    same(model, flatten(model), np.ones((1, 4), "float32"))


def test_input_model_is_left_as_it_was() -> None:
    model = scramble(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
    before = [np.array(weight) for weight in model.weights]
    flat = flatten(model)
    flat.layers[-1].kernel.assign(np.zeros((4, 2)))
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, weight)


def test_adapted_normalization_inside_a_nested_model_keeps_its_statistics() -> None:
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 4)).astype("float32"))
    image = keras.Input((4,))
    model = keras.Model(image, keras.Sequential([keras.Input((4,)), norm], name="inner")(image))
    same(model, flatten(model), np.full((2, 4), 5.0, "float32"))
