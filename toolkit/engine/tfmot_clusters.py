"""Shared weights by tensorflow-model-optimization (TFMOT): its `cluster_weights`, on the model carried to Keras 2.

Its training runs in a process of its own (`engine.tfmot_process`), by the loss, the batches and the learning rates of
`engine.train`; what comes back are the weights of the Keras 3 model, shared. From one start both come to the same
values; k-means starts apart, since TFMOT 0.8.1 takes the points of k-means++ as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from toolkit.engine import tfmot_process
from toolkit.engine.clusters import Sharing
from toolkit.engine.teaching import Teaching
from toolkit.engine.train import Evaluate, TrainResult
from toolkit.errors import UnsupportedError

Array = NDArray[Any]
WHERE = 'cluster.backend "tfmot"'
NATIVE = 'set backend = "native"'


def check(model: Any, how: Teaching) -> None:
    """Raise what `train_with_tfmot` would, as far as it can be said before any work."""
    asked = how.sharing
    if asked is None or not asked.made:
        raise UnsupportedError(WHERE, "makes codebooks, and has none to make", NATIVE)
    if asked.held:
        raise UnsupportedError(WHERE, f"would part the shared weights of layer {next(iter(asked.held))!r}", NATIVE)
    if apart := [name for name in asked.zeros if name not in asked.made]:
        raise UnsupportedError(WHERE, f"would fill the zeros of layer {apart[0]!r}, which it leaves alone", NATIVE)
    if not asked.renewed:
        raise UnsupportedError(WHERE, "has the nearest value for each weight in each step", NATIVE)
    for name in asked.made:
        if why := _refusal(model.get_layer(name), asked):
            raise UnsupportedError(WHERE, f"layer {name!r}: {why}", NATIVE)
    tfmot_process.check(model, how, WHERE)


def _refusal(layer: Any, asked: Sharing) -> str:
    """Why TFMOT cannot do so with a layer, or ""."""
    if len(layer._inbound_nodes) > 1:
        return "is used more than once, and TFMOT would have it twice"
    if asked.made[layer.name].per == "channel" and type(layer).__name__ != "Conv2D":
        return f"TFMOT has one codebook for a {type(layer).__name__}, whatever is asked; protect it"
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
    """A copy of a flat Keras 3 model with the shared weights of how.sharing, trained; the model given stays as it is.

    original: the model that teaches (share `how.target.alpha`), a graph or a `Teacher`; None to learn from labels
    alone. evaluate: a score to be large; of the epochs the best is kept, the later one of equals. told: number and mean
    loss of each epoch. Raises UnsupportedError for what TFMOT does not take, UnavailableError where it is not
    installed, StageError where its process ends without a result.
    """
    check(model, how)
    plain = replace(how, sparsity=None, sharing=replace(how.sharing or Sharing(), like={}))
    return tfmot_process.train(
        "clusters",
        model,
        images,
        labels,
        how=plain,
        first=1,
        where=WHERE,
        original=original,
        evaluate=evaluate,
        told=told,
    )
