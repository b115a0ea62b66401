"""A flat Keras 3 model to a tf_keras (Keras 2) one that computes the same: the way back of `carry`.

For tools that know Keras 2 only. Layer by layer: configuration by what tf_keras takes, weights in order. Keras 3 writes
keys that Keras 2 does not know (Keras 3.15: `input_axes` of initializers), so what a constructor does not name is left
out where it says nothing of what the layer computes, and refused by name where it does. A separable convolution becomes
its two, under the names that `prepare` gives them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import layers, tree

from toolkit.engine.augment_layers import passes_through
from toolkit.engine.graph import Call, walk
from toolkit.errors import UnsupportedError

Names = dict[str, str]

RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
# functions under one name that compute another thing in Keras 2, or that it does not have
CHANGED = {
    "hard_sigmoid": "Keras 2 computes another function under that name",
    "leaky_relu": "Keras 2 has another slope under that name",
}
ACTIVATIONS: Names = {"silu": "swish"}
# arguments of Keras 3 that say nothing of what the layer computes in inference
SILENT = (
    *("synchronized", "autocast", "quantization_config", "lora_rank", "lora_alpha", "seed", "build_config", "sparse"),
    *("fill_mode", "fill_value"),  # of what pad_to_aspect_ratio adds, which is refused
)
USUAL: tuple[Any, ...] = (None, False, 0, [], "", "channels_last")  # values that ask for nothing
MERGING = (
    *(layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum),
    *(layers.Concatenate, layers.Dot),
)
PENALTIES = ("_initializer", "_regularizer", "_constraint")


def carry_back(model: Any, where: str = "model") -> Any:
    """The tf_keras functional model with the same names, outputs and weights.

    Raises UnsupportedError that names the layer which Keras 2 has no form of.
    """
    import tf_keras

    graph = walk(model)
    made: dict[int, list[Any]] = {}
    values: dict[tuple[int, int], Any] = {}
    for call in graph.calls:
        if call.kind == "InputLayer":
            shape = tuple(call.output_shapes[0][1:])
            values[call.index, 0] = tf_keras.Input(shape, dtype="float32", name=call.name)
            continue
        given = [values[edge.call, edge.output] for edge in call.inputs]
        try:
            if id(call.layer) not in made:
                made[id(call.layer)] = [] if passes_through(call.kind) else _converted(call, tf_keras)
            results = _called(made[id(call.layer)], given, call)
        except Exception as error:  # whatever tf_keras makes of a layer it does not know
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            problem = f"layer {call.name!r} ({call.kind}) has no form in Keras 2 ({text[:160]})"
            raise UnsupportedError(where, problem, 'use backend = "native"') from error
        values.update({(call.index, number): value for number, value in enumerate(results)})
    inputs = [values[edge.call, edge.output] for edge in graph.inputs]
    outputs = [values[edge.call, edge.output] for edge in graph.outputs]
    one = len(inputs) == 1, len(outputs) == 1
    return tf_keras.Model(inputs[0] if one[0] else inputs, outputs[0] if one[1] else outputs, name=model.name)


def _converted(call: Call, tf_keras: Any) -> list[Any]:
    """The tf_keras layers for a layer, to be called one after the other."""
    layer = call.layer
    if not isinstance(layer, layers.Layer):
        raise TypeError("it is a function, not a layer")
    if isinstance(layer, layers.SeparableConv2D):
        parts = _separated(layer)
    else:
        parts = [(call.kind, layer.get_config(), [np.asarray(weight) for weight in layer.get_weights()])]
    steps: list[Any] = []
    shape: Any = list(call.input_shapes) if len(call.input_shapes) > 1 else call.input_shapes[0]
    for kind, config, weights in parts:
        twin = _made(tf_keras, kind, config)
        if weights:
            twin.build(shape)
            twin.set_weights(weights)
        if isinstance(layer, layers.Normalization):
            twin.finalize_state()  # it computes with constants made from its weights
        steps.append(twin)
        shape = twin.compute_output_shape(shape) if len(parts) > 1 else shape
    return steps


def _called(steps: Sequence[Any], given: list[Any], call: Call) -> list[Any]:
    """What the layers give, one after the other; what changes images by chance has none and lets them through."""
    merging = isinstance(call.layer, MERGING)
    if len(given) > 1 and not merging:
        raise TypeError(f"it reads {len(given)} tensors")
    x: Any = given if merging else given[0]
    for step in steps:
        x = step(x)
    return list(tree.flatten(x))


def _made(tf_keras: Any, kind: str, config: Mapping[str, Any]) -> Any:
    cls = getattr(tf_keras.layers, kind, None)
    if cls is None:
        raise TypeError(f"there is no such layer as {kind}")
    known = _parameters(cls)
    found: dict[str, Any] = {"name": config["name"], "dtype": "float32"}
    for key, value in config.items():
        new = RENAMED.get(kind, {}).get(key, key)
        if key in found or key == "trainable" or key.endswith(PENALTIES):
            continue  # the weights are given, and penalties are the training's
        if new in known:
            found[new] = _activation(value) if key in ("activation", "recurrent_activation") else value
        elif key not in SILENT and value not in USUAL:
            raise ValueError(f"it has {key} = {value!r}")
    return cls(**found)


def _parameters(cls: Any) -> set[str]:
    """Arguments of a constructor, those that it passes on to its bases included."""
    found: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        signature = inspect.signature(base.__init__)
        found |= set(signature.parameters)
        if not any(item.kind is inspect.Parameter.VAR_KEYWORD for item in signature.parameters.values()):
            break
    return found


def _activation(value: Any) -> Any:
    """A named activation in Keras 2's terms; ValueError for one that it computes otherwise."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("its activation is a function of its own")
    if value in CHANGED:
        raise ValueError(f"its activation is {value}: {CHANGED[value]}")
    return ACTIVATIONS.get(value, value)


def _separated(layer: Any) -> list[tuple[str, dict[str, Any], list[Any]]]:
    """Kind, configuration and weights of the depthwise and of the 1x1 convolution."""
    config = layer.get_config()
    depthwise, pointwise, *bias = (np.asarray(weight) for weight in layer.get_weights())
    kept = ("kernel_size", "strides", "padding", "depth_multiplier", "data_format", "dilation_rate")
    first = {key: config[key] for key in kept} | {"name": f"{layer.name}_depthwise", "use_bias": False}
    second = {key: config[key] for key in ("filters", "data_format", "activation", "use_bias", "name")}
    return [
        ("DepthwiseConv2D", first, [depthwise]),
        ("Conv2D", {**second, "kernel_size": (1, 1)}, [pointwise, *bias]),
    ]
