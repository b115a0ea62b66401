"""A Keras model as one TensorFlow graph in which every variable is a constant: what the converters read.

A TFLite converter that is given live Keras 3 variables writes READ_VARIABLE operators into the file; it
reports no error, and the file computes NaN. A frozen graph has no variables and also converts several
times faster than the Keras model itself (no SavedModel on the way).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

Shape = tuple[int | None, ...]
ROOT = "model"  # scope of the traced model: first part of every operation's name


def freeze(graph: keras.Model, shapes: Sequence[Shape]) -> Any:
    """Trace the inference of `graph` for inputs of `shapes` (batch first) and turn its variables into constants.

    Returns:
        A ConcreteFunction whose `inputs` and `outputs` stand in the order of graph.inputs and graph.outputs.
    """
    flat = keras.Model(list(graph.inputs), list(graph.outputs), name=ROOT)
    specs = [
        tf.TensorSpec(shape, keras.backend.standardize_dtype(tensor.dtype), name=f"input_{i}")
        for i, (shape, tensor) in enumerate(zip(shapes, graph.inputs, strict=True))
    ]

    def infer(*arrays: Any) -> list[Any]:
        # identity: an output that is an input, or two names for one tensor, stay outputs of their own
        return [tf.identity(tensor) for tensor in tf.nest.flatten(flat(list(arrays), training=False))]

    return convert_variables_to_constants_v2(tf.function(infer).get_concrete_function(*specs))


def nonfinite_weight(graph: keras.Model) -> str | None:
    """Path (.../layer/weight) of the first weight that holds NaN or infinity."""
    for weight in graph.weights:
        values = keras.ops.convert_to_numpy(weight)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            return str(weight.path)
    return None


def reduced_precision_layer(graph: keras.Model) -> str | None:
    """Name of the first layer that computes in less than float32 (a mixed-precision policy)."""
    for layer in graph.layers:
        nested = reduced_precision_layer(layer) if isinstance(layer, keras.Model) else None
        if nested or layer.compute_dtype in ("float16", "bfloat16"):
            return nested or str(layer.name)
    return None


def output_layer(graph: keras.Model, index: int) -> str:
    """Name of the layer that computes output `index`."""
    return str(graph.outputs[index]._keras_history.operation.name)


def nonfinite_layer(graph: keras.Model, arrays: Sequence[Any]) -> str | None:
    """Name of the first layer whose output is NaN or infinite for these inputs, in the order of computation."""
    layers = [layer for layer in graph.layers if len(layer._inbound_nodes) == 1]
    outputs = keras.Model(list(graph.inputs), [layer.output for layer in layers])(list(arrays), training=False)
    for layer, output in zip(layers, outputs, strict=True):
        if not all(np.isfinite(tensor).all() for tensor in tf.nest.flatten(output)):
            return str(layer.name)
    return None


def layer_of(name: str, graph: keras.Model) -> str | None:
    """The Keras layer behind an operation or tensor of a converted file, or None.

    Keras opens one name scope to build a layer and a second one to call it, so the scope of a call is
    the layer's name with a number: `model_1/backbone_1/stem_2/convolution`. Converters join the names
    of fused operations with `;`: a layer with a kernel counts before its BatchNormalization or activation.
    """
    found = [layer for part in name.split(";") if (layer := _walk(part.split("/"), graph))]
    found.sort(key=lambda layer: not hasattr(layer, "kernel"))
    return str(found[0].name) if found else None


def _walk(scopes: list[str], graph: keras.Model) -> keras.layers.Layer | None:
    names = {layer.name: layer for layer in graph.layers}
    for i, scope in enumerate(scopes):
        layer = names.get(re.sub(r"_\d+$", "", scope)) or names.get(scope)
        if layer is not None:
            inner = _walk(scopes[i + 1 :], layer) if isinstance(layer, keras.Model) else None
            return inner or layer
    return None
