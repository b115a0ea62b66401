"""Random views of training images by Keras layers, which stand before the network and are never a part of it.

The network that is saved has none of them, so there is nothing to strip but the training graph itself. Colours are
changed on pixels of 0..1: the preprocessing contract is undone before, and done again after, so that a view is the
same for every contract. (Keras' RandomSaturation clips rightly in that range alone.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from toolkit.errors import UnsupportedError

WHITE = 255.0  # the contract starts from pixels of 0..255


@dataclass(frozen=True)
class Pixels:
    """How the images were made from pixels of 0..255: pixels * scale + offset, per channel. color: rgb, bgr or gray."""

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    color: str = "rgb"


@dataclass(frozen=True)
class Views:
    """Largest changes; 0 (or "none") leaves a thing as it is.

    rotation: degrees either way. shift, zoom, shear: share of a side. The others: factors as of Keras' layers, 0..1.
    fill: what comes in at the edges (a fill_mode of Keras).
    """

    flip: str = "none"
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    fill: str = "reflect"
    pixels: Pixels = Pixels()

    @property
    def colours(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def any(self) -> bool:
        return self.colours or self.flip != "none" or any((self.rotation, self.zoom, self.shift, self.shear))


def network(views: Views, shape: tuple[int, ...], seed: int) -> Any | None:
    """A Sequential from images to views of them, called with training=True; None where nothing changes.

    shape: (height, width, channels). Raises UnsupportedError for hue or saturation of gray images.
    """
    if not views.any:
        return None
    if shape[-1] != 3 and (views.saturation or views.hue):
        fix = "set them to 0"
        raise UnsupportedError("augment", f"saturation and hue need three channels, the images have {shape[-1]}", fix)
    stack = [*_geometry(views, seed), *(_colour(views, seed) if views.colours else ())]
    return keras.Sequential([keras.Input(shape), *stack], name="views")


def _geometry(views: Views, seed: int) -> Iterator[Any]:
    edges = {"fill_mode": views.fill}
    if views.flip != "none":
        yield layers.RandomFlip(views.flip, seed=seed + 1)
    if views.rotation:
        yield layers.RandomRotation(views.rotation / 360, seed=seed + 2, **edges)
    if views.zoom:
        yield layers.RandomZoom(views.zoom, seed=seed + 3, **edges)
    if views.shift:
        yield layers.RandomTranslation(views.shift, views.shift, seed=seed + 4, **edges)
    if views.shear:
        yield layers.RandomShear(views.shear, views.shear, seed=seed + 5, **edges)


def _colour(views: Views, seed: int) -> Iterator[Any]:
    """From the contract's values to pixels of 0..1, the changes, and back."""
    scale, offset = np.broadcast_arrays(views.pixels.scale, views.pixels.offset)
    yield layers.Rescaling((1 / (scale * WHITE)).tolist(), (-offset / (scale * WHITE)).tolist())
    if views.pixels.color == "bgr":
        yield _Reversed(name="to_rgb")
    within = {"value_range": (0.0, 1.0)}
    if views.brightness:
        yield layers.RandomBrightness(views.brightness, seed=seed + 6, **within)
    if views.contrast:  # one number would only raise it
        yield layers.RandomContrast((views.contrast, views.contrast), seed=seed + 7, **within)
    if views.saturation:  # Keras takes 0.5 for unchanged
        yield layers.RandomSaturation(_about_half(views.saturation), seed=seed + 8, **within)
    if views.hue:
        yield layers.RandomHue(views.hue, seed=seed + 9, **within)
    if views.pixels.color == "bgr":
        yield _Reversed(name="to_bgr")
    yield layers.Rescaling((scale * WHITE).tolist(), offset.tolist())


class _Reversed(layers.Layer):  # type: ignore[misc]
    """Channels in the other order."""

    def call(self, inputs: Any) -> Any:
        return inputs[..., ::-1]


def _about_half(reach: float) -> tuple[float, float]:
    return 0.5 - reach / 2, 0.5 + reach / 2
