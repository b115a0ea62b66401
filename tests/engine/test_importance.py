from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.groups import find_groups
from toolkit.engine.importance import Scores, scores
from toolkit.engine.samples import Sample
from toolkit.errors import InputError, UnsupportedError


@pytest.fixture(scope="module")
def hidden() -> Any:
    """Three hidden units without an activation: 2 inputs, 1 output."""
    code = keras.Input((2,))
    x = layers.Dense(3, name="hidden")(code)
    model = keras.Model(code, layers.Dense(1, name="end")(x))
    bias = np.array([100.0, 200.0, 300.0])  # must not count
    model.get_layer("hidden").set_weights([np.array([[3.0, 0.0, 1.0], [-4.0, 0.0, 1.0]]), bias])
    model.get_layer("end").set_weights([np.array([[-1.0], [2.0], [1.0]]), np.zeros(1)])
    return model


@pytest.fixture(scope="module")
def normalized() -> Any:
    """Two channels that a BatchNormalization carries, read at two places each."""
    image = keras.Input((1, 2, 1))
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(2, 1, use_bias=False, name="conv")(image))
    model = keras.Model(image, layers.Dense(1, name="end")(layers.Flatten()(x)))
    model.get_layer("conv").set_weights([np.array([1.0, 1.0]).reshape(1, 1, 1, 2)])
    model.get_layer("bn").set_weights([np.array([1.0, -3.0]), *(np.ones(2),) * 3])
    model.get_layer("end").set_weights([np.array([[1.0], [0.0], [1.0], [2.0]]), np.zeros(1)])
    return model


def only(model: Any, kind: Any, **options: Any) -> Scores:
    """The scores of the one group that is not frozen."""
    (found,) = scores(model, find_groups(model), kind, **options).values()
    return found


by_mean: dict[str, Any] = {"normalization": "mean", "reduction": "mean"}


def images(*batches: tuple[Any, Any]) -> Callable[[], list[Sample]]:
    return lambda: [Sample((np.asarray(inputs, np.float32),), labels) for inputs, labels in batches]


def test_scores_are_the_group_norm_worked_out_by_hand(hidden: Any) -> None:
    # l2: columns 25, 0, 2 over their mean 9; rows 1, 4, 1 over their mean 2; then the mean of both
    assert np.allclose(only(hidden, "l2", **by_mean), [59 / 36, 1, 13 / 36])
    # l1: columns 7, 0, 2 over 3; rows 1, 2, 1 over 4/3
    assert np.allclose(only(hidden, "l1", **by_mean), [37 / 24, 18 / 24, 17 / 24])


@pytest.mark.parametrize(
    ("normalization", "reduction", "expected"),
    [
        ("none", "sum", [26, 4, 3]),
        ("none", "max", [25, 4, 2]),
        ("none", "mean", [13, 2, 1.5]),
        ("max", "sum", [1 + 1 / 4, 1, 2 / 25 + 1 / 4]),
        ("mean", "sum", [25 / 9 + 1 / 2, 2, 2 / 9 + 1 / 2]),
        ("l2", "max", [25 / 629**0.5, 4 / 18**0.5, 2 / 629**0.5 if 2 / 629**0.5 > 1 / 18**0.5 else 1 / 18**0.5]),
        ("lamp", "sum", [1 + 1 / 6, 1, 2 / 27 + 1 / 5]),  # of equals the first is taken for the smaller
    ],
)
def test_scores_normalize_each_part_and_then_reduce(
    hidden: Any, normalization: Any, reduction: Any, expected: list[float]
) -> None:
    assert np.allclose(only(hidden, "l2", normalization=normalization, reduction=reduction), expected)


def test_scores_count_gamma_and_all_places_of_a_channel(normalized: Any) -> None:
    # gamma: squares 1 and 9 over their mean; end: 1 + 1 and 0 + 4 over 3
    assert np.allclose(only(normalized, "l2", **by_mean), [(1 + 0.2 + 2 / 3) / 3, (1 + 1.8 + 4 / 3) / 3])


def test_scores_do_not_change_when_one_layer_is_scaled(hidden: Any) -> None:
    larger = keras.models.clone_model(hidden)
    larger.set_weights([weight * (1000.0 if weight.shape == (2, 3) else 1.0) for weight in hidden.get_weights()])
    assert np.allclose(only(larger, "l2", normalization="mean"), only(hidden, "l2", normalization="mean"))


def test_scores_are_zero_when_all_weights_are_zero(hidden: Any) -> None:
    empty = keras.models.clone_model(hidden)
    empty.set_weights([weight * 0 for weight in hidden.get_weights()])
    for normalization in ("mean", "max", "l2", "lamp", "none"):
        assert only(empty, "l2", normalization=normalization).tolist() == [0, 0, 0]


def test_bn_gamma_is_the_absolute_scale(normalized: Any) -> None:
    assert only(normalized, "bn_gamma", normalization="none").tolist() == [1, 3]


def test_bn_gamma_is_refused_where_a_group_has_none(hidden: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"'hidden'.*no BatchNormalization"):
        only(hidden, "bn_gamma")


def test_scores_at_random_depend_on_seed_and_group_only(hidden: Any) -> None:
    first = only(hidden, "random", seed=1)
    assert np.array_equal(first, only(hidden, "random", seed=1))
    assert not np.array_equal(first, only(hidden, "random", seed=2))


# one image (1, 1): hidden units 99, 200, 302, output 603, whose slopes in the gates are -99, 400, 302


def test_taylor_is_the_mean_absolute_slope(hidden: Any) -> None:
    # squared error to 600: slope 2 (603 - 600) = 6 an output; to 604: -2; both images count without cancelling
    given = images(([[1, 1], [1, 1]], np.array([[600.0], [604.0]])))
    found = only(hidden, "taylor", samples=given, head="regression")
    assert np.allclose(found, np.array([99, 400, 302]) * (6 + 2) / 2)


def test_fisher_is_half_the_mean_squared_slope_over_all_batches(hidden: Any) -> None:
    given = images(([[1, 1], [1, 1]], np.array([[600.0], [604.0]])), ([[1, 1]], np.array([[603.0]])))
    found = only(hidden, "fisher", samples=given, head="regression")
    assert np.allclose(found, np.array([99, 400, 302]) ** 2 * (36 + 4 + 0) / 3 / 2)


def test_slopes_without_labels_are_of_labels_drawn_from_what_the_model_predicts() -> None:
    # logits 0 for all of two classes, whatever comes: each label has chance 1/2, and its slope +-(w1 - w0) a / 2
    code = keras.Input((1,))
    x = layers.Dense(2, use_bias=False, name="hidden")(code)
    model = keras.Model(code, layers.Dense(2, use_bias=False, activation="softmax", name="end")(x))
    model.set_weights([np.array([[1.0, 2.0]]), np.array([[2.0, 0.0], [-1.0, 0.0]])])  # 1 * 2 - 2 * 1 = 0
    given = images((np.ones((8, 1)), None))
    assert np.allclose(only(model, "fisher", samples=given), [1 / 2, 1 / 2], rtol=1e-5)
    assert np.allclose(only(model, "taylor", samples=given), [1, 1], rtol=1e-5)


def test_activation_is_the_power_that_the_next_layer_loses(hidden: Any) -> None:
    # units over the images (0, 0) and (2, 0): 100 and 106, 200 and 200, 300 and 302: variances 9, 0, 1; times 1, 4, 1
    given = images(([[0, 0]], None), ([[2, 0]], None))
    assert np.allclose(only(hidden, "activation", samples=given, normalization="none", renewed="biases"), [9, 0, 1])


def test_activation_counts_the_mean_where_nothing_gives_it_back(hidden: Any) -> None:
    given = images(([[0, 0]], None), ([[2, 0]], None))  # mean squares: (100^2 + 106^2) / 2 and so on
    found = only(hidden, "activation", samples=given, normalization="none")
    assert np.allclose(found, [10618, 40000 * 4, 90602])


def test_slopes_of_scores_are_taken_about_the_mean_where_it_comes_back(hidden: Any) -> None:
    # units 100 and 106, 200 and 200, 300 and 302 stand 3, 0 and 1 from their means; outputs 600 and 596
    given = images(([[0, 0], [2, 0]], np.array([[599.0], [599.0]])))  # slopes of the loss 2 and -6
    assert np.allclose(
        only(hidden, "taylor", samples=given, head="regression", renewed="biases"), [3 * 4, 0, 4], atol=1e-3
    )


about_means: dict[str, Any] = {"normalization": "none", "renewed": "biases"}


def test_the_mean_is_given_back_only_right_before_batchnorm() -> None:
    image = keras.Input((1, 1, 2))
    x = layers.Conv2D(2, 1, use_bias=False, name="first")(image)
    x = layers.Conv2D(2, 1, use_bias=False, name="second")(x)
    x = layers.BatchNormalization()(x)
    model = keras.Model(image, layers.Dense(1, use_bias=False, name="end")(layers.Flatten()(x)))
    model.set_weights(
        [weight * 0 + 1 if weight.ndim < 4 else np.eye(2).reshape(1, 1, 2, 2) for weight in model.get_weights()]
    )
    values = np.array([[3, 1], [5, 1]]).reshape(2, 1, 1, 2)  # variances 1 and 0, mean squares 17 and 1
    found = scores(model, find_groups(model), "activation", samples=images((values, None)), normalization="none")
    assert np.allclose(found["first"], [1, 0])
    bare = scores(
        model, find_groups(model), "activation", samples=images((values, None)), normalization="none", renewed="nothing"
    )
    assert np.allclose(bare["first"], [17, 1])
    assert np.allclose(found["second"], bare["second"])  # read by the last layer: nothing normalizes it


def test_activation_gives_each_group_of_a_convolution_its_own_weights() -> None:
    image = keras.Input((1, 1, 4))
    x = layers.Conv2D(4, 1, use_bias=False, name="first")(image)
    x = layers.Conv2D(4, 1, groups=2, use_bias=False, name="second")(x)
    model = keras.Model(image, layers.Dense(1)(layers.Flatten()(x)))
    model.get_layer("first").set_weights([np.eye(4).reshape(1, 1, 4, 4)])
    # channels 0, 1 feed outputs 0, 1 and channels 2, 3 outputs 2, 3; 0 and 2 are cut together, as are 1 and 3
    model.get_layer("second").set_weights([np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, 2.0]]).reshape(1, 1, 2, 4)])
    values = np.array([[0, 0, 0, 0], [2, 4, 6, 8]]).reshape(2, 1, 1, 4)  # variances 1, 4, 9, 16
    found = scores(model, find_groups(model), "activation", samples=images((values, None)), **about_means)
    assert np.allclose(found["first"], [1 * (1 + 4) + 9 * (9 + 16), 4 * 1 + 16 * 4])


def test_activation_follows_a_separable_convolution_to_its_outputs() -> None:
    image = keras.Input((1, 1, 2))
    x = layers.Conv2D(2, 1, use_bias=False, name="first")(image)
    x = layers.SeparableConv2D(1, 1, depth_multiplier=2, use_bias=False, name="apart")(x)
    model = keras.Model(image, layers.Flatten()(x))
    model.get_layer("first").set_weights([np.eye(2).reshape(1, 1, 2, 2)])
    depthwise, pointwise = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0], [1.0], [2.0], [0.0]])
    model.get_layer("apart").set_weights([depthwise.reshape(1, 1, 2, 2), pointwise.reshape(1, 1, 4, 1)])
    values = np.array([[0, 0], [2, 4]]).reshape(2, 1, 1, 2)  # variances 1, 4
    found = scores(model, find_groups(model), "activation", samples=images((values, None)), **about_means)
    assert np.allclose(found["first"], [1 * (1 + 4), 4 * (3 * 2) ** 2])


@pytest.mark.parametrize("kind", ["taylor", "fisher", "activation"])
def test_kinds_that_look_at_images_are_refused_without_any(hidden: Any, kind: Any) -> None:
    with pytest.raises(InputError, match=f"'{kind}'.*needs images"):
        only(hidden, kind)
    with pytest.raises(InputError, match="no images"):
        only(hidden, kind, samples=list, head="regression")


def test_scores_refuse_what_is_no_number(hidden: Any) -> None:
    broken = keras.models.clone_model(hidden)
    broken.set_weights([weight * np.nan if weight.shape == (3, 1) else weight for weight in hidden.get_weights()])
    with pytest.raises(InputError, match="no number for channels of hidden"):
        only(broken, "l2")


def test_scores_of_nothing_are_nothing(hidden: Any) -> None:
    frozen = [group for group in find_groups(hidden) if group.frozen]
    given = images(([[1, 1]], np.array([[0.0]])))
    assert scores(hidden, frozen, "taylor", samples=given, head="regression") == {}
