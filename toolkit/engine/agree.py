"""Whether two forms of one network compute the same: their outputs on the same random images, seeded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Answer = Callable[[list[Array]], list[Array]]
SEED = 0
OPEN_SIDE = 64  # pixels, where a model leaves its height or width open
FLOOR = 1e-6  # an output below it is taken as zero
# largest difference of outputs, relative to the largest output. float32 itself: 1e-6. Half precision rounds by 2^-11
# (float16) or 2^-8 (bfloat16) at each layer; 64 roundings in one direction are allowed for.
TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "float16": 64 * 2**-11, "bfloat16": 64 * 2**-8}


@dataclass(frozen=True)
class Agreement:
    """Where two networks differ most. output: its index; largest: the difference; scale: that image's largest output.

    images: how many were compared: those on which the first network gives finite numbers.
    """

    output: int
    largest: float
    scale: float
    images: int

    @property
    def relative(self) -> float:
        return self.largest / max(self.scale, FLOOR)

    def __str__(self) -> str:
        return f"largest output difference {self.largest:.1g} of {self.scale:.2g} over {self.images} random images"


def agreement(before: Answer, after: Answer, inputs: list[Array]) -> Agreement:
    """The worst of all outputs and images; NaN where `after` gives none, and 0 images where `before` gives none."""
    worst = Agreement(0, 0.0, 0.0, 0)
    counted: set[int] = set()
    for index, (one, two) in enumerate(zip(before(inputs), after(inputs), strict=True)):
        for row, (mine, other) in enumerate(zip(one, two, strict=True)):
            if not np.isfinite(mine).all():
                continue
            counted.add(row)
            found = Agreement(index, float(np.abs(mine - other).max()), float(np.abs(mine).max()), 0)
            if not found.relative <= worst.relative or not worst.scale:
                worst = found
    return Agreement(worst.output, worst.largest, worst.scale, len(counted))


def random_inputs(shapes: Sequence[tuple[int | None, ...]], whole: bool = False) -> list[Array]:
    """Two images for each input: one in the range of pixels, one between -1 and 1. whole: pixels only, in integers."""
    rng = np.random.default_rng(SEED)
    ranges = ((0.0, 255.0), (0.0, 255.0)) if whole else ((0.0, 255.0), (-1.0, 1.0))
    made = []
    for shape in shapes:
        sizes = (1, *(OPEN_SIDE if size is None else size for size in shape[1:]))
        values = np.concatenate([rng.uniform(low, high, sizes) for low, high in ranges]).astype(np.float32)
        made.append(np.floor(values) if whole else values)
    return made


def keras_answer(model: Any) -> Answer:
    """A Keras 3 model as a function of its inputs in order."""
    import keras

    structure = (getattr(model, "_functional", None) or model)._inputs_struct  # `model.input` drops the list around one
    kinds = [tensor.dtype for tensor in model.inputs]

    def answer(inputs: list[Array]) -> list[Array]:
        given = [keras.ops.cast(array, kind) for array, kind in zip(inputs, kinds, strict=True)]
        outputs = model(keras.tree.pack_sequence_as(structure, given), training=False)
        return [np.asarray(keras.ops.cast(output, "float32")) for output in keras.tree.flatten(outputs)]

    return answer


def tf_keras_answer(model: Any) -> Answer:
    """A tf_keras model as a function of its inputs in order."""
    import tensorflow as tf

    def answer(inputs: list[Array]) -> list[Array]:
        given = [tf.cast(array, tensor.dtype) for array, tensor in zip(inputs, model.inputs, strict=True)]
        structure = getattr(model, "_nested_inputs", None)
        packed = given[0] if structure is None else tf.nest.pack_sequence_as(structure, given)
        outputs = tf.nest.flatten(model(packed, training=False))
        return [tf.cast(output, tf.float32).numpy() for output in outputs]

    return answer


def coarsest(kinds: Sequence[Any]) -> str:
    """The least precise of some compute dtypes: "float32", "float64", "float16" or "bfloat16"."""
    found = {str(kind) for kind in kinds}
    return next((kind for kind in ("bfloat16", "float16", "float64") if kind in found), "float32")
