"""Images listed in a JSON-lines file, one object a line.

    {"file": "a.jpg", "label": "cat", "subset": "train", "group": "person 7"}
    {"file": "a.jpg", "labels": ["cat", "dog"]}
    {"file": "a.jpg", "values": {"x": 0.5, "y": 12}}

One class an image (a name, or an index from 0), labels that may hold together, or values: the same in every line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.core import Records
from toolkit.datasets.images import read_bytes
from toolkit.datasets.labels import Labelled, as_task, class_list, index_labels, label_sets
from toolkit.datasets.listed import Line, records_of
from toolkit.errors import InputError
from toolkit.schema import Component

_TRUTHS = ("label", "labels", "values")
Entries = list[tuple[int, dict[str, Any]]]


class Jsonl(Component):
    """Labelled images listed in a JSON-lines file: file, label (or labels, or values), subset, group."""

    path: Path
    """The JSON-lines file."""
    root: Path | None = None
    """Folder the file names are relative to; by default the list's own."""
    classes_file: Path | None = None
    """All class names: a CSV file with columns class_index and name, or one name a line."""

    def load(self) -> Records:
        """The records of the file; every image must be there, and is opened when it is read."""
        entries = _entries(self.path)
        lines = [
            Line(number, *(self._text(number, entry, key) for key in ("file", "subset", "group")))
            for number, entry in entries
        ]
        return records_of(self.path, self.root, lines, self._labelled(entries))

    def _text(self, number: int, entry: dict[str, Any], key: str) -> str:
        value = entry.get(key, None if key == "file" else "")
        if not isinstance(value, str) or (key == "file" and not value):
            raise InputError(f"{self.path}:{number}", f"{key!r} must be text, got {value!r}")
        return value

    def _labelled(self, entries: Entries) -> Labelled:
        where, truth = str(self.path), self._truth(entries)
        names = class_list(self.classes_file) if self.classes_file is not None else None
        found = [(number, entry[truth]) for number, entry in entries]
        if truth == "values":
            return self._values(found)
        if truth == "labels":
            for number, value in found:
                if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
                    raise InputError(f"{where}:{number}", f"'labels' must be an array of names, got {value!r}")
            return label_sets([value for _, value in found], names, where)
        kind = type(found[0][1])
        for number, value in found:
            if type(value) is not kind or kind not in (str, int) or value == "":
                problem = f"'label' must be a name, or an index in all lines, got {value!r}"
                raise InputError(f"{where}:{number}", problem)
        labels, classes = index_labels([value for _, value in found], names, where)
        return Labelled(labels, tuple(classes))

    def _truth(self, entries: Entries) -> str:
        """Which of label, labels and values the lines have."""
        first = [key for key in _TRUTHS if key in entries[0][1]]
        for number, entry in entries:
            here = [key for key in _TRUTHS if key in entry]
            if len(here) != 1 or here != first:
                problem = f"has {' and '.join(map(repr, here)) or 'none'} of {', '.join(_TRUTHS)}"
                raise InputError(f"{self.path}:{number}", problem, "give each line one, the same in all")
        return first[0]

    def _values(self, found: list[tuple[int, Any]]) -> Labelled:
        import numpy as np

        head = found[0][1]
        names = list(head) if isinstance(head, dict) else None
        rows = []
        for number, value in found:
            same = isinstance(value, dict) and list(value) == names if names else isinstance(value, list)
            row = list(value.values() if isinstance(value, dict) else value) if same else []
            if not row or len(row) != len(head) or not all(type(cell) in (int, float) for cell in row):
                problem = f"'values' must be numbers, the same as in the first line, got {value!r}"
                raise InputError(f"{self.path}:{number}", problem)
            rows.append(row)
        return as_task(np.array(rows, float), "values", names, str(self.path))


def _entries(path: Path) -> Entries:
    """(line number, object) of each line that is not blank."""
    if not path.is_file():
        raise InputError(str(path), "no such file")
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(str(path), f"is not UTF-8 text: {error}") from error
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}", f"is no JSON: {error}") from error
        if not isinstance(entry, dict):
            raise InputError(f"{path}:{number}", f"must be an object, got {line.strip()[:40]}")
        entries.append((number, entry))
    if not entries:
        raise InputError(str(path), "lists no images")
    return entries
