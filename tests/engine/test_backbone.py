"""A backbone is its network up to the last feature map, whatever stood behind; a head is put on it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.backbone import Head, features, last_layers, small, transferred, untrained
from toolkit.errors import InputError


def ending(end: str, shape: tuple[int | None, ...] = (8, 8, 3)) -> Any:
    """conv1, bn1, a shortcut around conv2, and some end."""
    keras.utils.set_random_seed(0)
    image = keras.Input(shape, name="photo")
    x = layers.BatchNormalization(name="bn1")(layers.Conv2D(4, 3, padding="same", name="conv1")(image))
    x = layers.Add(name="map")([x, layers.Conv2D(4, 3, padding="same", name="conv2")(x)])
    if end == "pooled":
        x = layers.Dense(5, name="answer")(layers.GlobalAveragePooling2D()(x))
    elif end == "pooled, then convolved":
        x = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = layers.Reshape((5,))(layers.Conv2D(5, 1, name="answer")(layers.Dropout(0.1)(x)))
    elif end == "average of all":
        x = layers.Dense(5, name="answer")(layers.Flatten()(layers.AveragePooling2D(8)(x)))
    elif end == "flattened":
        x = layers.Dense(5, name="answer")(layers.Flatten()(x))
    return keras.Model(image, layers.Softmax()(x))


@pytest.mark.parametrize("end", ["pooled", "pooled, then convolved", "average of all", "flattened"])
def test_features_are_the_last_map_before_the_end(end: str) -> None:
    model = ending(end)
    before = [weight.copy() for weight in model.get_weights()]
    found = features(model, (8, 8, 3), "file")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    wanted = keras.Model(model.inputs[0], model.get_layer("map").output)(images)
    np.testing.assert_array_equal(found(images), wanted)
    found.set_weights([weight + 1 for weight in found.get_weights()])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_features_take_another_size() -> None:
    found = features(ending("pooled"), (12, 10, 3), "file")
    assert tuple(found.inputs[0].shape) == (None, 12, 10, 3) and tuple(found.outputs[0].shape) == (None, 12, 10, 4)


def test_layers_that_know_their_size_refuse_another() -> None:
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(2, 1)(layers.Reshape((8, 8, 3))(layers.Flatten()(image)))
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(InputError, match=r"file: cannot take images of 9 x 9: .* Fix: give the size it was made for"):
        features(model, (9, 9, 3), "file")


def test_what_is_no_backbone_is_one_line() -> None:
    image = keras.Input((4,))
    with pytest.raises(InputError, match="does not take one image"):
        features(keras.Model(image, layers.Dense(2)(image)), (8, 8, 3), "file")
    with pytest.raises(InputError, match=r"images of 3 channels, the data's contract gives 1"):
        features(ending("pooled"), (8, 8, 1), "file")
    flat = keras.Input((4, 4, 3))
    with pytest.raises(InputError, match="has no feature map"):
        features(keras.Model(flat, layers.Dense(2)(layers.Flatten()(flat))), (4, 4, 3), "file")


@pytest.mark.parametrize(
    ("meaning", "activation"),
    [("softmax", "softmax"), ("logits", "linear"), ("sigmoids", "sigmoid"), ("regression", "linear")],
)
def test_head_is_pooling_dropout_and_one_dense_layer(meaning: str, activation: str) -> None:
    network = transferred(features(ending("pooled"), (8, 8, 3), "file"), Head(3, meaning, 0.3, 0.01))
    pool, dropout, last = network.graph.layers[-3:]
    assert (pool.name, dropout.rate, last.units) == ("pool", 0.3, 3)
    assert (last.activation.__name__, float(last.kernel_regularizer.l2)) == (activation, pytest.approx(0.01))
    assert network.backbone == ("conv1", "bn1", "conv2", "map")


def test_last_layers_are_those_with_weights_but_for_batch_normalization() -> None:
    network = transferred(features(ending("pooled"), (8, 8, 3), "file"), Head(3))
    assert last_layers(network, 1) == {"conv2"} and last_layers(network, 9) == {"conv1", "conv2"}
    assert last_layers(network, 0) == frozenset()


def test_small_network_doubles_its_width_and_halves_its_map() -> None:
    network = small((8, 8, 1), Head(10, dropout=0.0), width=4, depth=3)
    shapes = [tuple(network.graph.get_layer(f"relu{i}").output.shape[1:]) for i in (1, 2, 3)]
    assert shapes == [(8, 8, 4), (4, 4, 8), (2, 2, 16)] and not network.backbone
    # 3x3 kernels without bias, four numbers a channel of BatchNormalization, a dense layer
    assert network.graph.count_params() == 9 * (4 + 4 * 8 + 8 * 16) + 4 * (4 + 8 + 16) + 16 * 10 + 10


def test_unknown_application_and_size_are_one_line() -> None:
    with pytest.raises(InputError, match=r"has no 'MobileNetV9'\. Fix: did you mean 'MobileNetV"):
        untrained("MobileNetV9", (32, 32, 3), "train")
    with pytest.raises(InputError, match="refuses images of"):
        untrained("MobileNetV2", (8, 8, 3), "train")
