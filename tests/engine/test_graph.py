from __future__ import annotations

import keras
import pytest
from keras import layers

from toolkit.engine.graph import Edge, LayerRow, summarize, walk
from toolkit.errors import InputError


def test_walk_gives_calls_in_order_with_their_readers_when_layers_are_shared() -> None:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    embed = layers.Dense(3, name="embed")
    total = layers.Add(name="total")([embed(right), embed(left) * 2.0])
    graph = walk(keras.Model([left, right], [total, layers.Dense(1, name="end")(total)]))
    calls = {call.index: call for call in graph.calls}
    assert [calls[edge.call].name for edge in graph.inputs] == ["left", "right"]
    assert [calls[edge.call].name for edge in graph.outputs] == ["total", "end"]
    first, second = (call for call in graph.calls if call.name == "embed")
    assert {calls[call.inputs[0].call].name for call in (first, second)} == {"left", "right"}
    end = calls[graph.outputs[1].call]
    assert end.inputs == (graph.outputs[0],) and graph.outputs[0].output == 0
    assert calls[graph.outputs[0].call].consumers == (end.index,) and end.consumers == ()
    twice = next(call for call in graph.calls if call.kind == "Multiply")
    assert twice.constants == (2.0,) and twice.output_shapes == ((None, 3),)
    assert all(edge.call < call.index for call in graph.calls for edge in call.inputs)
    assert Edge(0) == Edge(0, 0)


def test_summarize_counts_a_shared_layer_once_and_its_macs_at_each_use() -> None:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    embed = layers.Dense(3, name="embed")
    model = keras.Model([left, right], layers.Add(name="total")([embed(left), embed(right)]))
    rows = {row.layer: row for row in summarize(model)}
    assert rows["embed"] == LayerRow("embed", "Dense", (None, 3), parameters=4 * 3 + 3, macs=2 * 4 * 3)
    assert rows["total"] == LayerRow("total", "Add", (None, 3), parameters=0, macs=0)


def test_summarize_leaves_macs_out_when_the_shape_is_open() -> None:
    image = keras.Input((None, None, 3))
    model = keras.Model(image, layers.Conv2D(4, 3, name="conv")(image))
    assert summarize(model)[1] == LayerRow("conv", "Conv2D", (None, None, None, 4), parameters=112, macs=None)


def test_walk_refuses_a_model_that_is_not_flat() -> None:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(2)], name="inner")
    with pytest.raises(InputError, match="inner: is a Sequential"):
        walk(inner)
    image = keras.Input((4,))
    with pytest.raises(InputError, match=r"outer: has models inside: inner. Fix: flatten it first."):
        walk(keras.Model(image, inner(image), name="outer"))
