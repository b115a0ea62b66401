"""Centroids, who has which, and what a kernel's codebook counts: worked out by hand, and against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from toolkit.engine.clusters import as_kernel, as_rows, codebooks, most_values, nearest

VALUES = np.array([[-3.0, -1.0, -1.0, 0.0, 2.0, 4.0, 4.0, 5.0]], np.float32)


def test_linear_centroids_lie_evenly_from_least_to_largest() -> None:
    np.testing.assert_array_equal(codebooks(VALUES, 5, "linear"), [[-3, -1, 1, 3, 5]])


def test_density_centroids_are_the_middles_of_parts_of_as_many_weights() -> None:
    """Of 0 to 7, quarters are 0-1, 2-3, 4-5 and 6-7; their middles the quantiles at 1/8, 3/8, 5/8 and 7/8."""
    found = codebooks(np.arange(8, dtype=np.float32)[None], 4, "density")
    np.testing.assert_allclose(found, [[7 / 8, 21 / 8, 35 / 8, 49 / 8]])


def test_kmeans_finds_clusters_that_lie_apart_and_their_means() -> None:
    values = np.array([[0.9, 1.0, 1.1, -5.0, 7.0, 7.2]], np.float32)
    np.testing.assert_allclose(codebooks(values, 3, "kmeans"), [[-5, 1, 7.1]], rtol=1e-6)


def test_kmeans_is_a_fixed_point_no_worse_than_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    values = np.random.default_rng(1).normal(size=(1, 2000)).astype(np.float32)
    own = codebooks(values, 8, "kmeans", seed=4)
    places = nearest(values, own)
    np.testing.assert_allclose([values[places == index].mean() for index in range(8)], own[0], rtol=1e-4)
    error = np.square(values - np.take_along_axis(own, places, 1)).sum()
    theirs = cluster.KMeans(8, init=own.T, n_init=1, tol=0, random_state=0).fit(values.T)
    assert error == pytest.approx(theirs.inertia_, rel=1e-4)


def test_zero_is_a_centroid_and_each_side_has_its_share_of_the_others() -> None:
    """Of 7 weights that are not 0, 3 are negative: round(4 * 3 / 7) = 2 of the 4 others lie below."""
    np.testing.assert_array_equal(codebooks(VALUES, 5, "linear", zero=True), [[-3, -1, 0, 2, 5]])
    np.testing.assert_array_equal(codebooks(np.zeros((1, 4), np.float32), 3, "kmeans", zero=True), [[0, 0, 0]])


def test_nearest_is_the_closest_whatever_the_order_of_centroids() -> None:
    centroids = np.array([[4.0, -2.0, 1.0]], np.float32)
    np.testing.assert_array_equal(nearest(np.array([[-9.0, -0.6, -0.5, 2.4, 2.6]]), centroids), [[1, 1, 1, 2, 0]])


def test_fewer_values_than_clusters_stay_what_they_are() -> None:
    values = np.array([[1.0, 2.0, 2.0]], np.float32)
    np.testing.assert_array_equal(codebooks(values, 4, "kmeans"), [[1, 2, 2, 2]])


@given(arrays.arrays(np.float32, (2, 3, 4), elements=st.floats(-8, 8, width=32)), st.sampled_from([-1, -2]))
@settings(max_examples=25, deadline=None)
def test_rows_hold_each_channel_and_come_back(kernel: Any, axis: int) -> None:
    rows = as_rows(kernel, "channel", axis)
    for index, row in enumerate(rows):
        np.testing.assert_array_equal(np.sort(row), np.sort(np.take(kernel, index, axis).ravel()))
    for per in ("layer", "channel"):
        back = as_kernel(as_rows(kernel, per, axis), kernel.shape, per, axis)  # type: ignore[arg-type]
        np.testing.assert_array_equal(back, kernel)


def test_values_are_counted_where_they_share_a_codebook() -> None:
    kernel = np.array([[1.0, 5.0], [2.0, 6.0], [2.0, 7.0]])
    assert (most_values(kernel, "layer"), most_values(kernel, "channel", -1)) == (5, 3)
