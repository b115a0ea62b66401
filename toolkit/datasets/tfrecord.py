"""Images as `tf.train.Example` records in TFRecord files, the form TensorFlow's own tools write.

Records are found by an index of where they stand, so that any can be read alone; their checksums are compared when the
images are looked at, and a record that does not match its own counts as unreadable.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from toolkit.core import Records, Task
from toolkit.datasets.images import decode
from toolkit.datasets.labels import Labelled, as_task, class_list, index_labels, label_sets
from toolkit.datasets.tfrecord_file import (
    Span,
    bytes_list,
    damaged,
    features,
    float_list,
    int64_list,
    open_map,
    record_spans,
)
from toolkit.errors import InputError
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array

_SUFFIXES = (".tfrecord", ".tfrecords")


class TFRecord(Component):
    """Encoded images and labels in TFRecord files of tf.train.Example."""

    path: Path
    """A file, or a folder of them: *.tfrecord, *.tfrecords, or shards such as train.tfrecord-00000-of-00004."""
    image: str = "image/encoded"
    """Feature that holds the encoded image (JPEG, PNG, ...)."""
    label: str = "image/class/label"
    """Feature of the label: class indexes or names; several integers or floats for labels and values."""
    first_label: Annotated[int, Field(ge=0)] = 0
    """The number of the first class: 1 where 0 stands for a background that the model does not have."""
    task: Task = "classes"
    """What the labels are: one class each, labels that may hold together (names, or 0 and 1), or values."""
    group: str | None = None
    """Feature that names what belongs together (a person, a scene) and stays in one split."""
    classes_file: Path | None = None
    """All class names: a CSV file with columns class_index and name, or one name a line."""
    num_classes: Annotated[int, Field(ge=2)] | None = None
    """Number of classes, where neither the labels nor classes_file show it."""

    def load(self) -> Records:
        """The records of the files; subsets are what stands before `.tfrecord` where there are several files."""
        files = _shards(self.path)
        names = class_list(self.classes_file) if self.classes_file is not None else None
        if names is None and self.num_classes:
            names = list(map(str, range(self.num_classes)))
        subsets = [file.name.split(".tfrecord")[0].removesuffix("-") for file in files]
        return read_records(
            self, [(file, name if len(files) > 1 else "") for file, name in zip(files, subsets, strict=True)], names
        )


def read_records(spec: TFRecord, files: Sequence[tuple[Path, str]], names: Sequence[str] | None) -> Records:
    """The records of (file, subset) pairs, in that order, by the features that `spec` names."""
    index = _Index(spec)
    for path, subset in files:
        index.add(path, subset)
    if not index.images:
        raise InputError(str(spec.path), "holds no records")
    return Records(
        source=str(spec.path),
        ids=tuple(index.ids),
        labels=(labelled := _labelled(spec, index.truths, names)).labels,
        subsets=tuple(index.subsets),
        classes=labelled.names,
        read=lambda i: decode(index.content(i), index.ids[i]),
        content=index.content,
        task=labelled.task,
        encoded=True,
        groups=tuple(index.groups) if spec.group else (),
        faults=index.faults,
    )


class _Index:
    """Where each record and its image stand, and what is known of it."""

    def __init__(self, spec: TFRecord) -> None:
        self.spec = spec
        self.maps: list[tuple[mmap.mmap, int]] = []  # and the number of its first record
        self.records: list[Span] = []
        self.images: list[tuple[mmap.mmap, Span]] = []
        self.truths: list[list[Any]] = []
        self.ids: list[str] = []
        self.subsets: list[str] = []
        self.groups: list[str] = []

    def add(self, path: Path, subset: str) -> None:
        """Append the records of one file."""
        if not path.stat().st_size:
            return
        data = open_map(path)
        spans = record_spans(data, str(path))
        self.maps.append((data, len(self.records)))
        for place, span in enumerate(spans):
            where = f"{path}: record {place}"
            try:
                found = features(data, span)
                image = bytes_list(data, _feature(found, self.spec.image, where, 1)[1])
                self.truths.append(_values(data, *_feature(found, self.spec.label, where)))
                group = _values(data, *_feature(found, self.spec.group, where)) if self.spec.group else [""]
            except (ValueError, UnicodeDecodeError) as error:
                raise InputError(where, f"is no tf.train.Example: {error}") from error
            if len(image) != 1:
                raise InputError(where, f"holds {len(image)} images in {self.spec.image!r}", "give one image a record")
            self.images.append((data, image[0]))
            self.groups.append(" ".join(map(str, group)))
            self.ids.append(f"{path.name}/{place}")
        self.records += spans
        self.subsets += [subset] * len(spans)

    def content(self, index: int) -> bytes:
        data, (start, end) = self.images[index]
        return data[start:end]

    def faults(self) -> dict[int, str]:
        found: dict[int, str] = {}
        ends = [*(first for _, first in self.maps[1:]), len(self.records)]
        for (data, first), end in zip(self.maps, ends, strict=True):
            for place in damaged(data, self.records[first:end]):
                found[first + place] = "its checksum (CRC-32C) does not match"
        return found


def _feature(found: dict[str, tuple[int, Span]], name: str, where: str, kind: int = 0) -> tuple[int, Span]:
    if name not in found or (kind and found[name][0] != kind):
        known = ", ".join(sorted(found)) or "none"
        raise InputError(
            where, f"has no {'bytes ' if kind else ''}feature {name!r}", f"name one of its features: {known}"
        )
    return found[name]


def _values(data: mmap.mmap, kind: int, span: Span) -> list[Any]:
    if kind == 1:
        return [data[start:end].decode() for start, end in bytes_list(data, span)]
    return list(float_list(data, span) if kind == 2 else int64_list(data, span))


def _labelled(spec: TFRecord, truths: list[list[Any]], names: Sequence[str] | None) -> Labelled:
    import numpy as np

    where = str(spec.path)
    if spec.task == "labels" and all(isinstance(name, str) for held in truths for name in held):
        return label_sets(truths, names, where)
    width = len(truths[0])
    for row, values in enumerate(truths):
        if len(values) != (width if spec.task != "classes" else 1):
            raise InputError(
                where, f"record {row} has {len(values)} values in {spec.label!r}", "set `task`, or `label`"
            )
    if spec.task != "classes":
        return as_task(np.array(truths), spec.task, names, where)
    flat: Array = np.array([values[0] for values in truths])
    labels, classes = index_labels(flat - spec.first_label if flat.dtype.kind in "iu" else flat, names, where)
    return Labelled(labels, tuple(classes))


def _shards(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(str(path), "no such file or folder")
    files = (file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    found = sorted(file for file in files if file.suffix in _SUFFIXES or ".tfrecord-" in file.name)
    if not found:
        raise InputError(str(path), "holds no .tfrecord files")
    return found
