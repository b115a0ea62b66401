"""A model as tensorflow-model-optimization quantizes it: its ranges set from the float model, trained, read out.

The package keeps its ranges in variables of the layer that wraps another: `output_min`, `post_activation_min` and so
on, `kernel_min` for weights. Activations' ranges begin at -6..6 and follow a moving average of decay 0.999, which a
short training would hardly move; so they begin where the float model's own values lie.
Page: tensorflow.org/model_optimization, "Quantization aware training comprehensive guide".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.core import Array

STORED = ("output", "post_activation")  # what a wrapper calls the range of the tensor it gives
READ = "pre_activation"  # ... and of the values that a softmax, sigmoid or tanh inside it reads
BEFORE = ":before"  # behind a layer's name: those values
BATCH = 32  # images observed at a time
LEVELS = 127  # of symmetric narrow-range 8-bit weights, on each side


class Task:
    """The quantized model, and how to read what it learned."""

    def __init__(self, old: Any, images: Array) -> None:
        import tensorflow_model_optimization as tfmot

        self.model = tfmot.quantization.keras.quantize_model(old)
        self._old = old
        start_ranges(self.model, observe(old, images))

    def learned(self) -> dict[str, Array]:
        """Arrays to hand back."""
        return learned(self.model, self._old)


def observe(old: Any, images: Array) -> dict[str, tuple[float, float]]:
    """Least and largest value of what each layer of a tf_keras model gives, by layer name.

    And, as "LAYER:before", of what the activation inside it reads.
    """
    import numpy as np
    import tensorflow as tf
    import tf_keras

    outputs = {layer.name: layer.output for layer in old.layers if not isinstance(layer.output, list)}
    inside = [layer for layer in old.layers if getattr(layer, "activation", None) is not None]
    outputs |= {f"{layer.name}{BEFORE}": _before(layer) for layer in inside}
    whole = tf_keras.Model(old.inputs, outputs)
    ends = tf.function(
        lambda x: {name: (tf.reduce_min(y), tf.reduce_max(y)) for name, y in whole(x, training=False).items()}
    )
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in outputs}
    for start in range(0, len(images), BATCH):
        for name, (low, high) in ends(tf.constant(np.asarray(images[start : start + BATCH]))).items():
            seen[name].append((float(low), float(high)))
    return {name: (min(low for low, _ in pairs), max(high for _, high in pairs)) for name, pairs in seen.items()}


def _before(layer: Any) -> Any:
    """The tensor that a layer's activation reads."""
    if not layer.weights:
        return layer.input
    config = {**layer.get_config(), "activation": "linear", "name": f"{layer.name}_before"}
    twin = type(layer).from_config(config)
    output = twin(layer.input)
    twin.set_weights(layer.get_weights())
    return output


def start_ranges(model: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Set the ranges of activations to the float model's own; 0 is always within."""
    for name, low, high in _stored(model):
        found = ranges[name]
        low.assign(min(found[0], 0.0))
        high.assign(max(found[1], 0.0))


def learned(model: Any, old: Any) -> dict[str, Array]:
    """Arrays to hand back: "weight/LAYER/i" in the order of the float model's layer; (low, high) as "range/LAYER", of
    what the layer gives, and "range/LAYER:before", of what the activation inside it reads.

    Weights that the package quantizes come back quantized: on the grid of the scale, or scales, it has for them.
    """
    import numpy as np

    found: dict[str, Array] = {f"range/{name}": np.array([float(a), float(b)]) for name, a, b in _stored(model)}
    wrapped = {_inner(layer).name: _named(layer) for layer in model.layers}
    for layer in old.layers:
        own = wrapped.get(layer.name, {})
        for index, weight in enumerate(layer.weights):
            name = _last(weight)
            value = own[name].numpy()
            limit = own.get(f"{name}_max")
            found[f"weight/{layer.name}/{index}"] = value if limit is None else _rounded(value, limit.shape.rank, layer)
    return found


def _rounded(weights: Array, rank: int, layer: Any) -> Array:
    """Weights on the grid of max|w| / 127: of each slice of the axis that has scales (rank 1), or of all."""
    import numpy as np

    kept = weights.ndim - (2 if type(layer).__name__ == "Conv2DTranspose" else 1)
    axes = tuple(axis for axis in range(weights.ndim) if axis != kept) if rank else None
    scale = np.maximum(np.abs(weights).max(axis=axes, keepdims=True), 1e-30) / LEVELS
    grid: Array = (np.round(weights / scale) * scale).astype(np.float32)
    return grid


def _stored(model: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name in `observe`, variable of the least value, of the largest) of every tensor that is quantized."""
    for layer in model.layers:
        own, inner = _named(layer), _inner(layer)
        kinds = (*STORED, READ) if inner is not layer else (layer.name,)
        for kind in kinds:
            if f"{kind}_min" in own:
                name = _source(layer) if inner is layer else inner.name
                yield name + BEFORE * (kind == READ), own[f"{kind}_min"], own[f"{kind}_max"]


def _source(layer: Any) -> str:
    """The input that a QuantizeLayer reads."""
    return str(layer.inbound_nodes[0].inbound_layers.name)


def _inner(layer: Any) -> Any:
    """The layer inside a wrapper, or the layer itself."""
    return getattr(layer, "layer", layer)


def _named(layer: Any) -> dict[str, Any]:
    return {_last(variable): variable for variable in layer.weights}


def _last(variable: Any) -> str:
    """ "kernel" of "quant_conv/kernel:0"."""
    return str(variable.name).rsplit("/", 1)[-1].split(":")[0]
