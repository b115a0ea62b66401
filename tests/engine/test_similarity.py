"""Nearest neighbours and cosines, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.engine import similarity


def test_nearest_is_by_direction_not_length() -> None:
    vectors = np.array([[1.0, 0.0], [100.0, 10.0], [0.9, 0.8], [0.0, 0.1]])
    assert similarity.neighbours(vectors).nearest.tolist() == [1, 0, 1, 2]


def test_equal_vectors_tie_and_the_lowest_index_is_nearest() -> None:
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(3, 33)), 200, axis=0)  # three bundles, more than one block of rows
    found = similarity.neighbours(vectors)
    assert found.nearest.tolist() == [1, *[0] * 199, 201, *[200] * 199, 401, *[400] * 199]
    assert found.ties == 600


def test_one_vector_has_no_neighbour_and_zeros_are_far_from_all() -> None:
    assert similarity.neighbours(np.ones((1, 3))).nearest.tolist() == [-1]
    found = similarity.neighbours(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1]]))
    assert found.nearest.tolist() == [1, 2, 1]


def test_cosines_of_half_and_opposite_directions() -> None:
    found = similarity.cosines([[1.0, 0.0], [1.0, 1.0]], [[1.0, np.sqrt(3)], [-2.0, -2.0]])
    assert found == pytest.approx([0.5, -1])
