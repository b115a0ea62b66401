"""Views leave what they are not asked to change, stay within the contract's range, and follow their seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from toolkit.engine.views import Pixels, Views, network
from toolkit.errors import UnsupportedError

SIGNED = Pixels((1 / 127.5,), (-1.0,))
CAFFE = Pixels((1.0,), (-103.939, -116.779, -123.68), "bgr")
COLOURS = ("brightness", "contrast", "saturation", "hue")


def photos(pixels: Pixels, count: int = 16) -> tuple[Any, Any]:
    """Pixels of 0..255, and the same by the contract."""
    images = np.random.default_rng(0).integers(20, 236, (count, 6, 6, 3)).astype("float32")
    return images, images * np.float32(pixels.scale) + np.float32(pixels.offset)


def seen(views: Views, images: Any, seed: int = 0) -> Any:
    return np.asarray(network(views, images.shape[1:], seed)(images, training=True))


def test_nothing_asked_is_no_network() -> None:
    assert network(Views(), (8, 8, 3), 0) is None


@pytest.mark.parametrize("pixels", [SIGNED, CAFFE], ids=["signed", "caffe"])
@pytest.mark.parametrize("name", COLOURS)
def test_colour_view_is_that_of_the_pixels_whatever_the_contract(name: str, pixels: Pixels) -> None:
    """The same change in the contract's values as in plain pixels, and within 0..255 of them."""
    plain, given = photos(pixels)
    views = Views(**{name: 0.3})
    order = slice(None, None, -1) if pixels.color == "bgr" else slice(None)
    wanted = seen(views, plain[..., order])[..., order]
    found = seen(replace(views, pixels=pixels), given)
    back = (found - np.float32(pixels.offset)) / np.float32(pixels.scale)
    np.testing.assert_allclose(back, wanted, atol=0.05)
    assert back.min() > -0.05 and back.max() < 255.05 and not np.allclose(back, plain, atol=5)


def test_brightness_and_contrast_go_both_ways() -> None:
    plain, _ = photos(SIGNED, 64)
    brighter = (seen(Views(brightness=0.2), plain) - plain).mean(axis=(1, 2, 3))
    wider = seen(Views(contrast=0.3), plain).std(axis=(1, 2, 3)) / plain.std(axis=(1, 2, 3))
    assert (brighter > 0).sum() in range(16, 49) and (wider > 1).sum() in range(16, 49)
    assert np.abs(brighter).max() <= 0.2 * 255 + 1 and wider.max() < 1.31


def test_saturation_of_a_gray_image_changes_nothing() -> None:
    gray = np.repeat(np.random.default_rng(0).uniform(0, 255, (4, 5, 5, 1)), 3, axis=3).astype("float32")
    np.testing.assert_allclose(seen(Views(saturation=0.9), gray), gray, atol=0.01)


def test_shift_of_an_even_image_changes_nothing_and_flip_mirrors() -> None:
    even = np.full((4, 8, 8, 3), 7.0, "float32")
    np.testing.assert_allclose(seen(Views(shift=0.2, zoom=0.2, rotation=30, shear=0.2), even), even, rtol=1e-5)
    plain, _ = photos(SIGNED, 32)
    found = seen(Views(flip="horizontal"), plain)
    mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(plain, found, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(plain, found, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True)) and 6 <= sum(mirrored) <= 26


def test_views_follow_their_seed_and_differ_from_call_to_call() -> None:
    plain, _ = photos(SIGNED)
    views = Views(rotation=20, brightness=0.2)
    stack = network(views, plain.shape[1:], 3)
    first, second = (np.asarray(stack(plain, training=True)) for _ in range(2))
    assert np.array_equal(first, seen(views, plain, 3)) and not np.array_equal(first, second)
    assert not np.array_equal(first, seen(views, plain, 4))


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_colour_of_gray_images_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match="need three channels, the images have 1"):
        network(Views(**{name: 0.1}), (8, 8, 1), 0)
