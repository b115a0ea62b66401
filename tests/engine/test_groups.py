from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.groups import Group, find_groups, frozen_channels


def named(model: Any) -> dict[str, Group]:
    return {group.id: group for group in find_groups(model)}


def slots(group: Group) -> set[tuple[str, str, int, str]]:
    return {(slot.layer, slot.weight, slot.axis, slot.side) for slot in group.slots}


def positions(group: Group, layer: str, weight: str = "kernel") -> list[list[int]]:
    return next(s.positions.tolist() for s in group.slots if (s.layer, s.weight) == (layer, weight) and s.side != "out")


def conv(x: Any, filters: int, name: str, **options: Any) -> Any:
    return layers.Conv2D(filters, 1, name=name, use_bias=False, **options)(x)


def ended(image: Any, x: Any) -> Any:
    return keras.Model(image, layers.Dense(2, name="end")(layers.GlobalAveragePooling2D()(x)))


def test_find_groups_follows_channels_through_flatten_to_dense_rows() -> None:
    image = keras.Input((2, 2, 1), name="image")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(3, 1, name="conv")(image))
    model = keras.Model(image, layers.Dense(2, name="end")(layers.Flatten()(layers.ReLU()(x))))
    group = named(model)["conv"]
    assert group.size == 3 and group.producers == ("conv",) and group.frozen == ""
    assert slots(group) == {
        ("conv", "kernel", 3, "out"),
        ("conv", "bias", 0, "out"),
        ("bn", "gamma", 0, "through"),
        ("bn", "beta", 0, "through"),
        ("bn", "moving_mean", 0, "through"),
        ("bn", "moving_variance", 0, "through"),
        ("end", "kernel", 0, "in"),
    }
    assert positions(group, "end") == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert named(model)["end"].frozen == "'end' is an output of the model"


def test_find_groups_joins_what_is_added_and_keeps_what_meets_the_input_whole() -> None:
    image = keras.Input((2, 2, 4), name="image")
    a, b = conv(image, 6, "a"), conv(image, 6, "b")
    x = layers.Add()([a, conv(b, 6, "c")])
    found = named(ended(image, layers.Concatenate()([x, layers.Multiply()([image, conv(x, 4, "d")])])))
    assert found["a"].producers == ("a", "c") and found["b"].producers == ("b",)
    assert found["d"].frozen == "'image' is an input of the model"
    assert not found["a"].frozen and positions(found["a"], "end") == [[i] for i in range(6)]


def test_find_groups_offsets_concatenated_channels() -> None:
    image = keras.Input((2, 2, 1), name="image")
    a, b = conv(image, 2, "a"), conv(image, 3, "b")
    x = layers.Add()([layers.Concatenate()([a, b]), conv(image, 5, "c")])
    found = named(ended(image, layers.Concatenate()([x, a])))
    assert found["a"].producers == ("a", "c") and found["b"].producers == ("b", "c")
    assert positions(found["a"], "end") == [[0, 5], [1, 6]]
    assert positions(found["b"], "end") == [[2], [3], [4]]
    assert [slot.positions.tolist() for slot in found["b"].slots if slot.layer == "c"] == [[[2], [3], [4]]]


def test_find_groups_repeats_channels_by_the_depth_multiplier() -> None:
    image = keras.Input((2, 2, 1), name="image")
    x = layers.DepthwiseConv2D(1, depth_multiplier=2, name="depthwise")(conv(image, 3, "a"))
    x = layers.SeparableConv2D(2, 1, depth_multiplier=2, name="separable")(x)
    group = named(ended(image, x))["a"]
    assert group.producers == ("a",)
    assert positions(group, "depthwise") == [[0], [1], [2]]
    assert positions(group, "depthwise", "bias") == [[0, 1], [2, 3], [4, 5]]
    assert positions(group, "separable", "depthwise_kernel") == [[0, 1], [2, 3], [4, 5]]
    assert positions(group, "separable", "pointwise_kernel")[1] == [4, 5, 6, 7]


def test_find_groups_ties_the_same_place_of_each_convolution_group() -> None:
    image = keras.Input((2, 2, 1), name="image")
    found = named(ended(image, conv(conv(image, 6, "a"), 4, "grouped", groups=2)))
    assert found["a"].size == 3 and found["grouped"].size == 2
    assert [slot.positions.tolist() for slot in found["a"].slots if slot.side == "out"] == [[[0, 3], [1, 4], [2, 5]]]
    assert positions(found["a"], "grouped") == [[0], [1], [2]]
    assert positions(found["grouped"], "end") == [[0, 2], [1, 3]]


def test_find_groups_treats_one_convolution_group_a_channel_as_depthwise() -> None:
    image = keras.Input((2, 2, 1), name="image")
    found = named(ended(image, conv(conv(image, 3, "a"), 6, "by_channel", groups=3)))
    assert set(found) == {"a", "end"}
    assert positions(found["a"], "by_channel") == [[0, 1], [2, 3], [4, 5]]


def test_find_groups_joins_both_uses_of_a_shared_layer() -> None:
    left, right = keras.Input((2, 2, 1), name="left"), keras.Input((2, 2, 1), name="right")
    shared = layers.Conv2D(3, 1, name="shared")
    x = layers.Concatenate()([shared(conv(left, 2, "a")), shared(conv(right, 2, "b"))])
    found = named(ended([left, right], x))
    assert {frozenset(group.producers) for group in found.values()} == {
        frozenset("ab"),
        frozenset(["shared"]),
        frozenset(["end"]),
    }
    assert positions(found["shared"], "end") == [[0, 3], [1, 4], [2, 5]]


def test_find_groups_follows_reshape_both_ways() -> None:
    code = keras.Input((2,), name="code")
    x = layers.Reshape((2, 2, 3), name="unfold")(layers.Dense(12, name="spread")(code))
    found = named(keras.Model(code, layers.Dense(1, name="end")(layers.Reshape((12,), name="fold")(x))))
    group = found["spread"]
    assert group.size == 3
    assert [s.positions.tolist() for s in group.slots if s.weight == "bias"] == [
        [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    ]
    assert [(s.layer, s.index, s.positions.shape) for s in group.slots if s.weight == "target_shape"] == [
        ("unfold", -1, (3, 1)),
        ("fold", -1, (3, 4)),
    ]


def test_find_groups_follows_attention_by_channel_and_freezes_a_spread_operand() -> None:
    image = keras.Input((2, 2, 1), name="image")
    x = conv(image, 4, "a")
    scale = layers.Reshape((1, 1, 4), name="lift")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, conv(scale, 4, "excite", activation="sigmoid")])
    x = layers.Multiply(name="gating")([x, conv(x, 1, "gate")])
    found = named(ended(image, x))
    assert found["a"].producers == ("a", "excite") and not found["a"].frozen
    assert found["gate"].frozen == "Multiply 'gating' spreads its one channel over 4"


UNKNOWN: list[tuple[Any, str]] = [
    (
        layers.LayerNormalization(name="odd"),
        "LayerNormalization 'odd' normalizes over the channels, so that each depends on the others",
    ),
    (
        layers.GroupNormalization(1, name="odd"),
        "GroupNormalization 'odd' normalizes all channels together, so that each depends on the others",
    ),
    (
        layers.UpSampling2D(1, interpolation="nearest", data_format="channels_first", name="odd"),
        "UpSampling2D 'odd' has its channels first",
    ),
    (
        layers.EinsumDense("abcd,de->abce", (3, 2, 4), name="odd"),
        "EinsumDense 'odd' is not a layer whose channels can be followed",
    ),
    (layers.Softmax(name="odd"), "Softmax 'odd' mixes channels"),
    (layers.Activation("softmax", name="odd"), "Activation 'odd' mixes channels"),
    (layers.BatchNormalization(axis=1, name="odd"), "BatchNormalization 'odd' normalizes axis 1, not the last"),
    (layers.Rescaling([1.0, 2.0, 3.0, 4.0], name="odd"), "Rescaling 'odd' holds constants for each channel"),
    (layers.Reshape((8, 3), name="odd"), "Reshape 'odd' cuts 4 channels into 3"),
    (layers.MaxPooling2D(1, data_format="channels_first", name="odd"), "MaxPooling2D 'odd' has its channels first"),
]


@pytest.mark.parametrize(("layer", "reason"), UNKNOWN, ids=lambda case: type(case).__name__)
def test_find_groups_freezes_what_an_unknown_layer_touches(layer: Any, reason: str) -> None:
    image = keras.Input((3, 2, 1), name="image")
    x = layer(conv(conv(image, 5, "free"), 4, "frozen"))
    model = keras.Model(image, layers.Dense(2, name="end")(layers.Flatten()(x)))
    found = named(model)
    assert found["frozen"].frozen == reason and found["free"].frozen == ""


def test_find_groups_freezes_a_layer_that_cannot_be_followed_at_one_of_its_uses() -> None:
    image = keras.Input((2, 2, 4), name="image")
    scale = keras.Input((None, None, 4), name="scale")
    norm = layers.LayerNormalization(name="odd")
    shared = layers.Conv2D(4, 1, activation="softmax", name="shared")
    x = layers.Add()([shared(norm(conv(image, 4, "a"))), shared(conv(scale, 4, "b"))])
    found = named(ended([image, scale], x))
    assert all(found[name].frozen for name in ("a", "b", "shared"))


def test_find_groups_gives_the_same_answer_each_time_in_the_order_of_the_producers_channels() -> None:
    image = keras.Input((2, 2, 1), name="image")
    model = ended(image, conv(conv(image, 7, "a"), 5, "b"))
    first, second = find_groups(model), find_groups(model)
    assert [group.id for group in first] == ["a", "b", "end"] == [group.id for group in second]
    for group in first:
        out = next(slot for slot in group.slots if slot.side == "out")
        assert np.array_equal(out.positions[:, 0], np.arange(group.size))


def normalized(layer: Any, filters: int = 6) -> Group:
    image = keras.Input((2, 3, 1), name="image")
    return named(ended(image, layer(conv(image, filters, "a"))))["a"]


def test_find_groups_takes_channels_that_are_normalized_together_as_one() -> None:
    group = normalized(layers.GroupNormalization(3, name="norm"))
    assert group.size == 3 and group.frozen == ""
    assert positions(group, "norm", "gamma") == [[0, 1], [2, 3], [4, 5]] == positions(group, "end")
    assert positions(group, "norm", "groups") == [[0], [1], [2]]


@pytest.mark.parametrize("groups", [6, -1])
def test_find_groups_leaves_each_channel_free_when_each_is_normalized_alone(groups: int) -> None:
    group = normalized(layers.GroupNormalization(groups, center=False, scale=False, name="norm"))
    assert group.size == 6 and positions(group, "norm", "groups") == [[i] for i in range(6)]


def test_find_groups_follows_a_normalization_over_other_axes() -> None:
    group = normalized(layers.LayerNormalization(axis=[1, 2], name="norm"))
    assert group.size == 6 and group.frozen == "" and "norm" not in {slot.layer for slot in group.slots}


def test_find_groups_follows_channels_moved_in_front_of_flatten() -> None:
    """As networks from other frameworks do: the rows of the dense layer are channel by channel, not pixel by pixel."""
    image = keras.Input((2, 3, 1), name="image")
    x = layers.Flatten()(layers.ReLU()(layers.Permute((3, 1, 2))(conv(image, 2, "a"))))
    group = named(keras.Model(image, layers.Dense(2, name="end")(x)))["a"]
    assert group.frozen == "" and positions(group, "end") == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def test_find_groups_follows_a_channel_shuffle() -> None:
    """Reshape to (groups, n), swap, Reshape back (ShuffleNet): channel 3 * g + j becomes channel 2 * j + g."""
    image = keras.Input((2, 2, 1), name="image")
    x = layers.Permute((1, 2, 4, 3))(layers.Reshape((2, 2, 2, 3), name="split")(conv(image, 6, "a")))
    found = named(ended(image, layers.Reshape((2, 2, 6), name="merge")(x)))["a"]
    assert found.size == 3 and found.frozen == ""
    assert positions(found, "split", "target_shape") == [[0], [1], [2]]
    assert positions(found, "end") == [[0, 1], [2, 3], [4, 5]] == positions(found, "merge", "target_shape")
    out = next(slot for slot in found.slots if slot.side == "out")
    assert out.positions.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_find_groups_freezes_what_reads_channels_that_were_moved() -> None:
    image = keras.Input((2, 3, 1), name="image")
    x = layers.Permute((3, 1, 2), name="moved")(conv(image, 4, "a"))
    group = named(ended(image, layers.MaxPooling2D(1, name="pool")(x)))["a"]
    assert group.frozen == "MaxPooling2D 'pool' reads channels that do not lie along its last axis"


def test_find_groups_follows_operations_that_leave_the_channels_alone() -> None:
    image = keras.Input((2, 2, 1), name="image")
    x = keras.ops.concatenate([conv(image, 2, "a"), conv(image, 2, "b")], axis=-1)
    x = keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = keras.ops.expand_dims(keras.ops.mean(x, axis=(1, 2)), 1)
    x = keras.ops.reshape(keras.ops.transpose(x, (0, 2, 1)), (-1, 4))
    found = named(keras.Model(image, layers.Dense(2, name="end")(x)))
    assert positions(found["a"], "end") == [[0], [1]] and positions(found["b"], "end") == [[2], [3]]
    assert not found["a"].frozen and not found["b"].frozen


def test_find_groups_freezes_channels_that_are_mixed_with_the_batch() -> None:
    image = keras.Input((2, 2, 1), name="image")
    found = named(keras.Model(image, layers.Dense(2)(keras.ops.reshape(conv(image, 4, "a"), (-1, 2)))))
    assert found["a"].frozen.endswith("mixes channels with the batch")


def test_find_groups_freezes_a_mean_over_the_channels() -> None:
    image = keras.Input((2, 2, 1), name="image")
    x = conv(image, 4, "a")
    x = layers.Multiply()([x, keras.ops.mean(x, axis=-1, keepdims=True)])
    assert "mixes channels" in named(ended(image, x))["a"].frozen


def test_frozen_channels_counts_them_by_reason() -> None:
    image = keras.Input((2, 2, 1), name="image")
    x = conv(layers.LayerNormalization(name="norm")(conv(image, 3, "a")), 5, "b")
    found = frozen_channels(find_groups(ended(image, x)))
    assert (found.channels, found.frozen, found.share) == (10, 5, 0.5)
    assert found.reasons == (
        ("LayerNormalization 'norm' normalizes over the channels, so that each depends on the others", 3),
        ("'end' is an output of the model", 2),
    )
    assert frozen_channels([]).share == 0.0
