"""Images in one folder a class: `flowers/rose/1.jpg`, or `flowers/train/rose/1.jpg` where the data has subsets."""

from __future__ import annotations

from pathlib import Path

from toolkit.core import Records
from toolkit.datasets.images import SUFFIXES, decode
from toolkit.errors import InputError
from toolkit.schema import Component

_SUBSETS = ("train", "val", "valid", "validation", "test")


class Folder(Component):
    """Labelled images in class folders (png, jpg, jpeg, bmp, webp); classes in alphabetical order."""

    path: Path
    """The folder that holds the class folders, or train/val/test folders that hold them."""

    def load(self) -> Records:
        """The records of the folder; an image is opened when it is read."""
        import numpy as np

        where = str(self.path)
        parts = _parts(self.path)
        classes = sorted({folder.name for _, folders in parts for folder in folders})
        found = [
            (file, classes.index(folder.name), subset)
            for subset, folders in parts
            for folder in folders
            for file in _files(folder)
        ]
        if not found:
            raise InputError(where, "no images in class folders", "put images into one folder a class")
        files = [file for file, _, _ in found]
        return Records(
            source=where,
            ids=tuple(file.relative_to(self.path).as_posix() for file in files),
            labels=np.array([label for _, label, _ in found], np.int64),
            subsets=tuple(subset for _, _, subset in found),
            classes=tuple(classes),
            read=lambda index: decode(read_bytes(files[index]), str(files[index])),
            content=lambda index: read_bytes(files[index]),
        )


def read_bytes(path: Path) -> bytes:
    """The file's bytes, or InputError with its name."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from error


def _parts(path: Path) -> list[tuple[str, list[Path]]]:
    """(subset, class folders) for each part; one part named "" where there are no subsets."""
    if not path.is_dir():
        raise InputError(str(path), "no such folder")
    top = _folders(path)
    subsets = [folder for folder in top if folder.name in _SUBSETS and _folders(folder)]
    if not subsets:
        return [("", top)]
    others = [folder.name for folder in top if folder not in subsets]
    if others:
        fix = "keep either class folders or train/val/test folders at the top"
        raise InputError(str(path), f"holds subsets and other folders: {', '.join(others[:3])}", fix)
    return [(folder.name, _folders(folder)) for folder in subsets]


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
