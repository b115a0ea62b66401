"""Small encoded images that several tests write."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def noise(seed: int = 0, size: tuple[int, int] = (24, 32)) -> Image.Image:
    """An image of random pixels, height x width."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def class_folders(root: Path, count: int, classes: tuple[str, ...] = ("a", "b")) -> Path:
    """`count` different JPEG files in class folders."""
    for index in range(count):
        put(root / classes[index % len(classes)] / f"{index:05}.jpg", encoded(noise(index, (8, 8))))
    return root
