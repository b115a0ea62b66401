"""Who teaches in distillation: any trained model, as outputs for images, inside a training step or for whole arrays.

A Keras teacher is part of the step's graph. Another (.onnx, .tflite, SavedModel) answers in its own runtime, called
from the step where views of the images differ from step to step; else once for all epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.engine import foreign, heads, loss
from toolkit.engine.predict import predict_arrays, predict_batches

Array = NDArray[Any]
Batches = Callable[[], Iterable[Mapping[str, Array]]]  # the same images at each call


@dataclass(frozen=True)
class Teacher:
    """head: what the outputs are (see `loss.as_logits`). columns: values of one answer.

    look: a batch of images (tensor) to outputs (tensor). answers: whole arrays, or memory maps, to outputs. graph: of a
    Keras teacher, whose first output `look` gives.
    """

    head: str
    columns: int
    look: Callable[[Any], Any]
    answers: Callable[[Array], Array]
    graph: Any | None = None


def of_graph(graph: Any, head: str, dtype: str | None = None) -> Teacher:
    """A flat Keras model, its last softmax or sigmoid dropped where that can be. dtype: a Keras policy."""
    learner = heads.learner(graph, head, dtype=dtype)
    model = learner.graph

    def look(images: Any) -> Any:
        return keras.tree.flatten(model(images, training=False))[0]

    def answers(images: Array) -> Array:
        return predict_arrays(model, {model.inputs[0].name: images})[0]

    return Teacher(learner.head, math.prod(model.outputs[0].shape[1:]), look, answers, model)


def of_network(network: foreign.Network, head: str, columns: int) -> Teacher:
    """A model of another kind with one input; its first output teaches."""
    name = network.inputs[0].name

    def answers(images: Array) -> Array:
        return foreign.answers(network, {name: images})[0].reshape(len(images), columns)

    def look(images: Any) -> Any:
        outputs = tf.numpy_function(lambda rows: answers(np.asarray(rows)), [images], tf.float32)
        outputs.set_shape((None, columns))
        return outputs

    return Teacher(head, columns, look, answers)


def together(teachers: Sequence[Teacher], weights: Sequence[float], target: loss.Target) -> Teacher:
    """Several with heads of one kind as one, that gives what they agree on (`loss.agreed`). weights: any positive."""
    shares = [weight / sum(weights) for weight in weights]
    head = teachers[0].head
    if head in loss.DECISIONS:
        head, columns = "logits", max(2, teachers[0].columns)
    else:
        head, columns = loss.RAW_LABELS if head in loss.LABELS else head, teachers[0].columns

    def agreed(outputs: Iterable[Any]) -> Any:
        rows = [loss.raw(own, one.head) for own, one in zip(outputs, teachers, strict=True)]
        return loss.agreed(rows, shares, head, target)

    def look(images: Any) -> Any:
        return agreed(one.look(images) for one in teachers)

    def answers(images: Array) -> Array:
        return np.asarray(agreed(one.answers(images) for one in teachers))

    return Teacher(head, columns, look, answers)


def distance(teacher: Teacher, batches: Batches, *, head: str, target: loss.Target) -> Callable[[Any], float]:
    """A function that gives a Keras model's mean loss to the teacher, who is asked once, over these images.

    head: what the model's outputs are.
    """

    answers = [teacher.answers(next(iter(batch.values()))) for batch in batches()]
    taught = loss.raw(np.concatenate(answers), teacher.head)

    def measure(model: Any) -> float:
        own = loss.raw(predict_batches(model, batches())[0], head)
        return float(tf.reduce_mean(loss.from_teacher(own, taught, head, target)))

    return measure
