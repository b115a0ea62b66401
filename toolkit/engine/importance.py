"""How much each channel of a group matters: one score a channel, the least important lowest.

    l1, l2      sum of |w| or w**2 over each weight that makes, carries or reads the channel: the group norm of DepGraph
                (Fang et al. 2023, arXiv:2301.12900), where Li et al. 2017 (arXiv:1608.08710) look at the filter alone
    bn_gamma    |gamma| of the BatchNormalizations that carry it (Liu et al. 2017, arXiv:1708.06519)
    taylor      mean over images of |slope of the loss in the channel's gate|: what closing it costs, to first order
                (Molchanov et al. 2017, arXiv:1611.06440)
    fisher      half the mean of the squared slope (Theis et al. 2018, arXiv:1801.05787)
    activation  sum of w**2 over the weights that read it times the mean square of what they read: the power that the
                layers behind lose (the product of Wanda, Sun et al. 2023, arXiv:2306.11695, summed over a channel)
    reconstruction  what the next layers lose if they make up for it by least squares (engine.elimination)
    random      uniform in [0, 1): the baseline

Losses are those of the labels given, or, where some are missing, of labels drawn from what the model predicts: then
fisher is the Fisher information itself (Kunstner et al. 2019, arXiv:1905.12558).

What a layer loses of a channel's mean, BatchNormalization right behind it takes back once its statistics are renewed,
and a refitted bias anywhere. There scores from images are taken about the mean: only what varies is lost.

A group's parts (one a weight, or one a layer, or the slopes) are normalized one by one, and then reduced to one score.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal
from zlib import crc32

import keras
import numpy as np
from numpy.typing import NDArray

from toolkit.engine.elimination import saliencies
from toolkit.engine.gates import Gates, centred, find_gates, slopes
from toolkit.engine.graph import Call, walk
from toolkit.engine.groups import Group, Slot
from toolkit.engine.samples import Samples
from toolkit.engine.spread import spreads
from toolkit.errors import InputError, UnsupportedError

Kind = Literal["l2", "l1", "bn_gamma", "taylor", "fisher", "activation", "reconstruction", "random"]
Normalization = Literal["none", "mean", "max", "l2", "lamp"]
Reduction = Literal["mean", "sum", "max"]
# what gives back the mean of a channel that went: nothing, the statistics of BatchNormalization, or biases everywhere
Renewed = Literal["nothing", "statistics", "biases"]
Scores = NDArray[np.float64]
Parts = list[Scores]

NEEDS_IMAGES: tuple[Kind, ...] = ("taylor", "fisher", "activation", "reconstruction")
# What suits a ranking over all groups, by benchmarks/importance.py: slopes are losses and compare as they are; sums of
# weights keep how much a group has of them. Activations have each layer's own unit.
NORMALIZATIONS: dict[Kind, Normalization] = {
    **dict.fromkeys(("l1", "l2", "bn_gamma", "random", "taylor", "fisher", "reconstruction"), "none"),
    "activation": "l2",
}

# Weights that scale a channel. Biases and moving statistics shift it, and say nothing of what it carries on.
_SCALING = ("kernel", "depthwise_kernel", "pointwise_kernel", "gamma", "alpha")
_VALUES = 1_000_000  # of a weight at a time: 8 MB in float64


def scores(
    model: Any,
    groups: Sequence[Group],
    kind: Kind,
    *,
    samples: Samples | None = None,
    head: str = "softmax",
    seed: int = 0,
    normalization: Normalization | None = None,
    reduction: Reduction = "sum",
    renewed: Renewed = "statistics",
) -> dict[str, Scores]:
    """For each group that is not frozen one score, 0 or more, for each of its channels.

    samples: for the kinds of NEEDS_IMAGES. head: what the first output is (engine.loss). normalization: of each part:
    none, divided by its "mean", "max" or "l2" norm over the channels, or "lamp" (over the sum of all that are no
    smaller: Lee et al. 2021, arXiv:2010.07611, where scores are squares). A ranking over all groups depends on it,
    within a group of one part none does; None: that of NORMALIZATIONS. reduction: of a group's parts. renewed: what
    gives back the channels' means after the cut: nothing, BatchNormalization's statistics, or biases everywhere.

    InputError: images that `kind` needs are missing, or a score is no number. UnsupportedError: a group has no gamma.
    """
    free = [group for group in groups if not group.frozen]
    if kind == "random":
        return {group.id: _random(group, seed) for group in free}
    if kind in NEEDS_IMAGES and samples is None:
        raise InputError(f"importance = {kind!r}", "needs images", "name a train or calibration split, or take l2")
    found: Mapping[str, Parts]
    if kind not in NEEDS_IMAGES or samples is None:
        found = {group.id: _of_weights(model, group, kind) for group in free}
    elif kind == "reconstruction":
        found = {name: [part] for name, part in saliencies(model, free, samples, seed=seed).items()}
    elif kind == "activation":
        found = _of_activations(model, free, samples, _given_back(model, renewed))
    else:
        gates = centred(model, find_gates(model, free), samples, _given_back(model, renewed))
        found = _of_slopes(model, gates, kind, samples=samples, head=head, seed=seed)
    how = normalization or NORMALIZATIONS[kind]
    known = {group.id: _reduced(found[group.id], group.size, how, reduction) for group in free}
    unknown = [name for name, values in known.items() if not np.isfinite(values).all()]
    if unknown:
        fix = "look for NaN or infinity in the model's weights and the images"
        raise InputError(f"importance = {kind!r}", f"is no number for channels of {', '.join(unknown[:3])}", fix)
    return known


def _random(group: Group, seed: int) -> Scores:
    return np.random.default_rng([seed, crc32(group.id.encode())]).random(group.size)


# ---------------------------------------------------------------- from weights


def _of_weights(model: Any, group: Group, kind: Kind) -> Parts:
    kinds = ("gamma",) if kind == "bn_gamma" else _SCALING
    slots = [slot for slot in group.slots if slot.index >= 0 and slot.weight in kinds]
    if kind == "bn_gamma" and not slots:
        problem = "no BatchNormalization scales its channels"
        raise UnsupportedError(f"importance of {group.id!r}", problem, "protect it, or take another importance")
    size = np.square if kind == "l2" else np.abs
    return [_sums(model.get_layer(slot.layer).weights[slot.index], slot, size) for slot in slots]


def _sums(weight: Any, slot: Slot, size: Callable[[Scores], Scores]) -> Scores:
    """The sum of all that a channel has in one weight; some rows at a time, so that no large float64 copy is held."""
    rows = np.moveaxis(np.asarray(weight), slot.axis, 0)
    step = max(1, _VALUES // max(1, rows[0].size))
    parts = (np.asarray(rows[start : start + step], np.float64) for start in range(0, len(rows), step))
    sums = np.concatenate([size(part).reshape(len(part), -1).sum(axis=1) for part in parts])
    totals: Scores = sums[slot.positions].sum(axis=1)
    return totals


# ---------------------------------------------------------------- from images


def _of_slopes(model: Any, gates: Gates, kind: Kind, *, samples: Samples, head: str, seed: int) -> dict[str, Parts]:
    drawn = any(sample.labels is None for sample in samples())
    size: Callable[[Scores], Scores] = np.abs if kind == "taylor" else (lambda slope: slope**2 / 2)
    total, images = np.zeros(gates.count), 0
    for found in slopes(model, gates, samples, head=head, labels="drawn" if drawn else "given", seed=seed):
        total, images = total + size(found).sum(axis=0), images + len(found)
    if not images:
        raise InputError(model.name, "no images to look at")
    return {name: [part] for name, part in gates.split(total / images).items()}


def _given_back(model: Any, renewed: Renewed) -> Collection[str]:
    """Layers that lose nothing where a channel that they read becomes its own mean."""
    calls = walk(model).calls
    if renewed == "nothing":
        return ()
    if renewed == "biases":
        return {call.name for call in calls}
    return {call.name for call in calls} - {call.name for call in calls if not _before_batchnorm(call, calls)}


def _before_batchnorm(call: Call, calls: Sequence[Call]) -> bool:
    """Whether what the call gives goes through nothing but BatchNormalization."""
    linear = getattr(call.layer, "activation", None) in (None, keras.activations.linear)
    readers = [calls[index].layer for index in call.consumers]
    return linear and bool(readers) and all(type(layer) is keras.layers.BatchNormalization for layer in readers)


def _of_activations(
    model: Any, groups: Sequence[Group], samples: Samples, given_back: Collection[str]
) -> dict[str, Parts]:
    readers = {slot.layer for group in groups for slot in group.slots if slot.side == "in"}
    found = spreads(model, readers, samples)
    energies = {name: spread.variance if name in given_back else spread.mean_square for name, spread in found.items()}
    return {
        group.id: [
            _power(model.get_layer(slot.layer), slot, energies[slot.layer])
            for slot in group.slots
            if slot.side == "in" and slot.weight != "pointwise_kernel"  # which reads what its layer made in between
        ]
        for group in groups
    }


def _power(layer: Any, slot: Slot, energies: Scores) -> Scores:
    """Energy times the sum of w**2. A grouped convolution has one place for a channel in each of its groups."""
    squares = np.moveaxis(np.square(np.asarray(layer.weights[slot.index], np.float64)), slot.axis, 0)
    if slot.weight == "depthwise_kernel":  # of a SeparableConv: (in, ..., multiplier), then (..., in * multiplier, out)
        behind = np.square(np.asarray(layer.pointwise_kernel, np.float64)).sum(axis=-1)
        squares = squares * behind.reshape(len(squares), *(1,) * (squares.ndim - 2), -1)
    size, runs = len(squares), len(energies) // len(squares)
    each = squares.reshape(size, -1, runs, squares.shape[-1] // runs).sum(axis=(1, 3)).T  # (runs, size)
    powers: Scores = (each * energies.reshape(runs, size)).sum(axis=0)[slot.positions].sum(axis=1)
    return powers


# ---------------------------------------------------------------- one score of several parts


def _reduced(parts: Parts, size: int, normalization: Normalization, reduction: Reduction) -> Scores:
    if not parts:
        return np.zeros(size)
    found: Scores = getattr(np, reduction)([_normalized(part, normalization) for part in parts], axis=0)
    return found


def _normalized(part: Scores, how: Normalization) -> Scores:
    if how == "lamp":
        order = np.argsort(part, kind="stable")
        rest = np.cumsum(part[order][::-1])[::-1]  # of this one and all that are no smaller
        found = np.empty_like(part)
        found[order] = part[order] / np.where(rest > 0, rest, 1.0)
        return found
    if how == "none" or not part.any():
        return part
    whole: float = {"mean": part.mean(), "max": part.max(), "l2": float(np.linalg.norm(part))}[how]
    return part / whole
