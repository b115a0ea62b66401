"""Views move whole images within their reach, the same for a seed, each image its own way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from toolkit.engine.augment import flip, shift, view


def seed(number: int) -> Any:
    return tf.constant([number, 0], tf.int32)


def images(count: int = 64, height: int = 16, width: int = 24) -> Any:
    return np.random.default_rng(0).normal(size=(count, height, width, 2)).astype("float32")


def moved(image: Any, down: int, right: int) -> Any:
    """What `shift` promises, one pixel at a time."""
    height, width = image.shape[:2]
    rows = [min(max(row + down, 0), height - 1) for row in range(height)]
    columns = [min(max(column + right, 0), width - 1) for column in range(width)]
    return image[rows][:, columns]


def test_shift_moves_each_image_by_an_offset_of_its_own_within_an_eighth() -> None:
    given = images()
    found = shift(tf.constant(given), seed(3)).numpy()
    offsets = set()
    for before, after in zip(given, found, strict=True):
        fits = [(y, x) for y in range(-2, 3) for x in range(-3, 4) if np.array_equal(moved(before, y, x), after)]
        assert len(fits) == 1
        offsets.add(fits[0])
    assert {y for y, _ in offsets} == set(range(-2, 3)) and {x for _, x in offsets} == set(range(-3, 4))


def test_shift_down_and_right_are_drawn_apart_on_a_square() -> None:
    """Both have the same reach there, so that one draw for both would move along the diagonal only."""
    given = images(64, 8, 8)
    found = shift(tf.constant(given), seed(3)).numpy()
    aside = [
        not any(np.array_equal(moved(before, by, by), after) for by in (-1, 0, 1))
        for before, after in zip(given, found, strict=True)
    ]
    assert 28 <= sum(aside) <= 57  # 6 of the 9 offsets: 43 expected, standard deviation 4


def test_flip_mirrors_about_half() -> None:
    given = images()
    found = flip(tf.constant(given), seed(1)).numpy()
    mirrored = [np.array_equal(before[:, ::-1], after) for before, after in zip(given, found, strict=True)]
    kept = [np.array_equal(before, after) for before, after in zip(given, found, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True)) and 20 <= sum(mirrored) <= 44


@pytest.mark.parametrize("kind", ["shift", "flip_shift"])
def test_view_follows_its_seed(kind: str) -> None:
    given = tf.constant(images())
    one, again, other = (view(given, kind, seed(number)).numpy() for number in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_no_view_is_the_image_and_one_pixel_cannot_move() -> None:
    given = tf.constant(images(4, 1, 1))
    assert view(given, "none", seed(1)) is given
    np.testing.assert_array_equal(shift(given, seed(1)), given)
