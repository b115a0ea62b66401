"""Losses between what two networks hold inside: features, where they look, how the images of a batch lie to each other.

Hints: Romero et al. 2015 (FitNets, arXiv:1412.6550). Attention: Zagoruyko and Komodakis 2017 (arXiv:1612.03928), the
activation-based maps. Relations: Park et al. 2019 (RKD, arXiv:1904.05068). All in float32.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

LEAST = 1e-12  # of a sum of squares that is divided by
SAME = 1e-6  # rows whose squared distance is below this share of their size are one: float32 tells no more


def hint(student: Any, teacher: Any) -> Any:
    """Mean squared difference, in units of the teacher's mean square: 1 where the student has nothing but zeros.

    Relative, so that a weight says the same for every layer, whatever the size of its values; not so where the teacher
    gives nothing but zeros, which would make it infinite.
    """
    size = tf.reduce_mean(tf.square(teacher))
    size = tf.where(size > LEAST, size, 1.0)
    return tf.reduce_mean(tf.square(student - teacher)) / size


def attention_map(features: Any) -> Any:
    """Where a layer looks: squares averaged over channels, each image's of length 1. (n, places)."""
    squares = tf.reduce_mean(tf.square(features), axis=-1)
    return tf.math.l2_normalize(tf.reshape(squares, (tf.shape(squares)[0], -1)), axis=1, epsilon=LEAST)


def attention(student: Any, teacher: Any) -> Any:
    """Mean squared difference of two such maps; for maps of any number of channels."""
    return tf.reduce_mean(tf.square(student - teacher))


def distances(student: Any, teacher: Any) -> Any:
    """How differently far apart the rows of a batch are, in units of their mean distance (equation 5 of RKD)."""
    apart = _huber(_relative_distances(student) - _relative_distances(teacher))
    count = tf.cast(tf.shape(student)[0], tf.float32)
    return tf.reduce_sum(apart) / tf.maximum(count * (count - 1), 1.0)


def angles(student: Any, teacher: Any) -> Any:
    """How different the angles are that any three rows of a batch span (equation 7 of RKD)."""
    apart = _huber(_cosines(student) - _cosines(teacher))
    count = tf.cast(tf.shape(student)[0], tf.float32)
    return tf.reduce_sum(apart) / tf.maximum(count * (count - 1) * (count - 2), 1.0)


def _huber(apart: Any) -> Any:
    size = tf.abs(apart)
    return tf.where(size < 1, tf.square(apart) / 2, size - 0.5)


def _relative_distances(rows: Any) -> Any:
    apart = _distances(_products(rows))
    others = tf.cast(apart > 0, tf.float32)
    return apart * tf.reduce_sum(others) / tf.maximum(tf.reduce_sum(apart), LEAST)


def _cosines(rows: Any) -> Any:
    """[j, i, k]: cosine of the angle at row j between rows i and k; 0 where two of them are one."""
    products = _products(rows)
    apart = _distances(products)
    own = tf.linalg.diag_part(products)
    sides = products[None, :, :] - products[:, :, None] - products[:, None, :] + own[:, None, None]
    lengths = apart[:, :, None] * apart[:, None, :]
    return tf.math.divide_no_nan(sides, lengths)


def _products(rows: Any) -> Any:
    """Scalar products of rows, about their mean, which loses least to rounding."""
    centred = rows - tf.reduce_mean(rows, axis=0, keepdims=True)
    return tf.matmul(centred, centred, transpose_b=True)


def _distances(products: Any) -> Any:
    """Of all pairs of rows; 0, without a gradient, where two are one."""
    own = tf.linalg.diag_part(products)
    squares = own[:, None] + own[None, :] - 2 * products
    differ = squares > SAME * tf.maximum(own[:, None] + own[None, :], LEAST)
    return tf.where(differ, tf.sqrt(tf.where(differ, squares, 1.0)), 0.0)
