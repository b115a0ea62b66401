"""A model of models to one flat functional Keras model with the same outputs, in float32.

Transfer learning calls a backbone inside another model, often with `training=False`. Its layers become layers of the
outer model; a model called twice stays shared. `training=` of a nested call is not carried over: inference is the same,
and after surgery the inner BatchNormalization must be able to learn new statistics. Augmentation is left out: it does
nothing in inference. Layers of half precision (or float64) compute in float32 afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import keras

from toolkit.engine.augment_layers import passes_through

OTHER_FLOATS = ("float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")  # names of types and policies
PIXELS = ("uint8", "int8", "uint16", "int16")


def flatten(model: Any, size: tuple[int, int] | None = None) -> Any:
    """A new flat functional keras.Model; `model` is left as it is.

    size: (height, width) for image inputs that leave them open. Layers keep their names where these are unique, else
    get that of the model around them in front.
    """
    inputs = [keras.Input(shape=_shape(t, size), dtype=_kind(t), name=name) for t, name in _named_inputs(model)]
    builder = Builder({name for _, name in _named_inputs(model)})
    outputs = builder.run(model, inputs, prefix="")
    one = len(inputs) == 1, len(outputs) == 1
    return keras.Model(inputs[0] if one[0] else inputs, outputs[0] if one[1] else outputs, name=model.name)


class Builder:
    """Clones layers on first use and calls the clones. `call` is what a rewriting of the graph overrides."""

    def __init__(self, taken: set[str]) -> None:
        self._clones: dict[int, Any] = {}
        self._taken = set(taken)

    def run(self, model: Any, inputs: Sequence[Any], prefix: str) -> list[Any]:
        """The model's outputs, computed from `inputs` by clones of its layers."""
        function = getattr(model, "_functional", None) or model
        values = {id(tensor): value for tensor, value in zip(function.inputs, inputs, strict=True)}
        depths = function._nodes_by_depth  # the order in which Keras itself runs them
        for depth in sorted(depths, reverse=True):
            for node in depths[depth]:
                if node.is_input or any(id(tensor) not in values for tensor in node.input_tensors):
                    continue
                results = self.call(node, values, prefix)
                values.update((id(tensor), value) for tensor, value in zip(node.outputs, results, strict=True))
        return [values[id(tensor)] for tensor in function.outputs]

    def call(self, node: Any, values: dict[int, Any], prefix: str) -> list[Any]:
        """What a node gives. values: id of each tensor of the old graph -> that of the new one."""
        operation = node.operation
        if isinstance(operation, keras.Model):
            inner = [values[id(tensor)] for tensor in node.input_tensors]
            return self.run(operation, inner, f"{prefix}{operation.name}_")
        if passes_through(type(operation).__name__):
            return [values[id(tensor)] for tensor in node.input_tensors]
        args, kwargs = node.arguments.fill_in(values)
        kwargs.pop("training", None)
        return list(keras.tree.flatten(self._clone(operation, prefix)(*args, **kwargs)))

    def _clone(self, operation: Any, prefix: str) -> Any:
        if id(operation) in self._clones:
            return self._clones[id(operation)]
        name = self.unique(operation.name, prefix)
        if isinstance(operation, keras.layers.Layer):
            clone = type(operation).from_config({**in_float32(operation.get_config()), "name": name})
            if not clone.built and operation.built and operation.weights:
                clone.build_from_config(operation.get_build_config())
            clone.set_weights(operation.get_weights())
            if isinstance(clone, keras.layers.Normalization):
                clone.finalize_state()  # it computes with constants made from its weights
        else:  # a function of keras.ops: no weights, and no configuration that Keras promises to restore
            clone = copy.copy(operation)
            clone.name, clone._inbound_nodes, clone._outbound_nodes = name, [], []
            if type(operation).__name__ == "Cast" and str(operation.dtype) in OTHER_FLOATS:
                clone.dtype = "float32"
        self._clones[id(operation)] = clone
        return clone

    def unique(self, name: str, prefix: str = "") -> str:
        """A layer name that is still free, near to `name`."""
        candidates = (name, f"{prefix}{name}", *(f"{prefix}{name}_{n}" for n in range(1, 10_000)))
        chosen = next(candidate for candidate in candidates if candidate not in self._taken)
        self._taken.add(chosen)
        return chosen


def in_float32(config: Any) -> Any:
    """A layer's configuration with every type and policy of other floats in it, at any depth, set to float32."""
    if isinstance(config, list | tuple):
        return type(config)(in_float32(item) for item in config)
    if not isinstance(config, dict):
        return config
    found = {}
    for key, value in config.items():
        inner = value.get("config") if isinstance(value, dict) else None
        policy = inner.get("name") if isinstance(inner, dict) else value
        other = key == "dtype" and isinstance(policy, str) and policy in OTHER_FLOATS
        found[key] = "float32" if other else in_float32(value)
    return found


def _kind(tensor: Any) -> str:
    """The type of a new input: pixels of any type come in as float32."""
    kind = str(tensor.dtype)
    return "float32" if kind in (*OTHER_FLOATS, *PIXELS) else kind


def _named_inputs(model: Any) -> list[tuple[Any, str]]:
    return [(tensor, tensor.name) for tensor in model.inputs]


def _shape(tensor: Any, size: tuple[int, int] | None) -> tuple[int | None, ...]:
    shape = tuple(tensor.shape[1:])
    if size and len(shape) == 3:
        height, width, channels = shape
        return (height or size[0], width or size[1], channels)
    return shape
