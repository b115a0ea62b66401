"""One tf_keras layer as the Keras 3 layer of the same kind: configuration by what Keras 3 takes, weights in order."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

# other names of one kind in TensorFlow 1.x and 2.x (tf_keras.layers)
KINDS = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "LSTMV2": "LSTM",
    "GRUV2": "GRU",
}
RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}}
# arguments of tf_keras that say nothing of what the layer computes
SILENT = (
    *("batch_input_shape", "implementation", "time_major", "sparse", "ragged", "input_shape", "fused", "groups"),
    *("query_shape", "key_shape", "value_shape", "synchronized", "virtual_batch_size", "unit_forget_bias", "optional"),
)
LAYER_KEYS = ("name", "trainable", "dtype")


class Converted:
    """A Keras 3 layer that still has to get its weights, and the functions that follow it."""

    def __init__(self, layer: Any, behind: tuple[Any, ...] = ()) -> None:
        self._layer, self._behind = layer, behind

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._layer(*args, **kwargs)
        for layer in self._behind:
            result = layer(result)
        return result

    def give_weights(self, old: Any) -> None:
        """The old layer's weights; ValueError where their shapes differ."""
        values = old.get_weights()
        wanted, given = [tuple(w.shape) for w in self._layer.weights], [value.shape for value in values]
        if wanted != given:
            raise ValueError(f"its weights are {given}, those of Keras 3 {wanted}")
        self._layer.set_weights([np.asarray(v, np.float32) if v.dtype.kind == "f" else v for v in values])
        if isinstance(self._layer, layers.Normalization):
            self._layer.finalize_state()  # it computes with constants made from its weights


def convert(old: Any, name: str, objects: Mapping[str, Any]) -> Converted:
    """The Keras 3 layer for a tf_keras layer. Raises ValueError or TypeError with what has no form there."""
    kind = type(old).__name__
    config = dict(old.get_config())
    if kind == "Lambda":
        return Converted(_lambda(old, name, config))
    cls = objects.get(kind) or getattr(layers, KINDS.get(kind, kind), None)
    if not (isinstance(cls, type) and issubclass(cls, layers.Layer)):
        raise TypeError(f"there is no such layer as {kind}")
    if kind == "TimeDistributed":
        inner = convert(old.layer, f"{name}_inner", objects)
        if inner._behind:
            raise ValueError("its activation is hard_sigmoid")
        return Converted(layers.TimeDistributed(inner._layer, name=name))
    config, behind = _translated(kind, config, objects, name)
    made: Any = cls
    return Converted(made.from_config(_taken(cls, config) | {"name": name, "dtype": "float32"}), behind)


def _translated(
    kind: str, config: dict[str, Any], objects: Mapping[str, Any], name: str
) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """A configuration in Keras 3's terms, and the layers that must follow."""
    behind: tuple[Any, ...] = ()
    found: dict[str, Any] = {}
    for key, value in config.items():
        new = RENAMED.get(kind, {}).get(key, key)
        if key.endswith(("_initializer", "activity_regularizer")):
            continue  # the weights are given, and the loss is the training's
        if key.endswith(("_regularizer", "_constraint")):
            found[new] = _penalty(key, value)
        elif key == "activation":
            found[new], behind = _activation(value, objects, name)
        elif key == "recurrent_activation" and value == "hard_sigmoid":
            raise ValueError("its recurrent_activation is Keras 2's hard_sigmoid, which Keras 3 does not have")
        else:
            found[new] = _value(value)
    if isinstance(found.get("axis"), list) and "Batch" in kind:
        (found["axis"],) = found["axis"]
    if found.get("renorm") or found.get("virtual_batch_size"):
        raise ValueError("it renormalizes batches")
    return found, behind


def _activation(value: Any, objects: Mapping[str, Any], name: str) -> tuple[Any, tuple[Any, ...]]:
    if isinstance(value, dict):
        value = value.get("config")
    if value == "hard_sigmoid":  # Keras 2: clip(0.2 x + 0.5, 0, 1); Keras 3 has relu6(x + 3) / 6 under that name
        line = layers.Rescaling(0.2, 0.5, name=f"{name}_hard_sigmoid_line")
        return "linear", (line, layers.ReLU(max_value=1.0, name=f"{name}_hard_sigmoid"))
    return objects.get(str(value), value), ()


def _lambda(old: Any, name: str, config: Mapping[str, Any]) -> Any:
    """A Lambda whose function a module of the user's defines."""
    arguments = config.get("arguments") or {}
    shape = tuple(old.output_shape[1:])
    return layers.Lambda(old.function, output_shape=shape, arguments=arguments, name=name, dtype="float32")


def _penalty(key: str, value: Any) -> Any:
    """A weight regularizer or constraint of Keras' own as Keras 3's; None for one that is the user's."""
    if not isinstance(value, dict):
        return None
    family = keras.regularizers if key.endswith("_regularizer") else keras.constraints
    cls = getattr(family, str(value.get("class_name")), None)
    return cls(**value.get("config", {})) if isinstance(cls, type) else None


def _value(value: Any) -> Any:
    """Plain Python for what TensorFlow wraps: its lists, dictionaries and numbers."""
    if isinstance(value, dict):
        return _value(value.get("config", {}).get("value")) if "class_name" in value else None
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if isinstance(value, np.generic | np.ndarray) or hasattr(value, "numpy"):
        return np.asarray(value).tolist()
    return value


def _taken(cls: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration the class takes; ValueError for a key that would have to be ignored."""
    known = set(inspect.signature(cls.__init__).parameters) | set(LAYER_KEYS)
    for key, value in config.items():
        if key not in known and key not in SILENT and value not in (None, False, 0, [], ""):
            raise ValueError(f"it has {key} = {value!r}")
    return {key: value for key, value in config.items() if key in known}
