"""Every odd image a folder may hold: what is read, what is refused, and that looking agrees with decoding."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from pictures import encoded, noise
from PIL import Image

from toolkit.datasets.images import MAX_PIXELS, decode
from toolkit.datasets.whole import look
from toolkit.errors import InputError

JPEG, PNG = encoded(noise()), encoded(noise(), "PNG")
DEEP = Image.fromarray(np.full((4, 4), 40_000, np.uint16))


def deep_rgb() -> bytes:
    """A PNG of 16 bits a channel in colour, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    return PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(13))) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 30,000 pixels square."""
    wide = struct.pack(">II", 30_000, 30_000) + PNG[24:29]
    return PNG[:12] + b"IHDR" + wide + struct.pack(">I", zlib.crc32(b"IHDR" + wide)) + PNG[33:]


WHOLE = {
    "jpeg": JPEG,
    "progressive": encoded(noise(), progressive=True),
    "gray jpeg": encoded(noise().convert("L")),
    "cmyk": encoded(noise().convert("CMYK")),
    "junk behind the end": JPEG + b"camera data" * 20,
    "thumbnail in exif": JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(JPEG) + 2) + JPEG + JPEG[2:],
    "png": PNG,
    "palette": encoded(noise().convert("P"), "PNG"),
    "transparent palette": encoded(noise().convert("P"), "PNG", transparency=3),
    "1 bit": encoded(noise().convert("1"), "PNG"),
    "alpha": encoded(noise().convert("RGBA"), "PNG"),
    "bmp": encoded(noise(), "BMP"),
    "webp": encoded(noise(), "WEBP"),
    "gif": encoded(noise(), "GIF"),
}
BROKEN = {
    "empty": (b"", "the file is empty"),
    "text": (b"<html>404 not found</html>", "it is no JPEG, PNG"),
    "header alone": (JPEG[:2], "it is no JPEG"),
    "cut jpeg": (JPEG[: len(JPEG) // 2], "[Tt]runcated"),
    "cut behind a thumbnail": (WHOLE["thumbnail in exif"][: len(JPEG) + 400], "[Tt]runcated|cannot"),
    "cut png": (PNG[:-30], "cannot be read"),
    "flipped png": (PNG[:60] + bytes([PNG[60] ^ 0xFF]) + PNG[61:], "cannot be read"),
    "cut webp": (WHOLE["webp"][:-40], "cannot be read"),
    "16 bits": (encoded(DEEP, "PNG"), "more than 8 bits"),
    "16 bits in colour": (deep_rgb(), "more than 8 bits"),
    "bomb": (bomb(), "cannot be read as an image: .*decompression bomb"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no JPEG"),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("full", [False, True])
def test_whole_images_are_found_whole_and_decode(name: str, full: bool) -> None:
    assert look(WHOLE[name], "x", full=full).reason == ""
    pixels = decode(WHOLE[name], "x")
    assert (pixels.shape[:2], pixels.dtype) == ((24, 32), np.uint8)
    assert pixels.shape[2] == (1 if name in ("gray jpeg", "1 bit") else 3)


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("full", [False, True])
def test_broken_images_are_found_and_say_why(name: str, full: bool) -> None:
    content, reason = BROKEN[name]
    with pytest.raises(InputError, match=reason) as error:
        decode(content, "x.jpg")
    assert look(content, "x.jpg", full=full).reason == error.value.problem


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_cut_anywhere_is_never_called_whole(kind: str) -> None:
    whole = encoded(noise(3, (8, 8)), kind)
    for length in range(len(whole) - 2):
        if not look(whole[:length], "x").reason:
            decode(whole[:length], "x")  # all of its pixels were there


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_between_pillows_limits_are_refused_too() -> None:
    side = int(MAX_PIXELS**0.5) + 10
    with pytest.raises(InputError, match="89,478,485"):
        decode(encoded(Image.new("1", (side, side)), "PNG"), "big.png")


def test_animations_are_told_and_give_their_first_frame() -> None:
    frames: dict[str, Any] = {"save_all": True, "append_images": [noise(1), noise(2)]}
    for kind, lossless in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        content = encoded(noise(), kind, **frames, **lossless)
        assert look(content, "x").animated, kind
        assert not look(encoded(noise(), kind), "x").animated, kind
        if kind != "GIF":  # whose 256 colours bend the pixels
            np.testing.assert_array_equal(decode(content, "x"), np.asarray(noise()))


def test_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to show
    assert decode(encoded(noise(), exif=exif), "x").shape == (24, 32, 3)


def test_cmyk_becomes_rgb_as_pillow_converts_it() -> None:
    solid = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = decode(encoded(solid, quality=100), "x")
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 3


def test_colour_without_palette_or_transparency_is_unchanged() -> None:
    np.testing.assert_array_equal(decode(PNG, "x"), np.asarray(noise()))
    alpha = noise().convert("RGBA")
    alpha.putalpha(7)
    np.testing.assert_array_equal(decode(encoded(alpha, "PNG"), "x"), np.asarray(noise()))
