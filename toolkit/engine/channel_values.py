"""Means and largest values of layers' channels over calibration images and places, a batch in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Array = NDArray[Any]
Batches = Callable[[], Iterable[Mapping[str, Array]]]  # the calibration images, again at each call


def channel_means(model: Any, names: Sequence[str]) -> Callable[[Batches], dict[str, Array]]:
    """A function that gives the mean of each channel of the named layers' outputs.

    Traced once; later changes of the weights count.
    """
    run = _over(model, names, lambda x, axes: tf.reduce_mean(tf.cast(x, tf.float64), axes))

    def means(batches: Batches) -> dict[str, Array]:
        images, totals = 0, np.zeros(())
        for rows, found in run(batches):
            images, totals = images + rows, totals + rows * found
        return _by_name(model, names, totals / images)

    return means


def channel_peaks(model: Any, names: Sequence[str], batches: Batches) -> dict[str, Array]:
    """The largest absolute value of each channel of the named layers' outputs."""
    most = np.zeros(())
    for _, found in _over(model, names, lambda x, axes: tf.reduce_max(tf.abs(x), axes))(batches):
        most = np.maximum(most, found)
    return _by_name(model, names, most)


def traced(model: Any, reduce: Callable[[Any], Any] = lambda x: x) -> Any:
    """Positional inputs to the list of outputs, each reduced, as one graph function for batches of any size."""

    def infer(*given: Any) -> list[Any]:
        outputs = model(keras.tree.pack_sequence_as(model._inputs_struct, list(given)), training=False)
        return [reduce(output) for output in keras.tree.flatten(outputs)]

    signature = [tf.TensorSpec((None, *tensor.shape[1:]), tf.float32) for tensor in model.inputs]
    return tf.function(infer, autograph=False, input_signature=signature)


def in_order(model: Any, batch: Mapping[str, Array]) -> list[Any]:
    """The tensors of a batch in the order of the model's inputs."""
    return [tf.constant(batch[tensor.name], tf.float32) for tensor in model.inputs]


def _over(model: Any, names: Sequence[str], reduce: Callable[[Any, list[int]], Any]) -> Any:
    """Batches to (rows, values of all channels of all named layers in one array), one for each batch."""
    probe = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    function = traced(probe, lambda x: reduce(x, list(range(len(x.shape) - 1))))

    def run(batches: Batches) -> Iterable[tuple[int, Array]]:
        for batch in batches():
            given = in_order(model, batch)
            yield int(given[0].shape[0]), np.concatenate([np.asarray(x, np.float64) for x in function(*given)])

    return run


def _by_name(model: Any, names: Sequence[str], values: Array) -> dict[str, Array]:
    ends = np.cumsum([int(model.get_layer(name).output.shape[-1]) for name in names])
    return dict(zip(names, np.split(values, ends[:-1]), strict=True))
