"""Calibration: what every tensor of a Keras graph takes on a sample of images, in one run through them.

Least and greatest values are found inside the TensorFlow graph, so that nothing but them leaves it; histograms need
the values themselves. Memory is that of one batch, however many images there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.engine.graph import walk
from toolkit.engine.ranges import NEEDS_HISTOGRAM, Collected, Collector, resolve
from toolkit.engine.stored import edge_names, edges_of
from toolkit.errors import InputError, UnsupportedError
from toolkit.quantization import RangeMethod, TensorRange

Array = NDArray[Any]
Batches = Iterable[Mapping[str, Array]]
BATCH_BYTES = 128 << 20  # of all activations of a batch: the processor is busy, and the memory stays small
BATCH_ROWS = (1, 64)
OPEN_SIDE = 224  # pixels that an open height or width is taken for


@dataclass(frozen=True)
class Calibration:
    """tensors: what each float tensor of the graph took, by name as in Statistics, in the order they are computed."""

    tensors: Mapping[str, Collected]
    images: int

    @property
    def has_histograms(self) -> bool:
        """Whether every method can be answered, and what a range cuts off."""
        return all(found.histogram is not None for found in self.tensors.values())

    def ranges(
        self, method: RangeMethod, percentile: float = 99.99, *, bits: Mapping[str, int] | int = 8
    ) -> dict[str, TensorRange]:
        """The range of every tensor; bits: of the integers they are for, by name (8 where it has none) or of all."""
        found = {}
        for name, collected in self.tensors.items():
            own = bits if isinstance(bits, int) else bits.get(name, 8)
            found[name] = TensorRange(*resolve(collected, method, percentile, bits=own), method)
        return found


def calibrate(
    graph: Any, batches: Batches, *, histograms: bool = False, watch: Callable[[int], None] = lambda images: None
) -> Calibration:
    """Run a flat functional model on batches of at most `batch_size(graph)` images, inputs by name.

    histograms: every method but minmax needs them. watch: told the images so far after each batch.

    Raises:
        InputError: there are no images.
        UnsupportedError: a tensor's values are not finite, the first one by name.
    """
    tensors = float_tensors(graph)
    collectors = {name: Collector(histogram=histograms) for name in tensors}
    rows, images = batch_size(graph), 0
    function = _values(graph, tensors) if histograms else _ends(graph, tensors)
    for batch in batches:
        count, given = _padded(graph, batch, rows)
        found = function(*given)
        if histograms:
            for collector, values in zip(collectors.values(), found, strict=True):
                collector.add(_rows(values.numpy(), count, rows))
        else:
            for collector, (lows, highs) in zip(collectors.values(), found.numpy(), strict=True):
                collector.add_ends(lows[:count], highs[:count])
        images += count
        watch(images)
    if not images:
        raise InputError("calibration", "there are no images to find ranges on", "give a calibration set")
    return Calibration(_collected(collectors), images)


def float_tensors(graph: Any) -> dict[str, Any]:
    """The float tensors of a flat functional model, inputs among them, by their names in Statistics."""
    names, edges = edge_names(walk(graph)), edges_of(graph)
    made = (t for operation in graph.operations for node in operation._inbound_nodes for t in node.outputs)
    found = {edges[id(tensor)]: tensor for tensor in made if id(tensor) in edges}
    return {name: found[edge] for edge, name in names.items() if "float" in str(found[edge].dtype)}


def batch_size(graph: Any) -> int:
    """Images to give `calibrate` at once."""
    values = sum(prod(side or OPEN_SIDE for side in t.shape[1:]) for t in float_tensors(graph).values())
    least, most = BATCH_ROWS
    return int(np.clip(BATCH_BYTES // (4 * max(values, 1)), least, most))


def needs_histograms(method: RangeMethod) -> bool:
    """Whether a method needs them, or cuts off values, whose share they tell."""
    return method in NEEDS_HISTOGRAM or method == "moving_average"


# ---------------------------------------------------------------- one batch


def _values(graph: Any, tensors: Mapping[str, Any]) -> Any:
    """Inputs to the values of all tensors."""
    inner = keras.Model(graph.inputs, list(tensors.values()))
    return tf.function(lambda *inputs: inner(list(inputs), training=False), autograph=False)


def _ends(graph: Any, tensors: Mapping[str, Any]) -> Any:
    """Inputs to least and greatest values by image, (tensors, 2, images)."""
    inner = keras.Model(graph.inputs, list(tensors.values()))

    def ends(*inputs: Any) -> Any:
        rows = inputs[0].shape[0]
        return tf.stack([_ends_of(values, rows) for values in inner(list(inputs), training=False)])

    return tf.function(ends, autograph=False)


def _ends_of(values: Any, rows: int) -> Any:
    """(2, rows); a tensor that has mixed the images has the same ends for all of them."""
    by_image = values.shape.rank and values.shape[0] == rows
    axes = list(range(1, values.shape.rank)) if by_image else None
    values = tf.cast(values, tf.float32)
    pair = [tf.reduce_min(values, axes), tf.reduce_max(values, axes)]
    return tf.stack(pair) if by_image else tf.tile(tf.stack(pair)[:, None], [1, rows])


def _rows(values: Array, count: int, rows: int) -> Array:
    """The values of real images, without those that pad the batch."""
    return values[:count] if values.ndim and len(values) == rows else values.reshape(1, -1)


def _padded(graph: Any, batch: Mapping[str, Array], rows: int) -> tuple[int, list[Any]]:
    """Number of images, and the inputs in order with exactly `rows`, so that the graph is traced once."""
    arrays = [np.asarray(batch[tensor.name]) for tensor in graph.inputs]
    count = len(arrays[0])
    if count < rows:
        arrays = [np.concatenate([a, np.repeat(a[-1:], rows - count, axis=0)]) for a in arrays]
    return count, [tf.cast(a, tensor.dtype) for a, tensor in zip(arrays, graph.inputs, strict=True)]


def _collected(collectors: Mapping[str, Collector]) -> dict[str, Collected]:
    found = {name: collector.collected() for name, collector in collectors.items()}
    for name, collected in found.items():
        if not collected.finite:
            raise UnsupportedError(name, "has no finite range on the calibration data", "look for a division by zero")
    return found
