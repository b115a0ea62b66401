"""Images in one folder a class: `flowers/rose/1.jpg`, or `flowers/train/rose/1.jpg` where the data has subsets.

Hidden files and folders are passed over; a linked class folder is followed, a link to a folder inside one is not (it
could lead back). A link that leads nowhere is an image that cannot be read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from toolkit.core import Records
from toolkit.datasets.images import SUFFIXES, decode, read_bytes
from toolkit.errors import InputError
from toolkit.schema import Component

_SUBSETS = ("train", "val", "valid", "validation", "test")


class Folder(Component):
    """Labelled images in class folders (png, jpg, jpeg, bmp, webp, gif); classes in alphabetical order."""

    path: Path
    """The folder that holds the class folders, or train/val/test folders that hold them."""

    def load(self) -> Records:
        """The records of the folder; an image is opened when it is read."""
        import numpy as np

        where, others = str(self.path), Counter[str]()
        parts = _parts(self.path)
        classes = sorted({name for _, folders in parts for name in folders})
        number = {name: index for index, name in enumerate(classes)}
        ids: list[str] = []
        labels: list[int] = []
        subsets: list[str] = []
        for subset, folders in parts:
            for name in folders:
                relative = f"{subset}/{name}" if subset else name
                ids += _files(where, relative, others)
                labels += [number[name]] * (len(ids) - len(labels))
                subsets += [subset] * (len(ids) - len(subsets))
        if not ids:
            raise InputError(where, "no images in class folders", "put images into one folder a class")
        return Records(
            source=where,
            ids=tuple(ids),
            labels=np.array(labels, np.int64),
            subsets=tuple(subsets),
            classes=tuple(classes),
            read=lambda index: decode(read_bytes(f"{where}/{ids[index]}"), f"{where}/{ids[index]}"),
            content=lambda index: read_bytes(f"{where}/{ids[index]}"),
            encoded=True,
            notes=note_on(where, others),
        )


def note_on(where: str, others: Counter[str]) -> tuple[str, ...]:
    if not others:
        return ()
    kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(others.items())[:5])
    return (f"{where}: files that are no {', '.join(SUFFIXES)} are not read ({kinds})",)


def _parts(path: Path) -> list[tuple[str, list[str]]]:
    """(subset, names of class folders) for each part; one part named "" where there are no subsets."""
    if not path.is_dir():
        raise InputError(str(path), "no such folder")
    top = _folders(path)
    subsets = {name: inside for name in top if name in _SUBSETS and (inside := _folders(path / name))}
    if not subsets:
        return [("", top)]
    others = [name for name in top if name not in subsets]
    if others:
        fix = "keep either class folders or train/val/test folders at the top"
        raise InputError(str(path), f"holds subsets and other folders: {', '.join(others[:3])}", fix)
    return list(subsets.items())


def _scan(path: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from error


def _folders(path: Path) -> list[str]:
    return [entry.name for entry in _scan(path) if entry.is_dir()]


def found_in(where: str, others: Counter[str]) -> Iterator[str]:
    """Images anywhere below a folder, relative to it, in order of name; what is no image is counted."""
    yield from _files(where, "", others)


def _files(where: str, relative: str, others: Counter[str]) -> Iterator[str]:
    """Images below a class folder, relative to `where`, in order of name; what is no image is counted."""
    before = f"{relative}/" if relative else ""
    for entry in _scan(f"{where}/{relative}"):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(where, f"{before}{entry.name}", others)
        elif entry.name.lower().endswith(SUFFIXES):
            yield f"{before}{entry.name}"
        else:
            others[os.path.splitext(entry.name)[1].lower()] += 1  # noqa: PTH122 - no Path for each file
