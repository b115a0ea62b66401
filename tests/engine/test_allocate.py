from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine import prices
from toolkit.engine.allocate import Tiled, allocate, smallest, weakest, widths_after
from toolkit.engine.graph import walk
from toolkit.engine.groups import Group, find_groups
from toolkit.engine.widths import Rounding, for_share

ONE = Rounding(1)


def chain(*sizes: int) -> tuple[Any, list[Group]]:
    """A graph of dense layers d0, d1, ...: d0 makes sizes[1] channels. Only the last must keep its own."""
    x = code = keras.Input((sizes[0],))
    for number, size in enumerate(sizes[1:]):
        x = layers.Dense(size, name=f"d{number}")(x)
    model = keras.Model(code, x)
    return walk(model), list(find_groups(model))


def scores(**rows: Any) -> dict[str, Any]:
    return {name: np.array(row, np.float64) for name, row in rows.items()}


def test_global_takes_the_least_score_for_what_it_saves() -> None:
    # 2 * a + a * b + b * 2 MACs with a = b = 4: 32. A channel of either saves 6 at first.
    graph, groups = chain(2, 4, 4, 2)
    given = scores(d0=[9, 1, 9, 2], d1=[3, 9, 9, 9])
    # 1 of d0 (32 -> 26), then d0's 2 (saves 6) before d1's 3 (saves 5): 20
    gone = allocate(graph, groups, given, 20 / 32, ranking="global", rounding=ONE)
    assert {name: rows.tolist() for name, rows in gone.items()} == {"d0": [1, 3]}
    # next: d1's 3 saves 4, d0's 9 saves 6: 0.75 against 1.5
    gone = allocate(graph, groups, given, 16 / 32, ranking="global", rounding=ONE)
    assert {name: rows.tolist() for name, rows in gone.items()} == {"d0": [1, 3], "d1": [0]}


def test_global_weighs_a_step_by_what_it_saves() -> None:
    # 100 inputs make d0 dear: a channel of it saves 104, one of d1 only 5; the scores alone would take d1 first
    graph, groups = chain(100, 4, 4, 1)
    gone = allocate(graph, groups, scores(d0=[2] * 4, d1=[1] * 4), 0.8, ranking="global", rounding=ONE)
    assert set(gone) == {"d0"}


def test_global_does_not_end_far_off_where_small_steps_lead_nearer() -> None:
    # 10 * 2 + 2 * 8 + 8 = 44 MACs, 12 too many. Either channel of d0 costs least for what it saves, but saves 18 and
    # would end 6 off (14% of the whole), one of d1 saves 3 and would be 9 off: four of d1 come there
    graph, groups = chain(10, 2, 8, 1)
    given = scores(d0=[1, 1], d1=[1, 2, 3, 4, 5, 6, 7, 8])
    gone = allocate(graph, groups, given, 32 / 44, ranking="global", rounding=ONE)
    assert {name: rows.tolist() for name, rows in gone.items()} == {"d1": [0, 1, 2, 3]}


def test_global_goes_in_steps_of_the_multiple_and_lands_nearest() -> None:
    graph, groups = chain(16, 32, 32, 16)
    whole = 16 * 32 + 32 * 32 + 32 * 16
    given = scores(d0=np.arange(32), d1=np.arange(32) + 1)
    for share in (0.3, 0.5, 0.7):
        gone = allocate(graph, groups, given, share, ranking="global", rounding=Rounding(8))
        left = widths_after(groups, gone)
        assert left["d0"] % 8 == left["d1"] % 8 == 0
        a, b = left["d0"], left["d1"]
        reached = 16 * a + a * b + b * 16
        further = min(abs(16 * x + x * y + y * 16 - share * whole) for x, y in ((a - 8, b), (a, b - 8)) if min(x, y))
        assert abs(reached - share * whole) <= further


def test_global_leaves_what_rounding_says() -> None:
    graph, groups = chain(16, 40, 40, 16)
    given = scores(d0=np.zeros(40), d1=np.ones(40))
    for rounding, least in ((Rounding(8), 8), (Rounding(8, least=20), 24), (Rounding(1, share=0.3), 12)):
        gone = allocate(graph, groups, given, 0.01, ranking="global", rounding=rounding)
        assert widths_after(groups[:2], gone) == {"d0": least, "d1": least}
        price = prices.macs(graph, groups)
        assert smallest(groups, price, rounding) == price({"d0": least, "d1": least}) / price({})


@pytest.mark.parametrize("ranking", ["local", "global"])
def test_allocate_leaves_frozen_groups_and_all_channels_where_nothing_must_go(ranking: Any) -> None:
    graph, groups = chain(16, 32, 16)
    assert [group.frozen != "" for group in groups] == [False, True]
    assert allocate(graph, groups, scores(d0=np.arange(32)), 1.0, ranking=ranking) == {}


def test_local_takes_the_widths_of_one_sparsity_and_the_weakest_channels() -> None:
    graph, groups = chain(16, 32, 32, 16)
    given = scores(d0=np.arange(32)[::-1], d1=np.arange(32))
    gone = allocate(graph, groups, given, 0.5, rounding=Rounding(8))
    assert (
        widths_after(groups[:2], gone) == for_share(prices.macs(graph, groups[:2]), groups[:2], 0.5, Rounding(8)).widths
    )
    assert gone["d0"].max() == 31 and gone["d1"].min() == 0


def test_cost_can_be_parameters_or_channels() -> None:
    graph, groups = chain(2, 8, 8, 2)
    given = scores(d0=np.arange(8), d1=np.arange(8))
    free = groups[:2]
    for price in (prices.parameters(graph, free), prices.channels(free)):
        for ranking in ("local", "global"):
            gone = allocate(graph, groups, given, 0.5, ranking=ranking, cost=price, rounding=ONE)  # type: ignore[arg-type]
            assert price(widths_after(free, gone)) / price({}) == pytest.approx(0.5, abs=0.07)


def test_weakest_takes_the_lowest_and_among_equals_the_first() -> None:
    assert weakest(np.array([0.5, 0.1, 0.3, 0.1, 0.1]), 2).tolist() == [1, 3]
    assert weakest(np.array([0.5, 0.1, 0.3]), 2).tolist() == [1, 2]
    assert weakest(np.array([0.5, 0.1]), 0).tolist() == []


def test_global_weighs_steps_by_tiles_and_looks_on_to_where_one_is_emptied() -> None:
    # 16 a + a b + 16 b MACs with a = b = 32: 2048. Kernels that make 16 channels at once compute 24 made as 32:
    #   8 of d0 (score 8) save 384 MACs, of tiles 256: 0.021, 0.031    16 of d0 (40) save 768 of either: 0.052
    #   8 of d1 (score 10) save 384 MACs, of tiles 128: 0.026, 0.078   16 of d1 (22) save 768 of either: 0.029
    graph, groups = chain(16, 32, 32, 16)
    given = scores(d0=[9] * 16 + [4] * 8 + [1] * 8, d1=[9] * 16 + [1.5] * 8 + [1.25] * 8)
    tiled = Tiled(prices.macs(graph, groups[:2], 16), 16)
    for by, left in ((None, {"d0": 24, "d1": 24}), (tiled, {"d0": 32, "d1": 16})):
        gone = allocate(graph, groups, given, 0.62, ranking="global", tiled=by)
        assert widths_after(groups[:2], gone) == left
    # a tile no wider than the steps changes nothing
    tiled = Tiled(prices.macs(graph, groups[:2], 8), 8)
    assert widths_after(groups[:2], allocate(graph, groups, given, 0.62, ranking="global", tiled=tiled))["d0"] == 24
