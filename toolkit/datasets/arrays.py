"""Arrays of decoded images, in memory or memory-mapped, as records read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.core import Array

    Reader = tuple[Callable[[int], Array], Callable[[int], bytes]]

_BLOCK_BYTES = 32 * 2**20  # of a memory-mapped array looked at at once


def channels_last(images: Array, where: str) -> Array:
    """The array as (n, height, width, channels) without copying it; InputError for what is no array of images."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise InputError(where, f"images have shape {images.shape}", "save them as (n, height, width, channels)")
    if images.shape[3] not in (1, 3, 4) and images.shape[1] in (1, 3, 4):
        fix = "transpose them to (n, height, width, channels)"
        raise InputError(where, f"images of shape {images.shape} seem to have channels first", fix)
    if images.dtype != "uint8" and images.dtype.kind != "f":
        raise InputError(where, f"images are {images.dtype}", "save them as uint8 (0..255) or float32")
    return images


def infinite(images: Array) -> dict[int, str]:
    """Images that hold NaN or infinity, looked for block by block."""
    import numpy as np

    if images.dtype.kind != "f" or not images.size:
        return {}
    rows = max(1, _BLOCK_BYTES // max(1, images[0].nbytes))
    found: dict[int, str] = {}
    for start in range(0, len(images), rows):
        bad = ~np.isfinite(images[start : start + rows]).reshape(-1, images[0].size).all(axis=1)
        found |= {start + int(place): "holds NaN or infinity" for place in np.flatnonzero(bad)}
    return found


def pixels(parts: Sequence[Array]) -> Reader:
    """(read, content) over arrays that follow one another."""
    import numpy as np

    starts = np.cumsum([0, *(len(part) for part in parts)])

    def read(index: int) -> Array:
        part = int(np.searchsorted(starts, index, side="right")) - 1 if len(parts) > 1 else 0
        image = np.asarray(parts[part][index - int(starts[part])])
        return image.astype(np.float32) if image.dtype.kind == "f" else image

    def content(index: int) -> bytes:
        image = read(index)
        return f"{image.shape}{image.dtype}".encode() + image.tobytes()

    return read, content
