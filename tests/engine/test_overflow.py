"""Where float16 ends: sums by hand, and a bound that no order of adding passes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.overflow import overflows, reach, wide_weights


def net(last: keras.layers.Layer, shape: tuple[int, ...] = (8, 8, 2)) -> keras.Model:
    image = keras.Input(shape, name="image")
    return keras.Model(image, last(layers.ReLU(name="relu")(image)))


def lines(graph: keras.Model, **ranges: tuple[float, float]) -> list[tuple[str, str, float]]:
    return [(item.layer, item.what, item.largest) for item in overflows(graph, ranges)]


@pytest.mark.parametrize(
    ("last", "count"),
    [
        (layers.GlobalAveragePooling2D(name="pool"), 64),
        (layers.AveragePooling2D(4, name="pool"), 16),
        (layers.AveragePooling2D((2, 4), padding="same", name="pool"), 8),
    ],
)
def test_an_average_is_a_sum_first(last: keras.layers.Layer, count: int) -> None:
    """An average of 65,504 / count, and a little more."""
    most = 65504 / count
    assert lines(net(last), image=(0, most), relu=(0, most), pool=(0, most)) == []
    assert lines(net(last), relu=(0, most), pool=(0, 1.01 * most)) == [("pool", "sum", pytest.approx(1.01 * 65504))]


def test_mean_over_an_axis_counts_what_it_averages() -> None:
    image = keras.Input((10, 7), name="image")
    graph = keras.Model(image, keras.ops.mean(image, axis=1))
    name = next(operation.name for operation in graph.operations if operation.name != "image")
    assert lines(graph, **{name: (-7000.0, 0.0)}) == [(name, "sum", 70000)]


def test_a_value_that_was_seen_comes_before_a_bound() -> None:
    graph = net(layers.Dense(3, name="dense"), (4,))
    assert lines(graph, relu=(0, 7e4), dense=(-1e5, 0)) == [("relu", "value", 7e4), ("dense", "value", 1e5)]
    assert "gives values up to 1e+05; float16 ends at 65,504" in str(overflows(graph, {"dense": (-1e5, 0)})[0])


def test_reach_by_hand() -> None:
    """Weights 2, -3 and bias -1 on -1..4: up to 2 * 4 + 3 * 1, down to -2 * 1 - 3 * 4; then 1 for the bias."""
    dense = layers.Dense(1)
    dense.build((None, 2))
    dense.set_weights([np.array([[2.0], [-3.0]], np.float32), np.array([-1.0], np.float32)])
    assert reach(dense, (-1, 4)) == 15
    assert reach(dense, (2, 4)) == 13


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(3, 3, name="conv"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="conv"),
        layers.Conv2DTranspose(3, 3, name="conv"),
        layers.Dense(3, name="conv"),
    ],
)
def test_no_order_of_adding_goes_beyond_reach(layer: keras.layers.Layer) -> None:
    """The worst order adds all products of one sign first: so does the layer with its weights of one sign."""
    generator = np.random.default_rng(0)
    graph = net(layer)
    layer.set_weights([generator.normal(size=w.shape).astype(np.float32) for w in layer.get_weights()])
    kernel, bias = layer.get_weights()
    limit = reach(layer, (0.0, 2.0))
    found = []
    for sign in (1, -1):
        layer.set_weights([np.maximum(sign * kernel, 0), np.abs(bias)])
        found.append(float(np.asarray(graph(np.full((1, 8, 8, 2), 2, np.float32))).max()))
    assert limit == pytest.approx(max(found), rel=1e-5)


def test_weights_beyond_float16_are_named() -> None:
    graph = net(layers.Dense(1, name="dense"), (2,))
    assert wide_weights(graph) == ()
    graph.get_layer("dense").kernel.assign([[1.0], [-7e4]])
    assert [(item.layer, item.largest, item.what) for item in wide_weights(graph)] == [("dense", 7e4, "weight")]
