"""The SHA-256 of a file, by which files are known apart everywhere: runs, devices, engines."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal; whatever its size, little of it is in memory at once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
