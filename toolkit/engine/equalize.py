"""Cross-layer equalization: channels scaled between two layers so that their ranges become alike (Nagel et al. 2019).

Data-Free Quantization, arXiv:1906.04721, section 4.1: s = sqrt(r1 * r2) / r2 for each channel; the first layer's
weights and bias are divided by it, the second's multiplied. ReLU6 does not commute with a factor. With the largest
value that calibration saw in each channel (`peaks`), a channel may still grow up to the clip: on those images the
network then computes the same, and beyond them it clips where calibrated ranges do. Without, such pairs are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.chains import Pair, find_pairs
from toolkit.engine.kernels import from_out_rows, in_rows, input_axis, out_rows
from toolkit.engine.simulate import Granularity
from toolkit.engine.surgery import rebuild

Array = NDArray[Any]
SWEEPS = 40  # DFQ iterates to convergence; chains of a few layers take 10 to 20 sweeps
STILL = 1e-3  # relative change of a factor under which a sweep counts as none
LIMIT = 1e3  # a factor in one sweep; dead channels would get any


@dataclass(frozen=True)
class Evened:
    """One layer with weights: how uneven its output channels were, as largest range over median, before and after.

    second: the layer that takes up the factors. reason: why nothing was done, or "".
    """

    layer: str
    second: str
    before: float
    after: float
    reason: str = ""


@dataclass(frozen=True)
class Equalized:
    """graph: the evened one, or the one given where nothing could be done; factors: what channels were divided by."""

    graph: Any
    rows: tuple[Evened, ...]
    factors: Mapping[str, Array]


def equalize(
    model: Any, *, peaks: Mapping[str, Array] | None = None, granularity: Granularity = "per_tensor"
) -> Equalized:
    """A prepared graph that computes the same with evened channels, and a row for each layer with weights.

    peaks: layer name -> (channels,) its largest absolute output on calibration images, for the layers `peak_layers`
    names. granularity: of the weights' scales. Where each output channel has a scale of its own, ranges of weights need
    no evening: what suffers is the activation between the layers, which has one scale (needs peaks). The second layer
    takes the factors for nothing if it is depthwise, else both share them.
    """
    pairs, broken = find_pairs(model)
    state = _State(model, pairs, peaks, granularity)
    reasons = {pair.first: _reason(pair, peaks, granularity) for pair in pairs}
    active = [pair for pair in pairs if not reasons[pair.first]]
    before = {pair.first: state.unevenness(pair) for pair in pairs}
    for _ in range(SWEEPS):
        if max((state.balance(pair) for pair in active), default=0.0) < STILL:
            break
    rows = [
        Evened(pair.first, pair.second, before[pair.first], state.unevenness(pair), reasons[pair.first])
        for pair in pairs
    ]
    rows += [Evened(item.layer, "", 1.0, 1.0, item.reason) for item in broken]
    return Equalized(rebuild(model, state.weights) if active else model, tuple(rows), state.factors)


def peak_layers(model: Any) -> tuple[str, ...]:
    """The layers whose channels' largest outputs `equalize` may be given."""
    return tuple(dict.fromkeys(pair.between for pair in find_pairs(model)[0]))


def _reason(pair: Pair, peaks: Mapping[str, Array] | None, granularity: Granularity) -> str:
    if peaks is None and pair.bound is not None:
        return f"{pair.between} clips at {pair.bound:g}: not scale-equivariant"
    if peaks is None and granularity == "per_channel":
        return "each channel's weights have a scale of their own, and activations were not measured"
    return ""


class _State:
    """Weights and peaks as the sweeps change them."""

    def __init__(
        self, model: Any, pairs: tuple[Pair, ...], peaks: Mapping[str, Array] | None, granularity: Granularity
    ) -> None:
        self._layers = {layer.name: layer for layer in model.layers}
        self.weights: dict[str, list[Array]] = {
            name: self._layers[name].get_weights() for pair in pairs for name in (pair.first, pair.second)
        }
        self._peaks = {p.between: np.asarray(peaks[p.between], np.float64) for p in pairs} if peaks else {}
        self.factors: dict[str, Array] = {}
        self._granularity = granularity

    def balance(self, pair: Pair) -> float:
        """One step for one pair; the largest logarithm of a factor."""
        factor = np.clip(self._factor(pair), 1 / LIMIT, LIMIT)
        first, second = self._layers[pair.first], self._layers[pair.second]
        kernel, *bias = self.weights[pair.first]
        rows = out_rows(first, kernel) / factor[:, None]
        scaled = from_out_rows(first, rows.astype(np.float32), kernel.shape)
        self.weights[pair.first] = [scaled, *((b / factor).astype(np.float32) for b in bias)]
        kernel, *bias = self.weights[pair.second]
        shape = [1] * kernel.ndim
        shape[input_axis(second)] = -1
        repeated = np.tile(factor, pair.repeats).astype(np.float32).reshape(shape)
        self.weights[pair.second] = [kernel * repeated, *bias]
        if pair.between in self._peaks:
            self._peaks[pair.between] = self._peaks[pair.between] / factor
        self.factors[pair.first] = self.factors.get(pair.first, 1.0) * factor
        return float(np.abs(np.log(factor)).max(initial=0.0))

    def unevenness(self, pair: Pair) -> float:
        ranges = self._first_range(pair)
        alive = ranges[ranges > 0]
        return float(alive.max() / np.median(alive)) if len(alive) else 1.0

    def _factor(self, pair: Pair) -> Array:
        """What the first layer's channels are divided by."""
        own, theirs = self._first_range(pair), self._second_range(pair)
        alive = (own > 0) & (theirs > 0)
        raw = np.where(alive, np.sqrt(own / np.where(alive, theirs, 1)), 1.0)
        peak = self._peaks.get(pair.between)
        if peak is None:
            return raw
        bound = np.inf if pair.bound is None else pair.bound
        held = peak >= bound * (1 - 1e-6)  # channels that clip already cannot move
        if self._granularity == "per_channel" and alive.any():  # the tensor's whole range stays
            raw = raw / np.exp(np.log(raw[held]).mean()) if held.any() else raw * (peak / raw).max() / peak.max()
        factor = np.maximum(raw, peak / bound)  # none may grow over the clip
        return np.where(held | ~alive, 1.0, factor)

    def _first_range(self, pair: Pair) -> Array:
        if self._granularity == "per_channel" and pair.between in self._peaks:
            return self._peaks[pair.between]
        rows = out_rows(self._layers[pair.first], self.weights[pair.first][0])
        return np.asarray(np.abs(rows).max(axis=1), np.float64)

    def _second_range(self, pair: Pair) -> Array:
        layer, kernel = self._layers[pair.second], self.weights[pair.second][0]
        if self._granularity == "per_channel":
            if isinstance(layer, layers.DepthwiseConv2D):  # free: its channels have scales of their own
                return 1 / np.maximum(self._first_range(pair), np.finfo(np.float32).tiny)
            rows = out_rows(layer, kernel)
            kernel = from_out_rows(layer, rows / np.maximum(np.abs(rows).max(1, keepdims=True), 1e-30), kernel.shape)
        largest = np.abs(in_rows(layer, kernel)).max(axis=1).reshape(pair.repeats, -1).max(axis=0)
        return np.asarray(largest, np.float64)
