"""Whether an encoded image is whole, told from its structure where that is enough, else by decoding it.

JPEG: the segments lead to a scan, and an end-of-image marker stands behind it (ITU-T T.81, annex B). PNG: every chunk
has its checksum, up to IEND (W3C PNG, section 5). Anything else, or anything odd, is decoded and the decoder decides.
What this cannot see is damage inside a JPEG's scan, which decoders pass over or stumble upon.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from toolkit.datasets.images import MAX_PIXELS, PNG, decode
from toolkit.errors import InputError

_SCAN, _END = 0xDA, b"\xff\xd9"
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what every decoder reads
_ALONE = (0x01, *range(0xD0, 0xD8))  # markers without a segment


@dataclass(frozen=True)
class Finding:
    """What one look at an image found. reason: why it cannot be read, or "". animated: it has several frames."""

    reason: str = ""
    animated: bool = False


def look(content: bytes, where: str, *, full: bool = False) -> Finding:
    """Look at an encoded image; with `full` decode it whatever its structure says."""
    animated = _animated(content)
    if not full and not animated and (_whole_jpeg(content) or _whole_png(content)):
        return Finding()
    try:
        decode(content, where)
    except InputError as error:
        return Finding(error.problem)
    return Finding(animated=animated)


def _whole_jpeg(content: bytes) -> bool:
    if content[:2] != b"\xff\xd8":
        return False
    at, last, ordinary = 2, len(content) - 10, False
    while at < last and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        if marker in _FRAMES:
            height, width = content[at + 5] << 8 | content[at + 6], content[at + 7] << 8 | content[at + 8]
            ordinary = content[at + 4] == 8 and 0 < height * width <= MAX_PIXELS
        elif marker == _SCAN:
            return ordinary and content.rfind(_END) > at
        at += 2 + max(2, content[at + 2] << 8 | content[at + 3])
    return False


def _whole_png(content: bytes) -> bool:
    if not content.startswith(PNG) or len(content) < 33 or content[24] > 8:
        return False
    width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    if not 0 < width * height <= MAX_PIXELS:
        return False
    at, pixels = len(PNG), False
    while at + 12 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        end = at + 8 + length
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4]):
            return False
        if kind == b"IEND":
            return pixels
        pixels |= kind == b"IDAT"
        at = end + 4
    return False


def _animated(content: bytes) -> bool:
    """Whether GIF, WebP or PNG announces further frames; only the first is ever read."""
    if content.startswith(PNG):
        return b"acTL" in content[:256]
    if content[:4] == b"RIFF" and content[8:16] == b"WEBPVP8X":
        return len(content) > 20 and bool(content[20] & 0x02)
    return content[:4] == b"GIF8" and _frames(content) > 1


def _frames(content: bytes) -> int:
    """Frames of a GIF, whose structure shows them only to who reads it; 0 for a broken one."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("GIF",)) as image:
            return int(getattr(image, "n_frames", 1))
    except (OSError, SyntaxError, ValueError):
        return 0
