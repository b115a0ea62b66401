"""Centroids get the sum of their weights' gradients, kernels are made of them, and zeros and factors stay."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.codebook import Codebook
from toolkit.engine.clusters import Sharing
from toolkit.engine.weight_sharing import SharedWeights
from toolkit.errors import UnsupportedError

KERNEL = np.array([[1.0, 2.0], [1.2, 2.2]], np.float32)
GRADIENT = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)


def dense(kernel: Any) -> Any:
    image = keras.Input((kernel.shape[0],), name="image")
    graph = keras.Model(image, layers.Dense(kernel.shape[1], use_bias=False, name="dense")(image))
    graph.get_layer("dense").kernel.assign(kernel)
    return graph


def kernel_of(graph: Any) -> Any:
    return np.asarray(graph.get_layer("dense").kernel)


def values(tensors: Any) -> list[Any]:
    return [np.asarray(tensor) for tensor in tensors]


def test_a_centroid_gets_the_sum_of_its_weights_gradients_and_a_free_weight_its_own() -> None:
    graph = dense(KERNEL)
    shared = SharedWeights(graph, Sharing({"dense": Codebook(2)}))
    np.testing.assert_allclose(kernel_of(graph), [[1.1, 2.1], [1.1, 2.1]])
    centroids, free = values(shared.gradients(graph.trainable_variables, [GRADIENT]))
    np.testing.assert_array_equal(centroids, [[4, 7]])
    np.testing.assert_array_equal(free, [[1, 2, 3, 5]])
    assert [tuple(x.shape) for x in shared.instead(graph.trainable_variables)] == [(1, 2), (1, 4)]


def test_each_output_channel_has_centroids_of_its_own() -> None:
    kernel = np.array([[1.0, 8.0], [2.0, 7.0], [2.0, 7.0]], np.float32)
    shared = SharedWeights(graph := dense(kernel), Sharing({"dense": Codebook(2, "channel")}, renewed=False))
    np.testing.assert_array_equal(kernel_of(graph), kernel)
    (sums,) = values(shared.gradients(graph.trainable_variables, [np.arange(6, dtype=np.float32).reshape(3, 2)]))
    np.testing.assert_array_equal(sums, [[0, 2 + 4], [3 + 5, 1]])


def test_a_weight_goes_to_the_nearest_centroid_by_its_free_value() -> None:
    shared = SharedWeights(graph := dense(KERNEL), Sharing({"dense": Codebook(2)}))
    centroids, free = shared.instead(graph.trainable_variables)
    centroids.assign([[3.0, 1.0]])  # in any order
    free.assign([[1.9, 2.5, 0.0, 1.0]])
    shared.lay_on()
    np.testing.assert_array_equal(kernel_of(graph), [[1, 3], [1, 1]])


def test_fixed_weights_stay_with_their_centroid() -> None:
    shared = SharedWeights(graph := dense(KERNEL), Sharing({"dense": Codebook(2)}, renewed=False))
    (centroids,) = shared.instead(graph.trainable_variables)
    centroids.assign([[5.0, 1.0]])
    shared.lay_on()
    np.testing.assert_array_equal(kernel_of(graph), [[5, 1], [5, 1]])


def test_zeros_stay_whatever_moves() -> None:
    kernel = np.array([[0.0, 1.0], [0.0, -1.0]], np.float32)
    shared = SharedWeights(graph := dense(kernel), Sharing({"dense": Codebook(3)}, zeros=("dense",)))
    for variable in shared.instead(graph.trainable_variables):
        variable.assign(np.asarray(variable) + 0.25)
    shared.lay_on()
    np.testing.assert_array_equal(kernel_of(graph), [[0, 1.25], [0, -0.75]])


def test_a_held_codebook_of_a_layer_outlives_a_factor_of_each_output_channel() -> None:
    """As BatchNormalization leaves it in the weights: the channels go on sharing, each by its factor."""
    like = np.array([[1.0, 2.0], [2.0, 1.0]], np.float32)
    factor = np.array([1.0, -7.0], np.float32)  # root mean square 5
    how = Sharing(held={"dense": Codebook(2)}, like={"dense": like})
    shared = SharedWeights(graph := dense(like * factor), how)
    np.testing.assert_allclose(kernel_of(graph), like * factor, rtol=1e-6)
    (sums,) = values(shared.gradients(graph.trainable_variables, [GRADIENT]))
    np.testing.assert_allclose(sums, [[(1 - 7 * 5) / 5, (3 - 7 * 2) / 5]], rtol=1e-6)
    (centroids,) = shared.instead(graph.trainable_variables)
    centroids.assign([[10.0, 20.0]])
    shared.lay_on()
    np.testing.assert_allclose(kernel_of(graph), like * factor * 2, rtol=1e-6)


def test_weights_that_do_not_share_what_they_are_said_to_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"dense: has 4 values, and was said to have 2 values per layer"):
        SharedWeights(dense(KERNEL), Sharing(held={"dense": Codebook(2)}))
    like = np.array([[1.0, 2.0], [1.0, 2.0]], np.float32)
    with pytest.raises(UnsupportedError, match="no longer share"):
        SharedWeights(dense(KERNEL), Sharing(held={"dense": Codebook(2)}, like={"dense": like}))
