"""Blocks are found where the papers have them, and a network without some is the one built without them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.blocks import find_blocks, spread, without


def convolution(x: Any, channels: int, name: str, strides: int = 1) -> Any:
    return layers.Conv2D(channels, 3, strides, padding="same", name=name)(x)


def residual_net(skip: tuple[str, ...] = ()) -> Any:
    """Stem, blocks a and b of 4 channels, block c with a projection to 8, block d of 8; any of them may be left out."""
    x = image = keras.Input((8, 8, 1), name="photo")
    x = layers.ReLU(name="stem_relu")(convolution(x, 4, "stem"))
    for name, channels in (("a", 4), ("b", 4), ("c", 8), ("d", 8)):
        if name in skip:
            continue
        strides, before = (2, layers.Conv2D(8, 1, 2, name="project")(x)) if name == "c" else (1, x)
        inner = layers.BatchNormalization(name=f"{name}_bn")(convolution(x, channels, f"{name}_1", strides))
        inner = convolution(layers.ReLU(name=f"{name}_relu")(inner), channels, f"{name}_2")
        x = layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([before, inner]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="answer")(x))


def test_residual_blocks_without_a_projection_are_found() -> None:
    found = find_blocks(residual_net())
    assert [block.layers[0] for block in found] == ["a_1", "b_1", "d_1"]
    assert all(block.residual for block in found)
    assert set(found[1].layers) == {"b_1", "b_bn", "b_relu", "b_2", "b_add", "b_out"}
    assert [block.shape for block in found] == [(None, 8, 8, 4), (None, 8, 8, 4), (None, 4, 4, 8)]


def test_network_without_blocks_is_the_one_built_without_them() -> None:
    keras.utils.set_random_seed(0)
    model = residual_net()
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype("float32")
    before = np.asarray(model(images))
    _, block, last = find_blocks(model)
    found, expected = without(model, (block, last)), residual_net(skip=("b", "d"))
    assert {layer.name for layer in found.layers} == {layer.name for layer in expected.layers}
    for layer in expected.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    np.testing.assert_allclose(found(images), expected(images), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(model(images), before)
    assert found.inputs[0].name == "photo" and not np.allclose(found(images), before, atol=1e-4)


def test_activation_behind_the_addition_stays_when_the_block_read_something_else() -> None:
    """Behind a pre-activation network (ResNetV2) stand a normalization and an activation for all its blocks."""
    x = image = keras.Input((8, 8, 1))
    x = convolution(x, 4, "stem")
    for name in "ab":
        inner = layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(x))
        x = layers.Add(name=f"{name}_add")([x, convolution(inner, 4, f"{name}_1")])
    x = layers.ReLU(name="post_relu")(layers.BatchNormalization(name="post_bn")(x))
    model = keras.Model(image, layers.Dense(2, name="answer")(layers.Flatten(name="flat")(x)))
    blocks = find_blocks(model)
    assert [set(block.layers) for block in blocks] == [{f"{n}_bn", f"{n}_relu", f"{n}_1", f"{n}_add"} for n in "ab"]
    left = [layer.name for layer in without(model, blocks).layers[1:]]
    assert left == ["stem", "post_bn", "post_relu", "flat", "answer"]


@pytest.mark.parametrize(("behind", "goes"), [(6.0, True), (None, False)])
def test_activation_behind_the_addition_goes_when_the_block_read_the_same_one(behind: float | None, goes: bool) -> None:
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, padding="same", activation="relu6", name="stem")(image)
    x = layers.Add(name="add")([x, convolution(x, 4, "conv")])
    x = layers.ReLU(behind, name="out")(x)
    (block,) = find_blocks(keras.Model(image, layers.Dense(2)(layers.Flatten()(x))))
    assert block.layers == (("conv", "add", "out") if goes else ("conv", "add"))


def test_repeats_of_one_layer_and_of_two_are_found() -> None:
    """VGG repeats a convolution, MobileNet a depthwise and a pointwise one."""
    x = image = keras.Input((8, 8, 4))
    for number in range(3):
        x = layers.ReLU(name=f"relu{number}")(convolution(x, 4, f"conv{number}"))
    for number in range(3):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name=f"deep{number}")(x)
        x = layers.Conv2D(4, 1, activation="relu", name=f"point{number}")(x)
    model = keras.Model(image, layers.Dense(2, name="answer")(layers.Flatten(name="flat")(x)))
    found = find_blocks(model)
    assert [block.layers for block in found] == [
        *(("conv1", "relu1"), ("conv2", "relu2"), ("deep1", "point1"), ("deep2", "point2"))
    ]
    assert not any(block.residual for block in found)
    left = [layer.name for layer in without(model, found).layers[1:]]
    assert left == ["conv0", "relu0", "deep0", "point0", "flat", "answer"]


def test_no_block_where_settings_or_shapes_differ() -> None:
    x = image = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", dilation_rate=2)(x)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.Conv2D(4, 3, activation="relu")(x)  # valid padding: the map shrinks
    assert find_blocks(keras.Model(image, layers.Flatten()(x))) == ()


@pytest.mark.parametrize(("count", "keep", "expected"), [(4, 2, (1, 3)), (5, 2, (2, 4)), (3, 0, ()), (2, 2, (0, 1))])
def test_blocks_that_stay_are_evenly_spread(count: int, keep: int, expected: tuple[int, ...]) -> None:
    assert spread(count, keep) == expected


def test_mobilenet_v2_has_the_residual_blocks_of_its_paper() -> None:
    """Sandler et al. 2018 (arXiv:1801.04381), table 2: n of 1, 2, 3, 4, 3, 3, 1 bottlenecks, all but the first add."""
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=3)
    found = find_blocks(model)
    assert len(found) == 10 and all(block.residual for block in found)
    adds = [layer.name for layer in without(model, found).layers if "add" in layer.name]
    assert adds == []
