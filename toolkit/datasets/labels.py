"""What is known of each image, in one of three forms: a class, labels that may hold together, or values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import Task
from toolkit.datasets.images import read_bytes
from toolkit.datasets.tables import column, is_index, read_table
from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.core import Array, Labels


@dataclass(frozen=True)
class Labelled:
    """Labels as `core.Records` has them: an array, the names of classes, labels or values, and which of the three."""

    labels: Array
    names: tuple[str, ...]
    task: Task = "classes"


def as_task(values: Array, task: Task, names: Sequence[str] | None, where: str) -> Labelled:
    """An array of labels (n,), or (n, labels) or (n, values) where `task` says so."""
    if task == "classes":
        labels, classes = index_labels(values, names, where)
        return Labelled(labels, tuple(classes))
    found = values[:, None] if values.ndim == 1 else values
    if found.ndim != 2 or found.dtype.kind not in "iufb":
        raise InputError(where, f"labels have shape {values.shape} and type {values.dtype}", "give a number a column")
    if names is not None and len(names) != found.shape[1]:
        raise InputError(where, f"{found.shape[1]} columns of {task}, {len(names)} names", "give a name a column")
    called = tuple(names or map(str, range(found.shape[1])))
    return _holding(found, called, where) if task == "labels" else _valued(found, called, where)


def _holding(found: Array, names: tuple[str, ...], where: str) -> Labelled:
    import numpy as np

    wrong = np.argwhere((found != 0) & (found != 1))
    if len(wrong):
        row, place = (int(number) for number in wrong[0])
        raise InputError(where, f"{found[row, place]} of image {row} for {names[place]!r} is neither 0 nor 1")
    return Labelled(found.astype(np.uint8), names, "labels")


def _valued(found: Array, names: tuple[str, ...], where: str) -> Labelled:
    import numpy as np

    wrong = np.argwhere(~np.isfinite(found))
    if len(wrong):
        row, place = (int(number) for number in wrong[0])
        raise InputError(where, f"{names[place]!r} of image {row} is {found[row, place]}")
    return Labelled(found.astype(np.float32), names, "values")


def label_sets(sets: Sequence[Sequence[str]], names: Sequence[str] | None, where: str) -> Labelled:
    """The labels that hold of each image, by name; sorted names where none are given."""
    import numpy as np

    known = list(names) if names else sorted({label for held in sets for label in held})
    if not known:
        raise InputError(where, "no image has a label")
    place = {name: index for index, name in enumerate(known)}
    found = np.zeros((len(sets), len(known)), np.uint8)
    for row, held in enumerate(sets):
        for label in held:
            if label not in place:
                raise InputError(where, f"label {label!r} of image {row} is not among the {len(known)} labels")
            found[row, place[label]] = 1
    return Labelled(found, tuple(known), "labels")


def index_labels(values: Sequence[Any] | Array, classes: Sequence[str] | None, where: str) -> tuple[Labels, list[str]]:
    """Class indexes (n,) int64 and class names, from indexes or names; checked against `classes` where given.

    Names without `classes` are sorted; indexes without `classes` give classes named by their number.
    """
    import numpy as np

    found = np.asarray(values)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise InputError(
            where, f"labels have shape {found.shape}", "give one class index an image, such as argmax(1), or say `task`"
        )
    if found.dtype.kind in "USO":
        return _from_names([str(value) for value in found], classes, where)
    if found.dtype.kind not in "iufb" or not np.all(np.isfinite(found)) or np.any(found != np.floor(found)):
        raise InputError(where, f"labels of type {found.dtype} are not class indexes", "give whole numbers from 0")
    labels = found.astype(np.int64)
    names = list(classes) if classes else [str(index) for index in range(int(labels.max(initial=-1)) + 1)]
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(wrong):
        raise InputError(
            where,
            f"label {labels[wrong[0]]} of image {wrong[0]} is out of range for {len(names)} classes",
            "number classes from 0, or give all classes",
        )
    return labels, names


def _from_names(values: list[str], classes: Sequence[str] | None, where: str) -> tuple[Labels, list[str]]:
    import numpy as np

    names = list(classes) if classes else sorted(set(values))
    index = {name: position for position, name in enumerate(names)}
    for position, value in enumerate(values):
        if value not in index:
            raise InputError(where, f"label {value!r} of image {position} is not among the {len(names)} classes")
    return np.array([index[value] for value in values], np.int64), names


def class_list(path: Path) -> list[str]:
    """All class names of a file: columns class_index and name of a CSV file, or one name a line."""
    if path.suffix.lower() != ".csv":
        names = read_bytes(path).decode("utf-8-sig", errors="replace").splitlines()
        return [name.strip() for name in names if name.strip()]
    columns, lines = read_table(path)
    index, name = (column(path, columns, each) for each in ("class_index", "name"))
    found = {int(line[index]): line[name] for _, line in lines if is_index(line[index])}
    if sorted(found) != list(range(len(lines))):
        raise InputError(str(path), f"class_index does not run from 0 to {len(lines) - 1}")
    return [found[position] for position in range(len(found))]
