from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from toolkit.engine import prices
from toolkit.engine.cost import cost
from toolkit.engine.graph import walk
from toolkit.engine.groups import find_groups
from toolkit.engine.surgery import remove
from toolkit.engine.widths import Rounding, for_share, width

EIGHT, ANY = Rounding(8), Rounding(1)


@pytest.mark.parametrize(
    ("size", "sparsity", "rounding", "kept"),
    [
        (32, 0.5, EIGHT, 16),
        (64, 0.5, EIGHT, 32),
        (64, 0.9, EIGHT, 8),  # never below one multiple
        (24, 0.5, EIGHT, 16),  # 12 lies between 8 and 16: the larger
        (20, 0.05, EIGHT, 20),  # 19: all 20 are nearer than 16
        (20, 0.2, EIGHT, 16),
        (8, 0.5, EIGHT, 8),  # no multiple below 8
        (4, 0.9, EIGHT, 4),
        (12, 0.3, ANY, 8),
        (10, 0.9, ANY, 1),
        (10, 0.999, ANY, 1),
        (32, 0.9, Rounding(4, least=10), 12),
        (32, 0.9, Rounding(8, least=32), 32),
    ],
)
def test_width_is_the_nearest_one_allowed(size: int, sparsity: float, rounding: Rounding, kept: int) -> None:
    assert width(size, sparsity, rounding) == kept


def dense_chain(*sizes: int) -> Any:
    x = code = keras.Input((sizes[0],))
    for number, size in enumerate(sizes[1:]):
        x = layers.Dense(size, name=f"d{number}")(x)
    return keras.Model(code, x)


def macs(model: Any) -> tuple[Any, list[Any]]:
    """What its MACs are at given widths, and the groups that may lose channels."""
    free = [group for group in find_groups(model) if not group.frozen]
    return prices.macs(walk(model), free), free


def test_for_share_lands_on_the_share_worked_out_by_hand() -> None:
    model = dense_chain(4, 32, 2)  # 4 * 32 + 32 * 2 = 192 MACs, all in proportion to the width
    found = for_share(*macs(model), 0.5, EIGHT)
    assert (found.widths, found.share) == ({"d0": 16}, 0.5)


def test_for_share_narrows_some_groups_only_when_that_comes_nearer() -> None:
    model = dense_chain(16, 16, 16, 16)  # 3 * 256 MACs; both at 8: 320; one at 8: 512
    near = for_share(*macs(model), 0.65, EIGHT)
    assert sorted(near.widths.values()) == [8, 16] and near.share == 512 / 768
    low = for_share(*macs(model), 0.1, EIGHT)
    assert set(low.widths.values()) == {8} and low.share == 320 / 768


def test_for_share_takes_single_groups_a_step_off_where_one_sparsity_jumps_over_the_share() -> None:
    """At 25% both groups of 16 would fall to 8; one that does leaves 0.574, and 0.647 with d2 whole."""
    model = dense_chain(16, 16, 16, 32, 2)  # 16 * 16 + 16 * 16 + 16 * 32 + 32 * 2 = 1088 MACs
    found = for_share(*macs(model), 0.62, EIGHT)
    assert found.widths == {"d0": 16, "d1": 8, "d2": 32}
    assert found.share == (16 * 16 + 16 * 8 + 8 * 32 + 32 * 2) / 1088


def test_price_in_macs_foretells_the_cost_after_surgery() -> None:
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, name="a")(image)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.SeparableConv2D(12, 1, name="b")(x)
    model = keras.Model(image, layers.Dense(5, name="end")(layers.Flatten()(x)))
    cut = remove(model, {"a": range(3), "b": range(5)})
    price = prices.macs(walk(model), find_groups(model))
    assert (price({"a": 5, "b": 7, "end": 5}), price({})) == (cost(cut).macs, cost(model).macs)
