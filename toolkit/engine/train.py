"""Training a student from labels and a teacher: Adam with cosine decay, seeded, the best epoch kept.

keras.distillation.Distiller wraps a model for `fit`; here the teacher must see the student's augmented view, softmax heads
must be taught on logits, and epoch 0 must be a candidate: a short loop of our own says that more plainly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.engine import augment, loss
from toolkit.engine.surgery import rebuild
from toolkit.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True)
class Teaching:
    """How to train. alpha: weight of the teacher's part, 0..1. head: what the outputs are (see `loss.as_logits`).

    patience: epochs without a better evaluation before stopping; 0 never stops early.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    temperature: float = 4.0
    alpha: float = 0.8
    augment: str = "none"
    head: str = "softmax"
    patience: int = 0
    seed: int = 0


@dataclass(frozen=True)
class TrainResult:
    """A new model. curves: name -> value for each epoch ("score" begins with the untrained model). best_epoch: 0 is it."""

    model: Any
    best_epoch: int
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def fit(
    student: Any,
    teacher: Any | None,
    images: Array,
    labels: Array,
    *,
    how: Teaching,
    evaluate: Callable[[Any], float] | None = None,
    on_epoch: Callable[[int, float, float | None], None] = lambda epoch, loss, score: None,
) -> TrainResult:
    """A trained copy of `student`; the model given stays as it is.

    images: (n, height, width, channels) float32, or a memory map of it; labels: (n,) ints. evaluate: a score to be
    large (on other images); the best epoch's weights are kept, else the last one's. on_epoch(epoch, loss, score).
    Raises InputError when the loss stops being a number.
    """
    keras.utils.set_random_seed(how.seed)
    alpha = how.alpha if teacher is not None else 0.0
    model = rebuild(student, {})
    batch = min(how.batch_size, len(labels))
    steps = len(labels) // batch
    schedule = keras.optimizers.schedules.CosineDecay(how.learning_rate, decay_steps=steps * how.epochs)
    step = _step(model, teacher, keras.optimizers.Adam(schedule), how=how, alpha=alpha)
    scores = [evaluate(model)] if evaluate else []
    best, best_epoch = model.get_weights(), 0
    losses: list[float] = []
    rng = np.random.default_rng(how.seed)
    for epoch in range(1, how.epochs + 1):
        losses.append(
            _epoch(step, images, labels, order=rng.permutation(len(labels)), batch=batch, seed=how.seed + epoch)
        )
        if not math.isfinite(losses[-1]):
            problem = f"the loss is {losses[-1]} in epoch {epoch}"
            raise InputError("training", problem, f"lower learning_rate, got {how.learning_rate:g}")
        if evaluate:
            scores.append(evaluate(model))
        if not evaluate or scores[-1] > scores[best_epoch]:
            best, best_epoch = model.get_weights(), epoch
        on_epoch(epoch, losses[-1], scores[-1] if evaluate else None)
        if how.patience and evaluate and epoch - best_epoch >= how.patience:
            break
    model.set_weights(best)
    curves = {"loss": tuple(losses)} | ({"score": tuple(scores)} if evaluate else {})
    return TrainResult(model, best_epoch, curves)


def _epoch(step: Any, images: Array, labels: Array, *, order: Array, batch: int, seed: int) -> float:
    """Mean loss of one pass over the images; the last, smaller batch is left out so that one graph serves all."""
    total, count = 0.0, 0
    for start in range(0, len(order) - batch + 1, batch):
        rows = np.sort(order[start : start + batch])  # sorted: a memory map is read in order
        seeds = tf.constant([seed, start], tf.int32)
        total += float(step(tf.constant(images[rows]), tf.constant(labels[rows]), seeds))
        count += 1
    return total / max(1, count)


def _step(model: Any, teacher: Any | None, optimizer: Any, *, how: Teaching, alpha: float) -> Any:
    """One compiled step: images and labels of a batch, and a seed for the view, to the loss before it."""
    trainable = model.trainable_variables
    optimizer.build(trainable)

    def step(images: Any, labels: Any, seeds: Any) -> Any:
        seen = augment.view(images, how.augment, seeds)
        taught = tf.zeros(())
        if teacher is not None and alpha > 0:
            taught = loss.as_logits(_first(teacher(seen, training=False)), how.head)
        with tf.GradientTape() as tape:
            answers = loss.as_logits(_first(model(seen, training=True)), how.head)
            value = loss.distillation(answers, taught, labels, temperature=how.temperature, alpha=alpha)
            whole = tf.add_n([value, *model.losses]) if model.losses else value
        optimizer.apply(tape.gradient(whole, trainable), trainable)
        return value

    return tf.function(step, autograph=False)


def _first(outputs: Any) -> Any:
    return keras.tree.flatten(outputs)[0]
