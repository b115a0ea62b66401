"""Images without labels, for a teacher to teach on: a folder of them, or any dataset, whose labels are not looked at.

None of them is an image of the labelled data: what is equal to one of those, byte for byte, or to another of them, is
left out. So no image that judges is ever trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.core import Records
from toolkit.datasets.census import CensusSpec, take_census
from toolkit.datasets.folder import found_in, note_on
from toolkit.datasets.images import decode, read_bytes
from toolkit.errors import InputError
from toolkit.schema import Component

LOOSE = "images"  # `use` of a folder of images, in a resolved recipe


class Loose(Component):
    """Images of a folder (png, jpg, jpeg, bmp, webp, gif), however deep and whatever their folders are called."""

    path: Path
    """The folder."""

    def load(self) -> Records:
        """Its records; an image is opened when it is read."""
        import numpy as np

        where, others = str(self.path), Counter[str]()
        if not self.path.is_dir():
            raise InputError(where, "no such folder", "give a folder of images as data.unlabelled")
        ids = tuple(found_in(where, others))
        if not ids:
            raise InputError(where, "holds no images", "give a folder of images as data.unlabelled")
        return Records(
            source=where,
            ids=ids,
            labels=np.zeros((len(ids), 0), np.float32),
            subsets=("",) * len(ids),
            classes=(),
            read=lambda index: decode(read_bytes(f"{where}/{ids[index]}"), f"{where}/{ids[index]}"),
            content=lambda index: read_bytes(f"{where}/{ids[index]}"),
            task="values",
            encoded=True,
            notes=note_on(where, others),
        )


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


def fresh(records: Records, known: Collection[bytes], census: CensusSpec | None) -> Fresh:
    """Those that can be read and are equal to none of `known` (digests), nor to one before them.

    Raises InputError where nothing is left, or too many cannot be read.
    """
    found = take_census(records, range(len(records)), census)
    seen, chosen, equal = set(known) - {b""}, [], []
    for index, digest in enumerate(found.digests):
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
