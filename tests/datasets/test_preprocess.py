"""Preprocessing against numbers worked by hand and against Keras' own formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from toolkit.core import Preprocessing
from toolkit.datasets.preprocess import PreprocessSpec, apply, crop_box, geometry, normalise
from toolkit.errors import InputError

PIXEL = np.array([[[0, 128, 255]]], np.uint8)


def done(spec: object, image: np.ndarray = PIXEL) -> list[float]:
    return apply(image, PreprocessSpec.model_validate(spec).resolve()).ravel().tolist()


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("raw", [0, 128, 255]),
        ("unit", [0, 128 / 255, 1]),
        ("signed", [-1, 128 / 127.5 - 1, 1]),
        ("imagenet", [-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
        ("caffe", [255 - 103.939, 128 - 116.779, -123.68]),
        ({"scale": 0.5, "offset": -1.0}, [-1, 63, 126.5]),
        ({"mean": [10.0, 20.0, 30.0], "std": 2.0}, [-5, 54, 112.5]),
        ({"scale": 1 / 255, "mean": 0.5, "std": 0.5}, [-1, 128 / 127.5 - 1, 1]),
        ({"preset": "raw", "color": "bgr"}, [255, 128, 0]),
    ],
)
def test_spec_gives_hand_worked_inputs(spec: object, expected: list[float]) -> None:
    assert done(spec) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    "spec, problem",
    [
        ("mobilenet", "Input should be 'raw'"),
        ({"preset": "unit", "scale": 2.0}, "excludes scale"),
        ({"offset": 1.0, "mean": 2.0}, "excludes mean"),
        ({"mean": [0.485, 0.456, 0.406]}, "pixels of 0..1"),
        ({"std": 0.0}, "above 0"),
        ({"mean": [1.0, 2.0], "std": [1.0, 2.0, 3.0]}, "differ"),
        ({"size": [0, 4]}, "greater than or equal to 1"),
        ({"resize": "area"}, "Input should be 'bilinear'"),
        ({"crop": "random"}, "Input should be 'center'"),
        ({"crop_share": 0.0}, "greater than 0"),
        ({"crop_share": 1.01}, "less than or equal to 1"),
    ],
)
def test_spec_refuses_what_contradicts_itself(spec: object, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        PreprocessSpec.model_validate(spec)


def test_resolve_takes_size_and_channels_from_the_model() -> None:
    spec = PreprocessSpec.model_validate("unit")
    assert spec.resolve((None, 8, 6, 1)) == Preprocessing(size=(8, 6), color="gray", scale=(1 / 255,))
    assert spec.resolve((None, None, None, 3)).size is None
    assert PreprocessSpec(size=(4, 5)).resolve((None, 8, 8, 3)).size == (4, 5)


def test_resolve_carries_every_key_of_the_geometry() -> None:
    given = {"resize": "bicubic", "antialias": False, "crop": "none", "crop_share": 0.875}
    assert PreprocessSpec.model_validate({"preset": "unit", **given}).resolve((None, 8, 6, 3)) == Preprocessing(
        size=(8, 6), **given, scale=(1 / 255,)
    )


@pytest.mark.parametrize(
    "image, wanted, box",
    [
        ((4, 8), Preprocessing(size=(2, 2)), (0, 2, 4, 4)),
        ((4, 8), Preprocessing(size=(2, 2), crop="none"), (0, 0, 4, 8)),
        ((256, 341), Preprocessing(size=(224, 224), crop_share=0.875), (16, 58, 224, 224)),
        ((480, 640), Preprocessing(size=(224, 224), crop_share=0.875), (30, 110, 420, 420)),
        ((10, 21), Preprocessing(size=(5, 5), crop="none", crop_share=0.5), (2, 5, 5, 10)),  # rounded half to even
        ((9, 9), Preprocessing(crop_share=0.7), (1, 1, 6, 6)),
        ((1, 1), Preprocessing(size=(3, 3), crop_share=0.1), (0, 0, 1, 1)),
        ((1, 900), Preprocessing(size=(3, 5)), (0, 449, 1, 2)),
    ],
)
def test_crop_box_is_centred_and_never_empty(
    image: tuple[int, int], wanted: Preprocessing, box: tuple[int, int, int, int]
) -> None:
    assert crop_box(*image, wanted) == box


def test_crop_share_is_resize_to_256_then_crop_224() -> None:
    """torchvision: the short side becomes 256, then the central 224 x 224 counts: 224 / 256 of the short side.

    A ramp along the long side shows where the crop lies; torchvision's resizing of the whole differs by its rounding of
    the long side (int(256 * 53 / 40) = 339) and of the offset, and by what its filter sees beyond the crop's edge.
    """
    from PIL import Image

    ramp = np.broadcast_to((np.arange(530) / 2.1).astype(np.uint8)[None, :, None], (400, 530, 3)).copy()
    ours = geometry(ramp, Preprocessing(size=(224, 224), crop_share=0.875)).astype(int)
    whole = Image.fromarray(ramp).resize((339, 256), Image.Resampling.BILINEAR)
    left, top = round((339 - 224) / 2), 16
    theirs = np.asarray(whole.crop((left, top, left + 224, top + 224))).astype(int)
    assert np.abs(ours - theirs).max() <= 1  # half a pixel of 1.56 pixels' ramp


def test_crop_none_stretches_and_a_share_without_size_only_crops() -> None:
    image = np.arange(8, dtype=np.uint8).reshape(1, 8, 1) * 10
    gray = {"color": "gray", "antialias": False}
    assert geometry(image, Preprocessing(size=(1, 4), crop="none", **gray)).ravel().tolist() == [5, 25, 45, 65]
    assert geometry(image, Preprocessing(crop_share=0.5, **gray)).ravel().tolist() == [20, 30, 40, 50]


def test_share_is_cut_from_an_image_that_has_its_size_already() -> None:
    image = np.zeros((4, 4, 1), np.uint8)
    image[1:3, 1:3] = 200
    inside = Preprocessing(size=(4, 4), color="gray", crop_share=0.5)
    assert (geometry(image, inside) == 200).all()


def test_antialias_false_reads_neighbours_only() -> None:
    """8 to 2: centres at 2 and 6, between pixels 1, 2 and 5, 6; the filter of antialiasing reads all."""
    image = np.array([0, 10, 30, 0, 0, 100, 50, 255], np.uint8).reshape(1, 8, 1)
    contract = Preprocessing(size=(1, 2), color="gray", crop="none", antialias=False)
    assert geometry(image, contract).ravel().tolist() == [20, 75]
    assert geometry(image, replace(contract, antialias=True)).ravel().tolist() != [20, 75]


def test_gray_weighs_channels_as_itu_601() -> None:
    """Pillow rounds 0.299 R + 0.587 G + 0.114 B."""
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert apply(image, Preprocessing(color="gray")).ravel().tolist() == [76, 150, 29]


def test_gray_image_becomes_three_equal_channels() -> None:
    assert apply(np.full((2, 2, 1), 7, np.uint8), Preprocessing()).tolist() == np.full((2, 2, 3), 7.0).tolist()


def test_resize_crops_the_centre_to_the_aspect_ratio_first() -> None:
    """4 x 8 to 2 x 2: only columns 2..5 count. A triangle filter at half size weighs them 3:3:1:0 and 0:1:3:3."""
    image = np.zeros((4, 8, 1), np.uint8)
    image[:, 2:4], image[:, 4:6], image[:, :2], image[:, 6:] = 40, 200, 255, 255
    small = apply(image, Preprocessing(size=(2, 2), color="gray"))[:, :, 0]
    assert small.tolist() == [[round((6 * 40 + 200) / 7), round((6 * 200 + 40) / 7)]] * 2


def test_resize_keeps_rows_and_columns_apart() -> None:
    image = np.zeros((8, 4, 3), np.uint8)
    image[:4] = 100
    tall = apply(image, Preprocessing(size=(4, 2)))
    assert tall.shape == (4, 2, 3)
    assert tall[0].max() == tall[0].min() == 100
    assert tall[-1].max() == 0


def test_same_size_is_left_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert np.array_equal(apply(image, Preprocessing(size=(5, 7))), image.astype(np.float32))


def test_float_image_is_taken_as_it_is() -> None:
    image = np.random.default_rng(0).normal(size=(3, 3, 3)).astype(np.float32)
    assert np.array_equal(apply(image, Preprocessing(scale=(1 / 255,))), image)


@pytest.mark.parametrize(
    "image, preprocessing, problem",
    [
        (np.zeros((3, 3, 1), np.float32), Preprocessing(), "the model takes 3x3x3"),
        (np.zeros((3, 3, 4), np.uint8), Preprocessing(), "4 channels"),
        (np.zeros((3, 3, 1), np.uint8), Preprocessing(color="gray", scale=(1.0, 2.0, 3.0)), "for 1 channels"),
    ],
)
def test_images_that_do_not_fit_are_refused(image: np.ndarray, preprocessing: Preprocessing, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        apply(image, preprocessing)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [None, (9, 14), (5, 5), (3, 20), (30, 7)])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_pillows_images_give_what_their_arrays_give(mode: str, size: Any, color: Any) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    array = np.asarray(image).reshape(9, 14, -1)
    for crop in ("center", "none"):
        wanted = Preprocessing(size=size, color=color, crop=crop)  # type: ignore[arg-type]
        np.testing.assert_array_equal(geometry(image, wanted), geometry(array, wanted))


def test_normalise_writes_where_it_is_told() -> None:
    image, wanted = np.arange(12, dtype=np.uint8).reshape(2, 2, 3), Preprocessing(scale=(2.0,), offset=(1.0, 2.0, 3.0))
    batch = np.zeros((3, 2, 2, 3), np.float32)
    assert normalise(image, wanted, out=batch[1]) is not None
    np.testing.assert_array_equal(batch[1], image.astype(np.float32) * 2 + np.array([1, 2, 3], np.float32))
    assert (batch[0].any(), batch[2].any()) == (False, False)
    floats = image.astype(np.float64) / 7
    np.testing.assert_array_equal(normalise(floats, wanted), floats.astype(np.float32))


@pytest.mark.parametrize("module", ["mobilenet_v2", "resnet", "resnet_v2", "densenet", "vgg16", "xception"])
def test_module_of_keras_applications_is_a_preset_that_does_what_its_own_function_does(module: str) -> None:
    import keras

    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    theirs = getattr(keras.applications, module).preprocess_input(pixels.astype(np.float32))
    ours = apply(pixels, PreprocessSpec.model_validate(module).resolve())
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=2e-5)
