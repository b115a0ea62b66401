"""Weights far larger than the rest, which cost all others their resolution: clipped, or their channels split in two.

Clipping: the largest weight of a scale is brought down to where the mean squared error of all weights that share the
scale is least (Nagel et al. 2021, arXiv:2106.08295, section 3.1). Splitting: outlier channel splitting, Zhao et al.
2019, arXiv:1901.09504: an input channel is read twice with weights w/2 - step/4 and w/2 + step/4, which rounded add up
to w rounded; the layer before gives it twice. The graph computes the same; it grows by the added channels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.chains import Pair, find_pairs
from toolkit.engine.kernels import from_out_rows, in_rows, input_axis, out_rows
from toolkit.engine.prepare import WEIGHTED, kernel_axis, split_weights
from toolkit.engine.simulate import Granularity, on_grid
from toolkit.engine.surgery import rebuild

Array = NDArray[Any]
CLIPS = np.arange(1.0, 0.29, -0.02)  # shares of the largest weight that are tried
SHARE = 0.05  # of a layer's input channels that may be doubled at most: the paper's largest
PAYS = 0.9  # the error must fall at least to this share of what it was


@dataclass(frozen=True)
class Treated:
    """One layer: root mean squared rounding error of its weights, before and after; what was done, or why nothing."""

    layer: str
    before: float
    after: float
    done: str = ""
    reason: str = ""


def clip_weights(
    model: Any, *, bits: int = 8, granularity: Granularity = "per_channel", names: Collection[str] | None = None
) -> tuple[Any, tuple[Treated, ...]]:
    """The graph with clipped weights where that pays, and a row for each layer (of `names`, where given).

    What the graph computes changes, less than rounding would have changed it.
    """
    weights: dict[str, list[Array]] = {}
    rows = []
    for layer in model.layers:
        if not isinstance(layer, WEIGHTED) or (names is not None and layer.name not in names):
            continue
        kernel, *bias = layer.get_weights()
        slices = out_rows(layer, kernel)
        whole = slices.reshape(1, -1) if granularity == "per_tensor" else slices
        clipped, before, after = _clipped(whole, bits)
        if clipped is None:
            rows.append(Treated(layer.name, before, before, reason="clipping does not pay"))
            continue
        weights[layer.name] = [from_out_rows(layer, clipped.reshape(slices.shape), kernel.shape), *bias]
        count = int((clipped != whole).any(axis=1).sum())
        rows.append(Treated(layer.name, before, after, f"weights clipped in {count} of {len(whole)} scales"))
    return (rebuild(model, weights) if weights else model), tuple(rows)


def split_channels(
    model: Any, *, bits: int = 8, names: Collection[str] | None = None, share: float = SHARE
) -> tuple[Any, tuple[Treated, ...]]:
    """The graph with doubled channels in layers whose weights share one scale, where that pays; a row for each layer.

    share: of a layer's input channels that may be doubled at most.
    """
    pairs, _ = find_pairs(model)
    by_second = {pair.second: pair for pair in pairs}
    weights: dict[str, list[Array]] = {layer.name: layer.get_weights() for layer in model.layers}
    rows = []
    for layer in model.layers:
        if not isinstance(layer, WEIGHTED) or (names is not None and layer.name not in names):
            continue
        error = _error(out_rows(layer, split_weights(layer)[0]).reshape(1, -1), bits)
        pair = by_second.get(layer.name)
        reason = _cannot(layer, pair, model)
        if reason or pair is None:
            rows.append(Treated(layer.name, error, error, reason=reason))
        else:
            rows.append(_split(layer, pair, model, weights, (bits, share)))
    changed = {row.layer for row in rows if row.done}
    if not changed:
        return model, tuple(rows)
    return rebuild(model, weights, lambda layer: _more(layer, weights[layer.name])), tuple(rows)


# ---------------------------------------------------------------- clipping


def _clipped(rows: Array, bits: int) -> tuple[Array | None, float, float]:
    """Rows of weights with one scale each, clipped where that pays (None where it never does); errors before, after."""
    peaks = np.abs(rows).max(axis=1, keepdims=True)
    found = np.stack([_row_errors(rows, peaks * share, bits) for share in CLIPS])
    best = found.argmin(axis=0)
    least = found[best, np.arange(len(rows))]
    pays = least <= PAYS**2 * found[0]
    before = float(np.sqrt(found[0].sum() / rows.size))
    if not pays.any():
        return None, before, before
    limits = np.where(pays, CLIPS[best], 1.0)[:, None] * peaks
    after = float(np.sqrt(np.where(pays, least, found[0]).sum() / rows.size))
    return np.clip(rows, -limits, limits).astype(np.float32), before, after


def _row_errors(rows: Array, limits: Array, bits: int) -> Array:
    """Squared error of each row, rounded to a grid that ends at its limit."""
    scales = np.maximum(limits, np.finfo(np.float32).tiny) / (2 ** (bits - 1) - 1)
    return np.asarray(((on_grid(rows, scales, bits) - rows) ** 2).sum(axis=1), np.float64)


# ---------------------------------------------------------------- splitting


def _cannot(layer: Any, pair: Pair | None, model: Any) -> str:
    """Why no input channel of a layer can be doubled, or ""."""
    if isinstance(layer, layers.DepthwiseConv2D):
        return "each channel of a depthwise layer has its own weights alone"
    if pair is None:
        return "no single layer with weights gives its input"
    first = model.get_layer(pair.first)
    if isinstance(first, layers.DepthwiseConv2D) or getattr(first, "groups", 1) != 1:
        return f"{pair.first} gives no channel twice without reading one twice"
    return ""


def _split(layer: Any, pair: Pair, model: Any, weights: dict[str, list[Array]], limits: tuple[int, float]) -> Treated:
    """Double the channels that bring the error down most, in `weights`."""
    bits, share = limits
    kernel, *bias = weights[layer.name]
    slices = in_rows(layer, kernel)
    slices = slices.reshape(pair.repeats, -1, slices.shape[-1])  # (repeats, channels, weights)
    order = np.argsort(-np.abs(slices).max(axis=(0, 2)), kind="stable")
    errors = [_error(slices, bits)]
    for count in range(1, int(share * slices.shape[1]) + 1):
        wide = _doubled(slices, order[:count], bits)
        rounded = _rounded(wide, bits)
        joined = rounded[:, : slices.shape[1]].copy()
        joined[:, order[:count]] += rounded[:, slices.shape[1] :]
        errors.append(float(np.sqrt(((joined - slices) ** 2).mean())))
    count = int(np.argmin(errors))
    if errors[count] > PAYS * errors[0]:
        return Treated(layer.name, errors[0], errors[0], reason="splitting does not pay")
    chosen = order[:count]
    weights[layer.name] = [_from_in_rows(layer, _doubled(slices, chosen, bits), kernel.shape), *bias]
    first = model.get_layer(pair.first)
    kernel, *bias = weights[pair.first]
    rows = out_rows(first, kernel)
    shape = list(kernel.shape)
    shape[kernel_axis(first)] += count
    wide = from_out_rows(first, np.concatenate([rows, rows[chosen]]), tuple(shape))
    weights[pair.first] = [wide, *(np.concatenate([b, b[chosen]]) for b in bias)]
    return Treated(layer.name, errors[0], errors[count], f"{count} channels of {pair.first} doubled")


def _doubled(slices: Array, chosen: Array, bits: int) -> Array:
    """(repeats, channels + chosen, weights): chosen channels as two that add up to them."""
    rest = np.abs(np.delete(slices, chosen, axis=1)).max(initial=0.0)
    step = max(rest, np.abs(slices[:, chosen]).max() / 2) / (2 ** (bits - 1) - 1)
    half = slices[:, chosen] / 2
    wide = np.concatenate([slices, half + step / 4], axis=1).astype(np.float32)
    wide[:, chosen] = slices[:, chosen] - wide[:, slices.shape[1] :]  # so that the two are the one again, exactly
    return np.asarray(wide)


def _rounded(values: Array, bits: int) -> Array:
    peak = max(float(np.abs(values).max(initial=0.0)), float(np.finfo(np.float32).tiny))
    return on_grid(values, np.asarray(peak / (2 ** (bits - 1) - 1)), bits)


def _error(values: Array, bits: int) -> float:
    """Root mean squared error of weights with one scale."""
    return float(np.sqrt(((_rounded(values, bits) - values) ** 2).mean()))


def _from_in_rows(layer: Any, slices: Array, shape: tuple[int, ...]) -> Array:
    """The kernel with these input channels, (repeats, channels, weights), otherwise of this shape."""
    axis = input_axis(layer) % len(shape)
    rows = slices.reshape(-1, *shape[:axis], *shape[axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(rows, 0, axis))


def _more(layer: Any, weights: list[Array]) -> Mapping[str, int]:
    """Settings of a layer that gives more channels."""
    if not isinstance(layer, layers.Conv2D | layers.Conv2DTranspose | layers.Dense):
        return {}
    size = weights[0].shape[kernel_axis(layer)]
    return {"units" if isinstance(layer, layers.Dense) else "filters": size}
