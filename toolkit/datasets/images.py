"""Reading one image and indexing its labels: what the dataset forms have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.core import Array, Labels

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")  # Pillow knows others, some of which start programs
MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs: a quarter of a gigabyte of RGB
PNG = b"\x89PNG\r\n\x1a\n"
_GRAY_MODES = ("1", "L", "LA")
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def decode(content: bytes, where: str) -> Array:
    """An encoded image as uint8, height x width x channels (1 for gray images, else 3).

    Transparency is dropped, EXIF orientation is not applied (as in TensorFlow's decoders), CMYK becomes RGB, of an
    animation the first frame is taken. Refused: more than 8 bits a channel, more than MAX_PIXELS.
    """
    import io

    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.mode in _DEEP_MODES or (content.startswith(PNG) and content[24] > 8):
                raise InputError(where, f"image of mode {image.mode} has more than 8 bits", "convert it to 8 bits")
            if image.width * image.height > MAX_PIXELS:
                problem = f"image of {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}"
                raise InputError(where, problem, "make it smaller")
            wanted = "L" if image.mode in _GRAY_MODES else "RGB"
            pixels = np.asarray(image if image.mode == wanted else image.convert(wanted))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        problem = f"it is no {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else str(error)
        problem = problem if content else "the file is empty"
        raise InputError(where, f"cannot be read as an image: {problem}", "replace or remove it") from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def index_labels(values: Sequence[Any] | Array, classes: Sequence[str] | None, where: str) -> tuple[Labels, list[str]]:
    """Class indexes (n,) int64 and class names, from indexes or names; checked against `classes` where given.

    Names without `classes` are sorted; indexes without `classes` give classes named by their number.
    """
    import numpy as np

    found = np.asarray(values)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise InputError(where, f"labels have shape {found.shape}", "give one class index an image, such as argmax(1)")
    if found.dtype.kind in "USO":
        return _from_names([str(value) for value in found], classes, where)
    if found.dtype.kind not in "iufb" or not np.all(np.isfinite(found)) or np.any(found != np.floor(found)):
        raise InputError(where, f"labels of type {found.dtype} are not class indexes", "give whole numbers from 0")
    labels = found.astype(np.int64)
    names = list(classes) if classes else [str(index) for index in range(int(labels.max(initial=-1)) + 1)]
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(wrong):
        raise InputError(
            where,
            f"label {labels[wrong[0]]} of image {wrong[0]} is out of range for {len(names)} classes",
            "number classes from 0, or give all classes",
        )
    return labels, names


def _from_names(values: list[str], classes: Sequence[str] | None, where: str) -> tuple[Labels, list[str]]:
    import numpy as np

    names = list(classes) if classes else sorted(set(values))
    index = {name: position for position, name in enumerate(names)}
    for position, value in enumerate(values):
        if value not in index:
            raise InputError(where, f"label {value!r} of image {position} is not among the {len(names)} classes")
    return np.array([index[value] for value in values], np.int64), names
