"""Sizes of files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from toolkit.checks.size import measure_size
from toolkit.errors import InputError


def test_size_counts_bytes_and_what_gzip_leaves(tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(b"edge" * 5000)
    size, packed = measure_size("a", path)
    assert (size.name, size.value, size.unit, size.source) == ("size_bytes", 20_000, "bytes", "computed")
    assert packed.name == "gzip_bytes"
    assert packed.value < 200
    assert packed.value == len(gzip.compress(path.read_bytes(), 9, mtime=12345))  # the time stamp has a fixed width


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tflite: cannot be read"):
        measure_size("a", tmp_path / "none.tflite")
