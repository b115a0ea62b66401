from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine import prices
from toolkit.engine.cost import cost
from toolkit.engine.graph import walk
from toolkit.engine.groups import Group, find_groups
from toolkit.engine.prices import Price
from toolkit.engine.surgery import remove


@pytest.fixture(scope="module")
def model() -> Any:
    """A residual block, a depthwise and a transposed convolution, a concatenation, a shared layer and Flatten."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(12, 3, padding="same", name="a")(image)
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(12, 3, padding="same", name="b")(x))
    x = layers.Add()([x, y])
    x = layers.DepthwiseConv2D(3, strides=2, name="depthwise")(x)
    both = layers.Concatenate()([layers.Conv2D(6, 1, name="left")(x), layers.Conv2D(8, 1, name="right")(x)])
    shared = layers.Conv2D(14, 1, name="shared")
    x = shared(shared(both)) if both.shape[-1] == 14 else both
    x = layers.Conv2DTranspose(5, 2, strides=2, name="up")(x)
    return keras.Model(image, layers.Dense(4, name="end")(layers.Flatten()(x)), name="odd")


@pytest.fixture(scope="module")
def free(model: Any) -> list[Group]:
    return [group for group in find_groups(model) if not group.frozen]


def test_prices_foretell_the_costs_after_surgery(model: Any, free: list[Group]) -> None:
    graph, random = walk(model), np.random.default_rng(0)
    macs, parameters, channels = prices.macs(graph, free), prices.parameters(graph, free), prices.channels(free)
    assert (macs({}), parameters({})) == (cost(model).macs, cost(model).parameters)
    for _ in range(4):
        gone = {group.id: random.permutation(group.size)[: random.integers(1, group.size)] for group in free}
        widths = {group.id: group.size - len(gone[group.id]) for group in free}
        found = cost(remove(model, gone))
        assert (macs(widths), parameters(widths)) == (found.macs, found.parameters)
        assert channels(widths) == sum(widths.values())


def test_saved_is_the_difference_that_a_step_of_one_group_makes(model: Any, free: list[Group]) -> None:
    price = prices.macs(walk(model), free)
    widths = {group.id: group.size - 1 for group in free}
    steps = {group.id: 2 for group in free[1:]}
    expected = {name: price(widths) - price({**widths, name: widths[name] - 2}) for name in steps}
    assert price.saved(widths, steps) == pytest.approx(expected)


def test_price_by_hand() -> None:
    # 3 * (4 - gone of x) * (5 - 2 * gone of y) + 7
    price = Price(
        names=("x", "y"),
        sizes=np.array([4.0, 2.0]),
        fixed=7.0,
        times=np.array([3.0]),
        lengths=np.array([[4.0, 5.0]]),
        tiles=np.array([[1.0, 1.0]]),
        per_channel=np.array([[[1.0, 0.0], [0.0, 2.0]]]),
    )
    assert (price({}), price({"x": 3}), price({"x": 3, "y": 1})) == (67.0, 52.0, 34.0)
    assert price.saved({}, {"x": 2, "y": 1}) == {"x": 30.0, "y": 24.0}


def test_macs_are_counted_up_to_whole_tiles_of_the_channels_made(model: Any, free: list[Group]) -> None:
    tiled, plain = prices.macs(walk(model), free, 8), prices.macs(walk(model), free)
    # a: 3 -> 12 and b: 12 -> 12 on 8x8, kernels of 3x3; depthwise: 12 on 3x3; left, right: 12 -> 6, 8, shared (twice):
    # 14 -> 14 on 3x3; up: 14 -> 5, its 2x2 at 3x3 places; end: 180 -> 4. In tiles of 8, 12 made are 16, 6 and 5 are 8
    same = 64 * 27 * 12 + 64 * 108 * 12 + 9 * 9 * 12 + 9 * 12 * (6 + 8) + 2 * 9 * 14 * 14 + 9 * 4 * 14 * 5 + 180 * 4
    more = 64 * 27 * 16 + 64 * 108 * 16 + 9 * 9 * 16 + 9 * 12 * (8 + 8) + 2 * 9 * 14 * 16 + 9 * 4 * 14 * 8 + 180 * 8
    assert (plain({}), tiled({})) == (same, more)
    # a channel less of what a and b make empties no tile; b, left and right read one less
    name = next(group.id for group in free if "a" in group.producers)
    assert tiled.saved({}, {name: 1}) == {name: 64 * 9 * 16 + 9 * (8 + 8)}
    assert tiled.saved({}, {name: 4})[name] == tiled({}) - tiled({name: 8})
