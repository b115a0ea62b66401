"""What written files and converters are fed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from toolkit.core import ExportContext, Model, Signature, TensorSpec
from toolkit.errors import InputError
from toolkit.exporters import feeds


@pytest.fixture(scope="module")
def open_model() -> Model:
    image = keras.Input((None, None, 3), name="image")
    graph = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    inputs = (TensorSpec("image", (None, None, None, 3), "float32", "image", "NHWC"),)
    return Model("keras", graph, Signature(inputs, (TensorSpec("scores", (None, 3), "float32"),)))


def test_open_height_and_width_are_asked_for(open_model: Model) -> None:
    with pytest.raises(InputError, match=r"input `image`.*input_shape"):
        feeds.fixed_inputs(open_model, None, "tflite")


def test_open_height_and_width_take_the_size_given(open_model: Model) -> None:
    assert feeds.fixed_inputs(open_model, (20, 30), "tflite")[0].shape == (1, 20, 30, 3)


def test_size_that_contradicts_the_model_is_refused(plain_model: Model) -> None:
    assert feeds.fixed_inputs(plain_model, (12, 8), "tflite")[0].shape == (1, 12, 8, 3)
    with pytest.raises(InputError, match="contradicts"):
        feeds.fixed_inputs(plain_model, (8, 12), "tflite")


def test_channels_first_moves_shape_and_values(plain_model: Model, images: Callable[..., Any]) -> None:
    (spec,) = feeds.fixed_inputs(plain_model, None, "onnx")
    moved = feeds.in_layout(spec, "NCHW")
    assert (moved.shape, moved.layout) == ((1, 3, 12, 8), "NCHW")
    data = images(plain_model)
    example = next(feeds.calibration(ExportContext(data), (moved,)))
    expected = data.arrays()[0]["image"]
    assert example["image"][0, 2, 5, 7] == expected[0, 5, 7, 2]
    np.testing.assert_array_equal(feeds.as_keras(example, (moved,))[0], expected)


def test_calibration_gives_every_example_once_and_tells_progress(
    plain_model: Model, images: Callable[..., Any]
) -> None:
    seen: list[float | None] = []
    context = ExportContext(images(plain_model), emit=lambda progress: seen.append(progress.fraction))
    assert len(list(feeds.calibration(context, feeds.fixed_inputs(plain_model, None, "x")))) == 12
    assert seen == [i / 12 for i in range(12)]


@pytest.mark.parametrize(("poison", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_calibration_image_that_is_not_finite_is_named(
    plain_model: Model, images: Callable[..., Any], poison: float, word: str
) -> None:
    context = ExportContext(images(plain_model, poison=poison))
    with pytest.raises(InputError, match=f"image-0: input `image` holds .*{word}"):
        next(feeds.calibration(context, feeds.fixed_inputs(plain_model, None, "x")))


def test_calibration_without_the_models_input_or_of_another_shape_is_refused(
    plain_model: Model, pair_model: Model, images: Callable[..., Any]
) -> None:
    with pytest.raises(InputError, match="has no input `image`"):
        next(feeds.calibration(ExportContext(images(pair_model)), feeds.fixed_inputs(plain_model, None, "x")))
    wide = (TensorSpec("image", (1, 12, 9, 3), "float32", "image", "NHWC"),)
    with pytest.raises(InputError, match="has shape"):
        next(feeds.calibration(ExportContext(images(plain_model)), wide))


def test_probe_is_the_first_image_or_the_same_noise_each_time(plain_model: Model, images: Callable[..., Any]) -> None:
    inputs = feeds.fixed_inputs(plain_model, None, "x")
    data = images(plain_model)
    np.testing.assert_array_equal(feeds.probe(ExportContext(data), inputs)["image"], data.arrays()[0]["image"])
    noise = [feeds.probe(ExportContext(), inputs)["image"] for _ in range(2)]
    np.testing.assert_array_equal(*noise)
