from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.groups import Group, find_groups
from toolkit.engine.importance import score, weakest


@pytest.fixture(scope="module")
def hidden() -> tuple[Any, Group]:
    code = keras.Input((2,))
    x = layers.Dense(3, name="hidden")(code)
    model = keras.Model(code, layers.Dense(1, name="end")(x))
    bias = np.array([100.0, 200.0, 300.0])  # must not count
    model.get_layer("hidden").set_weights([np.array([[3.0, 0.0, 1.0], [-4.0, 0.0, 1.0]]), bias])
    model.get_layer("end").set_weights([np.array([[-1.0], [2.0], [1.0]]), np.zeros(1)])
    return model, find_groups(model)[0]


def test_score_is_the_group_norm_worked_out_by_hand(hidden: tuple[Any, Group]) -> None:
    # l2: columns 25, 0, 2 over their mean 9; rows 1, 4, 1 over their mean 2; then the mean of both
    assert np.allclose(score(*hidden, kind="l2"), [59 / 36, 1, 13 / 36])
    # l1: columns 7, 0, 2 over 3; rows 1, 2, 1 over 4/3
    assert np.allclose(score(*hidden, kind="l1"), [37 / 24, 18 / 24, 17 / 24])


def test_score_counts_gamma_and_all_places_of_a_channel() -> None:
    image = keras.Input((1, 2, 1))
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(2, 1, use_bias=False, name="conv")(image))
    model = keras.Model(image, layers.Dense(1, name="end")(layers.Flatten()(x)))
    model.get_layer("conv").set_weights([np.array([1.0, 1.0]).reshape(1, 1, 1, 2)])
    model.get_layer("bn").set_weights([np.array([1.0, 3.0]), *(np.ones(2),) * 3])  # squares over their mean: 0.2, 1.8
    model.get_layer("end").set_weights([np.array([[1.0], [0.0], [1.0], [2.0]]), np.zeros(1)])  # 1 + 1 and 0 + 4, over 3
    expected = [(1 + 0.2 + 2 / 3) / 3, (1 + 1.8 + 4 / 3) / 3]
    assert np.allclose(score(model, find_groups(model)[0]), expected)


def test_score_does_not_change_when_one_layer_is_scaled(hidden: tuple[Any, Group]) -> None:
    model, group = hidden
    larger = keras.models.clone_model(model)
    larger.set_weights([weight * (1000.0 if weight.shape == (2, 3) else 1.0) for weight in model.get_weights()])
    assert np.allclose(score(larger, group), score(model, group))


def test_score_is_equal_when_all_weights_are_zero(hidden: tuple[Any, Group]) -> None:
    model, group = hidden
    empty = keras.models.clone_model(model)
    empty.set_weights([weight * 0 for weight in model.get_weights()])
    assert score(empty, group).tolist() == [1, 1, 1]


def test_score_at_random_depends_on_seed_and_group_only(hidden: tuple[Any, Group]) -> None:
    model, group = hidden
    first = score(model, group, kind="random", seed=1)
    assert np.array_equal(first, score(model, group, kind="random", seed=1))
    assert not np.array_equal(first, score(model, group, kind="random", seed=2))


def test_weakest_takes_the_lowest_and_among_equals_the_first() -> None:
    assert weakest(np.array([0.5, 0.1, 0.3, 0.1, 0.1]), 2).tolist() == [1, 3]
    assert weakest(np.array([0.5, 0.1, 0.3]), 2).tolist() == [1, 2]
    assert weakest(np.array([0.5, 0.1]), 0).tolist() == []
