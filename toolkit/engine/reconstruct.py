"""The layers behind removed channels are refitted by least squares to give the feature maps they gave before.

Layer after layer, in the order they run, on what the pruned network itself gives them against what the original layer
gave: so a layer also makes up for what layers before it could not, and errors do not add up ("Channel Pruning for
Accelerating Very Deep Neural Networks", He, Zhang and Sun, ICCV 2017, arXiv:1707.06168, sections 3.1 and 3.2; "ThiNet",
Luo et al., arXiv:1707.06342). Where a layer ends a branch that is added to others, it is fitted to what the sum lacks
(the same, section 3.3). Depthwise convolutions are refitted channel by channel, BatchNormalization by a gain and a
shift. Nothing is trained: each fit is one linear system, its ridge chosen on a quarter of the images held out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.elimination import saliencies
from toolkit.engine.feature_maps import FeatureMaps, places_of, read, run
from toolkit.engine.graph import Call, Edge, Graph, walk
from toolkit.engine.groups import Slot, find_groups
from toolkit.engine.least_squares import TINY, Sums
from toolkit.engine.linear import MOST_FEATURES, Linear, linear
from toolkit.engine.samples import Samples
from toolkit.engine.surgery import Removals, remove
from toolkit.errors import InputError, UnsupportedError

Array = NDArray[Any]
RIDGES = (
    1e-8,
    1e-6,
    1e-4,
    1e-3,
    1e-2,
    1e-1,
    1.0,
)  # of a feature's energy
_HELD_OUT = 4  # every fourth image
_EXACT = 1e-10  # of the output's variance: float32's rounding

__all__ = ["Reconstructed", "Row", "reconstruct", "saliencies"]


@dataclass(frozen=True)
class Row:
    """A layer that reads something else than before. before, after: of its output against what it should be, before
    its activation: squared error by variance. reason: why it was left alone, or ""."""

    layer: str
    before: float
    after: float
    reason: str = ""


@dataclass(frozen=True)
class Reconstructed:
    """graph: the pruned model, refitted. rows: in the order of the graph. images: that it was fitted on."""

    graph: Any
    rows: tuple[Row, ...]
    images: int


def reconstruct(
    model: Any, removals: Removals, samples: Samples, *, ridge: Sequence[float] = RIDGES, seed: int = 0
) -> Reconstructed:
    """`surgery.remove`, then every layer behind it refitted. ridge: candidates, relative to a feature's energy.

    As many images are used as have their feature maps in a GiB. InputError without images.
    """
    pruned = remove(model, removals)
    before, after = walk(model), walk(pruned)
    if [(call.name, call.inputs) for call in before.calls] != [(call.name, call.inputs) for call in after.calls]:
        raise UnsupportedError(model.name, "runs in another order after surgery", "leave reconstruct out")
    pair = _Pair(before, after, _kept(model, removals))
    images = read(samples, pair.maps)
    fitter = _Fitter(pair, tuple(ridge), seed)
    rows = [row for index in range(len(after.calls)) for row in fitter.step(index)]
    return Reconstructed(pruned, tuple(rows), images)


def _kept(model: Any, removals: Removals) -> dict[str, Array]:
    """Places along each layer's output channels that are kept, where some are not. For layers as in `linear`."""
    gone: dict[str, list[Array]] = {}
    calls = {call.name: call for call in walk(model).calls}
    for group in find_groups(model):
        channels = np.unique(np.asarray(removals.get(group.id, ()), np.intp))
        for slot in group.slots if len(channels) else ():
            positions = _output_places(calls[slot.layer].layer, slot, slot.positions[channels].ravel())
            if positions is not None:
                gone.setdefault(slot.layer, []).append(positions)
    sizes = {name: int(calls[name].output_shapes[0][-1] or 0) for name in gone}
    return {name: np.setdiff1d(np.arange(sizes[name]), np.concatenate(parts)) for name, parts in gone.items()}


def _output_places(layer: Any, slot: Slot, positions: Array) -> Array | None:
    """Where a slot's positions lie among the layer's outputs; None where the slot is not along them."""
    if isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D):
        each = layer.depth_multiplier
        repeated: Array = (positions[:, None] * each + np.arange(each)).ravel()
        return repeated if slot.weight == "kernel" else None
    return None if slot.side == "in" else positions


class _Pair:
    """The original and the pruned network side by side."""

    def __init__(self, before: Graph, after: Graph, kept: Mapping[str, Array]) -> None:
        self.graphs, self.kept = (before, after), kept
        self.maps = (FeatureMaps(before), FeatureMaps(after))

    @property
    def values(self) -> tuple[dict[Edge, list[Array]], dict[Edge, list[Array]]]:
        return self.maps[0].values, self.maps[1].values

    def same(self, index: int) -> bool:
        """Whether a call reads the same in both networks."""
        return all(self.values[0][edge] is self.values[1][edge] for edge in self.graphs[0].calls[index].inputs)

    def run(self, index: int) -> None:
        old, new = (graph.calls[index] for graph in self.graphs)
        if old.inputs and self.same(index) and old.name not in self.kept:
            found = run(old, self.values[0])
            for values, maps in zip(self.values, self.maps, strict=True):
                values.update(found)
                maps.done(old)
        else:
            self.maps[0].run(old)
            self.maps[1].run(new)


class _Fitter:
    """Goes through the calls; a layer is refitted before it runs."""

    def __init__(self, pair: _Pair, ridges: tuple[float, ...], seed: int) -> None:
        self.pair, self.ridges = pair, ridges
        self.generator = np.random.default_rng(seed)
        names = [call.name for call in pair.graphs[0].calls]
        self.shared = {name for name in names if names.count(name) > 1}

    def step(self, index: int) -> Iterator[Row]:
        """Refit the call's layer where it reads something else than before, and run it."""
        call = self.pair.graphs[1].calls[index]
        if call.inputs and not self.pair.same(index):
            found = linear(call)
            if call.name in self.shared and found != "":
                yield Row(call.name, np.nan, np.nan, "is used more than once")
            elif isinstance(found, Linear) and found.kernel.shape[1] > MOST_FEATURES:
                yield Row(call.name, np.nan, np.nan, f"has {found.kernel.shape[1]:,} inputs, over {MOST_FEATURES:,}")
            elif isinstance(found, Linear):
                yield self._fit(call, found)
            elif found:
                yield Row(call.name, np.nan, np.nan, found)
        self.pair.run(index)

    def _fit(self, call: Call, now: Linear) -> Row:
        old = linear(self.pair.graphs[0].calls[call.index])
        if isinstance(old, str):
            raise UnsupportedError(call.name, old)
        seen, held = self._sums(call, old, now)
        both = seen + held
        spread = max(both.spread, TINY)
        before = both.error(np.zeros_like(both.xr)) / spread
        if before < _EXACT:
            return Row(call.name, before, before)
        intercept = now.has_bias or self._normalized(call)
        ridge, reason = self._ridge(seen, held, intercept=intercept)
        kernel, bias = both.solve(ridge, intercept=intercept)
        if reason:
            kernel, bias = np.zeros_like(kernel), np.zeros_like(bias)
        if isinstance(now.layer, layers.BatchNormalization):
            _renormalize(now, kernel, bias, both)
        else:
            now.write(now.kernel + kernel, now.bias + bias)
        return Row(call.name, before, both.error(kernel, bias) / spread, reason)

    def _ridge(self, seen: Sums, held: Sums, *, intercept: bool) -> tuple[float, str]:
        """The candidate with the least error on the images held out, and why there is none."""
        errors = {ridge: held.error(*seen.solve(ridge, intercept=intercept)) for ridge in self.ridges}
        best = min(errors, key=lambda ridge: errors[ridge])
        worse = errors[best] >= held.error(0 * held.xr)
        return best, "no refit is better on images held out" if worse else ""

    def _normalized(self, call: Call) -> bool:
        """Whether BatchNormalization takes in what a bias would do."""
        if len(call.consumers) != 1:
            return False
        reader = self.pair.graphs[1].calls[call.consumers[0]]
        return type(reader.layer) is layers.BatchNormalization and reader.name not in self.shared

    def _sums(self, call: Call, old: Linear, now: Linear) -> tuple[Sums, Sums]:
        """Of the images that are seen, and of those held out."""
        before, after = (values[call.inputs[0]] for values in self.pair.values)
        kept = self.pair.kept.get(call.name)
        found: list[Sums | None] = [None, None]
        images, first = sum(map(len, before)), 0
        for number, (one, two) in enumerate(zip(before, after, strict=True)):
            places = places_of(now, two, images, self.generator)
            held = (np.arange(first, first + len(one)) % _HELD_OUT) == _HELD_OUT - 1
            first += len(one)
            for side, rows in enumerate((~held, held)):
                if rows.any():
                    target = _flat(old.outputs(old.features(one[rows], places)))
                    target = target if kept is None else target[:, kept]
                    target = target + self._lacking(call, number, rows, places)
                    features = now.features(two[rows], places)
                    wanted = target.reshape(len(target), len(features), -1).transpose(1, 0, 2)
                    new = Sums.of(features, wanted - now.outputs(features), wanted)
                    earlier = found[side]
                    found[side] = new if earlier is None else earlier + new
        seen, unseen = found
        if seen is None or unseen is None:
            raise InputError("reconstruct", f"has {images} images to fit layers to", "give it some hundreds")
        return seen, unseen

    def _lacking(self, call: Call, number: int, rows: Array, places: Array) -> Array | float:
        """What the sum that a branch ends in lacks already, in units of this layer's output."""
        branch = self._branch(call)
        if branch is None:
            return 0.0
        others, gain, kept = branch
        total: Array | float = 0.0
        for edge in others:
            one, two = (values[edge][number][rows] for values in self.pair.values)
            flat = [part.reshape(len(part), -1, part.shape[-1])[:, places] for part in (one, two)]
            lack = (flat[0] if kept is None else flat[0][..., kept]) - flat[1]
            total = total + lack.reshape(-1, lack.shape[-1])
        return total / gain if gain is not None else total

    def _branch(self, call: Call) -> tuple[list[Edge], Array | None, Array | None] | None:
        """The other operands of the addition behind a call, the gain on the way, the channels kept; None if none."""
        calls = self.pair.graphs[1].calls
        gain, now, kept = None, call, self.pair.kept.get(call.name)
        if _activated(call) or len(call.consumers) != 1:
            return None
        reader = calls[call.consumers[0]]
        if self._normalized(call):
            norm = linear(reader)
            if isinstance(norm, str) or len(reader.consumers) != 1:
                return None
            gain, now, reader = norm.kernel.ravel(), reader, calls[reader.consumers[0]]
            if np.abs(gain).min() < 1e-3 * np.abs(gain).max():
                return None
        if type(reader.layer) is not layers.Add:
            return None
        others = [edge for edge in reader.inputs if edge.call != now.index]
        there = all(edge in self.pair.values[1] for edge in others) and len(others) == len(reader.inputs) - 1
        same_shape = all(shape == reader.output_shapes[0] for shape in reader.input_shapes)
        return (others, gain, kept) if there and same_shape else None


def _activated(call: Call) -> bool:
    return getattr(getattr(call.layer, "activation", None), "__name__", "linear") != "linear"


def _flat(outputs: Array) -> Array:
    """(count, rows, o) -> (rows, count * o)."""
    return outputs.transpose(1, 0, 2).reshape(outputs.shape[1], -1)


def _renormalize(now: Linear, kernel: Array, bias: Array, sums: Sums) -> None:
    """The gain and shift found, as gamma and beta over the statistics seen, so that estimating them anew changes
    little; where gamma or beta are left out, the statistics alone."""
    layer = now.layer
    mean = sums.x[:, 0] / sums.rows
    variance = sums.xx[:, 0, 0] / sums.rows - np.square(mean)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
    if layer.scale and layer.center:
        gain, shift = (now.kernel + kernel)[:, 0, 0], (now.bias + bias)[:, 0]
        layer.gamma.assign(gain * np.sqrt(variance + layer.epsilon))
        layer.beta.assign(shift + gain * mean)
