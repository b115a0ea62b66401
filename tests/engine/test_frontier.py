"""Inputs of layers, read on one way through the graph, are those that a model cut there gives; whatever is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.frontier import Frontier

IMAGES = np.random.default_rng(0).normal(size=(7, 6, 6, 3)).astype(np.float32)
NAMES = ("stem", "left", "right", "after", "head")
STATE = 4 * 7 * 6 * 6 * 4  # bytes of the stem's output for all images


class Reads:
    """The images in batches of 4 and 3; counts how often they are read."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Iterator[dict[str, Any]]:
        self.times += 1
        return iter([{"image": IMAGES[:4]}, {"image": IMAGES[4:]}])


@pytest.fixture(scope="module")
def net() -> Any:
    """Two branches that meet, and a tensor that is read again much later."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3), name="image")
    stem = layers.ReLU()(layers.Conv2D(4, 3, padding="same", name="stem")(inputs))
    left, right = (layers.Conv2D(4, 1, name=name)(stem) for name in ("left", "right"))
    both = layers.Add()([left, right])
    after = layers.Conv2D(4, 3, padding="same", name="after")(both)
    flat = layers.GlobalAveragePooling2D()(layers.Add()([after, stem]))
    return keras.Model(inputs, layers.Dense(2, name="head")(flat))


def expected(net: Any, name: str) -> Any:
    return np.asarray(keras.Model(net.input, net.get_layer(name).input)(IMAGES))


@pytest.mark.parametrize(("kept", "reads"), [(1 << 20, 1), (STATE, 1), (0, 5)])
def test_inputs_are_those_of_the_graph_cut_there(net: Any, kept: int, reads: int) -> None:
    """With room for one tensor of the stem's size, what two branches need does not fit, and begins behind the stem;
    with room for nothing, each layer begins at the images."""
    batches = Reads()
    frontier = Frontier(net, NAMES, batches, kept_bytes=kept)
    for name in NAMES:
        found = [np.asarray(value) for value in frontier.inputs(name)]
        assert [len(value) for value in found] == [4, 3]
        np.testing.assert_allclose(np.concatenate(found), expected(net, name), rtol=1e-5, atol=1e-6)
    assert batches.times == reads


@pytest.mark.parametrize("kept", [1 << 20, 0])
def test_weights_changed_behind_the_frontier_count(net: Any, kept: int) -> None:
    twin = keras.models.clone_model(net)
    twin.set_weights(net.get_weights())
    frontier = Frontier(twin, NAMES, Reads(), kept_bytes=kept)
    for name in NAMES:
        found = np.concatenate([np.asarray(value) for value in frontier.inputs(name)])
        np.testing.assert_allclose(found, expected(twin, name), rtol=1e-5, atol=1e-6)
        layer = twin.get_layer(name)
        layer.set_weights([0.5 * weight + 0.1 for weight in layer.get_weights()])


def test_layers_may_be_left_out(net: Any) -> None:
    frontier = Frontier(net, NAMES, Reads())
    for name in ("left", "head"):
        found = np.concatenate([np.asarray(value) for value in frontier.inputs(name)])
        np.testing.assert_allclose(found, expected(net, name), rtol=1e-5, atol=1e-6)
