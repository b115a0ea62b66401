"""Image files that a list names, one a line: what CSV and JSON-lines lists have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.core import Records
from toolkit.datasets.images import decode, read_bytes
from toolkit.datasets.labels import Labelled
from toolkit.errors import InputError


@dataclass(frozen=True)
class Line:
    """One image of a list, and the line that names it."""

    number: int
    file: str
    subset: str = ""
    group: str = ""


def records_of(path: Path, root: Path | None, lines: Sequence[Line], labelled: Labelled) -> Records:
    """The records of a list; every file must be there, and is opened when it is read."""
    folder = str(root or path.parent)
    _check_files(path, folder, lines)
    names = tuple(line.file for line in lines)
    groups = tuple(line.group for line in lines)

    def file(index: int) -> str:
        return os.path.join(folder, names[index])  # noqa: PTH118 - called for every image

    return Records(
        source=str(path),
        ids=names,
        labels=labelled.labels,
        subsets=tuple(line.subset for line in lines),
        classes=labelled.names,
        read=lambda index: decode(read_bytes(file(index)), file(index)),
        content=lambda index: read_bytes(file(index)),
        task=labelled.task,
        encoded=True,
        groups=groups if any(groups) else (),
    )


def _check_files(path: Path, folder: str, lines: Sequence[Line]) -> None:
    seen: set[str] = set()
    for line in lines:
        file = os.path.normpath(os.path.join(folder, line.file))  # noqa: PTH118
        if file in seen:
            raise InputError(f"{path}:{line.number}", f"{file} is listed twice")
        if not os.path.isfile(file):  # noqa: PTH113
            problem = f"no such file: {file}"
            raise InputError(f"{path}:{line.number}", problem, "set `root` to the folder of the images")
        seen.add(file)
