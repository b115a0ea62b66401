"""Images and labels as NumPy arrays on disk (.npy), memory-mapped: the array of images is never loaded whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from toolkit.core import Records, Task
from toolkit.datasets.arrays import channels_last, infinite, pixels
from toolkit.datasets.labels import as_task, class_list
from toolkit.errors import InputError
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array


class Npy(Component):
    """Images and labels as .npy files in one folder, memory-mapped."""

    path: Path
    """The folder that holds them."""
    images: str = "images.npy"
    """File of images: (n, height, width[, channels]), uint8 or float."""
    labels: str = "labels.npy"
    """File of labels: (n,), or (n, columns) for labels that may hold together and for values."""
    task: Task = "classes"
    """What the labels are: an index each, labels that may hold together (0 and 1), or values."""
    groups: str | None = None
    """File of numbers or names (n,) of what belongs together (a person, a scene) and stays in one split."""
    classes_file: Path | None = None
    """All class names: a CSV file with columns class_index and name, or one name a line."""
    num_classes: Annotated[int, Field(ge=2)] | None = None
    """Number of classes, where neither the labels nor classes_file show it."""

    def load(self) -> Records:
        """The records of the files; images stay on disk until they are read."""
        import numpy as np

        images = channels_last(self._open(self.images), self._where(self.images))
        labels = np.array(self._open(self.labels))
        if len(labels) != len(images):
            problem = f"{len(images)} images in {self.images!r} but {len(labels)} labels in {self.labels!r}"
            raise InputError(str(self.path), problem)
        groups = tuple(map(str, self._open(self.groups).tolist())) if self.groups else ()
        names = class_list(self.classes_file) if self.classes_file is not None else None
        if names is None and self.num_classes:
            names = list(map(str, range(self.num_classes)))
        labelled = as_task(labels, self.task, names, self._where(self.labels))
        read, content = pixels([images])
        return Records(
            source=str(self.path),
            ids=tuple(map(str, range(len(images)))),
            labels=labelled.labels,
            subsets=("",) * len(images),
            classes=labelled.names,
            read=read,
            content=content,
            task=labelled.task,
            groups=groups,
            faults=lambda: infinite(images),
        )

    def _where(self, name: str) -> str:
        return str(self.path / name)

    def _open(self, name: str) -> Array:
        return open_array(self.path / name)


def open_array(path: Path) -> Array:
    """The array of an .npy file, mapped; InputError where it is none."""
    import numpy as np

    if not path.is_file():
        raise InputError(str(path), "no such file")
    try:
        found: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(str(path), f"cannot be read as an .npy file: {error}") from error
    if not isinstance(found, np.ndarray) or found.ndim == 0:
        raise InputError(str(path), "is no array of one entry an image", "save it with np.save")
    return found
