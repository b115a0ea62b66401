"""Kernels as rows of weights: one for each output channel, or for each input channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.prepare import kernel_axis

Array = NDArray[Any]


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
