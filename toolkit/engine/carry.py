"""A tf_keras (Keras 2) model to one flat functional Keras 3 model that computes the same.

Keras 3 reads hardly any real Keras 2 file: names with "/", nested models, TFOpLambda, `groups` of a depthwise layer and
more stop it. So the graph that tf_keras builds is walked node by node: each layer becomes the Keras 3 layer of the same
kind with the same weights, each call of a TensorFlow function a layer or operation of `carry_ops`. Layers that change
images by chance are identities in inference and are left out; training configuration does not come along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from toolkit.engine import carry_layers, carry_ops
from toolkit.engine.augment_layers import passes_through
from toolkit.errors import UnsupportedError


@dataclass(frozen=True)
class Carried:
    """The Keras 3 model; names of its inputs and outputs in order; layers left out as identities of inference."""

    model: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dropped: tuple[str, ...]


def carry(
    model: Any, size: tuple[int, int] | None = None, objects: Mapping[str, Any] | None = None, where: str = "model"
) -> Carried:
    """The Keras 3 form of a functional or Sequential tf_keras model; UnsupportedError names the layer that has none.

    size: (height, width) for image inputs that leave them open. objects: Keras 3 layer classes and functions of the
    user's own modules, by name.
    """
    if not followable(model):
        problem = f"holds a {type(model).__name__}, whose graph cannot be followed"
        raise UnsupportedError(where, problem, "rebuild it as a functional or Sequential model")
    carrier = _Carrier(where, objects or {})
    inputs = [carrier.entry(tensor, name, size) for tensor, name in zip(model.inputs, model.input_names, strict=True)]
    outputs = carrier.run(model, inputs, prefix="")
    carrier.name_operations(outputs)
    one = len(inputs) == 1, len(outputs) == 1
    name = plain(str(model.name))
    made = keras.Model(inputs[0] if one[0] else inputs, outputs[0] if one[1] else outputs, name=name)
    names = tuple(plain(str(name)) for name in model.output_names)
    return Carried(made, tuple(tensor.name for tensor in inputs), _numbered(names), tuple(carrier.dropped))


def followable(model: Any) -> bool:
    """Whether it is a tf_keras model whose graph of layers is known."""
    return bool(getattr(model, "_is_graph_network", False)) and bool(getattr(model, "inputs", None))


def plain(name: str) -> str:
    """A name that Keras 3 takes: it allows no "/"."""
    return name.replace("/", "_") or "layer"


class _Carrier:
    """Makes Keras 3 layers on first use and calls them."""

    def __init__(self, where: str, objects: Mapping[str, Any]) -> None:
        self._where, self._objects = where, objects
        self._made: dict[int, Any] = {}
        self._taken: set[str] = set()
        self.dropped: list[str] = []

    def entry(self, tensor: Any, name: str, size: tuple[int, int] | None) -> Any:
        """A new input for one of the old model; numbers of any kind come in as float32."""
        shape = tuple(tensor.shape[1:])
        if size and len(shape) == 3:
            shape = (shape[0] or size[0], shape[1] or size[1], shape[2])
        if tensor.dtype.name == "string":
            raise UnsupportedError(self._where, f"input {name!r} takes text, not images", "remove that part")
        return keras.Input(shape, dtype="float32", name=self._unique(name, ""))

    def run(self, model: Any, inputs: Sequence[Any], prefix: str) -> list[Any]:
        """The model's outputs, computed from `inputs` by new layers."""
        values = {id(tensor): value for tensor, value in zip(model.inputs, inputs, strict=True)}
        depths = model._nodes_by_depth  # the order in which Keras itself runs them
        for depth in sorted(depths, reverse=True):
            for node in depths[depth]:
                if node.is_input or any(id(tensor) not in values for tensor in node.keras_inputs):
                    continue
                results = self._call(node, values, prefix)
                outputs = keras.tree.flatten(node.outputs)
                values.update((id(tensor), value) for tensor, value in zip(outputs, results, strict=True))
        return [values[id(tensor)] for tensor in model.outputs]

    def _call(self, node: Any, values: Mapping[int, Any], prefix: str) -> list[Any]:
        layer = node.layer
        if followable(layer):
            inner = [values[id(tensor)] for tensor in node.keras_inputs]
            return self.run(layer, inner, f"{prefix}{layer.name}_")
        if passes_through(type(layer).__name__):
            self.dropped.append(str(layer.name))
            return [values[id(tensor)] for tensor in node.keras_inputs]

        def new(value: Any) -> Any:
            if id(value) in values:
                return values[id(value)]
            return np.asarray(value) if hasattr(value, "numpy") else value

        args, kwargs = keras.tree.map_structure(new, (tuple(node.call_args), dict(node.call_kwargs)))
        if kwargs.pop("training", None) and "Dropout" in type(layer).__name__:
            raise self._refusal(layer, "is called with training=True, so that its outputs are random")
        try:
            return list(keras.tree.flatten(self._apply(layer, args, kwargs, prefix)))
        except UnsupportedError:
            raise
        except Exception as error:  # whatever Keras 3 makes of a layer or a call it does not know
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise self._refusal(layer, f"has no form in Keras 3 ({text[:160]})") from error

    def _apply(self, layer: Any, args: Any, kwargs: dict[str, Any], prefix: str) -> Any:
        if type(layer).__name__ in carry_ops.KINDS:
            return carry_ops.apply(str(layer.symbol), args, kwargs, self._unique(layer.name, prefix))
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        made = self._made.get(id(layer))
        if made is None:
            made = carry_layers.convert(layer, self._unique(layer.name, prefix), self._objects)
            self._made[id(layer)] = made
            result = made(*args, **kwargs)
            made.give_weights(layer)
            return result
        return made(*args, **kwargs)

    def _refusal(self, layer: Any, problem: str) -> UnsupportedError:
        text = f"layer {layer.name!r} ({type(layer).__name__}) {problem}"
        return UnsupportedError(self._where, text, "rebuild the model under Keras 3 without it")

    def _unique(self, name: str, prefix: str) -> str:
        name, prefix = plain(name), plain(prefix) if prefix else ""
        candidates = (name, f"{prefix}{name}", *(f"{prefix}{name}_{n}" for n in range(1, 10_000)))
        chosen = next(candidate for candidate in candidates if candidate not in self._taken)
        self._taken.add(chosen)
        return chosen

    def name_operations(self, outputs: Sequence[Any]) -> None:
        """Give operations that Keras named itself names that nothing else in the model has."""
        named: set[str] = set()
        seen: set[int] = set()
        pending = [tensor._keras_history.operation for tensor in outputs]
        while pending:
            operation = pending.pop()
            if id(operation) in seen:
                continue
            seen.add(id(operation))
            if operation.name in named:
                base = re.sub(r"_\d+$", "", operation.name)
                operation.name = self._unique(base, "op_")
            elif not isinstance(operation, keras.layers.Layer):
                operation.name = self._unique(operation.name, "op_")
            named.add(operation.name)
            pending += [t._keras_history.operation for node in operation._inbound_nodes for t in node.input_tensors]


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Names made unique by a number."""
    found: list[str] = []
    for name in names:
        found.append(name if name not in found else f"{name}_{len(found)}")
    return tuple(found)
