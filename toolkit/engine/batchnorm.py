"""New BatchNormalization statistics after surgery: plain averages of the batch statistics over given images.

After a cut, each layer's inputs have another mean and variance than the ones kept from training. One forward pass over
some batches, each layer normalizing with the batch's own statistics, repairs most of what that costs and trains
nothing ("Rethinking 'Batch' in BatchNorm", Wu and Johnson 2021, arXiv:2105.07576, section 3: PreciseBN).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.graph import check_flat
from toolkit.engine.surgery import rebuild
from toolkit.errors import InputError

Array = NDArray[Any]


def has_batchnorm(model: Any) -> bool:
    return any(isinstance(layer, layers.BatchNormalization) for layer in model.layers)


def reestimate_batchnorm(model: Any, batches: Iterable[Sequence[Array]]) -> Any:
    """A new model whose moving means and variances are averages over `batches`, each weighted by its images.

    batches: for each batch the model's inputs in its own order, as arrays of equal length. All other layers (dropout
    too) run as in inference. Frozen BatchNormalization layers (trainable=False) are re-estimated as well.
    """
    check_flat(model)
    step = tf.function(lambda inputs: _statistics(model, inputs), reduce_retracing=True)
    sums: dict[str, list[Array]] = {}
    images = 0
    for batch in batches:
        count = len(batch[0])
        found = step([tf.convert_to_tensor(part) for part in batch])
        for name, pair in found.items():
            new = [np.asarray(part, np.float64) * count for part in pair]
            sums[name] = [a + b for a, b in zip(sums[name], new, strict=True)] if name in sums else new
        images += count
    if not images:
        raise InputError(model.name, "no images to re-estimate BatchNormalization statistics from")
    return rebuild(model, {name: _weights(model.get_layer(name), pair, images) for name, pair in sums.items()})


def _statistics(model: Any, inputs: Sequence[Any]) -> dict[str, tuple[Any, Any]]:
    """Mean and variance of each BatchNormalization's input in one batch; the average over uses where it is shared."""
    found: dict[str, list[tuple[Any, Any]]] = defaultdict(list)

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(operation, layers.BatchNormalization):
            return operation(*args, **kwargs)
        outputs, *moments = _normalize(operation, args[0] if args else kwargs["inputs"])
        found[operation.name].append((moments[0], moments[1]))
        return outputs

    model._run_through_graph(inputs, call_fn=call)  # what Functional.call itself does, with our BatchNormalization
    return {name: (_mean(m for m, _ in pairs), _mean(v for _, v in pairs)) for name, pairs in found.items()}


def _normalize(layer: Any, inputs: Any) -> tuple[Any, Any, Any]:
    """Training-mode BatchNormalization without touching the layer: outputs, batch mean, batch variance (biased)."""
    axes = [axis for axis in range(len(inputs.shape)) if axis != layer.axis % len(inputs.shape)]
    values = keras.ops.cast(inputs, "float32")
    mean, variance = keras.ops.moments(values, axes=axes)
    outputs = keras.ops.batch_normalization(
        values, mean, variance, axis=layer.axis, offset=layer.beta, scale=layer.gamma, epsilon=layer.epsilon
    )
    return keras.ops.cast(outputs, layer.compute_dtype), mean, variance


def _mean(parts: Iterable[Any]) -> Any:
    listed = list(parts)
    return sum(listed[1:], listed[0]) / len(listed)


def _weights(layer: Any, sums: Sequence[Array], images: int) -> list[Array]:
    new = {"moving_mean": sums[0] / images, "moving_variance": sums[1] / images}
    return [new.get(weight.name, np.asarray(weight)) for weight in layer.weights]
