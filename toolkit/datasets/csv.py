"""Images listed in a CSV file, one a line: the form of label files, where a sample need not show every class.

    file,label           file,labels          file,cat,dog        file,x,y
    a.jpg,cat            a.jpg,cat;dog        a.jpg,1,0           a.jpg,0.5,12

One class an image; labels that may hold together (`labels = ["labels"]`, or a 0-1 column for each); values.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from toolkit.core import Records
from toolkit.datasets.labels import Labelled, as_task, class_list, index_labels, label_sets
from toolkit.datasets.listed import Line, records_of
from toolkit.datasets.tables import Lines, column, first, is_index, read_table
from toolkit.errors import InputError
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array

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
    labels: tuple[str, ...] = ()
    """For labels that may hold together: one column that lists them, or a column of 0 and 1 for each."""
    separator: Annotated[str, Field(min_length=1)] = ";"
    """What stands between the labels of a column that lists them; an empty cell has none."""
    values: tuple[str, ...] = ()
    """For regression: the columns of numbers to be predicted."""
    subset: str | None = None
    """Column that puts each image into a part of the data; by default role, split or subset, where there is one."""
    group: str | None = None
    """Column that names what belongs together (a person, a scene) and stays in one split."""
    name: str = "name"
    """Column of class names, used where labels are indexes; need not be there."""
    classes_file: Path | None = None
    """All class names: a CSV file with columns class_index and name, or one name a line."""
    num_classes: Annotated[int, Field(ge=2)] | None = None
    """Number of classes, where neither the labels nor classes_file show it."""

    @model_validator(mode="after")
    def _one_task(self) -> Csv:
        given = [key for key in ("label", "labels", "values") if getattr(self, key)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        return self

    def load(self) -> Records:
        """The records of the file; every image must be there, and is opened when it is read."""
        columns, lines = read_table(self.path)
        asked = [self.file, *self.labels, *self.values, *filter(None, (self.subset, self.group))]
        for name in asked:
            column(self.path, columns, name)
        subset, group = self.subset or first(_SUBSETS, columns), self.group
        listed = [
            Line(number, line[self.file], line[subset] if subset else "", line[group] if group else "")
            for number, line in lines
        ]
        return records_of(self.path, self.root, listed, self._labelled(columns, lines))

    def _labelled(self, columns: list[str], lines: Lines) -> Labelled:
        where = str(self.path)
        if self.values:
            return as_task(self._numbers(lines, self.values), "values", self.values, where)
        if len(self.labels) > 1:
            return as_task(self._numbers(lines, self.labels), "labels", self.labels, where)
        names = class_list(self.classes_file) if self.classes_file is not None else None
        if self.labels:
            return label_sets([self._listed(line[self.labels[0]]) for _, line in lines], names, where)
        label = column(self.path, columns, self.label or first(_LABELS, columns) or _LABELS[0])
        indexes, classes = index_labels(self._classes(lines, label), names or self._names(lines, label), where)
        return Labelled(indexes, tuple(classes))

    def _listed(self, cell: str) -> list[str]:
        return [label.strip() for label in cell.split(self.separator) if label.strip()]

    def _numbers(self, lines: Lines, columns: tuple[str, ...]) -> Array:
        import numpy as np

        found = np.empty((len(lines), len(columns)))
        for row, (number, line) in enumerate(lines):
            for place, name in enumerate(columns):
                try:
                    found[row, place] = float(line[name])
                except ValueError:
                    problem = f"{line[name]!r} in column {name!r} is no number"
                    raise InputError(f"{self.path}:{number}", problem) from None
        return found

    def _classes(self, lines: Lines, label: str) -> list[int] | list[str]:
        values = [line[label].strip() for _, line in lines]
        for (number, _), value in zip(lines, values, strict=True):
            if not value:
                raise InputError(f"{self.path}:{number}", f"no value in column {label!r}")
        return [int(value) for value in values] if all(map(is_index, values)) else values

    def _names(self, lines: Lines, label: str) -> list[str] | None:
        """All class names where labels are indexes, else None."""
        if not all(is_index(line[label]) for _, line in lines):
            return None
        indexes = [int(line[label]) for _, line in lines]
        names: dict[int, str] = {}
        for (number, line), index in zip(lines, indexes, strict=True):
            name = line.get(self.name) or str(index)
            if names.setdefault(index, name) != name:
                raise InputError(f"{self.path}:{number}", f"class {index} is both {names[index]!r} and {name!r}")
        return [names.get(index, str(index)) for index in range(self.num_classes or max(indexes) + 1)]
