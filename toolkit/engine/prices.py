"""What a network costs at given widths of its channel groups, foretold without cutting it: MACs, parameters, channels.

Each weight is a product of its axes, and groups shorten axes; so an amount is a sum of products that are linear in each
width. That makes what every next step would save one array operation: an allocation of thousands of steps asks often.

Kernels make a tile of channels at once, and a tile that is not full takes as long as one that is (XNNPACK,
src/packing.c; MLAS, sgemm.cpp): MACs can be counted as such kernels compute them, the channels made filled up to tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.engine.cost import made_axis, weight_macs
from toolkit.engine.graph import Graph
from toolkit.engine.groups import Group

Widths = dict[str, int]  # id of a group -> channels it keeps; one that is not named keeps all
Array = NDArray[np.float64]
Axis = tuple[int, dict[int, int], int]  # length; which groups (by number) take how many places of it a channel; tile


@dataclass(frozen=True, eq=False)
class Price:
    """fixed + the sum over rows of times * product(lengths - per_channel @ channels that are gone, filled up to tiles).

    lengths, tiles: (rows, axes), 1 where nothing is filled up; per_channel: (rows, axes, groups); sizes: (groups,).
    """

    names: tuple[str, ...]
    sizes: Array
    fixed: float
    times: Array
    lengths: Array
    tiles: Array
    per_channel: Array

    def __call__(self, widths: Mapping[str, int]) -> float:
        """The amount at these widths."""
        return self.fixed + float(self.times @ _filled(self._now(widths), self.tiles).prod(axis=1))

    def saved(self, widths: Mapping[str, int], steps: Mapping[str, int]) -> dict[str, float]:
        """For each group in `steps`, what is saved when it alone loses that many channels more."""
        taken = np.array([steps.get(name, 0) for name in self.names], np.float64)
        now = self._now(widths)
        then = _filled(now[:, :, None] - self.per_channel * taken, self.tiles[:, :, None]).prod(axis=1)
        less = self.times @ (_filled(now, self.tiles).prod(axis=1)[:, None] - then)
        return {name: float(less[i]) for i, name in enumerate(self.names) if name in steps}

    def _now(self, widths: Mapping[str, int]) -> Array:
        gone = self.sizes - [widths.get(name, size) for name, size in zip(self.names, self.sizes, strict=True)]
        left: Array = self.lengths - self.per_channel @ gone
        return left


def macs(graph: Graph, groups: Iterable[Group], tile: int = 1) -> Price:
    """Multiply-accumulates for one image, as `cost` counts them; InputError where a shape that matters is open.

    tile: channels that kernels make at once: those of each layer are counted up to the next multiple of it.
    """
    times: dict[tuple[str, int], int] = {}
    for call in graph.calls:
        for index, count in weight_macs(call).items():
            times[call.name, index] = times.get((call.name, index), 0) + count
    return _price(graph, groups, lambda layer, index: times.get((layer, index), 0), tile)


def parameters(graph: Graph, groups: Iterable[Group]) -> Price:
    """Values in all weights, moving statistics included."""
    return _price(graph, groups, lambda layer, index: 1)


def channels(groups: Iterable[Group]) -> Price:
    """Channels of all groups, each counted once."""
    listed = list(groups)
    return _summed(listed, 0.0, [(1, [(group.size, {i: 1}, 1)]) for i, group in enumerate(listed)])


def _price(graph: Graph, groups: Iterable[Group], times: Callable[[str, int], int], tile: int = 1) -> Price:
    """The sum over all weights of times(layer, index of the weight) * its size, the channels it makes filled up."""
    listed = list(groups)
    cut: dict[tuple[str, int], dict[int, dict[int, int]]] = {}  # weight -> axis -> group -> places a channel
    for number, group in enumerate(listed):
        for slot in group.slots:
            axes = cut.setdefault((slot.layer, slot.index), {})
            axis = axes.setdefault(slot.axis, {})
            axis[number] = axis.get(number, 0) + slot.positions.shape[1]
    layers: dict[str, Any] = {call.name: call.layer for call in graph.calls}
    fixed, rows = 0.0, []
    for name, layer in layers.items():
        for index, weight in enumerate(getattr(layer, "weights", ())):
            count, axes = times(name, index), cut.get((name, index), {})
            tiles = [1] * len(weight.shape)
            if tile > 1 and count:
                tiles[made_axis(layer, index)] = tile
            kept = [_filled(n, tiles[axis]) for axis, n in enumerate(weight.shape) if axis not in axes]
            rest = count * float(np.prod(kept))
            if not axes:
                fixed += rest
            elif rest:
                rows.append((rest, [(weight.shape[axis], takes, tiles[axis]) for axis, takes in axes.items()]))
    return _summed(listed, fixed, rows)


def _summed(groups: Sequence[Group], fixed: float, rows: Sequence[tuple[float, Sequence[Axis]]]) -> Price:
    most = max((len(axes) for _, axes in rows), default=1)
    lengths, tiles = np.ones((len(rows), most)), np.ones((len(rows), most))
    per_channel = np.zeros((len(rows), most, len(groups)))
    for row, (_, axes) in enumerate(rows):
        for column, (length, takes, tile) in enumerate(axes):
            lengths[row, column], tiles[row, column] = length, tile
            for number, places in takes.items():
                per_channel[row, column, number] = places
    names, sizes = tuple(group.id for group in groups), np.array([group.size for group in groups], np.float64)
    return Price(names, sizes, fixed, np.array([times for times, _ in rows], np.float64), lengths, tiles, per_channel)


def _filled(lengths: Any, tiles: Any) -> Any:
    """Up to whole tiles; exact, since both are whole numbers."""
    return np.ceil(lengths / tiles) * tiles
