"""From a decoded image to a model's input: presets, free scale and offset, and their application.

raw       x. EfficientNet, EfficientNetV2, MobileNetV3, ConvNeXt (they rescale inside)
unit      x / 255. None of keras.applications; common in models of one's own
signed    x / 127.5 - 1. MobileNet, MobileNetV2, InceptionV3, InceptionResNetV2, Xception, NASNet, ResNetV2
imagenet  (x / 255 - mean) / std, RGB. DenseNet; the usual form of PyTorch models
caffe     BGR, x - (103.939, 116.779, 123.68). VGG16, VGG19, ResNet50, ResNet101, ResNet152

x is 0..255; the names are those of keras.applications. Before that: the cropped part, resized, channels ordered.
Source: `keras.applications.imagenet_utils.preprocess_input` (modes "tf", "torch", "caffe").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from toolkit.core import Preprocessing
from toolkit.errors import InputError
from toolkit.schema import Component

if TYPE_CHECKING:
    from PIL.Image import Image

    from toolkit.core import Array

Preset = Literal["raw", "unit", "signed", "imagenet", "caffe"]
APPLICATIONS: dict[str, Preset] = {  # module of keras.applications -> what its `preprocess_input` does
    **dict.fromkeys(("efficientnet", "efficientnet_v2", "mobilenet_v3", "convnext"), "raw"),
    **dict.fromkeys(("mobilenet", "mobilenet_v2", "inception_v3", "inception_resnet_v2"), "signed"),
    **dict.fromkeys(("xception", "nasnet", "resnet_v2"), "signed"),
    "densenet": "imagenet",
    **dict.fromkeys(("vgg16", "vgg19", "resnet", "resnet50"), "caffe"),
}
Side = Annotated[int, Field(ge=1, le=8192)]
Channels = float | Annotated[tuple[float, ...], Field(min_length=1)]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, RGB, of x / 255
_PRESETS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "raw": ((1.0,), (0.0,)),
    "unit": ((1 / 255,), (0.0,)),
    "signed": ((1 / 127.5,), (-1.0,)),
    "imagenet": (tuple(1 / (255 * s) for s in _STD), tuple(-m / s for m, s in zip(_MEAN, _STD, strict=True))),
    "caffe": ((1.0,), (-103.939, -116.779, -123.68)),
}


class PreprocessSpec(Component):
    """How images become inputs: a preset's name, or a table with a preset or with a scale of one's own."""

    preset: Preset | None = None
    """raw, unit, signed, imagenet, caffe, or a module of keras.applications; excludes scale, offset, mean and std."""
    size: tuple[Side, Side] | None = None
    """Height and width of the input, in pixels; by default the model's own."""
    resize: Literal["bilinear", "bicubic", "nearest", "lanczos"] = "bilinear"
    """Interpolation: triangle, cubic (Keys, a = -0.5), nearest pixel, or Lanczos of 3 lobes."""
    antialias: bool = True
    """Filter as wide as the shrinking asks for; false interpolates between nearest pixels however small the result."""
    crop: Literal["center", "none"] = "center"
    """center cuts to the aspect ratio of the input; none stretches."""
    crop_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of both sides kept, centred, after `crop`: 0.875 for what was trained as "resize to 256, crop 224"."""
    color: Literal["rgb", "bgr", "gray"] | None = None
    """Order of channels; by default the preset's, or gray for a model of one channel."""
    scale: Channels | None = None
    """Factor on pixel values 0..255, one or one for each channel; default 1."""
    offset: Channels | None = None
    """Added after scale; excludes mean and std."""
    mean: Channels | None = None
    """Subtracted after scale: (x * scale - mean) / std."""
    std: Channels | None = None
    """Divides after mean was subtracted."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        table = {"preset": value} if isinstance(value, str) else value
        if isinstance(table, dict) and isinstance(table.get("preset"), str):
            return {**table, "preset": APPLICATIONS.get(table["preset"], table["preset"])}
        return table

    @model_validator(mode="after")
    def _consistent(self) -> PreprocessSpec:
        own = [key for key in ("scale", "offset", "mean", "std") if getattr(self, key) is not None]
        if self.preset and own:
            raise ValueError(f"a preset excludes {', '.join(own)}")
        if self.offset is not None and (self.mean is not None or self.std is not None):
            raise ValueError("offset excludes mean and std")
        if any(value <= 0 for key in ("scale", "std") for value in _channels(getattr(self, key), 1.0)):
            raise ValueError("scale and std must be above 0")
        if self.scale is None and self.mean is not None and max(map(abs, _channels(self.mean, 0.0))) <= 1:
            raise ValueError("a mean within 1 is meant for pixels of 0..1: add scale = 0.00392156862745098 (1/255)")
        self.resolve()
        return self

    def resolve(self, shape: Sequence[int | None] | None = None) -> Preprocessing:
        """The full contract. shape: the model's NHWC input, for the size and channels not given here."""
        scale, offset = self._affine()
        height, width, channels = shape[1:] if shape is not None and len(shape) == 4 else (None, None, None)
        size = self.size or ((height, width) if height and width else None)
        color = self.color or ("bgr" if self.preset == "caffe" else "gray" if channels == 1 else "rgb")
        return Preprocessing(
            size=size,
            resize=self.resize,
            antialias=self.antialias,
            crop=self.crop,
            crop_share=self.crop_share,
            color=color,
            scale=scale,
            offset=offset,
        )

    def _affine(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.preset:
            return _PRESETS[self.preset]
        scale, offset = _channels(self.scale, 1.0), _channels(self.offset, 0.0)
        if self.mean is None and self.std is None:
            return scale, offset
        mean, std = _channels(self.mean, 0.0), _channels(self.std, 1.0)
        count = max(len(scale), len(mean), len(std))
        if any(len(values) not in (1, count) for values in (scale, mean, std)):
            raise ValueError("scale, mean and std differ in their number of channels")
        scale, mean, std = (values * count if len(values) == 1 else values for values in (scale, mean, std))
        factors = tuple(s / d for s, d in zip(scale, std, strict=True))
        return factors, tuple(-m / d for m, d in zip(mean, std, strict=True))


def apply(image: Array, preprocessing: Preprocessing) -> Array:
    """One image (height, width, channels) as float32 input: `geometry`, then `normalise`."""
    return normalise(geometry(image, preprocessing), preprocessing)


def geometry(image: Array | Image, preprocessing: Preprocessing) -> Array:
    """Crop, resize and channels, still uint8. A float image must have its size and channels already.

    image: height x width x channels, or Pillow's own image of mode L or RGB, which is not copied first.
    """
    import numpy as np

    if not isinstance(image, np.ndarray):
        return _color(_placed(image, preprocessing), preprocessing.color)
    height, width, channels = image.shape
    size = preprocessing.size or (height, width)
    wanted = 1 if preprocessing.color == "gray" else 3
    if image.dtype.kind == "f":
        if (height, width, channels) != (*size, wanted):
            problem = f"float image of {height}x{width}x{channels}, the model takes {size[0]}x{size[1]}x{wanted}"
            raise InputError("preprocess", problem, "save images as uint8, or in the model's own form")
        return image
    if channels not in (1, 3):
        raise InputError("preprocess", f"image of {channels} channels", "give gray or RGB images")
    return _color(_placed(image, preprocessing), preprocessing.color)


def normalise(images: Array, preprocessing: Preprocessing, *, out: Array | None = None) -> Array:
    """float32 of x * scale + offset for uint8 images (..., channels); float images are taken as already done.

    out: where to put it, an array of that shape.
    """
    import numpy as np

    if images.dtype.kind == "f":
        return np.positive(images, out=out, dtype=np.float32, casting="same_kind")
    for values in (preprocessing.scale, preprocessing.offset):
        if len(values) not in (1, images.shape[-1]):
            problem = f"{len(values)} scales or offsets for {images.shape[-1]} channels"
            raise InputError("preprocess", problem, "give one, or one for each channel")
    scale, offset = np.asarray(preprocessing.scale, np.float32), np.asarray(preprocessing.offset, np.float32)
    scaled: Array = np.multiply(images, scale, out=out, dtype=np.float32)
    return np.add(scaled, offset, out=scaled)


def crop_box(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """The part of an image that counts: top, left, rows, columns; an odd pixel is cut below or right."""
    rows, columns = height, width
    if preprocessing.size is not None and preprocessing.crop == "center":
        wanted_rows, wanted_columns = preprocessing.size
        rows = max(1, min(height, round(width * wanted_rows / wanted_columns)))
        columns = max(1, min(width, round(height * wanted_columns / wanted_rows)))
    rows = max(1, round(rows * preprocessing.crop_share))
    columns = max(1, round(columns * preprocessing.crop_share))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _placed(image: Array | Image, preprocessing: Preprocessing) -> Array:
    """The part that counts, at its size: cut first, and not by resize's `box`, whose filter reads beyond the cut.

    By Pillow, whose filters are antialiased; what it has not, or not as TensorFlow has it, by NumPy.
    """
    import numpy as np
    from PIL import Image

    from toolkit.datasets.resample import point_sample

    height, width = image.shape[:2] if isinstance(image, np.ndarray) else (image.height, image.width)
    top, left, rows, columns = crop_box(height, width, preprocessing)
    size, method = preprocessing.size or (rows, columns), preprocessing.resize
    if (rows, columns) == size or method == "nearest" or not preprocessing.antialias:
        pixels = np.asarray(image).reshape(height, width, -1)[top : top + rows, left : left + columns]
        return pixels if (rows, columns) == size else point_sample(pixels, size, method)
    if isinstance(image, np.ndarray):
        part = image[top : top + rows, left : left + columns]
        picture = Image.fromarray(part[:, :, 0] if part.shape[2] == 1 else part)
    else:
        picture = image if (rows, columns) == (height, width) else image.crop((left, top, left + columns, top + rows))
    return np.asarray(picture.resize(size[::-1], Image.Resampling[method.upper()])).reshape(*size, -1)


def _color(image: Array, color: str) -> Array:
    import numpy as np
    from PIL import Image

    if color == "gray":
        if image.shape[2] == 1:
            return image
        return np.asarray(Image.fromarray(image).convert("L"))[:, :, None]  # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return image[:, :, ::-1] if color == "bgr" else image


def _channels(value: float | tuple[float, ...] | None, default: float) -> tuple[float, ...]:
    if value is None:
        return (default,)
    return value if isinstance(value, tuple) else (float(value),)
