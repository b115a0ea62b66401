"""Rows come back as they were given, from memory and from disk."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.engine.hold import hold


@pytest.mark.parametrize(
    ("limit", "where"), [(10 * 3 * 4, "in memory (0.0 MiB)"), (10 * 3 * 4 - 1, "in a temporary file (0.0 MiB)")]
)
def test_hold_keeps_all_rows_in_order(limit: int, where: str) -> None:
    rows = np.arange(30, dtype=np.float64).reshape(10, 3)
    held = hold(iter([rows[:4], rows[4:8], rows[8:]]), 10, limit)
    assert held.where == where and held.rows.dtype == np.float32
    assert isinstance(held.rows, np.memmap) == ("file" in where)
    np.testing.assert_array_equal(held.rows, rows)
    np.testing.assert_array_equal(held.rows[[1, 9]], rows[[1, 9]])


def test_hold_refuses_another_number_of_rows_than_announced() -> None:
    with pytest.raises(ValueError, match="10 rows were announced, 4 came"):
        hold(iter([np.zeros((4, 3))]), 10)
