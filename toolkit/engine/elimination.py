"""What the next layers lose if a channel goes and the channels that stay make up for it by least squares.

Optimal Brain Surgeon (Hassibi, Stork and Wolff, ICNN 1993) on the layers that read a channel, whose squared error is
quadratic in their weights: taking the block c of weights w out of a regression whose features have the Gram matrix G
costs w_c' ((G^-1)_cc)^-1 w_c once the other weights are refitted. Channels go one after another, the cheapest first,
with G^-1 and w brought up to date, so that of two channels that say the same only the first is cheap. A channel's score
is its cost at its turn, as a share of the variance of what the layer gives, summed over the layers that read it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.engine.feature_maps import FeatureMaps, places_of, read
from toolkit.engine.graph import Graph, walk
from toolkit.engine.groups import Group, Slot
from toolkit.engine.least_squares import TINY
from toolkit.engine.linear import MOST_FEATURES, Linear, linear
from toolkit.engine.samples import Samples

Array = NDArray[Any]
Scores = NDArray[np.float64]
_RIDGE = 1e-3  # of a feature's energy: what the refit itself mostly chooses
_DEAD = 1e-6  # of the mean: a feature with less energy is loaded as one with as much
_TURNS = 128  # a larger group loses several channels a turn


@dataclass(eq=False)
class _Reader:
    """A regression that reads a group. inverse: of the Gram matrix (f, f); weights: (f, o); blocks: (channels, b), each
    channel's features. scale: the variance of the outputs, summed over the rows."""

    inverse: Array
    weights: Array
    blocks: Array
    scale: float

    def costs(self, channels: Array) -> Scores:
        """Of each of these channels, if it is the next to go."""
        blocks = self.blocks[channels]
        weights = self.weights[blocks]
        inner = self.inverse[blocks[:, :, None], blocks[:, None, :]]
        found: Scores = np.sum(weights * np.linalg.solve(inner, weights), axis=(1, 2)) / self.scale
        return found

    def remove(self, channels: Array) -> None:
        """Take channels out, the other weights refitted."""
        gone = self.blocks[channels].ravel()
        across = np.linalg.solve(self.inverse[np.ix_(gone, gone)], self.inverse[gone])
        self.weights -= across.T @ self.weights[gone]
        self.inverse -= self.inverse[:, gone] @ across


def saliencies(model: Any, groups: Sequence[Group], samples: Samples, *, seed: int = 0) -> dict[str, Scores]:
    """One score a channel for each group that is not frozen, the least important lowest.

    Scores of different groups compare: shares of a layer's output. Never falling in the order in which channels went.
    A layer with more than MOST_FEATURES inputs counts the energy that a channel brings, with nothing made up for it.
    """
    free = [group for group in groups if not group.frozen]
    names = {slot.layer for group in free for slot in group.slots if _reads(slot)}
    moments = _moments(walk(model), names, samples, seed)
    found = {}
    for group in free:
        readers, energy = list[_Reader](), np.zeros(group.size)
        for slot in group.slots:
            part = moments.get(slot.layer) if _reads(slot) else None
            if part is not None and part.wide:
                energy += part.energies(slot)
            elif part is not None:
                readers += part.readers(slot)
        found[group.id] = _eliminate(readers, energy)
    return found


class _Moments:
    """Sums over what a layer reads and gives. xx: (k, f, f), or (k, f) where the features are too many."""

    def __init__(self, layer: Linear) -> None:
        self.layer, self.rows = layer, 0
        self.x: Any = 0.0
        self.xx: Any = 0.0
        self.y: Any = 0.0
        self.yy: Any = 0.0

    @property
    def wide(self) -> bool:
        return bool(self.layer.kernel.shape[1] > MOST_FEATURES)

    def add(self, features: Array) -> None:
        outputs = self.layer.outputs(features)
        self.rows += features.shape[1]
        self.x = self.x + features.sum(axis=1)
        self.y = self.y + outputs.sum(axis=1)
        self.yy = self.yy + np.square(outputs).sum(axis=1)
        squares = np.square(features).sum(axis=1) if self.wide else features.transpose(0, 2, 1) @ features
        self.xx = self.xx + squares

    @property
    def _scale(self) -> float:
        """Variance of the outputs, summed over them and the rows."""
        return max(float(np.sum(self.yy - np.square(self.y) / self.rows)), TINY)

    def energies(self, slot: Slot) -> Scores:
        """What each channel brings to the outputs by itself."""
        variance = self.xx - np.square(self.x) / self.rows
        each = np.sum(variance[:, :, None] * np.square(self.layer.kernel), axis=2)
        found: Scores = each[:, self._blocks(slot)].sum(axis=(0, 2)) / self._scale
        return found

    def readers(self, slot: Slot) -> list[_Reader]:
        covariances = self.xx - self.x[:, :, None] * self.x[:, None] / self.rows
        blocks, scale = self._blocks(slot), self._scale
        found = []
        for covariance, kernel in zip(covariances, self.layer.kernel, strict=True):
            energy = np.diag(covariance)
            floor = max(_DEAD * float(energy.mean()), TINY)
            inverse = np.linalg.inv(covariance + np.diag(_RIDGE * np.maximum(energy, floor)))
            found.append(_Reader(inverse, kernel.copy(), blocks, scale))
        return found

    def _blocks(self, slot: Slot) -> Array:
        """(channels, b): the features of each channel. They run over the window first, then over the channels."""
        features, across = self.layer.kernel.shape[1], self.layer.channels
        taps = np.arange(features // across) * across
        found: Array = (slot.positions[:, None, :] + taps[None, :, None]).reshape(len(slot.positions), -1)
        return found


def _reads(slot: Slot) -> bool:
    return slot.side == "in" and slot.weight in ("kernel", "pointwise_kernel")


def _moments(graph: Graph, names: Collection[str], samples: Samples, seed: int) -> dict[str, _Moments]:
    """Of those layers of these names that are regressions; a shared layer's over all its uses."""
    maps = FeatureMaps(graph)
    images = read(samples, [maps])
    generator = np.random.default_rng(seed)
    found: dict[str, _Moments] = {}
    for call in graph.calls:
        layer = linear(call) if call.name in names else ""
        if isinstance(layer, Linear):
            moments = found.setdefault(call.name, _Moments(layer))
            for part in maps.values[call.inputs[0]]:
                moments.add(layer.features(part, places_of(layer, part, images, generator)))
        maps.run(call)
    return found


def _eliminate(readers: Sequence[_Reader], energy: Scores) -> Scores:
    """Each channel's cost at its turn; energy: what it costs besides, whatever the others do."""
    size = len(energy)
    scores, left, floor = np.zeros(size), np.arange(size), 0.0
    each = -(-size // _TURNS)
    while len(left):
        costs = np.sum([energy[left], *(reader.costs(left) for reader in readers)], axis=0)
        order = np.argsort(costs, kind="stable")[:each]
        going = left[order]
        scores[going] = np.maximum(costs[order], floor)
        floor = float(scores[going].max())
        left = np.setdiff1d(left, going)
        for reader in readers if len(left) else ():
            reader.remove(going)
    return scores
