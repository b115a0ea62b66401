"""New BatchNormalization statistics after surgery: plain averages of the batch statistics over given images.

After a cut, each layer's inputs have another mean and variance than the ones kept from training. One forward pass over
some batches, each layer normalizing with the batch's own statistics, repairs most of what that costs and trains
nothing ("Rethinking 'Batch' in BatchNorm", Wu and Johnson 2021, arXiv:2105.07576, section 3: PreciseBN).

The statistics kept from training are often not those of the images at hand: augmentation, or fine-tuning with frozen
statistics. Then renewing them changes what even a whole network computes. `settle`, before the cut, prevents that.
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
from toolkit.engine.samples import Samples
from toolkit.engine.spread import Spread, spreads
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


def settle(model: Any, samples: Samples) -> Any:
    """A model that computes the same, its moving statistics those of the images; gamma and beta make up for it.

    A BatchNormalization without gamma or beta gets one. InputError without images.
    """
    names = [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    found = spreads(model, names, samples)
    settled = {name: _settled(model.get_layer(name), spread) for name, spread in found.items()}
    return rebuild(model, settled, lambda layer: {"scale": True, "center": True} if layer.name in settled else {})


def _settled(layer: Any, spread: Spread) -> list[Array]:
    """gamma, beta, moving mean and variance.

    gamma (x - M) / S + beta = gamma' (x - m) / s + beta', S and s the roots of the variances plus epsilon, if
    gamma' = gamma s / S and beta' = beta + gamma (m - M) / S.
    """
    old = {weight.name: np.asarray(weight, np.float64) for weight in layer.weights}
    slope = old.get("gamma", 1.0) / np.sqrt(old["moving_variance"] + layer.epsilon)
    gamma = slope * np.sqrt(spread.variance + layer.epsilon)
    beta = old.get("beta", 0.0) + slope * (spread.mean - old["moving_mean"])
    return [part.astype(np.float32) for part in (gamma, beta, spread.mean, spread.variance)]


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
