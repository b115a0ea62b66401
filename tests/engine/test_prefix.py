"""A network cut in two computes what it computed; the cut is the last one before anything learns."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.graph import walk
from toolkit.engine.prefix import last_waist, still_part


@pytest.fixture(scope="module")
def residual() -> Any:
    """conv1, then a block (conv2, conv3 beside a shortcut), pooling, dropout, dense."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="conv1")(image)
    y = layers.Conv2D(4, 3, padding="same", name="conv2")(x)
    y = layers.Conv2D(4, 3, padding="same", name="conv3")(y)
    x = layers.Add(name="add")([x, y])
    x = layers.Dropout(0.5, name="dropout")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(image, layers.Dense(2, name="classes")(x))


@pytest.mark.parametrize(
    ("frozen", "shape"),
    [
        ({"conv1", "conv2", "conv3"}, (None, 4)),  # behind the pooling: the dropout is chance
        ({"conv1", "conv2"}, (None, 8, 8, 4)),  # behind conv1: what conv2 gives is not all that is read later
        ({"conv1", "conv2", "conv3", "dropout"}, (None, 4)),
    ],
)
def test_still_part_is_the_longest_and_both_parts_compute_the_whole(
    residual: Any, frozen: set[str], shape: tuple[Any, ...]
) -> None:
    parts = still_part(residual, frozen)
    assert parts is not None
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
    between = parts[0](images)
    assert tuple(parts[0].outputs[0].shape) == shape
    np.testing.assert_array_equal(parts[1](between), residual(images))
    assert parts[1].get_layer("classes") is residual.get_layer("classes")


def test_nothing_is_still_where_the_first_layer_learns(residual: Any) -> None:
    assert still_part(residual, {"conv2", "conv3"}) is None


def test_waist_is_what_all_of_the_output_comes_from(residual: Any) -> None:
    graph = walk(residual)
    edge = last_waist(graph, lambda call: call.name in ("conv1", "conv2", "conv3"))
    assert edge is not None and graph.calls[edge.call].name == "conv1"
