"""What [train] asks of the data and of this machine, and what the data asks of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.core import Dataset, Meaning, PassContext
from toolkit.errors import InputError, UnavailableError
from toolkit.registry import suggest
from toolkit.training.section import TrainSection

if TYPE_CHECKING:
    from toolkit.engine.loss import Target
    from toolkit.engine.teaching import Precision

HEADS: dict[str, tuple[Meaning, ...]] = {  # what the labels are -> heads that learn from them, the usual one first
    "classes": ("softmax", "logits", "sigmoid"),
    "labels": ("sigmoids",),
    "values": ("regression",),
}


def checked(section: TrainSection, context: PassContext, head: str) -> tuple[Dataset, Meaning]:
    """The train split and the head, when something can be learned."""
    train = context.train
    if train is None:
        raise InputError("train", "there is no train split", "set data.splits.train")
    if section.patience and context.selection is None:
        raise InputError("train.patience", "there is no selection split to judge epochs on", "set one, or 0")
    fitting = HEADS[train.task]
    if head != "auto" and head not in fitting:
        problem = f"the head {head} does not learn from {train.task}"
        raise InputError("model.head", problem, f"use {' or '.join(fitting)}, or leave it out")
    meaning = next((known for known in fitting if known == head), fitting[0])
    if train.task == "classes":
        if len(train.classes) < 2:
            raise InputError("train", f"the data has one class, {train.classes[0]!r}", "give images of two or more")
        if len({int(label) for label in train.labels}) < 2:
            raise InputError("train", "all training images are of one class", "give images of two or more classes")
        if meaning == "sigmoid" and len(train.classes) != 2:
            problem = f"one sigmoid tells two classes apart, the data has {len(train.classes)}"
            raise InputError("model.head", problem, "use softmax")
    return train, meaning


def columns(train: Dataset, meaning: Meaning) -> int:
    if meaning == "sigmoid":
        return 1
    return len(train.classes) if train.task != "values" else int(train.labels.reshape(len(train), -1).shape[1])


def target(section: TrainSection, train: Dataset) -> Target:
    from toolkit.engine.loss import Target

    return Target(
        alpha=0.0,
        smoothing=section.label_smoothing,
        class_weights=_class_weights(section, train),
        errors=section.errors,
    )


def _class_weights(section: TrainSection, train: Dataset) -> tuple[float, ...]:
    from toolkit.engine.loss import balanced

    asked = section.class_weights
    if asked == "none":
        return ()
    if asked == "balanced":
        if train.task != "classes":
            raise InputError("train.class_weights", f"balanced needs one class an image, the data has {train.task}")
        return balanced(train.labels, len(train.classes))
    if train.task == "values":
        raise InputError("train.class_weights", "a regression has no classes", "leave it out")
    unknown = [name for name in asked if name not in train.classes]
    if unknown:
        raise InputError(
            "train.class_weights", f"no class is called {unknown[0]!r}", suggest(unknown[0], train.classes)
        )
    return tuple(float(asked.get(name, 1.0)) for name in train.classes)  # type: ignore[union-attr]


def precision(section: TrainSection) -> Precision:
    """What to compute in."""
    import tensorflow as tf

    found = bool(section.mixed_precision) and bool(tf.config.list_physical_devices("GPU"))
    if section.mixed_precision is True and not found:
        raise UnavailableError("train.mixed_precision", "there is no GPU here", 'set "auto" or false')
    return "float16" if found else "float32"
