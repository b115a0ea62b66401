"""Float answers of a flat Keras model: one compiled function, one batch shape (the last batch is padded)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Array = NDArray[Any]
BATCH = 64  # images; large enough that the CPU's convolutions are busy
# Tracing a network takes seconds and a training loop evaluates the same one after every epoch. Weights may change in
# between, layers may not. The functions know their model weakly, so that an entry ends with it.
_compiled: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def predict_arrays(
    model: Any,
    inputs: Mapping[str, Array],
    batch: int = BATCH,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> list[Array]:
    """Outputs in the model's order, float32, for whole arrays (memory-mapped ones are read a batch at a time).

    watch: is told, before each batch, how many rows of how many are done.
    """
    count = len(next(iter(inputs.values())))

    def parts() -> Iterator[dict[str, Array]]:
        for start in range(0, count, batch):
            watch(start, count)
            yield {name: array[start : start + batch] for name, array in inputs.items()}

    return predict_batches(model, parts(), batch)


def predict_batches(model: Any, batches: Iterable[Mapping[str, Array]], batch: int = BATCH) -> list[Array]:
    """Outputs in the model's order, float32, for batches of at most `batch` rows, inputs bound by name."""
    function = compiled(model)
    collected: list[list[Array]] = []
    for rows, given in _padded(model, batches, batch):
        outputs = function(*given)
        collected.append([np.asarray(output)[:rows] for output in outputs])
    return [np.concatenate(parts).astype(np.float32) for parts in zip(*collected, strict=True)]


def compiled(model: Any) -> Any:
    """The model in inference form as one graph function: positional inputs, flat outputs. Traced once for a model."""
    if model not in _compiled:
        known = weakref.ref(model)

        def infer(*inputs: Any) -> list[Any]:
            own: Any = known()
            given = keras.tree.pack_sequence_as(own._inputs_struct, list(inputs))
            return list(keras.tree.flatten(own(given, training=False)))

        _compiled[model] = tf.function(infer, autograph=False)
    return _compiled[model]


def _padded(model: Any, batches: Iterable[Mapping[str, Array]], batch: int) -> Iterator[tuple[int, list[Array]]]:
    """Number of real rows, and every input in the model's order with exactly `batch` rows."""
    for given in batches:
        arrays = [np.asarray(given[name], dtype=np.float32) for name in (tensor.name for tensor in model.inputs)]
        rows = len(arrays[0])
        if rows < batch:
            arrays = [np.concatenate([a, np.repeat(a[-1:], batch - rows, axis=0)]) for a in arrays]
        yield rows, [tf.convert_to_tensor(array) for array in arrays]
