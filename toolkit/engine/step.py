"""One epoch of training: student, teacher and optimizer, and the one compiled step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.engine import augment, heads, loss, schedule, views
from toolkit.engine.masking import Masks
from toolkit.engine.teacher import Teacher, of_graph
from toolkit.engine.teaching import Teaching
from toolkit.engine.weight_sharing import SharedWeights

Array = NDArray[Any]
Told = Callable[[int, float, float], None]  # epoch from 1, share done of it, mean loss so far
MOST_ANSWERS = 256 * 2**20  # bytes of a teacher's answers kept; beyond, it answers again in every step
SECOND = 1.0  # between two signs of life within an epoch


@dataclass(frozen=True)
class Batches:
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


class Trainer:
    """Student, teacher and optimizer. The networks given stay as they are; `student.graph` is what learns."""

    def __init__(self, student: Any, teacher: Any | None, batches: Batches, how: Teaching) -> None:
        self.student = heads.learner(student, how.head, batches.steps, frozen=how.frozen, dtype=how.policy)
        if teacher is not None and not isinstance(teacher, Teacher):
            teacher = of_graph(teacher, how.head, how.policy)
        self._teacher: Teacher | None = teacher if how.target.alpha > 0 else None
        self._views = views.network(how.views, tuple(student.inputs[0].shape[1:]), how.seed)
        self._batches, self._how = batches, how
        self._target = how.target if self._teacher else how.labels_only
        self.rates = schedule.rates(how.schedule, how.learning_rate, how.epochs, batches.steps)
        self._optimizer = _optimizer(how, self.rates)
        self._shared = SharedWeights(self.student.graph, how.sharing) if how.sharing else None
        learn = self.student.graph.trainable_variables
        self._optimizer.build(self._shared.instead(learn) if self._shared else learn)
        self._masks = Masks(self.student.graph, how.sparsity) if how.sparsity else None
        self._answers = self._known_answers()
        self._step = tf.function(self._compute, autograph=False)

    def epoch(self, number: int, told: Told) -> float:
        """Mean loss of one pass over the images."""
        total, last = tf.zeros(()), monotonic()
        done = (number - 1) * self._batches.steps
        for index, rows in enumerate(self._batches.rows(number)):
            answers = self._answers[rows] if self._answers is not None else np.zeros(0, np.float32)
            given = (self._batches.images[rows], self._batches.labels[rows], answers)
            seeds = tf.constant([self._how.seed * 100_003 + number, index * 7], tf.int32)
            free = self._choose_masks(done + index + 1, is_last=index + 1 == self._batches.steps)
            total += self._step(*map(tf.constant, given), seeds, tf.constant(free))
            if monotonic() - last > SECOND:
                last = monotonic()
                told(number, (index + 1) / self._batches.steps, float(total) / (index + 1))
        return float(total) / self._batches.steps

    def rate(self, number: int) -> float:
        """Mean learning rate of an epoch."""
        steps = self._batches.steps
        return float(self.rates[(number - 1) * steps : number * steps].mean())

    @property
    def settled(self) -> int:
        """The first epoch at whose end masks are those that stay, and weights are shared; 0 where they always are."""
        masked = -(-self._masks.settled // self._batches.steps) if self._masks else 0
        return max(masked, 1) if self._shared and self._shared.makes else masked

    def _choose_masks(self, step: int, *, is_last: bool) -> bool:
        """Choose masks where they are due; whether this step leaves weights free, for the next to choose from.

        The last of an epoch does not: what the epoch has come to is looked at and kept.
        """
        if self._masks is None:
            return False
        if self._masks.is_due(step):
            self._masks.choose(step)
        return self._masks.is_due(step + 1) and not is_last

    def state(self) -> list[Array]:
        """Everything that changes from step to step: weights, the optimizer's, states of random layers."""
        return [np.asarray(variable) for variable in self._variables()]

    def restore(self, values: Sequence[Array]) -> None:
        """Go back to what `state` gave."""
        for variable, value in zip(self._variables(), values, strict=True):
            variable.assign(value)

    def _variables(self) -> list[Any]:
        seen = self._views.variables if self._views is not None else []
        masks = self._masks.variables if self._masks is not None else []
        shared = self._shared.variables if self._shared is not None else []
        return [*self.student.graph.variables, *self._optimizer.variables, *seen, *masks, *shared]

    def _known_answers(self) -> Array | None:
        """The teacher's outputs, once for all epochs; None where views differ, or where they would fill the memory."""
        if self._teacher is None or self._how.augment != "none" or self._views is not None:
            return None
        images = self._batches.images
        if 4 * len(images) * self._teacher.columns > MOST_ANSWERS:
            return None
        return self._teacher.answers(images)

    def _compute(self, images: Any, labels: Any, answers: Any, seeds: Any, free: Any) -> Any:
        """The loss of a batch, before the step that follows it.

        answers: the teacher's, where they are known. free: leave weights unmasked.
        """
        model = self.student.graph
        seen = augment.view(images, self._how.augment, seeds)
        if self._views is not None:
            seen = self._views(seen, training=True)
        taught = None
        if self._teacher is not None:
            outputs = answers if self._answers is not None else self._teacher.look(seen)
            taught = loss.raw(outputs, self._teacher.head)
        with tf.GradientTape() as tape:
            rows = loss.raw(_first(model(seen, training=True)), self.student.head)
            value = loss.total(rows, taught, labels, head=self.student.head, target=self._target)
            whole = tf.add_n([value, *model.losses]) if model.losses else value  # the layers' own regularizers
            whole = self._optimizer.scale_loss(whole)
        variables = model.trainable_variables
        gradients = tape.gradient(whole, variables)
        if self._shared is not None:
            variables, gradients = self._shared.instead(variables), self._shared.gradients(variables, gradients)
        self._optimizer.apply(gradients, variables)
        if self._shared is not None:
            self._shared.lay_on()
        if self._masks is not None:
            self._masks.lay_on(free)
        return value


@contextmanager
def repeatable() -> Iterator[None]:
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


def _optimizer(how: Teaching, rates: schedule.Rates) -> Any:
    table = schedule.Table(rates)
    if how.optimizer == "sgd":
        found = keras.optimizers.SGD(table, momentum=how.momentum, nesterov=how.momentum > 0)
    elif how.optimizer == "adamw":
        found = keras.optimizers.AdamW(table, weight_decay=how.weight_decay)
    else:
        found = keras.optimizers.Adam(table)
    return keras.optimizers.LossScaleOptimizer(found) if how.precision == "float16" else found


def _first(outputs: Any) -> Any:
    return keras.tree.flatten(outputs)[0]
