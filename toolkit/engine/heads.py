"""Where a network's outputs come from, and the same network as one to train on logits.

A probability that has run into 0 or 1 has no gradient, and float32 cannot tell a logit of 20 from one of 200 by its
probability. So training drops the last softmax or sigmoid instead of undoing it, wherever the graph allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import keras
from keras import layers

from toolkit.engine.graph import Call, walk

PASSING = ("Reshape", "Flatten", "Dropout", "Identity")  # what may stand behind the last activation
RANDOM = ("AugMix", "CutMix", "MixUp", "RandAugment")  # image layers of chance whose names do not begin with Random


@dataclass(frozen=True)
class Learner:
    """A network to train, and what its first output is now: "logits" wherever the activation could be dropped."""

    graph: Any
    head: str


def last_operation(tensor: Any) -> Any:
    """The layer (or bare operation) that made an output, seen through those that only reshape it."""
    operation = tensor._keras_history.operation
    while type(operation).__name__ in PASSING:
        operation = operation._inbound_nodes[-1].input_tensors[0]._keras_history.operation
    return operation


def activation_name(operation: Any) -> str:
    """Name of the activation inside a layer, else the operation's own kind; in lower case."""
    activation = getattr(operation, "activation", None)
    if activation is None:
        return type(operation).__name__.lower()
    return str(getattr(activation, "__name__", ""))


def learner(model: Any, head: str) -> Learner:
    """A copy of a flat model for training; the model given stays as it is.

    All layers are trainable, those marked as frozen too: after surgery the whole network has to adapt. Layers that
    change images by chance let them through, so that a teacher sees what the student sees. The layers keep their names;
    `copy_weights` brings what they learned back.
    """
    activation = _droppable(model, head)

    def copy(operation: Any) -> Any:
        kind = type(operation)
        if kind.__name__.startswith("Random") or kind.__name__ in RANDOM:
            return layers.Identity(name=operation.name)
        if operation is not activation:
            return kind.from_config(operation.get_config())
        if getattr(operation, "activation", None) is None:  # a Softmax, or an operation of keras.ops
            return layers.Identity(name=operation.name)
        return kind.from_config({**operation.get_config(), "activation": "linear"})

    twin = keras.models.clone_model(model, clone_function=copy)
    copy_weights(model, twin)
    twin.trainable = True
    return Learner(twin, "logits" if activation is not None else head)


def copy_weights(source: Any, target: Any) -> None:
    """Give the layers of `target` the weights of those of the same name in `source`."""
    for layer in target.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()  # it computes with constants made from its weights


def _droppable(model: Any, head: str) -> Any | None:
    """The layer whose activation is the head and nothing else; None where something else reads it too."""
    if head not in ("softmax", "sigmoid"):
        return None
    graph = walk(model)
    call = graph.calls[graph.outputs[0].call]
    readers = 0
    while call.kind in PASSING and _alone(call, readers):
        call, readers = graph.calls[call.inputs[0].call], 1
    shape = call.output_shapes[0]
    used_once = [other.layer for other in graph.calls].count(call.layer) == 1
    one_row = prod(size or 1 for size in shape[1:]) == shape[-1]
    fits = activation_name(call.layer) == head and used_once and one_row and _alone(call, readers)
    return call.layer if fits else None


def _alone(call: Call, readers: int) -> bool:
    return len(call.consumers) == readers
