"""Networks to train: a backbone with a new head (transfer learning), or a small CNN from scratch.

A backbone is the part of a trained network before its last pooling: everything up to the last feature map that all of
the output is computed from.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from toolkit.engine.graph import Call, Graph, walk
from toolkit.engine.heads import LEAST_MOMENTUM
from toolkit.engine.prefix import last_waist, tensor_of
from toolkit.errors import InputError
from toolkit.registry import suggest

INPUT = "image"
HEAD = "classes"  # name of the last layer
ACTIVATIONS = {"softmax": "softmax", "sigmoid": "sigmoid", "sigmoids": "sigmoid"}  # other heads have none


@dataclass(frozen=True)
class Head:
    """What stands on the feature map: global average pooling, dropout, one dense layer. meaning: of its outputs."""

    columns: int
    meaning: str = "softmax"
    dropout: float = 0.0
    l2: float = 0.0


@dataclass(frozen=True)
class Network:
    """A network to train. backbone: names of its layers that came with weights, in their order; () from scratch."""

    graph: Any
    backbone: tuple[str, ...] = ()


def transferred(features: Any, head: Head) -> Network:
    """A backbone (what `features` gives) with a new head."""
    names = tuple(layer.name for layer in features.layers if not isinstance(layer, layers.InputLayer))
    return Network(keras.Model(features.inputs[0], _head(features.outputs[0], head, set(names)), name="trained"), names)


def small(shape: tuple[int, int, int], head: Head, *, width: int, depth: int) -> Network:
    """A CNN of `depth` blocks (convolution, BatchNormalization, ReLU, pooling), the first `width` channels wide, each
    next one twice as wide. The last block does not pool, nor does one whose map has become too small. Statistics follow
    the last ten batches or so: at Keras' 0.99 they lag behind the weights for the whole of a short training."""
    x = image = keras.Input(shape, name=INPUT)
    for number in range(1, depth + 1):
        x = layers.Conv2D(width * 2 ** (number - 1), 3, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.BatchNormalization(momentum=LEAST_MOMENTUM, name=f"bn{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
        if number < depth and min(x.shape[1:3]) > 1:
            x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    return Network(keras.Model(image, _head(x, head, set()), name="trained"))


def features(model: Any, shape: tuple[int, int, int], where: str) -> Any:
    """The backbone of a flat trained network, rebuilt for images of another size; `model` stays as it is.

    Raises InputError where there is no feature map that all of the output is computed from, or where the layers cannot
    take that size.
    """
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise InputError(where, "is no backbone: it does not take one image", "give a network of images")
    channels = model.inputs[0].shape[-1]
    if channels not in (shape[-1], None):
        problem = f"takes images of {channels} channels, the data's contract gives {shape[-1]}"
        raise InputError(where, problem, 'set data.preprocess.color ("rgb" or "gray")')
    graph = walk(model)
    edge = last_waist(graph, lambda call: _is_pooled(graph, call)) or last_waist(graph, _is_map)
    if edge is None:
        raise InputError(where, "has no feature map that its whole output is computed from", "give a CNN")
    sub = keras.Model(model.inputs[0], tensor_of(model, graph, edge))
    try:
        return _rebuilt(sub, shape)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        problem = f"cannot take images of {shape[0]} x {shape[1]}: {line}"
        raise InputError(where, problem, "give the size it was made for as train.input_size") from error


def untrained(name: str, shape: tuple[int, int, int], where: str) -> Any:
    """The backbone of a network of keras.applications with random weights; InputError for what it refuses."""
    make = getattr(keras.applications, name, None)
    if make is None or not name[:1].isupper():
        known = [found for found in dir(keras.applications) if found[:1].isupper()]
        raise InputError(where, f"keras.applications has no {name!r}", suggest(name, known))
    try:
        return _rebuilt(make(input_shape=shape, include_top=False, weights=None), shape)
    except ValueError as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(where, f"refuses images of {shape}: {line}", "see train.input_size") from error


def last_layers(network: Network, count: int) -> frozenset[str]:
    """Names of the backbone's last `count` layers that have weights to learn; BatchNormalization is never one."""
    learning = [name for name in network.backbone if _learns(network.graph.get_layer(name))]
    return frozenset(learning[-count:] if count else ())


def _learns(layer: Any) -> bool:
    fixed = isinstance(layer, layers.BatchNormalization | layers.Normalization)
    return bool(layer.weights) and not fixed


def _head(x: Any, head: Head, taken: set[str]) -> Any:
    def free(name: str) -> str:
        return next(known for known in (name, f"head_{name}", f"new_head_{name}") if known not in taken)

    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(name=free("pool"))(x)
    if head.dropout:
        x = layers.Dropout(head.dropout, name=free("dropout"))(x)
    shrunk = keras.regularizers.L2(head.l2) if head.l2 else None
    activation = ACTIVATIONS.get(head.meaning)
    return layers.Dense(head.columns, activation=activation, kernel_regularizer=shrunk, name=free(HEAD))(x)


def _is_pooled(graph: Graph, call: Call) -> bool:
    """Whether a feature map goes into global pooling and nowhere else."""
    readers = [graph.calls[index] for index in call.consumers]
    return len(call.output_shapes[0]) == 4 and len(readers) == 1 and readers[0].kind.startswith("Global")


def _is_map(call: Call) -> bool:
    """Whether a call gives a map of more than one place."""
    shape = call.output_shapes[0]
    return bool(call.inputs) and len(shape) == 4 and shape[1:3] != (1, 1)


def _rebuilt(model: Any, shape: tuple[int, int, int]) -> Any:
    """A copy of a flat model on an input of that shape."""
    image = keras.Input(shape, name=INPUT)
    values = {id(model.inputs[0]): image}
    clones: dict[int, tuple[Any, Any]] = {}
    depths = model._nodes_by_depth  # the order in which Keras itself runs them
    for node in (node for depth in sorted(depths, reverse=True) for node in depths[depth]):
        if node.is_input:
            continue
        args, kwargs = node.arguments.fill_in(values)
        kwargs.pop("training", None)
        outputs = keras.tree.flatten(_clone(node.operation, clones)(*args, **kwargs))
        values.update((id(tensor), value) for tensor, value in zip(node.outputs, outputs, strict=True))
    new = keras.Model(image, values[id(model.outputs[0])], name=model.name)
    for operation, clone in clones.values():
        if getattr(operation, "weights", ()):
            clone.set_weights(operation.get_weights())
        if isinstance(clone, layers.Normalization):
            clone.finalize_state()  # it computes with constants made from its weights
    return new


def _clone(operation: Any, clones: dict[int, tuple[Any, Any]]) -> Any:
    if id(operation) not in clones:
        if isinstance(operation, layers.Layer):
            changes = {"name": f"{INPUT}_layer"} if operation.name == INPUT else {}
            clone = type(operation).from_config({**operation.get_config(), **changes})
        else:  # a function of keras.ops: no weights, and no configuration that Keras promises to restore
            clone = copy.copy(operation)
            clone._inbound_nodes, clone._outbound_nodes = [], []
        clones[id(operation)] = operation, clone
    return clones[id(operation)][1]
