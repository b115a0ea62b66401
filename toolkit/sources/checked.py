"""What every network that was read must pass: finite weights, and the outputs of the one it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError, UnsupportedError

MAX_TENSOR = 2**28  # values: far more than a network for an edge device; 1024 x 1024 images, 64 channels: 2**26

if TYPE_CHECKING:
    from toolkit.engine.agree import Agreement, Answer


def check_weights(where: str, weights: Iterable[Any]) -> None:
    """InputError for a weight that is NaN or infinite, by name."""
    import numpy as np

    for weight in weights:
        values = np.asarray(weight)
        if values.dtype.kind not in "fV":  # V: bfloat16
            continue
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            bad = int(np.count_nonzero(~np.isfinite(values)))
            name = getattr(weight, "path", weight.name)
            problem = f"weight {name!r} holds {bad} NaN or infinite values of {values.size}"
            raise InputError(where, problem, "train again, or load an earlier checkpoint")


def _check_sizes(where: str, flat: Any) -> None:
    """InputError for a tensor that fills the memory by itself: a few bytes of a file can ask for it."""
    import keras

    for layer in flat.layers:
        for tensor in keras.tree.flatten([node.outputs for node in layer._inbound_nodes]):
            if prod(size or 1 for size in tensor.shape) > MAX_TENSOR:
                shape = "x".join("?" if size is None else str(size) for size in tensor.shape)
                problem = (
                    f"layer {layer.name!r} gives a tensor of {shape}, over {MAX_TENSOR * 4 >> 30} GiB for one image"
                )
                raise InputError(where, problem, "give smaller images to a smaller model")


def check_complete(where: str, values: int, model: Any) -> None:
    """InputError where a file holds fewer values than the model has weights: Keras leaves the others random."""
    if values < model.count_params():
        problem = f"holds {values:,} weight values, the network {model.count_params():,}"
        raise InputError(where, problem, "save the model again; the file is not whole, or another network's")


def check_same(where: str, before: Answer, flat: Any, inputs: Sequence[Any], precision: str) -> Agreement:
    """How far the flat model is from the one it was made from; UnsupportedError if further than rounding explains.

    inputs: the first model's, for their types. precision: what that one computes in.
    """
    from toolkit.engine.agree import TOLERANCE, agreement, keras_answer, random_inputs

    _check_sizes(where, flat)
    whole = any("int" in str(getattr(tensor.dtype, "name", tensor.dtype)) for tensor in inputs)
    images = random_inputs([tuple(tensor.shape) for tensor in flat.inputs], whole)
    found = agreement(before, keras_answer(flat), images)
    if not found.images:
        problem = f"gives NaN or infinite outputs in {precision} on random images"
        raise InputError(where, problem, "train again, or save a float32 version of the model")
    if not found.relative <= TOLERANCE[precision]:
        name = flat.output_names[found.output]
        problem = f"output {name!r} changed by {found.relative:.2g} of its range in being rebuilt flat and in float32"
        raise UnsupportedError(where, problem, "save the model without models inside it, in float32")
    return found
