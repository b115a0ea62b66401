"""Reading one image: what the dataset forms have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from toolkit.core import Array

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
    import numpy as np

    pixels = np.asarray(picture(content, where))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def picture(content: bytes, where: str) -> Image:
    """The same as Pillow's image of mode L or RGB, which need not be copied to be cropped and resized."""
    import io

    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.mode in _DEEP_MODES or (content.startswith(PNG) and content[24] > 8):
            raise InputError(where, f"image of mode {image.mode} has more than 8 bits", "convert it to 8 bits")
        if image.width * image.height > MAX_PIXELS:
            problem = f"image of {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}"
            raise InputError(where, problem, "make it smaller")
        image.load()
        wanted = "L" if image.mode in _GRAY_MODES else "RGB"
        return image if image.mode == wanted else image.convert(wanted)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        problem = f"it is no {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else str(error)
        problem = problem if content else "the file is empty"
        raise InputError(where, f"cannot be read as an image: {problem}", "replace or remove it") from error


def read_bytes(path: str | Path) -> bytes:
    """The file's bytes, or InputError with its name."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path for each of 100,000 files costs more
            return file.read()
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from error
