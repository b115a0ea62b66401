"""Where a network's outputs come from, and the same network as one to train on logits.

A probability that has run into 0 or 1 has no gradient, and float32 cannot tell a logit of 20 from one of 200 by its
probability. So training drops the last softmax or sigmoid instead of undoing it, wherever the graph allows.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from math import prod
from typing import Any

import keras
from keras import layers

from toolkit.engine import fused_norm
from toolkit.engine.augment_layers import passes_through
from toolkit.engine.graph import Call, walk

PASSING = ("Reshape", "Flatten", "Dropout", "Identity")  # what may stand behind the last activation
LEAST_MOMENTUM = 0.9  # of BatchNormalization: about ten batches


@dataclass(frozen=True)
class Learner:
    """A network to train, and what its first output is now: "logits" wherever the activation could be dropped, and
    "label_logits" for several sigmoids."""

    graph: Any
    head: str


class _Through(layers.Layer):  # type: ignore[misc]
    """Gives on what comes in, whatever else it is called with (Identity takes no `mask` and no `training`)."""

    def call(self, inputs: Any, **_: Any) -> Any:
        return inputs


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


def learner(
    model: Any, head: str, steps: int = 0, *, frozen: Container[str] = frozenset(), dtype: str | None = None
) -> Learner:
    """A copy of a flat model for training; the model given stays as it is.

    All layers but those named in `frozen` are trainable, those marked as frozen too: after surgery the whole network
    has to adapt. A frozen layer works as in inference: BatchNormalization by its statistics, which stay, and dropout
    not at all. Layers that change images by chance let them through, so that a teacher sees what the student sees.
    BatchNormalization averages over one epoch (of so many `steps`) at most: Keras' momentum of 0.99 would leave a short
    training with statistics of weights long gone. dtype: a Keras policy ("mixed_float16"); weights stay float32. The
    layers keep their names; `copy_weights` brings what they learned back.
    """
    activation = droppable(model, head)

    def clone(operation: Any) -> Any:
        kind = type(operation)
        bare = operation is activation and getattr(operation, "activation", None) is None  # Softmax, or of keras.ops
        if bare or passes_through(kind.__name__) or (operation.name in frozen and is_noise(operation)):
            return _Through(name=operation.name)
        changes: dict[str, Any] = {"activation": "linear"} if operation is activation else {}
        if steps and isinstance(operation, layers.BatchNormalization):
            changes["momentum"] = min(operation.momentum, max(LEAST_MOMENTUM, 1 - 1 / steps))
        if dtype and isinstance(operation, layers.Layer):
            changes["dtype"] = dtype
        if fused_norm.fits(operation):
            kind = fused_norm.FusedBatchNormalization
        return kind.from_config({**operation.get_config(), **changes})

    twin = keras.models.clone_model(model, clone_function=clone)
    copy_weights(model, twin)
    for layer in twin.layers:
        layer.trainable = layer.name not in frozen  # one by one: the model's own setting does not reach them
    dropped = "label_logits" if head == "sigmoids" else "logits"
    return Learner(twin, dropped if activation is not None else head)


def is_noise(operation: Any) -> bool:
    """Whether a layer is dropout of some kind: chance, and nothing learned."""
    return hasattr(operation, "seed_generator") and not operation.weights


def copy_weights(source: Any, target: Any) -> None:
    """Give the layers of `target` the weights of those of the same name in `source`."""
    for layer in target.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()  # it computes with constants made from its weights


def droppable(model: Any, head: str) -> Any:
    """The layer whose activation is the head and nothing else, or None where there is no such layer."""
    if head not in ("softmax", "sigmoid", "sigmoids"):
        return None
    graph = walk(model)
    call = graph.calls[graph.outputs[0].call]
    readers = 0
    while call.kind in PASSING and _alone(call, readers):
        call, readers = graph.calls[call.inputs[0].call], 1
    shape = call.output_shapes[0]
    used_once = [other.layer for other in graph.calls].count(call.layer) == 1
    one_row = prod(size or 1 for size in shape[1:]) == shape[-1]
    fits = activation_name(call.layer) == head.removesuffix("s") and used_once and one_row and _alone(call, readers)
    return call.layer if fits else None


def _alone(call: Call, readers: int) -> bool:
    return len(call.consumers) == readers
