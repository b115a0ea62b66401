"""Size of a delivered file, as it is and compressed (what an update over the air costs)."""

from __future__ import annotations

import gzip
from pathlib import Path

from toolkit.core import Measurement
from toolkit.errors import InputError

GZIP_LEVEL = 9


def measure_size(subject: str, path: Path) -> tuple[Measurement, Measurement]:
    """`size_bytes` and `gzip_bytes` (no time stamp, so the same file always gives the same number)."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from error
    packed = len(gzip.compress(content, GZIP_LEVEL, mtime=0))
    how = {"level": GZIP_LEVEL}
    return (
        Measurement(subject, "size_bytes", len(content), "bytes", "computed"),
        Measurement(subject, "gzip_bytes", packed, "bytes", "computed", how=how),
    )
