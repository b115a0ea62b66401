"""Images without labels, for a teacher to teach on: a folder of them, or any dataset, whose labels are not looked at.

None of them is an image of the labelled data: what is equal to one of those, or to another of them, is left out. So no
image that judges is ever trained on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import Records
from toolkit.datasets.arrays import channels_last, infinite, pixels
from toolkit.datasets.census import CensusSpec, take_census
from toolkit.datasets.folder import found_in, note_on
from toolkit.datasets.images import decode, read_bytes
from toolkit.datasets.npy import open_array
from toolkit.datasets.stream import cpu_count
from toolkit.errors import InputError
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array

FIX = "give a folder of images, or an .npy file of them, as data.unlabelled"
LOOSE = "images"  # `use` of a folder of images, in a resolved recipe


class Loose(Component):
    """Images of a folder (png, jpg, jpeg, bmp, webp, gif), however deep and whatever their folders are called, or an
    .npy file of them, (n, height, width[, channels]), uint8 or float."""

    path: Path
    """The folder or the file."""

    def load(self) -> Records:
        """Its records; an image is opened when it is read."""
        return self._array() if self.path.suffix.lower() == ".npy" else self._folder()

    def _array(self) -> Records:
        where = str(self.path)
        images = channels_last(open_array(self.path), where)
        if not len(images):
            raise InputError(where, "holds no images", FIX)
        read, content = pixels([images])
        ids = tuple(map(str, range(len(images))))
        return _records(where, ids, read, content, faults=lambda: infinite(images))

    def _folder(self) -> Records:
        where, others = str(self.path), Counter[str]()
        if not self.path.is_dir():
            raise InputError(where, "no such folder", FIX)
        ids = tuple(found_in(where, others))
        if not ids:
            raise InputError(where, "holds no images", FIX)

        def content(index: int) -> bytes:
            return read_bytes(f"{where}/{ids[index]}")

        def read(index: int) -> Array:
            return decode(content(index), f"{where}/{ids[index]}")

        return _records(where, ids, read, content, encoded=True, notes=note_on(where, others))


def _records(where: str, ids: tuple[str, ...], read: Any, content: Any, **more: Any) -> Records:
    """Records of which no label is known."""
    import numpy as np

    labels, subsets = np.zeros((len(ids), 0), np.float32), ("",) * len(ids)
    return Records(where, ids, labels, subsets, (), read, content, task="values", **more)


@dataclass(frozen=True)
class Fresh:
    """Which records may be trained on, and what is known of them.

    digests: of every record, b"" where it cannot be read. equal: ids of those left out for being equal to others.
    unreadable: names and reasons.
    """

    indexes: tuple[int, ...]
    digests: tuple[bytes, ...]
    equal: tuple[str, ...]
    unreadable: tuple[str, ...]


def without_labels(records: Records) -> Records:
    """The same images, of which no label is known."""
    import numpy as np

    count = len(records)
    none = np.zeros((count, 0), np.float32)
    return replace(records, labels=none, task="values", classes=(), subsets=("",) * count, groups=())


def fresh(records: Records, others: Sequence[tuple[Records, Sequence[bytes]]], census: CensusSpec | None) -> Fresh:
    """Those that can be read and are equal to none of `others` (with their digests), nor to one before them.

    Files are equal byte for byte; where one side's images are arrays, pixel for pixel. Raises InputError where nothing
    is left, or too many cannot be read.
    """
    found = take_census(records, range(len(records)), census)
    digests: Sequence[bytes] = found.digests
    if not all(one.encoded for one in (records, *(one for one, _ in others))):
        digests = _of_pixels(records, digests)
        others = [(one, _of_pixels(one, known)) for one, known in others]
    seen = {digest for _, known in others for digest in known} - {b""}
    chosen: list[int] = []
    equal: list[str] = []
    for index, digest in enumerate(digests):
        if index in found.corrupt:
            continue
        if digest in seen:
            equal.append(records.ids[index])
            continue
        seen.add(digest)
        chosen.append(index)
    if not chosen:
        problem = f"none of its {len(records)} images is new: all are equal to images of the data"
        raise InputError(records.source, problem, "leave data.unlabelled out")
    return Fresh(tuple(chosen), found.digests, tuple(equal), found.named(records))


def _of_pixels(records: Records, known: Sequence[bytes]) -> list[bytes]:
    """sha256 of each image as an array; b"" where `known`, that of its content, is empty."""
    import numpy as np

    def digest(index: int) -> bytes:
        image = np.ascontiguousarray(records.read(index))
        return hashlib.sha256(f"{image.shape}{image.dtype}".encode() + image.tobytes()).digest()

    with ThreadPoolExecutor(cpu_count()) as threads:
        return list(threads.map(lambda index: digest(index) if known[index] else b"", range(len(records))))
