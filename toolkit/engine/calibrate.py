"""Calibration: what every tensor of a Keras graph takes on a sample of images, in one run through them.

Least and greatest values are found, and values counted in bins, by TensorFlow on all cores: no values leave it. A batch
is counted once the bins hold its ends, in the same exact integers as ranges.Collector counts arrays. Memory is that of
one batch, however many images there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.engine.graph import walk
from toolkit.engine.ranges import BINS, NEEDS_HISTOGRAM, Collected, Collector, resolve
from toolkit.engine.stored import edge_names, edges_of, stored
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
        return any(found.histogram is not None for found in self.tensors.values())

    def ranges(
        self, method: RangeMethod, percentile: float = 99.99, *, bits: Mapping[str, int] | int = 8
    ) -> dict[str, TensorRange]:
        """The range of every tensor; bits: of the integers they are for, by name (8 where it has none) or of all.

        What only exists inside an operator, before the activation that it takes in, has its ends alone.
        """
        found = {}
        for name, collected in self.tensors.items():
            own = bits if isinstance(bits, int) else bits.get(name, 8)
            ends_alone = collected.histogram is None and self.has_histograms
            how: RangeMethod = "minmax" if ends_alone else method
            found[name] = TensorRange(*resolve(collected, how, percentile, bits=own), how)
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
    in_files = _in_files(graph) if histograms else set()
    counted = [name for name in tensors if name in in_files]
    collectors = {name: Collector(histogram=name in counted) for name in tensors}
    rows, images = batch_size(graph), 0
    function, counts = _ends(graph, tensors, counted), _counts(rows)
    for batch in batches:
        count, given = _padded(graph, batch, rows)
        ends, values = function(*given)
        for collector, (lows, highs) in zip(collectors.values(), ends.numpy(), strict=True):
            collector.add_ends(lows[:count], highs[:count])
        if histograms and all(collector.finite for collector in collectors.values()):
            _add([collectors[name] for name in counted], counts, values, count)
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


def _in_files(graph: Any) -> set[str]:
    """Names of the tensors that a file may store: those that are not inside an operator."""
    tensors = stored(graph)
    return {tensors.names[edge] for edge in tensors.source}


def _ends(graph: Any, tensors: Mapping[str, Any], counted: Sequence[str]) -> Any:
    """Inputs to least and greatest values by image, (tensors, 2, images), and the values of those that are counted."""
    inner = keras.Model(graph.inputs, list(tensors.values()))

    def ends(*inputs: Any) -> Any:
        rows, values = inputs[0].shape[0], inner(list(inputs), training=False)
        by_name = dict(zip(tensors, values, strict=True))
        return tf.stack([_ends_of(each, rows) for each in values]), [by_name[name] for name in counted]

    return tf.function(ends, autograph=False)


def _ends_of(values: Any, rows: int) -> Any:
    """(2, rows); a tensor that has mixed the images has the same ends for all of them."""
    by_image = values.shape.rank and values.shape[0] == rows
    axes = list(range(1, values.shape.rank)) if by_image else None
    values = tf.cast(values, tf.float32)
    pair = [tf.reduce_min(values, axes), tf.reduce_max(values, axes)]
    return tf.stack(pair) if by_image else tf.tile(tf.stack(pair)[:, None], [1, rows])


def _add(collectors: list[Collector], counts: Any, values: list[Any], count: int) -> None:
    """Give each collector the counts of a tensor's values."""
    inverses, starts = zip(*(collector.places for collector in collectors), strict=True)
    found, zeros = counts(
        values, tf.constant(inverses, tf.float32), tf.constant(starts, tf.float32), tf.constant(count)
    )
    for collector, *own in zip(collectors, found.numpy(), zeros.numpy().tolist(), strict=True):
        collector.add_counts(*own)


def _counts(rows: int) -> Any:
    """All tensors' values, places of bins, real images of a batch to how many values lie in each bin,
    (tensors, BINS + 1), and how many are 0, (tensors,)."""

    def counts(values: list[Any], inverses: Any, starts: Any, images: Any) -> tuple[Any, Any]:
        bins, zeros, unweighted = [], [], tf.zeros([0], tf.int32)
        for i, tensor in enumerate(values):
            by_image = tensor.shape.rank and tensor.shape[0] == rows
            numbers = tf.reshape(tf.cast(tensor[:images] if by_image else tensor, tf.float32), [-1])
            places = tf.cast(tf.floor(numbers * inverses[i]) - starts[i], tf.int32)
            bins.append(tf.raw_ops.DenseBincount(input=places, size=BINS + 1, weights=unweighted, binary_output=False))
            zeros.append(tf.reduce_sum(tf.cast(tf.equal(numbers, 0), tf.int32)))
        return tf.stack(bins), tf.stack(zeros)

    return tf.function(counts, autograph=False)


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
