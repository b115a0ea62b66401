"""Tensors are found by what they hold, in any shape, and nothing else is."""

from __future__ import annotations

import keras
import numpy as np

from toolkit.exporters.matching import layer_values, match


def test_tensors_are_found_by_value_in_any_shape() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 3, 4)), generator.normal(size=(2, 3, 4))
    tensors = {"one": a * (1 + 1e-5), "flat": b.reshape(2, 12), "near": a * 1.01, "other": generator.normal(size=24)}
    assert match(tensors, {"conv": a, "relu": a.copy(), "dense": b}) == {"one": ("conv", "relu"), "flat": ("dense",)}


def test_tensor_of_another_size_is_not_found() -> None:
    assert match({"zeros": np.zeros(4)}, {"layer": np.zeros(5)}) == {}
    assert match({"zeros": np.zeros(4)}, {"layer": np.full(4, 1e-3)}) == {}


def test_layers_are_keyed_as_statistics_are_in_every_call() -> None:
    image = keras.Input((2,), name="image")
    double = keras.layers.Rescaling(2.0, name="double")
    graph = keras.Model(image, double(double(image)))
    one = np.array([[1.0, 3.0]], np.float32)
    found = layer_values(graph, [[one], [2 * one]])
    assert list(found) == ["image", "double", "double:1"]
    np.testing.assert_array_equal(found["double:1"], [[4, 12], [8, 24]])
