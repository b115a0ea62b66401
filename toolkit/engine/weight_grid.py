"""Weights as rows of output channels, and their symmetric integer grid: max|w| / (2**(bits-1) - 1), zero point 0.

Page: ai.google.dev/edge/litert, "LiteRT 8-bit quantization specification" (for 8 bits, narrow range).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.prepare import kernel_axis

Array = NDArray[Any]
Granularity = Literal["per_channel", "per_tensor"]


def out_rows(layer: Any, kernel: Array) -> Array:
    """(output channels, weights of each) of the kernel of a layer of prepare.WEIGHTED."""
    if isinstance(layer, layers.DepthwiseConv2D):  # (height, width, channels, multiplier)
        return kernel.reshape(kernel.shape[0] * kernel.shape[1], -1).T
    moved = np.moveaxis(kernel, kernel_axis(layer), 0)
    return moved.reshape(len(moved), -1)


def from_out_rows(layer: Any, rows: Array, shape: tuple[int, ...]) -> Array:
    """The kernel of this shape that `out_rows` gives these rows for."""
    if isinstance(layer, layers.DepthwiseConv2D):
        return np.ascontiguousarray(rows.T).reshape(shape)
    axis = kernel_axis(layer) % len(shape)
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, axis))


def in_rows(layer: Any, kernel: Array) -> Array:
    """(input channels, weights of each) of the kernel of a layer of prepare.WEIGHTED without groups."""
    moved = np.moveaxis(kernel, input_axis(layer), 0)
    return moved.reshape(len(moved), -1)


def input_axis(layer: Any) -> int:
    """Axis of the input channels in a kernel."""
    return -1 if isinstance(layer, layers.Conv2DTranspose) else -2


def largest(bits: int) -> int:
    """The largest integer of a symmetric narrow range: 127 for 8 bits, 7 for 4."""
    return int(2 ** (bits - 1) - 1)


def steps(rows: Array, bits: int, granularity: Granularity = "per_channel") -> Array:
    """(rows, 1): the grid's step in each row; 1 where all weights are 0."""
    peak = np.abs(rows).max(axis=1, keepdims=True)
    if granularity == "per_tensor":
        peak = np.full_like(peak, peak.max())
    return np.where(peak > 0, peak / largest(bits), 1).astype(np.float32)


def nearest(layer: Any, kernel: Array, bits: int, granularity: Granularity = "per_channel") -> Array:
    """The kernel rounded to its grid. On the grid already, it stays."""
    rows = out_rows(layer, kernel)
    step = steps(rows, bits, granularity)
    return from_out_rows(layer, (np.round(rows / step) * step).astype(np.float32), kernel.shape)
