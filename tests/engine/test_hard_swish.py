"""Hard-swish in fixed point is the function, to a step. (That it is LiteRT's is tested with the exact simulation.)"""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.engine.hard_swish import hard_swish_table


@pytest.mark.parametrize(
    ("taken", "given"), [((0.05, 3), (0.03, -115)), ((0.1, 0), (0.05, -120)), ((0.004, -128), (0.003, -128))]
)
def test_table_is_hard_swish_to_a_step(taken: tuple[float, int], given: tuple[float, int]) -> None:
    x = (np.arange(-128, 128) - taken[1]) * taken[0]
    exact = x * np.clip(x + 3, 0, 6) / 6 / given[0] + given[1]
    assert np.abs(hard_swish_table(taken, given) - np.clip(exact, -128, 127)).max() < 1


def test_table_passes_values_beyond_three_and_stops_those_below_minus_three() -> None:
    table = hard_swish_table((0.0625, 0), (0.0625, -64))  # steps of 1/16: 3 is 48 of them
    np.testing.assert_array_equal(table[128 + 48 :], np.arange(48, 128) - 64)
    np.testing.assert_array_equal(table[: 128 - 48], np.full(80, -64))
