"""Zeros by tensorflow-model-optimization (TFMOT): its `prune_low_magnitude`, on the model carried to Keras 2 and back.

Its training runs in a process of its own (`engine.tfmot_process`), by the loss, the batches and the learning rates of
`engine.train`; what comes back are the weights of the Keras 3 model, zeros in place. Of one schedule both choose the
same weights: TFMOT 0.8.1 alone keeps all of equal magnitudes, and updates N:M at the first step only, as we do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from toolkit.engine import tfmot_process
from toolkit.engine.eligible import kernel_of
from toolkit.engine.sparsity import Sparsity
from toolkit.engine.teaching import Teaching
from toolkit.engine.train import Evaluate, TrainResult
from toolkit.errors import UnsupportedError

Array = NDArray[Any]
WHERE = 'sparsify.backend "tfmot"'
NATIVE = 'set backend = "native"'


def check(model: Any, how: Teaching) -> None:
    """Raise what `train_with_tfmot` would, as far as it can be said before any work."""
    asked = how.sparsity
    if asked is None or asked.schedule is None:
        raise UnsupportedError(WHERE, "makes zeros by a schedule, and has none", NATIVE)
    if asked.scope == "global":
        raise UnsupportedError(WHERE, "takes a share of each layer, not of all together", NATIVE)
    if asked.held:
        raise UnsupportedError(WHERE, f"would fill the zeros that layer {asked.held[0]!r} has already", NATIVE)
    for name in asked.layers:
        if why := _refusal(model.get_layer(name), asked):
            raise UnsupportedError(WHERE, f"layer {name!r}: {why}", NATIVE)
    tfmot_process.check(model, how, WHERE)


def _refusal(layer: Any, asked: Sparsity) -> str:
    """Why TFMOT cannot put such zeros into a layer, or ""."""
    if len(layer._inbound_nodes) > 1:
        return "is used more than once, and TFMOT would count its steps as often"
    kernel, pattern = kernel_of(layer), asked.pattern
    if pattern.kind == "n:m" and len(kernel.shape) not in (2, 4):
        return f"TFMOT has {pattern} for weights of two or four axes, it has {len(kernel.shape)}"
    if pattern.kind != "block":
        return ""
    if len(kernel.shape) != 2:
        return "TFMOT puts blocks into dense layers alone; protect it, or choose another pattern"
    if kernel.shape[0] % pattern.n or kernel.shape[1] % pattern.m:
        return f"TFMOT measures blocks of {pattern} elsewhere than it masks them where they do not divide the weight"
    return ""


def train_with_tfmot(
    model: Any,
    images: Array,
    labels: Array,
    *,
    how: Teaching,
    original: Any | None = None,
    evaluate: Evaluate | None = None,
    told: Callable[[int, float], None] = lambda number, loss: None,
) -> TrainResult:
    """A copy of a flat Keras 3 model with the zeros of how.sparsity, trained; the model given stays as it is.

    original: the model that teaches (share `how.target.alpha`), a graph or a `Teacher`; None to learn from labels
    alone. evaluate: a score to be large; of the epochs that have all their zeros the best is kept, the later one of
    equals. told: number and mean loss of each epoch. Raises UnsupportedError for what TFMOT does not take,
    UnavailableError where it is not installed, StageError where its process ends without a result.
    """
    check(model, how)
    steps = len(images) // min(how.batch_size, len(images))
    settled = -(-how.sparsity.schedule.last // steps) if how.sparsity and how.sparsity.schedule else 0
    return tfmot_process.train(
        "sparsity",
        model,
        images,
        labels,
        how=how,
        first=settled,
        where=WHERE,
        original=original,
        evaluate=evaluate,
        told=told,
    )
