"""Weights rounded one input after another, each error made up for by those that are not rounded yet.

GPTQ (Frantar et al. 2022, arXiv:2210.17323), which is optimal brain surgery for integers: with H the second moments of
what a layer reads in the quantized network, the error of one weight is spread over the others by the Cholesky factor of
H's inverse. What is aimed at is the float kernel on the very same inputs, so that earlier layers' noise is not fitted.
Two things that the paper has not: only places count where the ReLU behind passes a channel's output on, and H is that
of deviations from the mean, which `bias` corrects. The largest weights of each channel stay, and so the grid; what is
zero stays too, as `sparsify` has made it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.adaround import HELD_BACK, SAMPLE_BYTES, Rounding, Settings, relu_behind
from toolkit.engine.bias_correction import called_once
from toolkit.engine.channel_values import Batches
from toolkit.engine.frontier import Frontier
from toolkit.engine.places import from_grouped, grouped, sample
from toolkit.engine.prepare import split_weights
from toolkit.engine.simulate import weight_scales

Array = NDArray[Any]
DAMPING = 0.02  # of H's mean diagonal, added to it: the paper has 0.01 of far more places
OWN_INPUTS = (
    512  # up to so many inputs a channel has an H of its own, of its places; beyond, all share one, as the paper
)
CHUNK_BYTES = 64 << 20  # of the matrices that are inverted at a time


def gptq(
    model: Any,
    simulated: Any,
    batches: Batches,
    settings: Settings,
    *,
    names: Sequence[str] | None = None,
    watch: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Array], tuple[Rounding, ...]]:
    """New kernels on their grid by layer, and a row for each layer; `simulated` is given them too.

    Arguments and rows are those of `adaround`; errors are of a layer's output on the same inputs, without its mean.
    """
    names = called_once(model) if names is None else names
    images = sum(len(next(iter(batch.values()))) for batch in batches())
    frontier, kernels, rows = Frontier(simulated, names, batches), dict[str, Array](), list[Rounding]()
    for number, name in enumerate(names):
        layer, twin = model.get_layer(name), simulated.get_layer(name)
        if isinstance(layer, layers.Conv2DTranspose):
            rows.append(Rounding(name, 0.0, 0.0, 0.0, "transposed convolutions keep plain rounding"))
            continue
        watch(f"rounding {name} ({number + 1} of {len(names)})")
        problem = _Problem(layer, settings)
        count = max(1, min(settings.places, SAMPLE_BYTES // problem.row_bytes) // images)
        pairs = ((x, layer(x)) for x in frontier.inputs(name))
        taken, given = sample(layer, pairs, places=count, seed=settings.seed + number)
        counts = np.asarray(relu_behind(model, name)(given)) == given
        integers, row = problem.solve(taken, counts, settings.seed)
        kernels[name] = problem.kernel(integers)
        twin.set_weights([kernels[name], *twin.get_weights()[1:]])
        rows.append(row)
    return kernels, tuple(rows)


@dataclass(frozen=True)
class _Moments:
    """matrix: (groups, channels or 1 for all, inputs, inputs), mean over places of products of deviations."""

    matrix: Array

    @classmethod
    def of(cls, taken: Array, counts: Array, channels: slice) -> _Moments:
        """taken: (groups, places, inputs). counts: (groups, places, channels)."""
        groups, _, inputs = taken.shape
        own = counts[:, :, channels] if inputs <= OWN_INPUTS else np.ones((groups, counts.shape[1], 1), bool)
        found = np.zeros((groups, own.shape[2], inputs, inputs))
        for group, channel in np.ndindex(groups, own.shape[2]):
            rows = taken[group][own[group, :, channel]]
            if len(rows):
                rows = rows - rows.mean(axis=0)
                found[group, channel] = rows.T @ rows / len(rows)
        return cls(found)

    def error(self, difference: Array) -> Array:
        """(groups, channels): mean squared change of the output for a change (groups, channels, inputs) of weights."""
        return np.asarray((difference * (self.matrix @ difference[..., None])[..., 0]).sum(axis=-1))

    def spread(self) -> Array:
        """U, upper triangular, with U^T U = (H + damping)^-1; the identity where nothing is known."""
        size = self.matrix.shape[-1]
        mean = np.trace(self.matrix, axis1=-2, axis2=-1)[..., None, None] / size
        damped = self.matrix + np.where(mean > 0, DAMPING * mean, 1.0) * np.eye(size)
        return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).swapaxes(-1, -2))


class _Problem:
    """One layer's weights in steps of their grid."""

    def __init__(self, layer: Any, settings: Settings) -> None:
        self._layer = layer
        kernel, _ = split_weights(layer)
        scales = weight_scales(layer, kernel, bits=settings.bits, granularity=settings.granularity)
        self._shape, self._most = kernel.shape, 2 ** (settings.bits - 1) - 1
        self._steps = grouped(layer, np.ascontiguousarray(np.broadcast_to(scales, kernel.shape)))
        scaled = grouped(layer, kernel) / self._steps
        self._grouped = scaled.shape
        self._weights = self._by_group(scaled).astype(np.float64)  # (groups, channels of a group, inputs)
        self._scales = self._by_group(self._steps)[..., 0]
        self.row_bytes = 4 * int(np.prod(scaled.shape[:-1]))

    def kernel(self, integers: Array) -> Array:
        """The layer's kernel of integers by group."""
        taps, groups, inputs, outputs = self._grouped
        back = integers.reshape(groups, outputs, taps, inputs).transpose(2, 0, 3, 1)
        return from_grouped(self._layer, (back * self._steps).astype(np.float32), self._shape)

    def solve(self, taken: Array, counts: Array, seed: int) -> tuple[Array, Rounding]:
        """Integers of the weights; channels that are not better on places held back are rounded plainly.

        taken: (places, taps, groups, inputs). counts: (places, channels), whether a place counts for a channel.
        """
        places, groups = len(taken), self._grouped[1]
        order = np.random.default_rng(seed).permutation(places)
        split = max(1, int(places * HELD_BACK))
        check, fit = order[:split], order[split:] if places > 1 else order
        taken = np.ascontiguousarray(taken.transpose(2, 0, 1, 3)).reshape(groups, places, -1)
        counts = counts.reshape(places, groups, -1).transpose(1, 0, 2)
        nearest = np.rint(self._weights)
        integers, before, after = nearest.copy(), 0.0, 0.0
        inputs = taken.shape[2]
        chunk = max(1, CHUNK_BYTES // (8 * groups * inputs**2)) if inputs <= OWN_INPUTS else nearest.shape[1]
        for start in range(0, nearest.shape[1], chunk):
            part = slice(start, start + chunk)
            weights, plain = self._weights[:, part], nearest[:, part]
            held, used = (_Moments.of(taken[:, rows], counts[:, rows], part) for rows in (check, fit))
            found = rounded_in_turn(weights, used.spread(), self._most)
            error, other = held.error(plain - weights), held.error(found - weights)
            better = other < error
            integers[:, part] = np.where(better[..., None], found, plain)
            unit = self._scales[:, part] ** 2
            before, after = before + (error * unit).sum(), after + (np.where(better, other, error) * unit).sum()
        turned = float((integers != nearest).mean())
        reason = "" if turned else "plain rounding was better on places held back"
        return integers, Rounding(self._layer.name, float(before), float(after), turned, reason)

    def _by_group(self, values: Array) -> Array:
        taps, groups, inputs, outputs = values.shape
        return np.ascontiguousarray(values.transpose(1, 3, 0, 2)).reshape(groups, outputs, taps * inputs)


def rounded_in_turn(weights: Array, spread: Array, most: int) -> Array:
    """Integers for (..., inputs) weights in steps, one input after another; what reaches `most`, or is 0, stays there.

    spread: U of `_Moments.spread`. After input i is rounded, those behind it change by -error * U[i, j] / U[i, i].
    """
    left, plain = weights.copy(), np.rint(weights)
    found = np.empty_like(left)
    for i in range(left.shape[-1]):
        own = np.clip(np.rint(left[..., i]), -most, most)
        stays = (np.abs(plain[..., i]) >= most) | (weights[..., i] == 0)
        found[..., i] = np.where(stays, plain[..., i], own)
        error = (left[..., i] - found[..., i]) / spread[..., i, i]
        left[..., i:] -= error[..., None] * spread[..., i, i:]
    return found
