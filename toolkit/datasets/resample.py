"""Resizing without a low-pass filter: each pixel is interpolated from its nearest neighbours, however small the result.

The sampling of `tf.image.resize(antialias=False)` and of most camera pipelines: pixel i of n has its centre at
(i + 0.5) / n ("half-pixel centres"); neighbours beyond the edge do not count. Pillow has no such mode.
Kernels: the triangle (bilinear); R. G. Keys, "Cubic convolution interpolation for digital image processing" (1981)
with a = -0.5 (bicubic; Pillow's and TensorFlow's choice, OpenCV and PyTorch without antialias have -0.75); Lanczos-3.

`sample_code` writes these functions into its programs, so that they use NumPy alone and nothing else of this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.core import Array


def point_sample(image: Array, size: tuple[int, int], method: str) -> Array:
    """A uint8 image (height, width, channels) at another size (height, width), rounded once, at the end."""
    import numpy as np

    for axis, wanted in enumerate(size):
        places, weights = taps(image.shape[axis], wanted, method)
        shape = (wanted, 1, 1) if axis == 0 else (1, wanted, 1)
        parts = [np.take(image, places[:, i], axis) * weights[:, i].reshape(shape) for i in range(places.shape[1])]
        image = np.add.reduce(parts)
    return np.clip(np.floor(image + np.float32(0.5)), 0, 255).astype(np.uint8)


def taps(length: int, wanted: int, method: str) -> tuple[Array, Array]:
    """For each of `wanted` pixels along a side of `length`: the pixels it is made of, and their weights."""
    import numpy as np

    if method == "nearest":  # in float32, as TensorFlow: 0.5 / 3 * 6 must fall on the same side there and here
        steps = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * (np.float32(length) / np.float32(wanted))
        places = np.minimum(np.floor(steps).astype(np.int64), length - 1)[:, None]
        return places, np.ones(places.shape, np.float32)
    reach = {"bilinear": 1, "bicubic": 2, "lanczos": 3}[method]
    centres = (np.arange(wanted) + 0.5) * (length / wanted)
    places = np.floor(centres - 0.5).astype(np.int64)[:, None] + np.arange(1 - reach, 1 + reach)
    x = np.abs(places + 0.5 - centres[:, None])
    if method == "bilinear":
        weights = np.maximum(1 - x, 0)
    elif method == "bicubic":
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = np.where(x <= 1, near, np.where(x < 2, far, 0))
    else:
        weights = np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)
    weights = np.where((places < 0) | (places >= length), 0, weights)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return places.clip(0, length - 1), weights.astype(np.float32)
