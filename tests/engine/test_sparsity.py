"""Masks have the count, the pattern and the place worked out by hand; schedules are TFMOT's, step by step."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import layers

from toolkit.engine.sparsity import ONCE, Pattern, Schedule, eligible, kept, masks_for, over, still, zeros
from toolkit.errors import InputError

SMALL = st.tuples(*[st.integers(1, 5)] * 2, *[st.integers(1, 9)] * 2)
WEIGHTS = SMALL.flatmap(lambda shape: arrays(np.float32, shape, elements=st.floats(-4, 4, width=16)))
SHARES = st.floats(0, 1, exclude_max=True)


def mask(weight: Any, sparsity: float = 0.5, pattern: str = "unstructured") -> Any:
    return masks_for({"w": np.asarray(weight, np.float32)}, sparsity, Pattern.parse(pattern))["w"]


@pytest.mark.parametrize(
    ("size", "sparsity", "stay"),
    [(10, 0.5, 5), (10, 0.75, 2), (6, 0.75, 2), (10, 0.9, 1), (3, 0.99, 1), (1, 0.5, 1), (432, 0.8, 86), (7, 0.0, 7)],
)
def test_kept_rounds_halves_to_the_even_number(size: int, sparsity: float, stay: int) -> None:
    """2.5 and 1.5 stay: both are 2."""
    assert kept(size, sparsity) == stay


def test_kept_is_exact_for_weights_float32_cannot_count() -> None:
    assert kept(2**24 + 2, 0.0) == 2**24 + 2
    assert kept(102_760_449, 0.5) == 51_380_224  # 51,380,224.5, to even


def test_smallest_magnitudes_go() -> None:
    assert mask([[1, -5, 2], [-3, 4, 0]]).tolist() == [[False, True, False], [True, True, False]]


def test_of_equal_magnitudes_the_first_stay() -> None:
    assert mask([[1, -1, 1, 1], [0, 0, 0, 0]], 0.75).tolist() == [[True, True, False, False], [False] * 4]


@settings(deadline=None, max_examples=60)
@given(WEIGHTS, SHARES)
def test_unstructured_masks_are_exact_and_keep_nothing_smaller_than_what_goes(weight: Any, sparsity: float) -> None:
    stays = mask(weight, sparsity)
    assert stays.sum() == kept(weight.size, sparsity)
    sizes = np.abs(weight)
    assert not stays.any() or stays.all() or sizes[stays].min() >= sizes[~stays].max()


@settings(deadline=None, max_examples=60)
@given(WEIGHTS, st.sampled_from(["1:2", "2:4", "1:4", "3:4", "4:8"]))
def test_n_of_m_stay_along_input_channels(weight: Any, text: str) -> None:
    """Counted group by group, place by place."""
    n, m = map(int, text.split(":"))
    stays = mask(weight, pattern=text)
    height, width, inputs, outputs = weight.shape
    for y, x, out in np.ndindex(height, width, outputs):
        for start in range(0, inputs, m):
            sizes, kept_here = np.abs(weight[y, x, start : start + m, out]), stays[y, x, start : start + m, out]
            assert kept_here.sum() == min(n, len(sizes))
            assert np.array_equal(np.sort(sizes[kept_here]), np.sort(sizes)[-min(n, len(sizes)) :])
    assert Pattern.parse(text).holds(weight * stays)


def test_two_of_four_of_a_dense_layer_lie_down_a_column() -> None:
    weight = [[1, 4], [2, 3], [3, 2], [4, 1], [9, 9]]
    expected = [[0, 1], [0, 1], [1, 0], [1, 0], [1, 1]]  # the last input is alone in its group
    assert mask(weight, pattern="2:4").astype(int).tolist() == expected
    assert not Pattern.parse("2:4").holds(np.asarray(weight))


def test_blocks_go_whole_by_their_mean() -> None:
    weight = [[9, 0, 2, 2, 1], [0, 0, 2, 2, 1], [1, 1, 3, 3, 7]]  # means of 2x2: 2.25, 2, 1; 1, 3, 7
    expected = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
    assert mask(weight, 0.5, "2x2").astype(int).tolist() == expected


def test_blocks_of_a_convolution_stay_at_one_place() -> None:
    weight = np.zeros((1, 2, 4, 1))
    weight[0, 1, 2:] = 1
    assert mask(weight, 0.75, "2x1")[0, :, :, 0].tolist() == [[False] * 4, [False, False, True, True]]


@settings(deadline=None, max_examples=60)
@given(st.lists(WEIGHTS, min_size=1, max_size=4), SHARES)
def test_global_masks_are_exact_and_cut_off_no_layer(several: list[Any], sparsity: float) -> None:
    weights = {str(i): weight for i, weight in enumerate(several)}
    found = masks_for(weights, sparsity, scope="global")
    total = sum(weight.size for weight in several)
    assert sum(int(stays.sum()) for stays in found.values()) == max(len(several), kept(total, sparsity))
    assert all(stays.any() for stays in found.values())
    gone = max((np.abs(weights[name])[~stays].max(initial=0) for name, stays in found.items()), default=0)
    for name, stays in found.items():  # but for the largest of each, none that stays is smaller than one that goes
        others = np.sort(np.abs(weights[name])[stays])[:-1]
        assert (others >= gone).all()


def test_one_threshold_takes_more_of_the_layer_with_small_weights() -> None:
    found = masks_for({"small": np.array([[1.0, 2, 3, 4]]), "large": np.array([[5.0, 6, 7, 8]])}, 0.5, scope="global")
    assert found["small"].tolist() == [[False, False, False, True]]  # its largest, which 5 has to go for
    assert found["large"].tolist() == [[False, True, True, True]]


@pytest.mark.parametrize("text", ["unstructured", "2:4", "1:16", "4x1", "1x4", "16x2"])
def test_patterns_read_back(text: str) -> None:
    assert str(Pattern.parse(text)) == text


@pytest.mark.parametrize("text", ["", "2/4", "4:2", "4:4", "0:4", "1x1", "0x4", "x4", "2:4 ", "99999:4"])
def test_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no such pattern"):
        Pattern.parse(text)


# ---------------------------------------------------------------- schedules


def test_polynomial_schedule_is_the_papers() -> None:
    """Cubic from 0.2 to 0.8 over steps 1 to 9: after half of it, 0.8 - 0.6 / 8."""
    schedule = Schedule(0.8, 0.2, begin=1, end=9, frequency=4)
    assert [step for step in range(20) if schedule.is_due(step)] == [1, 5, 9]
    assert [schedule.at(step) for step in (1, 5, 9, 10)] == pytest.approx([0.2, 0.725, 0.8, 0.8])
    assert schedule.last == 9 and Schedule(0.8, begin=1, end=8, frequency=4).last == 5


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 99, 1000, 12345])
@pytest.mark.parametrize("shares", [(0.0, 0.5), (0.0, 1.0), (0.3, 0.4), (0.9, 0.91), (0.5, 0.5)])
@pytest.mark.parametrize("frequency", [None, 1, 7, 100])
def test_every_training_reaches_what_was_asked_for(
    steps: int, shares: tuple[float, float], frequency: int | None
) -> None:
    schedule = over(steps, 0.9, begin=shares[0], end=shares[1], frequency=frequency)
    due = [step for step in range(1, steps + 1) if schedule.is_due(step)]
    assert due and due[-1] == schedule.last == schedule.end <= steps
    assert schedule.at(due[-1]) == pytest.approx(0.9)
    assert due[0] == 1 + int(shares[0] * (steps - 1))


def test_long_training_chooses_masks_every_hundred_steps() -> None:
    assert over(10_000, 0.5).frequency == 100 and over(200, 0.5).frequency == 9  # 99 steps, ten times
    assert [step for step in range(10) if ONCE.is_due(step)] == [1]


# ---------------------------------------------------------------- layers


@pytest.fixture(scope="module")
def model() -> Any:
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, name="stem")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SeparableConv2D(8, 3, name="separable")(x)
    x = layers.Conv2DTranspose(4, 3, name="transpose")(x)
    return keras.Model(image, layers.Dense(2, name="answer")(layers.Flatten(name="flatten")(x)))


def test_layers_that_stay_whole_are_named_with_the_reason(model: Any) -> None:
    chosen, whole = eligible(model, Pattern(), ("ans*",))
    assert chosen == ("stem", "separable", "transpose")
    assert whole == {"answer": "protected by 'ans*'", "depthwise": "no zeros are put into a DepthwiseConv2D"}
    chosen, whole = eligible(model, Pattern.parse("2:4"))
    assert chosen == ("separable", "answer")
    assert whole["stem"] == "3 input channels, fewer than the 4 of 2:4" and "transposed" in whole["transpose"]
    chosen, whole = eligible(model, Pattern.parse("4x4"))
    assert whole["answer"] == "64 x 2 channels, smaller than a block of 4x4"
    with pytest.raises(InputError, match="'stm'"):
        eligible(model, Pattern(), ("stm",))


def test_zeros_are_those_of_the_weight_that_can_have_them(model: Any) -> None:
    twin = keras.models.clone_model(model)
    kernel = np.ones((1, 1, 8, 8))
    kernel[0, 0, :4] = 0
    twin.get_layer("separable").pointwise_kernel.assign(kernel)
    (row,) = zeros(twin, ["separable"])
    assert (row.zeros, row.size) == (32, 64)
    sparse = {"separable": "2:4", "gone": "2:4", "stem": "2:4", "norm": "unstructured"}
    assert still(twin, sparse) == {"separable": "unstructured"}  # the first four outputs of a column are one group
    kernel[0, 0] = np.tile([[0], [1]], (4, 8))
    twin.get_layer("separable").pointwise_kernel.assign(kernel)
    assert still(twin, sparse) == {"separable": "2:4"}
