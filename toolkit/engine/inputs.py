"""A Keras network's answers beside the moments at its first layer that remembers what it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from toolkit.engine.graph import walk
from toolkit.engine.moments import Array, Expected, Observed

BATCH = 32  # images at once
UNTRAINED = (0.0, 1.0)  # mean and variance that a BatchNormalization starts with: they remember nothing


class Witnesses:
    """A flat functional model of one image input, ready to run; its first layer that remembers is looked at."""

    def __init__(self, model: Any) -> None:
        found = next(_witnesses(model), None)
        self.expected = () if found is None else (found[0],)
        self._function = _function(model, [] if found is None else [found[1]])

    def observe(self, images: Array) -> Observed:
        """Answers and moments on images (n, ...) as the model takes them."""
        parts = []
        for start in range(0, len(images), BATCH):
            given = np.asarray(images[start : start + BATCH], np.float32)
            rows = len(given)
            if rows < BATCH:  # so that the graph is traced once
                given = np.concatenate([given, np.repeat(given[-1:], BATCH - rows, axis=0)])
            parts.append([np.asarray(each)[:rows] for each in self._function(tf.constant(given))])
        outputs, *moments = (np.concatenate(part) for part in zip(*parts, strict=True))
        means, squares = (tuple(each.astype(np.float64) for each in moments[i::2]) for i in (0, 1))
        return Observed(outputs, self.expected, means, squares)


def _witnesses(model: Any) -> Iterator[tuple[Expected, Any]]:
    """Layers that remember, in the order they run, and the tensors they read."""
    for call in walk(model).calls:
        layer: Any = call.layer
        if isinstance(layer, layers.BatchNormalization):
            mean, variance = layer.moving_mean, layer.moving_variance
            axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
        elif isinstance(layer, layers.Normalization) and layer.mean is not None and not layer.invert:
            mean, variance, axis = layer.mean, layer.variance, -1
        else:
            continue
        tensor = call.node.input_tensors[0]
        known = [np.asarray(values, np.float64).ravel() for values in (mean, variance)]
        last = axis % len(tensor.shape) == len(tensor.shape) - 1
        remembers = np.any(known[0] != UNTRAINED[0]) or np.any(known[1] != UNTRAINED[1])
        if last and len(known[0]) == tensor.shape[-1] and remembers:
            yield Expected(call.name, *known), tensor


def _function(model: Any, tensors: list[Any]) -> Any:
    """One input to the first output, and mean and mean square by image and channel of each tensor."""
    inner = keras.Model(model.inputs, [model.outputs[0], *tensors])

    def run(images: Any) -> list[Any]:
        output, *values = keras.tree.flatten(inner([images], training=False))
        found = [output]
        for value in values:
            axes, x = list(range(1, value.shape.rank - 1)), tf.cast(value, tf.float32)
            found += [tf.reduce_mean(each, axes) if axes else each for each in (x, x * x)]
        return found

    return tf.function(run, autograph=False)
