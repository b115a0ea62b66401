"""Images as a model may have been meant to get them: other scales, orders of channels and layouts, to try beside what
it does get.

Nothing here changes the data: what is tried is made of a few images, and goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from toolkit.core import Preprocessing
from toolkit.datasets.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from toolkit.core import Array

Form = Literal["", "raw", "unit", "signed", "imagenet", "caffe", "cifar", "mnist"]
Turn = Literal["", "planes", "transposed"]
Affine = tuple[tuple[float, ...], tuple[float, ...]]
# usual numbers of the field beside the presets, of pixels in 0..1: torchvision's and Keras's examples on these sets
_MORE: dict[str, dict[str, tuple[float, ...]]] = {
    "cifar": {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)},
    "mnist": {"mean": (0.1307,), "std": (0.3081,)},
}
PIXEL = 0.00392156862745098  # 1 / 255
COLOR: tuple[Form, ...] = ("raw", "unit", "signed", "imagenet", "caffe", "cifar")
GRAY: tuple[Form, ...] = ("raw", "unit", "signed", "mnist")
SLACK = 0.01  # of a range, for what resizing overshoots and float16 rounds
LEAST_FILLED = 0.05  # of its range, by images that are anything
APART = 50.0  # a scale so many times another is no other normalization: 255, 127.5 and 255 * std are above


@dataclass(frozen=True)
class Way:
    """One way to present images. form: numbers, "" as they are. reversed: channels in the other order than now.

    turn: "planes", whole channels one after another in memory, read as pixels; "transposed", rows for columns.
    """

    form: Form = ""
    reversed: bool = False
    turn: Turn = ""

    @property
    def changes(self) -> int:
        """In how many ways it differs from what is."""
        return bool(self.form) + self.reversed + bool(self.turn)

    @property
    def name(self) -> str:
        """For tables."""
        parts = (self.form, "channels reversed" if self.reversed else "", self.turn)
        return ", ".join(filter(None, parts)) or "as they are"


@dataclass(frozen=True)
class Given:
    """Images and how they are made into inputs now.

    pixels: (n, height, width, channels) in 0..255, in the order of channels that the model gets; affine: makes them the
    inputs. known: False where images are floats of
    which nobody can say what they were as pixels; pixels are then the inputs.
    """

    pixels: Array
    affine: Affine
    preprocessing: Preprocessing
    is_float: bool = False
    known: bool = True

    @property
    def form(self) -> Form:
        """What the numbers are called."""
        return next((form for form in self._forms() if _alike(affine_of(form), self.affine)), "")

    def forms(self) -> Iterator[Way]:
        """Other numbers."""
        if self.known:
            yield from (Way(form) for form in self._forms() if not _alike(affine_of(form), self.affine))

    def turns(self, base: Way) -> Iterator[Way]:
        """Other orders of the same numbers."""
        _, height, width, channels = self.pixels.shape
        if channels == 3:
            yield Way(base.form, reversed=True, turn=base.turn)
        if channels > 1:
            yield Way(base.form, base.reversed, "planes")
        if height == width:
            yield Way(base.form, base.reversed, "transposed")

    def inputs(self, way: Way, rows: Any) -> Array:
        """What the model would get, (n, height, width, channels) float32."""
        import numpy as np

        images = self.pixels[rows]
        if way.turn == "planes":
            n, height, width, channels = images.shape
            images = images.reshape(n, channels, height, width).transpose(0, 2, 3, 1)
        if way.turn == "transposed":
            images = images.transpose(0, 2, 1, 3)
        images = images[..., ::-1] if way.reversed else images
        scale, offset = affine_of(way.form) if way.form else self.affine
        found: Array = images * np.asarray(scale, np.float32) + np.asarray(offset, np.float32)
        return np.ascontiguousarray(found, np.float32)

    def _forms(self) -> tuple[Form, ...]:
        return GRAY if self.pixels.shape[3] == 1 else COLOR


def given(images: Array, preprocessing: Preprocessing) -> Given:
    """images: (n, height, width, channels), uint8 as decoded, RGB or gray, or float, which are inputs already."""
    import numpy as np

    if images.dtype.kind != "f":
        ordered = images[..., ::-1] if preprocessing.color == "bgr" and images.shape[3] == 3 else images
        pixels = np.ascontiguousarray(ordered, np.float32)
        return Given(pixels, (preprocessing.scale, preprocessing.offset), preprocessing)
    floats = np.asarray(images, np.float32)
    found = affine_of_floats(floats)
    if found is None:
        return Given(floats, ((1.0,), (0.0,)), preprocessing, is_float=True, known=False)
    scale, offset = (np.asarray(values, np.float32) for values in found)
    return Given((floats - offset) / scale, found, preprocessing, is_float=True)


def affine_of_floats(inputs: Array) -> Affine | None:
    """What made floats of pixels, by the range they fill, or twice if that is 0..1; None where that cannot be told."""
    import numpy as np

    gray = inputs.shape[3] == 1
    likely: tuple[Form, ...] = (
        ("unit", "signed", "raw", "mnist") if gray else ("unit", "signed", "raw", "imagenet", "cifar")
    )
    for most in (255.0, 1.0):
        for form in likely:
            scale, offset = affine_of(form)
            pixels = (inputs - np.asarray(offset)) / np.asarray(scale)
            low, high, slack = float(pixels.min()), float(pixels.max()), SLACK * most
            filled = float(np.ptp(pixels, axis=(0, 1, 2)).max())
            if low >= -slack and high <= most + slack and filled > LEAST_FILLED * most:
                return tuple(value * most / 255 for value in scale), offset
    return None


def affine_of(form: Form) -> Affine:
    """(scale, offset) of pixels 0..255, each one or one for each channel, red (or, of caffe, blue) first."""
    spec: Any = {"scale": PIXEL, **_MORE[form]} if form in _MORE else form
    found = PreprocessSpec.model_validate(spec).resolve((None, 1, 1, 1 if form == "mnist" else 3))
    return found.scale, found.offset


def remedy(way: Way, now: Given, key: str) -> str:
    """What to set, or to do to the data, so that the model gets images this way. key: of the preprocessing."""
    told = []
    if way.turn == "planes":
        told.append("save images as images.reshape(n, channels, height, width).transpose(0, 2, 3, 1)")
    if way.turn == "transposed":
        told.append("save images as images.transpose(0, 2, 1, 3), rows before columns")
    if not (way.form or way.reversed):
        return "; ".join(told)
    if now.is_float:
        order = " with the channels in the other order" if way.reversed else ""
        wanted = f", and {_set(key, _quoted(way.form))}" if way.form and way.form != "raw" else ""
        form = "as uint8 pixels" if way.form else "again"
        return "; ".join([*told, f"images are floats, which are taken as they are: save them {form}{order}{wanted}"])
    return "; ".join([*told, _set(key, _table(way, now))])


def _set(key: str, value: str) -> str:
    """In a recipe, or on the command line."""
    if not key.startswith("--"):
        return f"set {key} = {value}"
    return f"give {key} " + (value.strip('"') if value.startswith('"') else f"'{value}'")


def _quoted(text: str) -> str:
    return f'"{text}"'


def _table(way: Way, now: Given) -> str:
    """As TOML, what else is asked for kept."""
    form, old = way.form or now.form, now.preprocessing
    natural = "bgr" if form == "caffe" else "rgb"
    color = {"rgb": "bgr", "bgr": "rgb"}.get(old.color, old.color) if way.reversed else old.color
    parts: list[str] = []
    if form in _MORE:
        parts += [f"scale = {PIXEL!r}", *(f"{k} = [{', '.join(map(str, v))}]" for k, v in _MORE[form].items())]
    elif form:
        parts.append(f'preset = "{form}"')
    else:
        parts += [f"{name} = [{', '.join(f'{v:.9g}' for v in getattr(old, name))}]" for name in ("scale", "offset")]
    if color not in (natural, "gray"):
        parts.append(f'color = "{color}"')
    kept = {name: getattr(old, name) for name in ("resize", "antialias", "crop", "crop_share")}
    plain = Preprocessing()
    parts += [f"{name} = {_toml(value)}" for name, value in kept.items() if value != getattr(plain, name)]
    return _quoted(form) if parts == [f'preset = "{form}"'] else f"{{ {', '.join(parts)} }}"


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else repr(value)


def said(way: Way, now: Given) -> str:
    """What is wrong, in words, if this way is right."""
    words = []
    if way.form:
        (old, shift), (new, offset) = now.affine, affine_of(way.form)
        share, ranges = max(old) / max(new), (_range(old, shift), _range(new, offset))
        if share >= APART:
            words.append(f"the scale is missing: pixels become {ranges[0]}, and the model seems to want {ranges[1]}")
        elif share <= 1 / APART:
            words.append(f"images are scaled twice: pixels become {ranges[0]}, and the model seems to want {ranges[1]}")
        else:
            words.append(f"mean or scale are others than in training: {ranges[0]} instead of {ranges[1]}")
    if way.reversed:
        words.append("red and blue are swapped (BGR for RGB)")
    if way.turn == "planes":
        words.append("the layout is wrong: channels lie one after another (NCHW) and are read as if they were pixels")
    if way.turn == "transposed":
        words.append("the layout is wrong: rows and columns are swapped")
    return "; ".join(words)


def _range(scale: tuple[float, ...], offset: tuple[float, ...]) -> str:
    return f"{min(offset):.4g}..{max(255 * s + o for s, o in _pairs(scale, offset)):.4g}"


def _pairs(scale: tuple[float, ...], offset: tuple[float, ...]) -> list[tuple[float, float]]:
    count = max(len(scale), len(offset))
    one, two = (values * count if len(values) == 1 else values for values in (scale, offset))
    return list(zip(one, two, strict=True))


def _alike(one: Affine, two: Affine) -> bool:
    """Whether two make the same numbers, to a step of a pixel."""
    first, second = _pairs(*one), _pairs(*two)
    count = max(len(first), len(second))
    first, second = (each * count if len(each) == 1 else each for each in (first, second))
    return all(
        abs(s - t) * 255 + abs(o - p) <= max(abs(s), abs(t)) for (s, o), (t, p) in zip(first, second, strict=True)
    )
