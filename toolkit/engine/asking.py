"""What a training asks of its teacher: once for all epochs where the views of an image are few, else in every step.

Either way teacher and student see the same view ("a good teacher is patient and consistent", Beyer et al. 2022,
arXiv:2106.05237).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.engine import augment
from toolkit.engine.hints import Lessons
from toolkit.engine.teacher import Teacher

Array = NDArray[Any]
MOST_ANSWERS = 256 * 2**20  # bytes of a teacher's answers kept; beyond, it answers again in every step
BATCH = 64  # images it is asked about together, beforehand


class Asked:
    """A teacher's outputs and, where lessons look inside it, what they note of its features: a list of tensors."""

    def __init__(self, teacher: Teacher, lessons: Lessons | None) -> None:
        self._teacher, self._lessons = teacher, lessons
        self._inside = lessons.teacher if lessons is not None else None

    @property
    def head(self) -> str:
        """What the outputs are."""
        return self._teacher.head

    def look(self, images: Any) -> list[Any]:
        """For a batch of images, inside a step."""
        if self._inside is None or self._lessons is None:
            return [self._teacher.look(images)]
        output, *features = keras.tree.flatten(self._inside(images, training=False))
        return [output, *self._lessons.noted(features)]

    def known(self, images: Array, kind: str) -> tuple[Array, ...]:
        """For all images and all views of that kind, each (n, views, ...); () where they are too many."""
        views = augment.both_views(images, kind)
        if views is None or len(views) * len(images) * self._bytes(images) > MOST_ANSWERS:
            return ()
        found = zip(*(self._whole(view) for view in views), strict=True)
        return tuple(np.stack(parts, axis=1) for parts in found)

    def chosen(self, answers: tuple[Any, ...], seed: Any) -> list[Any]:
        """Of a batch of known answers those for the views that this seed gives."""
        return [_view_of(part, seed) for part in answers]

    def _bytes(self, images: Array) -> int:
        """Of the answer for one image."""
        if self._inside is None:
            return 4 * self._teacher.columns
        return sum(part.nbytes for part in map(np.asarray, self.look(tf.constant(images[:1]))))

    def _whole(self, images: Array) -> list[Array]:
        if self._inside is None:
            return [self._teacher.answers(images)]
        return [np.concatenate(parts) for parts in zip(*self._batches(images), strict=True)]

    def _batches(self, images: Array) -> Iterator[list[Array]]:
        look = tf.function(self.look, autograph=False)
        for start in range(0, len(images), BATCH):
            yield [np.asarray(part) for part in look(tf.constant(images[start : start + BATCH]))]


def _view_of(part: Any, seed: Any) -> Any:
    if part.shape[1] == 1:
        return part[:, 0]
    turned = augment.mirrored(tf.shape(part)[0], seed)
    return tf.where(tf.reshape(turned, (-1, *(1,) * (len(part.shape) - 2))), part[:, 1], part[:, 0])
