"""What layers with weights read and give at sampled places of their output: inputs as rows of taps, one row a place.

A convolution is then a product of rows and weights, (places, taps, groups, inputs) by (taps, groups, inputs, outputs):
a depthwise one has a group for each channel, a dense layer one tap.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

Array = NDArray[Any]


def grouped(layer: Any, kernel: Array) -> Array:
    """(taps, groups, inputs of a group, outputs of a group) of a Conv2D's, DepthwiseConv2D's or Dense's kernel."""
    if isinstance(layer, layers.Dense):
        return kernel[None, None]
    taps = kernel.shape[0] * kernel.shape[1]
    if isinstance(layer, layers.DepthwiseConv2D):
        return kernel.reshape(taps, kernel.shape[2], 1, kernel.shape[3])
    return kernel.reshape(taps, kernel.shape[2], layer.groups, -1).transpose(0, 2, 1, 3)


def from_grouped(layer: Any, weights: Array, shape: tuple[int, ...]) -> Array:
    """The kernel of this shape that `grouped` gives these weights for."""
    if isinstance(layer, layers.Conv2D):
        weights = weights.transpose(0, 2, 1, 3)
    return np.ascontiguousarray(weights).reshape(shape)


def sample(layer: Any, pairs: Iterable[tuple[Any, Any]], *, places: int, seed: int) -> tuple[Array, Array]:
    """(places, taps, groups, inputs) that a layer reads, (places, channels) that it should give.

    pairs: batches of the tensors it reads and should give. places: of one image's output at most; fewer where it has
    not as many.
    """
    generator = np.random.default_rng(seed)
    taken, wanted = [], []
    for pair in pairs:
        x, y = map(np.asarray, pair)
        where = _positions(y.shape, places, generator)
        taken.append(_taps(layer, x, where))
        wanted.append(y[where])
    return np.concatenate(taken), np.concatenate(wanted)


def _positions(shape: tuple[int, ...], places: int, generator: np.random.Generator) -> tuple[Array, ...]:
    """Indexes along all axes but the last: `places` of each image, or all."""
    free = int(np.prod(shape[1:-1]))
    count = min(free, places)
    flat = (
        generator.random((shape[0], free)).argpartition(count - 1, axis=1)[:, :count]
        if free > count
        else (np.broadcast_to(np.arange(free), (shape[0], free)))
    )
    rows = np.repeat(np.arange(shape[0]), count)
    return (rows, *np.unravel_index(flat.reshape(-1), shape[1:-1])) if len(shape) > 2 else (rows,)


def _taps(layer: Any, x: Array, where: tuple[Array, ...]) -> Array:
    if isinstance(layer, layers.Dense):
        return x[where][:, None, None]
    rows, top, left = where
    kernel, strides, dilation = layer.kernel_size, layer.strides, layer.dilation_rate
    pads = [(0, 0)] * 4
    if layer.padding == "same":
        pads[1:3] = [_same(x.shape[1 + i], kernel[i], strides[i], dilation[i]) for i in (0, 1)]
    x = np.pad(x, pads)
    down = top[:, None, None] * strides[0] + (np.arange(kernel[0]) * dilation[0])[None, :, None]
    across = left[:, None, None] * strides[1] + (np.arange(kernel[1]) * dilation[1])[None, None, :]
    found = x[rows[:, None, None], down, across]
    groups = x.shape[-1] if isinstance(layer, layers.DepthwiseConv2D) else layer.groups
    return np.ascontiguousarray(found.reshape(len(rows), kernel[0] * kernel[1], groups, -1))


def _same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after, of padding "same" as TensorFlow has it."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
