"""Students: widths, weights and scalings worked out by hand, and the same answers behind another scaling."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.backbone import Head
from toolkit.engine.cost import cost
from toolkit.engine.students import PIXELS, SIGNED, Scaling, application, between, fresh, in_place_of, narrowed
from toolkit.errors import InputError, UnsupportedError


def net(channels: int = 16, size: int = 8, name: str = "photo") -> Any:
    keras.utils.set_random_seed(channels)
    image = keras.Input((size, size, 3), name=name)
    x = layers.Conv2D(channels, 1, use_bias=False, name="first")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(channels, 1, use_bias=False, name="second")(x)
    x = layers.Dense(2, name="answer", use_bias=False)(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(image, x)


def test_half_the_width_costs_a_quarter_between_the_ends() -> None:
    found = narrowed(net(), 0.5, 8)
    assert found.widths == {"first": 8, "second": 8}
    rows = {row.layer: row.macs for row in cost(found.graph).layers}
    assert rows["first"] == 64 * 3 * 8 and rows["second"] == 64 * 8 * 8 and rows["answer"] == 16


def test_channels_of_the_largest_weights_stay_with_them() -> None:
    model = net(4)
    kernel = np.zeros((1, 1, 3, 4), np.float32)
    kernel[..., [0, 1, 2, 3]] = [1, 30, 2, 40]
    model.get_layer("first").set_weights([kernel])
    graph = narrowed(model, 0.5, 2).graph
    np.testing.assert_array_equal(graph.get_layer("first").kernel, kernel[..., [1, 3]])


def test_width_that_rounds_to_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"leaves every layer as wide as it is.*lower round_to"):
        narrowed(net(4), 0.5, 8)


def test_network_without_free_channels_is_refused() -> None:
    image = keras.Input((4,))
    with pytest.raises(UnsupportedError, match="no layer of this model can be narrower"):
        narrowed(keras.Model(image, layers.Dense(3)(image)), 0.5, 1)


def test_fresh_weights_follow_the_seed_and_statistics_start_anew() -> None:
    model = net()
    model.get_layer("norm").moving_mean.assign(np.full(16, 5.0))
    one, again, other = fresh(model, 3), fresh(model, 3), fresh(model, 4)
    for a, b in zip(one.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(one.get_layer("first").kernel, other.get_layer("first").kernel)
    assert not np.allclose(one.get_layer("first").kernel, model.get_layer("first").kernel)
    np.testing.assert_array_equal(one.get_layer("norm").moving_mean, np.zeros(16))


def test_fresh_weights_leave_what_normalization_knows_of_the_images() -> None:
    image = keras.Input((2,))
    model = keras.Model(image, layers.Dense(1)(layers.Normalization(mean=[1.0, 2.0], variance=[4.0, 9.0])(image)))
    adapted = layers.Normalization()
    adapted.adapt(np.array([[0.0, 10.0], [2.0, 30.0]]))
    learned = keras.Model(image, layers.Dense(1, kernel_initializer="ones")(adapted(image)))
    np.testing.assert_allclose(fresh(learned, 0)(np.array([[2.0, 30.0]])), [[2.0]], rtol=1e-5)
    assert fresh(model, 0).count_params() == model.count_params()


def test_scaling_between_two_contracts_is_the_one_worked_out() -> None:
    unit = Scaling((1 / 255,), (0.0,))
    found = between(unit, SIGNED)  # 0..1 to -1..1
    assert found is not None and found.scale == pytest.approx((2.0,)) and found.offset == pytest.approx((-1.0,))
    assert between(SIGNED, SIGNED) is None and between(PIXELS, PIXELS) is None


def test_scaling_between_contracts_by_channel_keeps_every_pixel() -> None:
    given, wanted = Scaling((0.02, 0.03, 0.04), (-1.0, -2.0, 0.5)), Scaling((0.5,), (3.0, 1.0, -2.0))
    found = between(given, wanted)
    assert found is not None
    pixels = np.array([[0.0, 10.0, 255.0], [7.0, 128.0, 31.0]])
    inputs = pixels * given.scale + given.offset
    np.testing.assert_allclose(inputs * found.scale + found.offset, pixels * wanted.scale + wanted.offset, atol=1e-9)


@pytest.mark.parametrize("wanted", [SIGNED, Scaling((1.0, 2.0, 3.0), (0.0, 1.0, -1.0))])
def test_student_answers_as_on_its_own_inputs(wanted: Scaling) -> None:
    model, student = net(8), net(4, name="image")
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype("float32")
    placed = in_place_of(model, student, between(PIXELS, wanted))
    own = (pixels * np.float32(wanted.scale) + np.float32(wanted.offset)).astype("float32")
    np.testing.assert_allclose(placed(pixels), student(own), rtol=1e-4, atol=1e-4)
    assert placed.inputs[0].name == "photo" and placed.layers[0].name == model.layers[0].name


def test_student_that_leaves_its_size_open_gets_the_models() -> None:
    image = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(image))
    placed = in_place_of(net(8), keras.Model(image, layers.Dense(2)(x)))
    assert placed.inputs[0].shape == (None, 8, 8, 3)


def test_student_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"takes inputs of \[6, 6, 3\], the model of \[8, 8, 3\]"):
        in_place_of(net(8), net(4, size=6))


def test_application_has_the_head_asked_for() -> None:
    found = application("MobileNet", (32, 32, 1), Head(1, "sigmoid"), 0.25, seed=0)
    assert found.output_shape == (None, 1) and found.input_shape == (None, 32, 32, 1)
    assert keras.activations.serialize(found.layers[-1].activation) == "sigmoid"
    assert found.get_layer("conv_pw_13").filters == 256  # a quarter of 1,024


@pytest.mark.parametrize(
    ("name", "alpha", "words"),
    [
        ("MobilNet", None, "did you mean 'MobileNet"),
        ("ResNet50", 0.5, "no width multiplier"),
        ("Xception", None, "refuses images of"),
    ],
)
def test_application_is_refused_with_the_reason(name: str, alpha: float | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        application(name, (16, 16, 3), Head(2), alpha, seed=0)
