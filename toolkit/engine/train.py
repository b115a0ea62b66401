"""The one training loop: from labels, from a teacher or from both; seeded, the best epoch kept, able to go on.

Not by keras.distillation.Distiller: it takes a model's outputs for logits, which softmax outputs are not, asks the
teacher in every step, compares layers of one width only, and knows no views and no best epoch. Not by Model.fit: its
state cannot be taken up after an epoch so that the same bits come out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from toolkit.engine import checkpoint as keeping
from toolkit.engine import heads, loss
from toolkit.engine.checkpoint import Checkpoint, State
from toolkit.engine.hints import Match
from toolkit.engine.loss import DECISIONS
from toolkit.engine.step import Batches, Trainer, repeatable
from toolkit.engine.surgery import rebuild
from toolkit.engine.teaching import Teaching
from toolkit.errors import InputError

Array = NDArray[Any]
Evaluate = Callable[[Any], float]


@dataclass(frozen=True)
class Watch:
    """What is called as training goes on.

    begin(epochs a checkpoint had done); epoch(number from 1, loss, score or None); step(number, share done of it, mean
    loss so far).
    """

    begin: Callable[[int], None] = lambda done: None
    epoch: Callable[[int, float, float | None], None] = lambda number, loss, score: None
    step: Callable[[int, float, float], None] = lambda number, share, loss: None


@dataclass(frozen=True)
class TrainResult:
    """A new model. curves: name -> value for each epoch. best_epoch: whose weights it has; 0 is the model as it came.

    before: the score of the model as it came, None where nothing evaluates. steps: of one epoch. matches: the layers
    that were compared with the teacher's.
    """

    model: Any
    best_epoch: int
    before: float | None = None
    steps: int = 0
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    matches: tuple[Match, ...] = ()


def fit(
    student: Any,
    teacher: Any | None,
    images: Array,
    labels: Array,
    *,
    how: Teaching,
    evaluate: Evaluate | None = None,
    watch: Watch = Watch(),
    checkpoint: Checkpoint | None = None,
) -> TrainResult:
    """A trained copy of `student` (flat, one output that counts); neither model given changes.

    teacher: a flat Keras model with the student's head, or a `Teacher`; without one, on labels alone. images: (n, ...)
    float32, or a memory map of it; labels: (n,) class indexes, (n, labels) of 0 and 1, or (n, columns) numbers, as the
    head has it; NO_CLASS or NaN for an image without a label, from which the teacher's part is learned alone.
    evaluate: a score or a loss (how.judged_by) on other images; the best epoch is kept, the later one of equals, and
    the model as it came if none is as good; without it the last epoch. With a schedule of zeros, only epochs that have
    all of them count. checkpoint: where to keep the state after each epoch, and to go on from, if one of this training
    is there; what comes out is then the same. Raises InputError for labels the student has no output for, and when the
    loss stops being a number.
    """
    if teacher is None or how.target.alpha < 1:
        known = loss.labelled(labels)
        _check_labels(student, labels[known], how)
        how = replace(how, target=replace(how.target, partly=not known.all()))
    keras.utils.set_random_seed(how.seed)
    result = rebuild(student, {})
    batches = Batches(images, labels, min(how.batch_size, len(labels)), how.seed)
    trainer = Trainer(student, teacher, batches, how)
    best = _Best(evaluate, how, trainer.settled)
    told = _taken_up(checkpoint, trainer, best)
    watch.begin(len(told))
    if told:
        heads.copy_weights(trainer.student.graph, result)
    else:
        best.see(0, result)
    for number in range(len(told) + 1, how.epochs + 1):
        if best.is_enough(number - 1):
            break
        with repeatable():
            told.append(_finite(trainer.epoch(number, watch.step), number, how))
        heads.copy_weights(trainer.student.graph, result)
        score = best.see(number, result)
        if checkpoint is not None:
            keeping.write(checkpoint, _state(trainer, best, told))
        watch.epoch(number, told[-1]["loss"], score)
    if best.weights is not None:
        result.set_weights(best.weights)
    _check_weights(result, how)
    before = best.scores[0] if evaluate else None
    return TrainResult(result, best.epoch, before, batches.steps, _curves(told, best, trainer, how), trainer.matches)


class _Best:
    """The best weights seen. Equal scores: the later, which has learned at a smaller rate; patience asks for better.

    first: the epoch from which on they count.
    """

    def __init__(self, evaluate: Evaluate | None, how: Teaching, first: int) -> None:
        self._evaluate, self._how, self._first = evaluate, how, first
        self.scores: list[float] = []
        self.weights: list[Array] | None = None
        self.epoch = 0

    def see(self, number: int, model: Any) -> float | None:
        """The model's score after an epoch."""
        if self._evaluate is None:
            self.epoch = number
            return None
        score = float(self._evaluate(model))
        if number >= self._first and self._how.worth(score) >= max(self._worths(), default=-math.inf):
            self.epoch, self.weights = number, model.get_weights()
        self.scores.append(score)
        return score

    def _worths(self) -> list[float]:
        return [self._how.worth(score) for score in self.scores[self._first :]]

    def is_enough(self, number: int) -> bool:
        """Whether the last epochs, `patience` of them, brought no score above all before."""
        worths, patience = self._worths(), self._how.patience
        if not worths or not patience:
            return False
        return number - self._first - worths.index(max(worths)) >= patience


def _state(trainer: Trainer, best: _Best, told: list[dict[str, float]]) -> State:
    arrays = {"trainer": trainer.state(), "best": best.weights or []}
    return State(arrays, {"epochs": told, "scores": best.scores, "epoch": best.epoch})


def _taken_up(checkpoint: Checkpoint | None, trainer: Trainer, best: _Best) -> list[dict[str, float]]:
    """The losses of the epochs that a checkpoint has, everything else put back where it was."""
    state = keeping.read(checkpoint) if checkpoint is not None else None
    if state is None or "epochs" not in state.facts:  # written before a loss had parts
        return []
    trainer.restore(state.arrays["trainer"])
    best.weights = list(state.arrays["best"]) or None
    best.scores, best.epoch = list(state.facts["scores"]), int(state.facts["epoch"])
    return list(state.facts["epochs"])


def _curves(told: list[dict[str, float]], best: _Best, trainer: Trainer, how: Teaching) -> dict[str, tuple[float, ...]]:
    found = {name: tuple(epoch[name] for epoch in told) for name in (told[0] if told else ("loss",))}
    if best.scores:
        found[how.judgement] = tuple(best.scores[1:])
    return {**found, "learning_rate": tuple(trainer.rate(number) for number in range(1, len(told) + 1))}


def _check_labels(model: Any, labels: Array, how: Teaching) -> None:
    """Raise InputError for labels the outputs have no place for."""
    if not len(labels):
        raise InputError("training", "no image has a label", "set alpha = 1 to learn from the teacher alone")
    columns = math.prod(size or 1 for size in model.outputs[0].shape[1:])
    if how.head in DECISIONS:
        classes = 2 if columns == 1 else columns
        if labels.ndim != 1 or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            problem = f"labels run from {labels.min()} to {labels.max()}, the model has {classes} classes"
            raise InputError("training", problem, "give the model's own class list, in its order")
    elif labels.reshape(len(labels), -1).shape[1] != columns:
        problem = f"labels have shape {labels.shape}, the model has {columns} outputs"
        raise InputError("training", problem, "give a value for each output")


def _finite(told: dict[str, float], number: int, how: Teaching) -> dict[str, float]:
    if not math.isfinite(told["loss"]):
        raise InputError("training", f"the loss is {told['loss']} in epoch {number}", _slower(how))
    return told


def _check_weights(model: Any, how: Teaching) -> None:
    """A last step may spoil what the loss before it could not show."""
    bad = [weight.path for weight in model.weights if not np.isfinite(np.asarray(weight)).all()]
    if bad:
        raise InputError("training", f"weight {bad[0]!r} holds NaN or infinite values", _slower(how))


def _slower(how: Teaching) -> str:
    return f"lower learning_rate, got {how.learning_rate:g}, and see that the images hold no NaN"
