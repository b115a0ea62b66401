"""Point sampling against weights worked by hand, and against TensorFlow's and Pillow's own resizing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from toolkit.core import Preprocessing
from toolkit.datasets.preprocess import geometry
from toolkit.datasets.resample import point_sample, taps

SIZES = [((37, 53), (16, 16)), ((8, 8), (20, 31)), ((240, 320), (96, 96)), ((100, 100), (33, 7)), ((5, 1), (9, 9))]


def noise(shape: tuple[int, int]) -> Any:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)


def tensorflow(image: Any, size: tuple[int, int], method: str, *, antialias: bool) -> Any:
    """Its float result as a uint8 image."""
    import tensorflow as tf

    method = {"lanczos": "lanczos3"}.get(method, method)
    found = tf.image.resize(image, size, method=method, antialias=antialias).numpy()
    return np.clip(np.floor(found + 0.5), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "method, length, wanted, pixel, expected",
    [
        ("bilinear", 4, 2, 0, {0: 0.5, 1: 0.5}),
        ("bilinear", 2, 4, 1, {0: 0.75, 1: 0.25}),
        ("bilinear", 2, 4, 0, {0: 1.0}),  # half a pixel from the edge: its neighbour beyond does not count
        ("bicubic", 8, 4, 1, {1: -0.0625, 2: 0.5625, 3: 0.5625, 4: -0.0625}),  # Keys, a = -0.5, at distance 0.5 and 1.5
        ("bicubic", 8, 4, 0, {0: 0.5625 / 1.0625, 1: 0.5625 / 1.0625, 2: -0.0625 / 1.0625}),
        ("nearest", 6, 3, 1, {3: 1.0}),
        ("lanczos", 5, 5, 2, {2: 1.0}),
    ],
)
def test_taps_are_the_hand_worked_weights(
    method: str, length: int, wanted: int, pixel: int, expected: dict[int, float]
) -> None:
    places, weights = taps(length, wanted, method)
    found = {int(p): float(w) for p, w in zip(places[pixel], weights[pixel], strict=True) if abs(w) > 1e-7}
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "nearest", "lanczos"])
def test_point_sampling_is_that_of_tensorflow_within_one_step(method: str) -> None:
    for shape, size in SIZES:
        image = noise(shape)
        own, theirs = point_sample(image, size, method), tensorflow(image, size, method, antialias=False)
        differ = np.abs(own.astype(int) - theirs)
        assert differ.max() <= (0 if method == "nearest" else 1), (shape, size)
        assert (differ > 0).mean() < 0.05, (shape, size)  # where TensorFlow's float lies at a half


def test_nearest_is_that_of_tensorflow_for_every_ratio_where_pillow_differs() -> None:
    """Pillow adds up steps and lands beside a half now and then: 2 pixels to 7 are such a case."""
    from PIL import Image

    for length in (2, 3, 5, 8, 30, 99):
        column = np.arange(length, dtype=np.uint8)[:, None, None]
        for wanted in range(1, 40):
            theirs = tensorflow(column, (wanted, 1), "nearest", antialias=False)
            assert np.array_equal(point_sample(column, (wanted, 1), "nearest"), theirs), (length, wanted)
    pair = np.array([[0], [1]], np.uint8)
    pillow = np.asarray(Image.fromarray(pair).resize((1, 7), Image.Resampling.NEAREST))[:, 0]
    assert pillow.tolist() != point_sample(pair[:, :, None], (7, 1), "nearest").ravel().tolist()


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
def test_antialiased_resizing_is_that_of_tensorflow_within_one_step_on_a_photo(method: str) -> None:
    """On a smooth picture; where a kernel overshoots, Pillow also clips to 0..255 between its two directions."""
    rows, columns = np.mgrid[0:120, 0:200] / 20
    image = np.stack([120 + 90 * np.sin(rows + i) * np.cos(columns - i) for i in range(3)], -1).astype(np.uint8)
    for size in ((32, 32), (60, 100), (150, 260)):
        contract = Preprocessing(size=size, resize=method, crop="none")  # type: ignore[arg-type]
        theirs = tensorflow(image, size, method, antialias=True)
        assert np.abs(geometry(image, contract).astype(int) - theirs).max() <= 1, size


def test_same_size_changes_nothing() -> None:
    image = noise((7, 9))
    for method in ("bilinear", "bicubic", "nearest", "lanczos"):
        assert np.array_equal(point_sample(image, (7, 9), method), image)
