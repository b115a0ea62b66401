"""Losses between features equal small cases worked out by hand, loops over the papers' formulas, and their own laws."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from toolkit.engine.feature_loss import angles, attention, attention_map, distances, hint

ROWS = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)  # a student's and a teacher's


def huber(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def cosine(rows: Any, i: int, j: int, k: int) -> float:
    one, two = rows[i] - rows[j], rows[k] - rows[j]
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


def test_hint_is_keras_feature_distillation_in_units_of_the_teachers_mean_square() -> None:
    own, theirs = np.random.default_rng(1).normal(size=(2, 3, 4, 4, 2)).astype(np.float32)
    wanted = float(keras.distillation.FeatureDistillation("mse").compute_loss(theirs, own)) / (theirs**2).mean()
    assert float(hint(own, theirs)) == pytest.approx(wanted, rel=1e-5)
    assert float(hint(100 * own, 100 * theirs)) == pytest.approx(wanted, rel=1e-5)
    assert float(hint(0 * own, theirs)) == pytest.approx(1) and float(hint(theirs, theirs)) == 0


def test_hint_of_a_layer_that_gives_nothing_is_the_plain_error() -> None:
    nothing = np.zeros((2, 3, 3, 4), np.float32)
    assert float(hint(nothing + 0.5, nothing)) == pytest.approx(0.25)


def test_attention_by_hand() -> None:
    """Two places, two channels: (3, 4) and nothing look at the first alone; nothing and (5, 5) at the second."""
    own, theirs = (tf.constant([[[one, two]]], tf.float32) for one, two in (((3, 4), (0, 0)), ((0, 0), (5, 5))))
    np.testing.assert_allclose(attention_map(own), [[1, 0]])
    np.testing.assert_allclose(attention_map(theirs), [[0, 1]])
    assert float(attention(attention_map(own), attention_map(theirs))) == pytest.approx(1)


def test_attention_is_blind_to_channels_and_size() -> None:
    features = np.random.default_rng(2).normal(size=(2, 3, 3, 4)).astype(np.float32)
    wide = np.concatenate([features, -features, features], axis=-1) * 7
    np.testing.assert_allclose(attention_map(wide), attention_map(features), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(attention_map(features), axis=1), 1, rtol=1e-6)


def test_distances_equal_a_loop_over_pairs() -> None:
    pairs = list(permutations(range(7), 2))
    own, theirs = (np.array([np.linalg.norm(rows[i] - rows[j]) for i, j in pairs]) for rows in ROWS)
    wanted = np.mean([huber(x) for x in own / own.mean() - theirs / theirs.mean()])
    assert float(distances(*ROWS)) == pytest.approx(wanted, rel=1e-4)


def test_angles_equal_a_loop_over_triples() -> None:
    apart = [huber(cosine(ROWS[0], *three) - cosine(ROWS[1], *three)) for three in permutations(range(7), 3)]
    assert float(angles(*ROWS)) == pytest.approx(np.mean(apart), rel=1e-4)


def test_relations_stay_when_rows_are_moved_turned_and_enlarged() -> None:
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0].astype(np.float32)
    other = np.pad(9 * ROWS[0] @ turn + 2, ((0, 0), (0, 3)))  # in more dimensions, too
    assert float(distances(other, ROWS[0])) == pytest.approx(0, abs=1e-8)
    assert float(angles(other, ROWS[0])) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("rows", [np.zeros((4, 3)), np.ones((1, 3)), np.array([[100.0, 1], [100, 1], [100, 2]])])
@pytest.mark.parametrize("loss", [distances, angles])
def test_equal_rows_give_no_nan(loss: Any, rows: Any) -> None:
    given = tf.Variable(rows, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = loss(given, tf.random.stateless_normal(given.shape, (1, 2)))
    assert np.isfinite(float(value)) and np.isfinite(tape.gradient(value, given)).all()
