"""A Keras 2 model trained by the loss, the batches and the learning rates of every other training here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.clusters import Sharing
    from toolkit.engine.sparsity import Sparsity
    from toolkit.engine.teaching import Teaching


def rebuilt(how: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a Teaching from its JSON."""
    from toolkit.engine.loss import Target
    from toolkit.engine.schedule import Schedule

    target = {**how["target"], "class_weights": tuple(how["target"]["class_weights"])}
    rest = {"target": Target(**target), "schedule": Schedule(**how["schedule"]), "sparsity": _zeros(how["sparsity"])}
    return {**how, **rest, "sharing": _shared(how["sharing"])}


def _shared(asked: Mapping[str, Any] | None) -> Sharing | None:
    from toolkit.codebook import Codebook
    from toolkit.engine.clusters import Sharing

    if asked is None:
        return None
    made = {name: Codebook(**codebook) for name, codebook in asked["made"].items()}
    return Sharing(made, start=asked["start"], zeros=tuple(asked["zeros"]), seed=asked["seed"])


def _zeros(asked: Mapping[str, Any] | None) -> Sparsity | None:
    from toolkit.engine import sparsity

    if asked is None:
        return None
    pattern, schedule = sparsity.Pattern(**asked["pattern"]), sparsity.Schedule(**asked["schedule"])
    return sparsity.Sparsity(tuple(asked["layers"]), pattern, schedule, asked["scope"])


def fit(
    model: Any, images: Array, targets: Mapping[str, Array], how: Teaching, told: Callable[[int, float], None]
) -> None:
    """Train in place, by the loss and the learning rates of every other training here.

    targets: labels, and the teacher's answers (rows for the loss, see engine.loss.raw) where it teaches.
    """
    import tensorflow as tf

    from toolkit.engine import loss, schedule
    from toolkit.engine.step import Batches

    tf.keras.utils.set_random_seed(how.seed)
    labels, answers = targets["labels"], targets["answers"]
    target = how.target if len(answers) else how.labels_only
    batches = Batches(images, labels, min(how.batch_size, len(images)), how.seed)
    rates = schedule.rates(how.schedule, how.learning_rate, how.epochs, batches.steps)
    optimizer = _optimizer(how)
    optimizer.build(model.trainable_variables)

    def compute(seen: Any, wanted: Any, taught: Any) -> Any:
        with tf.GradientTape() as tape:
            rows = loss.raw(model(seen, training=True), how.head)
            value = loss.total(rows, taught, wanted, head=how.head, target=target)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
        return value

    step = tf.function(compute, autograph=False)
    for number in range(1, how.epochs + 1):
        total = 0.0
        for index, rows in enumerate(batches.rows(number)):
            optimizer.learning_rate.assign(rates[(number - 1) * batches.steps + index])
            total += float(step(images[rows], labels[rows], answers[rows] if len(answers) else answers))
        told(number, total / batches.steps)


def _optimizer(how: Teaching) -> Any:
    import tf_keras

    if how.optimizer == "sgd":
        return tf_keras.optimizers.SGD(how.learning_rate, momentum=how.momentum, nesterov=how.momentum > 0)
    if how.optimizer == "adamw":
        return tf_keras.optimizers.AdamW(how.learning_rate, weight_decay=how.weight_decay)
    return tf_keras.optimizers.Adam(how.learning_rate)
