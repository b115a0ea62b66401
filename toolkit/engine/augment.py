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


def mirrored(count: Any, seed: Any) -> Any:
    """Which images `flip` mirrors: each with probability one half. (count,) of bool."""
    return tf.random.stateless_uniform((count, 1, 1, 1), seed)[:, 0, 0, 0] < 0.5


def flip(images: Any, seed: Any) -> Any:
    """Some images mirrored left to right."""
    turned = mirrored(tf.shape(images)[0], seed)[:, None, None, None]
    return tf.where(turned, tf.reverse(images, axis=[2]), images)


def view(images: Any, kind: str, seed: Any) -> Any:
    """A random view; kind: "none", "flip", "shift" or "flip_shift"."""
    moved = shift(images, seed) if kind in ("shift", "flip_shift") else images
    return flip(moved, seed) if kind in ("flip", "flip_shift") else moved


def both_views(images: Any, kind: str) -> tuple[Any, ...] | None:
    """All views there are of whole arrays, the mirrored one last; None where they are too many to be looked at once."""
    if kind == "none":
        return (images,)
    return (images, images[:, :, ::-1]) if kind == "flip" else None
