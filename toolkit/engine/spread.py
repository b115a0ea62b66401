"""Mean and variance, over images and places, of each channel that a layer reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.engine.graph import check_flat
from toolkit.engine.samples import Samples
from toolkit.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Spread:
    """One value a channel, float64; the average over the layer's uses where it is shared."""

    mean: Array
    variance: Array

    @property
    def mean_square(self) -> Array:
        found: Array = self.variance + self.mean**2
        return found


def spreads(model: Any, names: Collection[str], samples: Samples) -> dict[str, Spread]:
    """For each named layer that of its first input; InputError without images."""
    check_flat(model)
    step = tf.function(lambda inputs: _moments(model, names, inputs), autograph=False, reduce_retracing=True)
    totals: dict[str, Array] = {}
    images = 0
    for sample in samples():
        count = len(sample.inputs[0])
        for name, pair in step([tf.convert_to_tensor(part) for part in sample.inputs]).items():
            totals[name] = totals.get(name, 0) + count * np.asarray(pair)
        images += count
    if not images:
        raise InputError(model.name, "no images to look at")
    return {name: _spread(pair / images) for name, pair in totals.items()}


def _moments(model: Any, names: Collection[str], inputs: Sequence[Any]) -> dict[str, Any]:
    """(2, channels) for each layer: the means of the values and of their squares."""
    found: dict[str, list[Any]] = defaultdict(list)

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if operation.name in names and args:
            values = tf.cast(args[0], tf.float64)
            axes = list(range(len(values.shape) - 1))
            found[operation.name].append(tf.stack([tf.reduce_mean(part, axes) for part in (values, values**2)]))
        return operation(*args, **kwargs)

    model._run_through_graph(inputs, call_fn=call)
    return {name: tf.add_n(pairs) / len(pairs) for name, pairs in found.items()}


def _spread(pair: Array) -> Spread:
    return Spread(pair[0], np.maximum(pair[1] - pair[0] ** 2, 0.0))
