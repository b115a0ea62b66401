"""Training a student from labels and a teacher: Adam with cosine decay, seeded, the best epoch kept.

Not by keras.distillation.Distiller: it takes a model's outputs for logits, which softmax outputs are not, asks the
teacher in every step, and knows no views and no best epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.engine import augment, heads, loss
from toolkit.engine.surgery import rebuild
from toolkit.engine.teacher import Teacher, of_graph
from toolkit.errors import InputError

Array = NDArray[Any]
Evaluate = Callable[[Any], float]
MOST_ANSWERS = 256 * 2**20  # bytes of a teacher's answers kept; beyond, it answers again in every step
SECOND = 1.0  # between two signs of life within an epoch


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
class Watch:
    """What is called as training goes on. epoch(number from 1, loss, score or None); step(number, share done of it)."""

    epoch: Callable[[int, float, float | None], None] = lambda number, loss, score: None
    step: Callable[[int, float], None] = lambda number, share: None


@dataclass(frozen=True)
class TrainResult:
    """A new model. curves: name -> value for each epoch. best_epoch: whose weights it has; 0 is the model as it came.

    before: the score of the model as it came, None where nothing evaluates. steps: of one epoch.
    """

    model: Any
    best_epoch: int
    before: float | None = None
    steps: int = 0
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def fit(
    student: Any,
    teacher: Any | None,
    images: Array,
    labels: Array,
    *,
    how: Teaching,
    evaluate: Evaluate | None = None,
    watch: Watch = Watch(),
) -> TrainResult:
    """A trained copy of `student` (flat, one output that counts); neither model given changes.

    teacher: a flat Keras model with the student's head, or a `Teacher`.

    images: (n, height, width, channels) float32, or a memory map of it; labels: (n,) class indexes. Without a teacher,
    on labels alone. evaluate: a score to be large, on other images; the best epoch is kept, the later one of equals,
    and the model as it came if none is as good; without it the last epoch. Every layer is trained, frozen ones too.
    Raises InputError for labels the student has no class for, and when the loss stops being a number.
    """
    keras.utils.set_random_seed(how.seed)
    result = rebuild(student, {})
    batches = _Batches(images, labels, min(how.batch_size, len(labels)), how.seed)
    trainer = _Trainer(student, teacher, batches, how)
    best = _Best(evaluate, how.patience)
    best.see(0, result)
    losses: list[float] = []
    for number in range(1, how.epochs + 1):
        with _repeatable():
            value = trainer.epoch(number, watch)
        losses.append(_finite(value, number, how))
        heads.copy_weights(trainer.student.graph, result)
        score = best.see(number, result)
        watch.epoch(number, losses[-1], score)
        if best.is_enough(number):
            break
    if best.weights is not None:
        result.set_weights(best.weights)
    _check_weights(result, how)
    scores = {"selection_accuracy": tuple(best.scores[1:])} if evaluate else {}
    before = best.scores[0] if evaluate else None
    return TrainResult(result, best.epoch, before, batches.steps, {"loss": tuple(losses), **scores})


class _Best:
    """The best weights seen. Equal scores: the later, which has learned at a smaller rate; patience asks for better."""

    def __init__(self, evaluate: Evaluate | None, patience: int) -> None:
        self._evaluate, self._patience = evaluate, patience
        self._risen = 0  # the last epoch with a score above all before it
        self.scores: list[float] = []
        self.weights: list[Array] | None = None
        self.epoch = 0

    def see(self, number: int, model: Any) -> float | None:
        """The model's score after an epoch."""
        if self._evaluate is None:
            self.epoch = number
            return None
        score, top = self._evaluate(model), max(self.scores, default=-math.inf)
        self.scores.append(score)
        if score > top:
            self._risen = number
        if score >= top:
            self.epoch, self.weights = number, model.get_weights()
        return score

    def is_enough(self, number: int) -> bool:
        return bool(self._evaluate and self._patience) and number - self._risen >= self._patience


@dataclass(frozen=True)
class _Batches:
    """Shuffled batches of one size, so that one compiled step serves all; what is left over waits for another epoch."""

    images: Array
    labels: Array
    size: int
    seed: int

    @property
    def steps(self) -> int:
        return len(self.labels) // self.size

    def rows(self, epoch: int) -> Iterator[Array]:
        """Row numbers of each batch, in ascending order: a memory map is read forward."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.labels))
        for start in range(0, self.steps * self.size, self.size):
            yield np.sort(order[start : start + self.size])


class _Trainer:
    """Student, teacher and optimizer, and the one compiled step."""

    def __init__(self, student: Any, teacher: Any | None, batches: _Batches, how: Teaching) -> None:
        self.student = heads.learner(student, how.head, batches.steps)
        if teacher is not None and not isinstance(teacher, Teacher):
            teacher = of_graph(teacher, how.head)
        self._teacher: Teacher | None = teacher if how.alpha > 0 else None
        self._batches, self._how = batches, how
        self._alpha = how.alpha if self._teacher else 0.0
        _check_labels(self.student.graph, batches.labels)
        schedule = keras.optimizers.schedules.CosineDecay(how.learning_rate, batches.steps * how.epochs)
        self._optimizer = keras.optimizers.Adam(schedule)
        self._optimizer.build(self.student.graph.trainable_variables)
        self._answers = self._known_answers()
        self._step = tf.function(self._compute, autograph=False)

    def epoch(self, number: int, watch: Watch) -> float:
        """Mean loss of one pass over the images."""
        total, told = tf.zeros(()), monotonic()
        for index, rows in enumerate(self._batches.rows(number)):
            answers = self._answers[rows] if self._answers is not None else np.zeros(0, np.float32)
            given = (self._batches.images[rows], self._batches.labels[rows], answers)
            seeds = tf.constant([self._how.seed * 100_003 + number, index * 7], tf.int32)
            total += self._step(*map(tf.constant, given), seeds)
            if monotonic() - told > SECOND:
                told = monotonic()
                watch.step(number, (index + 1) / self._batches.steps)
        return float(total) / self._batches.steps

    def _known_answers(self) -> Array | None:
        """The teacher's outputs, once for all epochs; None where views differ, or where they would fill the memory."""
        if self._teacher is None or self._how.augment != "none":
            return None
        images = self._batches.images
        if 4 * len(images) * self._teacher.columns > MOST_ANSWERS:
            return None
        return self._teacher.answers(images)

    def _compute(self, images: Any, labels: Any, answers: Any, seeds: Any) -> Any:
        """The loss of a batch, before the step that follows it. `answers`: the teacher's, where they are known."""
        how, model = self._how, self.student.graph
        seen = augment.view(images, how.augment, seeds)
        taught = None
        if self._teacher is not None:
            outputs = answers if self._answers is not None else self._teacher.look(seen)
            taught = loss.as_logits(outputs, self._teacher.head)
        with tf.GradientTape() as tape:
            logits = loss.as_logits(_first(model(seen, training=True)), self.student.head)
            value = loss.distillation(logits, taught, labels, temperature=how.temperature, alpha=self._alpha)
            whole = tf.add_n([value, *model.losses]) if model.losses else value  # the layers' own regularizers
        variables = model.trainable_variables
        self._optimizer.apply(tape.gradient(whole, variables), variables)
        return value


@contextmanager
def _repeatable() -> Iterator[None]:
    """Graph functions called in here run as they were written, and give the same bits each time.

    In a large graph TensorFlow's memory optimizer has the parts of a gradient added in the order in which threads
    finish: seen on MobileNetV2, with `enable_op_determinism` too. Training steps are not slower without it.
    """
    before = bool(tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False))
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


def _first(outputs: Any) -> Any:
    return keras.tree.flatten(outputs)[0]


def _check_labels(model: Any, labels: Array) -> None:
    columns = math.prod(size or 1 for size in model.outputs[0].shape[1:])
    classes = 2 if columns == 1 else columns
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        problem = f"labels run from {labels.min()} to {labels.max()}, the model has {classes} classes"
        raise InputError("training", problem, "give the model's own class list, in its order")


def _finite(value: float, number: int, how: Teaching) -> float:
    if not math.isfinite(value):
        raise InputError("training", f"the loss is {value} in epoch {number}", _slower(how))
    return value


def _check_weights(model: Any, how: Teaching) -> None:
    """A last step may spoil what the loss before it could not show."""
    bad = [weight.path for weight in model.weights if not np.isfinite(np.asarray(weight)).all()]
    if bad:
        raise InputError("training", f"weight {bad[0]!r} holds NaN or infinite values", _slower(how))


def _slower(how: Teaching) -> str:
    return f"lower learning_rate, got {how.learning_rate:g}, and see that the images hold no NaN"
