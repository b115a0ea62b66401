"""Images listed in a CSV file, one a line: the form of label files, where a sample need not show every class."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

from pydantic import Field

from toolkit.core import Records
from toolkit.datasets.folder import read_bytes
from toolkit.datasets.images import decode, index_labels
from toolkit.errors import InputError
from toolkit.schema import Component

_LABELS = ("class_index", "label", "class")
_SUBSETS = ("role", "split", "subset")


class Csv(Component):
    """Labelled images listed in a CSV file with a header line."""

    path: Path
    """The CSV file."""
    root: Path | None = None
    """Folder the file names are relative to; by default the CSV file's own."""
    file: str = "file"
    """Column of file names."""
    label: str | None = None
    """Column of labels, class indexes or names; by default class_index, label or class, whichever is there."""
    subset: str | None = None
    """Column that puts each image into a part of the data; by default role, split or subset, where there is one."""
    name: str = "name"
    """Column of class names, used where labels are indexes; need not be there."""
    classes_file: Path | None = None
    """All class names: a CSV file with columns class_index and name, or one name a line."""
    num_classes: Annotated[int, Field(ge=2)] | None = None
    """Number of classes, where neither the labels nor classes_file show it."""

    def load(self) -> Records:
        """The records of the file; every image must be there, and is opened when it is read."""
        where = str(self.path)
        columns, lines = _table(self.path)
        file = _column(self.path, columns, self.file)
        label = _column(self.path, columns, self.label or _first(_LABELS, columns) or _LABELS[0])
        subset = _column(self.path, columns, self.subset) if self.subset else _first(_SUBSETS, columns)
        root = self.root or self.path.parent
        names = [line[file] for _, line in lines]
        files = [root / name for name in names]
        _check_files(self.path, [number for number, _ in lines], files)
        labels, classes = index_labels(self._labels(lines, label), self._classes(lines, label), where)
        return Records(
            source=where,
            ids=tuple(names),
            labels=labels,
            subsets=tuple(line[subset] if subset else "" for _, line in lines),
            classes=tuple(classes),
            read=lambda index: decode(read_bytes(files[index]), str(files[index])),
            content=lambda index: read_bytes(files[index]),
        )

    def _labels(self, lines: list[tuple[int, dict[str, str]]], column: str) -> list[int] | list[str]:
        values = [line[column].strip() for _, line in lines]
        for (number, _), value in zip(lines, values, strict=True):
            if not value:
                raise InputError(f"{self.path}:{number}", f"no value in column {column!r}")
        return [int(value) for value in values] if all(map(_is_index, values)) else values

    def _classes(self, lines: list[tuple[int, dict[str, str]]], column: str) -> list[str] | None:
        """All class names where they can be known, else None."""
        if self.classes_file is not None:
            return _class_list(self.classes_file)
        if not all(_is_index(line[column]) for _, line in lines):
            return None
        indexes = [int(line[column]) for _, line in lines]
        names: dict[int, str] = {}
        for (number, line), index in zip(lines, indexes, strict=True):
            name = line.get(self.name) or str(index)
            if names.setdefault(index, name) != name:
                raise InputError(f"{self.path}:{number}", f"class {index} is both {names[index]!r} and {name!r}")
        return [names.get(index, str(index)) for index in range(self.num_classes or max(indexes) + 1)]


def _table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names, and (line number, column -> value) of each line that is not blank."""
    if not path.is_file():
        raise InputError(str(path), "no such file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, restkey="", restval=None, strict=True)
            lines = [(reader.line_num, line) for line in reader]
            columns = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(str(path), f"cannot be read as CSV: {error}") from error
    for number, line in lines:
        if None in line.values() or "" in line:
            raise InputError(f"{path}:{number}", f"does not have the header's {len(columns)} values")
    if not lines:
        raise InputError(str(path), "lists no images")
    return columns, lines


def _column(path: Path, columns: list[str], name: str) -> str:
    if name not in columns:
        raise InputError(str(path), f"has no column {name!r}", f"name one of {', '.join(columns)}")
    return name


def _first(names: tuple[str, ...], columns: list[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _check_files(path: Path, numbers: list[int], files: list[Path]) -> None:
    seen: set[Path] = set()
    for number, file in zip(numbers, files, strict=True):
        if file in seen:
            raise InputError(f"{path}:{number}", f"{file} is listed twice")
        if not file.is_file():
            raise InputError(f"{path}:{number}", f"no such file: {file}", "set `root` to the folder of the images")
        seen.add(file)


def _class_list(path: Path) -> list[str]:
    if path.suffix.lower() != ".csv":
        names = read_bytes(path).decode("utf-8-sig", errors="replace").splitlines()
        return [name.strip() for name in names if name.strip()]
    columns, lines = _table(path)
    index, name = (_column(path, columns, column) for column in ("class_index", "name"))
    found = {int(line[index]): line[name] for _, line in lines if _is_index(line[index])}
    if sorted(found) != list(range(len(lines))):
        raise InputError(str(path), f"class_index does not run from 0 to {len(lines) - 1}")
    return [found[position] for position in range(len(found))]


def _is_index(value: str) -> bool:
    return value.strip().isascii() and value.strip().isdigit()
