"""Which tensors a quantized file stores: fused activations, operators that pass on, scales in common, fixed scales."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from toolkit.engine.graph import Edge
from toolkit.engine.stored import Stored, chosen, stored
from toolkit.errors import InputError


def named(tensors: Stored, names: Any) -> set[str]:
    return {tensors.names[edge] for edge in names}


@pytest.fixture(scope="module")
def tensors() -> Stored:
    image = keras.Input((8, 8, 2), name="image")
    a = layers.ReLU(6, name="relu")(layers.Conv2D(4, 3, padding="same", name="conv")(image))
    b = layers.Conv2D(4, 1, name="twice_read")(image)
    c = layers.ReLU(name="own")(b)
    x = layers.Concatenate(name="join")([a, layers.MaxPooling2D(1, name="pool")(c)])
    x = layers.Concatenate(name="join_again")([x, b])
    x = layers.AveragePooling2D(2, name="average")(x)
    x = layers.Activation("sigmoid", name="gate")(layers.Flatten(name="flat")(x))
    return stored(keras.Model(image, x))


def test_stored_leaves_out_what_a_fused_activation_follows(tensors: Stored) -> None:
    left_out = {name for edge, name in tensors.names.items() if tensors.inner(edge)}
    assert left_out == {"conv"}  # "twice_read" is read by a concatenation too


def test_stored_rounds_everywhere_but_in_operators_that_pass_on(tensors: Stored) -> None:
    rounded = named(tensors, (edge for edge in tensors.names if tensors.rounds(edge)))
    assert rounded == {"image", "relu", "twice_read", "own", "join", "join_again", "average", "gate"}


def test_ranges_of_joined_tensors_are_those_of_the_outputs_they_end_in(tensors: Stored) -> None:
    found = {"image": (0.0, 1.0), "join": (-1.0, 3.0), "join_again": (-1.5, 2.5)}
    ranges = {tensors.names[edge]: ends for edge, ends in tensors.ranges(found).items()}
    joined = ("relu", "twice_read", "own", "pool", "join", "join_again", "average", "flat")
    assert {name: ranges[name] for name in joined} == dict.fromkeys(joined, (-1.5, 3.0))
    assert ranges["image"] == (0.0, 1.0)
    assert ranges["gate"] == (0.0, 255 / 256)


def test_ranges_names_tensors_that_nothing_was_found_for(tensors: Stored) -> None:
    with pytest.raises(InputError, match="join, join_again: has no range"):
        tensors.ranges({"image": (0.0, 1.0)})


def test_chosen_takes_in_what_is_fused_and_what_passes_on(tensors: Stored) -> None:
    calls = tensors.graph.calls
    assert {calls[i].name for i in chosen(tensors, {"conv"})} == {"conv", "relu"}
    assert {calls[i].name for i in chosen(tensors, {"relu"})} == {"conv", "relu"}
    assert {calls[i].name for i in chosen(tensors, {"gate"})} == {"gate", "flat"}


def test_names_number_the_calls_of_a_shared_layer() -> None:
    image = keras.Input((3,), name="image")
    dense = layers.Dense(3, name="shared")
    tensors = stored(keras.Model(image, dense(dense(image))))
    assert [tensors.names[Edge(i)] for i in range(3)] == ["image", "shared", "shared:1"]
