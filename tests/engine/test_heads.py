"""A network to train ends in logits where it can, computes the same otherwise, and gives its weights back."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from toolkit.engine.heads import copy_weights, learner
from toolkit.engine.loss import as_logits


def ending(end: Any, units: int = 3) -> Any:
    keras.utils.set_random_seed(1)
    image = keras.Input((4,), name="x")
    return keras.Model(image, end(layers.Dense(units, name="last", kernel_initializer="random_normal")(image)))


def points(count: int = 5) -> Any:
    return np.random.default_rng(0).normal(0.0, 9.0, (count, 4)).astype("float32")


ENDS = {
    "layer": layers.Softmax(name="end"),
    "activation": layers.Activation("softmax", name="end"),
    "operation": ops.softmax,
    "reshaped": lambda x: layers.Reshape((3,))(layers.Softmax()(layers.Reshape((1, 1, 3))(x))),
}


@pytest.mark.parametrize("name", ENDS)
def test_learner_ends_in_the_logits_before_the_softmax(name: str) -> None:
    model = ending(ENDS[name])
    found = learner(model, "softmax")
    kernel, bias = (np.asarray(weight) for weight in model.get_layer("last").weights)
    assert found.head == "logits"
    np.testing.assert_allclose(found.graph(points()), points() @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_learner_drops_the_activation_inside_the_last_layer() -> None:
    image = keras.Input((4,))
    model = keras.Model(image, layers.Dense(1, activation="sigmoid", name="last")(image))
    found = learner(model, "sigmoid")
    kernel, bias = (np.asarray(weight) for weight in model.get_layer("last").weights)
    assert (found.head, model.get_layer("last").activation.__name__) == ("logits", "sigmoid")
    np.testing.assert_allclose(found.graph(points()), points() @ kernel + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("why", ["another reader", "used twice", "not an activation we know"])
def test_learner_keeps_probabilities_where_the_activation_is_needed(why: str) -> None:
    image, soft = keras.Input((3,)), layers.Softmax(name="soft")
    if why == "another reader":
        middle = soft(image)
        end = layers.Identity()(layers.Reshape((3,), name="out")(middle))
        model = keras.Model(image, layers.Identity()(end) * 1.0 + 0.0 * middle)
    elif why == "used twice":
        model = keras.Model(image, soft(soft(image)))
    else:
        model = keras.Model(image, ops.exp(image) / ops.sum(ops.exp(image), axis=-1, keepdims=True))
    found, given = learner(model, "softmax"), points()[:, :3] / 9
    assert found.head == "softmax"
    np.testing.assert_allclose(found.graph(given), model(given), rtol=1e-5)
    rows = as_logits(found.graph(given), "softmax").numpy()
    np.testing.assert_allclose(np.exp(rows), model(given), rtol=1e-4)


def test_learner_trains_frozen_layers_and_lets_random_image_layers_through() -> None:
    x = image = keras.Input((8, 8, 1))
    for layer in (layers.RandomFlip(), layers.RandomRotation(0.5), layers.RandomTranslation(0.5, 0.5)):
        x = layer(x)
    frozen = layers.Dense(2, trainable=False, name="frozen")
    model = keras.Model(image, frozen(layers.Flatten()(x)))
    found = learner(model, "logits").graph
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(found(images, training=True), model(images, training=False), rtol=1e-5)
    assert len(found.trainable_variables) == 2 and not frozen.trainable


@pytest.mark.parametrize(("steps", "momentum"), [(0, 0.99), (5, 0.9), (20, 0.95), (1000, 0.99)])
def test_learner_averages_batch_statistics_over_an_epoch_at_most(steps: int, momentum: float) -> None:
    image = keras.Input((4,))
    model = keras.Model(image, layers.BatchNormalization(name="norm")(image))
    assert learner(model, "logits", steps).graph.get_layer("norm").momentum == pytest.approx(momentum)


def test_copy_weights_brings_back_what_was_learned() -> None:
    model = ending(layers.Softmax())
    found = learner(model, "softmax").graph
    found.set_weights([weight + 1.0 for weight in found.get_weights()])
    before = model.get_weights()
    copy_weights(found, model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old + 1.0, new)
