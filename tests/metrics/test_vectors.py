"""Embeddings by direction, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.errors import InputError
from toolkit.metrics.classification import Agreement
from toolkit.metrics.vectors import Cosine, RetrievalAt1

# directions at 0, 10, 90, 95 and 180 degrees: nearest of each is 1, 0, 3, 2, 3
ANGLES = np.radians([0.0, 10.0, 90.0, 95.0, 180.0])
POINTS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1) * np.array([[1.0], [5.0], [0.1], [2.0], [3.0]])


def test_retrieval_looks_at_the_nearest_other_image() -> None:
    values = RetrievalAt1().per_example(POINTS, np.array([0, 0, 1, 0, 0]), "embedding")
    assert values.tolist()[:2] == [1, 1]
    assert math.isnan(values[2])  # alone in its class
    assert values.tolist()[3:] == [0, 1]
    assert RetrievalAt1().reduce(values) == pytest.approx(3 / 4)
    assert RetrievalAt1().left_out(values) == "1 images: alone in their class"


def test_of_equally_near_images_the_lowest_index_is_taken() -> None:
    same = np.tile([[0.3, 0.7, 0.1]], (6, 1))
    values = RetrievalAt1().per_example(same, np.array([0, 1, 0, 1, 0, 1]), "embedding")
    assert values.tolist() == [0, 0, 1, 0, 1, 0]  # image 0 finds 1, all others find 0
    assert math.isnan(RetrievalAt1().reduce(RetrievalAt1().per_example(same[:2], np.array([0, 1]), "embedding")))


def test_retrieval_equals_a_plain_search_in_any_order() -> None:
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(1100, 4)), rng.integers(0, 5, 1100)  # more than one block of rows
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -2)
    expected = np.mean(labels[alike.argmax(axis=1)] == labels)
    order = rng.permutation(1100)
    for points_, labels_ in ((points, labels), (points[order], labels[order])):
        values = RetrievalAt1().per_example(points_, labels_, "embedding")
        assert RetrievalAt1().reduce(values) == pytest.approx(expected)


def test_cosine_compares_with_the_original() -> None:
    other = np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, 0.0], [math.nan, 1.0]])
    original = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    values = Cosine().per_example(other, np.zeros(5), "embedding", original=original)
    assert values == pytest.approx([1, math.sqrt(0.5), -1, 1, 0])
    assert Cosine().reduce(values) == pytest.approx((1 + math.sqrt(0.5) - 1 + 1 + 0) / 5)
    with pytest.raises(InputError, match="needs the original"):
        Cosine().per_example(other, np.zeros(5), "embedding")


def test_agreement_is_the_same_nearest_neighbour() -> None:
    moved = POINTS.copy()
    moved[1] = [math.cos(math.radians(80)), math.sin(math.radians(80))]  # between: 0 and 2 now find image 1
    values = Agreement().per_example(moved, np.zeros(5), "embedding", original=POINTS)
    assert values.tolist() == [1, 0, 1, 1, 1]
    turned = POINTS @ np.array([[0.0, 1.0], [-1.0, 0.0]])  # each in its own space: a rotation changes nothing
    assert Agreement().per_example(turned, np.zeros(5), "embedding", original=POINTS).tolist() == [1] * 5
