"""Random views of training images: shifts of up to an eighth of a side, and left-right flips, each image its own."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

SHARE = 8  # a shift reaches this part of a side: 4 pixels of 32 is CIFAR's practice (He et al. 2015, section 4.2)


def shift(images: Any, seed: Any) -> Any:
    """Each image moved by its own offset, edges repeated. images: (n, height, width, channels); seed: (2,) int32."""
    moved = images
    for axis in (1, 2):
        size = images.shape[axis]
        reach = max(1, size // SHARE)
        offsets = tf.random.stateless_uniform((tf.shape(images)[0], 1), seed + axis, -reach, reach + 1, tf.int32)
        places = tf.clip_by_value(tf.range(size)[None, :] + offsets, 0, size - 1)
        moved = tf.gather(moved, places, axis=axis, batch_dims=1)
    return moved


def flip(images: Any, seed: Any) -> Any:
    """Each image mirrored left to right with probability one half."""
    mirrored = tf.random.stateless_uniform((tf.shape(images)[0], 1, 1, 1), seed) < 0.5
    return tf.where(mirrored, tf.reverse(images, axis=[2]), images)


def view(images: Any, kind: str, seed: Any) -> Any:
    """A random view; kind: "none", "shift" or "flip_shift"."""
    if kind == "none":
        return images
    moved = shift(images, seed)
    return flip(moved, seed) if kind == "flip_shift" else moved
