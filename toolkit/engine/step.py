"""One epoch of training: student, teacher and optimizer, and the one compiled step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.engine import augment, heads, loss, schedule, views
from toolkit.engine.asking import Asked
from toolkit.engine.hints import Lessons, Match
from toolkit.engine.masking import Masks
from toolkit.engine.teacher import Teacher, of_graph
from toolkit.engine.teaching import Teaching
from toolkit.engine.weight_sharing import SharedWeights

Array = NDArray[Any]
Told = Callable[[int, float, float], None]  # epoch from 1, share done of it, mean loss so far
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
        self._teacher: Teacher | None = teacher if how.asks_teacher else None
        self._lessons = None
        if self._teacher is not None and how.beside.any:
            self._lessons = Lessons(self.student.graph, self._teacher.graph, how.beside, how.seed)
        self._views = views.network(how.views, tuple(student.inputs[0].shape[1:]), how.seed)
        self._batches, self._how = batches, how
        self._target = how.target if self._teacher else how.labels_only
        self.rates = schedule.rates(how.schedule, how.learning_rate, how.epochs, batches.steps)
        self._optimizer = _optimizer(how, self.rates)
        self._shared = SharedWeights(self.student.graph, how.sharing) if how.sharing else None
        learn = self._learning()
        self._optimizer.build(self._shared.instead(learn) if self._shared else learn)
        self._masks = Masks(self.student.graph, how.sparsity) if how.sparsity else None
        self._asked = Asked(self._teacher, self._lessons) if self._teacher else None
        self._answers: tuple[Array, ...] = ()
        if self._asked is not None and self._views is None:
            self._answers = self._asked.known(batches.images, how.augment)
        self._step = tf.function(self._compute, autograph=False)

    def epoch(self, number: int, told: Told) -> dict[str, float]:
        """Mean loss of one pass over the images, and its parts where it has several: name -> value."""
        sums: dict[str, Any] = {}
        last = monotonic()
        done = (number - 1) * self._batches.steps
        for index, rows in enumerate(self._batches.rows(number)):
            given = (self._batches.images[rows], self._batches.labels[rows])
            answers = tuple(tf.constant(part[rows]) for part in self._answers)
            seeds = tf.constant([self._how.seed * 100_003 + number, index * 7], tf.int32)
            free = self._choose_masks(done + index + 1, is_last=index + 1 == self._batches.steps)
            parts = self._step(*map(tf.constant, given), answers, seeds, tf.constant(free))
            sums = {name: sums.get(name, 0.0) + value for name, value in parts.items()}
            if monotonic() - last > SECOND:
                last = monotonic()
                told(number, (index + 1) / self._batches.steps, sum(map(float, sums.values())) / (index + 1))
        return _named({name: float(value) / self._batches.steps for name, value in sums.items()})

    def rate(self, number: int) -> float:
        """Mean learning rate of an epoch."""
        steps = self._batches.steps
        return float(self.rates[(number - 1) * steps : number * steps].mean())

    @property
    def matches(self) -> tuple[Match, ...]:
        """The layers that are compared with the teacher's."""
        return self._lessons.matches if self._lessons is not None else ()

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
        beside = self._lessons.variables if self._lessons is not None else []
        return [*self.student.graph.variables, *beside, *self._optimizer.variables, *seen, *masks, *shared]

    def _learning(self) -> list[Any]:
        """What the optimizer changes."""
        beside = self._lessons.variables if self._lessons is not None else []
        return [*self.student.graph.trainable_variables, *beside]

    def _compute(self, images: Any, labels: Any, answers: Any, seeds: Any, free: Any) -> dict[str, Any]:
        """The parts of a batch's loss, before the step that follows it.

        answers: the teacher's, where they are known. free: leave weights unmasked.
        """
        graph = self.student.graph
        seen = augment.view(images, self._how.augment, seeds)
        if self._views is not None:
            seen = self._views(seen, training=True)
        taught, noted = None, []
        if self._asked is not None:
            outputs, *noted = self._asked.chosen(answers, seeds) if self._answers else self._asked.look(seen)
            taught = loss.raw(outputs, self._asked.head)
        with tf.GradientTape() as tape:
            model = self._lessons.student if self._lessons is not None else graph
            output, *features = keras.tree.flatten(model(seen, training=True))
            rows = loss.raw(output, self.student.head)
            parts = loss.parts(rows, taught, labels, head=self.student.head, target=self._target)
            if self._lessons is not None:
                parts |= self._lessons.parts(features, noted, rows, taught)
            whole = tf.add_n([*parts.values(), *graph.losses])  # with the layers' own regularizers
            whole = self._optimizer.scale_loss(whole)
        variables = self._learning()
        gradients = tape.gradient(whole, variables)
        if self._shared is not None:
            variables, gradients = self._shared.instead(variables), self._shared.gradients(variables, gradients)
        self._optimizer.apply(gradients, variables)
        if self._shared is not None:
            self._shared.lay_on()
        if self._masks is not None:
            self._masks.lay_on(free)
        return parts


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


def _named(parts: Mapping[str, float]) -> dict[str, float]:
    """What an epoch's curves are called."""
    own = {f"{name}_loss": value for name, value in parts.items()} if len(parts) > 1 else {}
    return {"loss": sum(parts.values()), **own}
