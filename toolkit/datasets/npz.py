"""Images and labels in one NumPy .npz file: pixel arrays, or encoded images end to end.

Arrays: `images` (n, height, width[, channels]) with `labels` (n,), or pairs such as x_train, y_train, x_test, y_test,
whose suffixes become subsets. Encoded: `jpeg` (bytes of all files, JPEG or PNG), `offsets` (n or n + 1), `labels`.
Optional in both: `classes` (names), `split` (subset of each image), `names` (of each image), `groups` (what stays
together).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from toolkit.core import Records, Task
from toolkit.datasets.arrays import channels_last, infinite, pixels
from toolkit.datasets.images import decode
from toolkit.datasets.labels import as_task
from toolkit.errors import InputError
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.datasets.arrays import Reader

_IMAGE_KEYS = ("images", "image", "x", "X", "data")
_LABEL_KEYS = ("labels", "label", "y", "Y", "targets", "target")
_SUBSETS = ("", "train", "val", "valid", "validation", "test")


class Npz(Component):
    """Labelled images in a NumPy .npz file."""

    path: Path
    """The .npz file."""
    images: str | None = None
    """Name of the array of images, where it cannot be told from the names."""
    labels: str | None = None
    """Name of the array of labels that goes with `images`."""
    task: Task = "classes"
    """What the labels are: an index each (n,), labels that may hold together (n, labels) of 0 and 1, or values."""
    num_classes: Annotated[int, Field(ge=2)] | None = None
    """Number of classes, where the labels of this file do not show it."""

    def load(self) -> Records:
        """The records of the file; raises InputError for anything that is not images with labels."""
        import numpy as np

        arrays = _read(self.path)
        pairs = [("", self.images or "jpeg", self._label_key(arrays))] if self._single(arrays) else self._pairs(arrays)
        where, encoded = str(self.path), "jpeg" in arrays and self.images is None
        raw = [np.atleast_1d(arrays[labels]) for _, _, labels in pairs]
        counts = [len(arrays["offsets"]) - _extra(arrays, raw[0], where)] if encoded else _counts(arrays, pairs)
        for (_, images, key), values, count in zip(pairs, raw, counts, strict=True):
            if len(values) != count:
                raise InputError(where, f"{count} images in {images!r} but {len(values)} labels in {key!r}")
        if not sum(counts):
            raise InputError(where, "holds no images")
        flat = np.concatenate([values.reshape(len(values), -1) for values in raw])
        labelled = as_task(flat, self.task, self._classes(arrays), where)
        subsets = [name for (name, _, _), count in zip(pairs, counts, strict=True) for _ in range(count)]
        read, content = _encoded(arrays, where) if encoded else _pixels([arrays[key] for _, key, _ in pairs], where)
        return Records(
            source=where,
            ids=_ids(arrays, subsets),
            labels=labelled.labels,
            subsets=_texts(arrays, "split", subsets, where),
            classes=labelled.names,
            read=read,
            content=content,
            task=labelled.task,
            encoded=encoded,
            groups=_texts(arrays, "groups", subsets, where) if "groups" in arrays else (),
        )

    def _single(self, arrays: dict[str, Array]) -> bool:
        for name in (self.images, self.labels):
            if name is not None and name not in arrays:
                raise InputError(str(self.path), f"has no array {name!r}", f"use one of {', '.join(arrays)}")
        return self.images is not None or "jpeg" in arrays

    def _label_key(self, arrays: dict[str, Array]) -> str:
        found = [self.labels] if self.labels else [key for key in _LABEL_KEYS if key in arrays]
        if len(found) != 1:
            raise _ambiguous(self.path, arrays)
        if "jpeg" in arrays and self.images is None and "offsets" not in arrays:
            raise InputError(str(self.path), "has `jpeg` but no `offsets`, where each image begins")
        return found[0]

    def _pairs(self, arrays: dict[str, Array]) -> list[tuple[str, str, str]]:
        """(subset, key of images, key of labels) for each part the file holds."""
        pairs = []
        for subset in _SUBSETS:
            images, labels = _matches(arrays, _IMAGE_KEYS, subset), _matches(arrays, _LABEL_KEYS, subset)
            if self.labels is not None and subset == "":
                labels = [self.labels]
            if len(images) == len(labels) == 1:
                pairs.append((subset, images[0], labels[0]))
            elif images or labels:
                raise _ambiguous(self.path, arrays)
        if not pairs or (len(pairs) > 1 and pairs[0][0] == ""):
            raise _ambiguous(self.path, arrays)
        return pairs

    def _classes(self, arrays: dict[str, Array]) -> list[str] | None:
        if "classes" in arrays:
            return [str(name) for name in arrays["classes"]]
        return [str(index) for index in range(self.num_classes)] if self.num_classes else None


def _read(path: Path) -> dict[str, Array]:
    """Every array of the file. Pickled objects are refused: they can run code."""
    import zipfile
    import zlib

    import numpy as np

    if not path.is_file():
        raise InputError(str(path), "no such file")
    try:
        opened: Any = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise InputError(str(path), "is a single array, not an .npz file", "save images and labels with np.savez")
        with opened:
            return {key: opened[key] for key in opened.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(str(path), f"cannot be read as an .npz file: {error}") from error


def _matches(arrays: dict[str, Array], keys: tuple[str, ...], subset: str) -> list[str]:
    names = [name for key in keys for name in ((f"{key}_{subset}", f"{subset}_{key}") if subset else (key,))]
    return [name for name in names if name in arrays]


def _ambiguous(path: Path, arrays: dict[str, Array]) -> InputError:
    problem = f"cannot tell images and labels among its arrays: {', '.join(arrays) or 'none'}"
    return InputError(str(path), problem, "name them with `images` and `labels`")


def _extra(arrays: dict[str, Array], labels: Array, where: str) -> int:
    """1 where `offsets` ends with the total length, else 0; the offsets themselves are checked."""
    import numpy as np

    jpeg, offsets = arrays["jpeg"], arrays["offsets"]
    if jpeg.ndim != 1 or jpeg.dtype != np.uint8 or offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise InputError(where, "`jpeg` must be flat uint8 and `offsets` flat integers")
    steps = np.diff(offsets.astype(np.int64))
    if len(offsets) and (offsets[0] < 0 or offsets[-1] > len(jpeg) or np.any(steps <= 0)):
        raise InputError(where, "`offsets` do not rise within `jpeg`")
    return 1 if len(offsets) == len(labels) + 1 else 0


def _counts(arrays: dict[str, Array], pairs: list[tuple[str, str, str]]) -> list[int]:
    return [len(arrays[images]) if arrays[images].ndim else 0 for _, images, _ in pairs]


def _encoded(arrays: dict[str, Array], where: str) -> Reader:
    jpeg, offsets = arrays["jpeg"], [int(offset) for offset in arrays["offsets"]]
    ends = [*offsets[1:], len(jpeg)]

    def content(index: int) -> bytes:
        return bytes(jpeg[offsets[index] : ends[index]])

    return lambda index: decode(content(index), f"{where}[{index}]"), content


def _pixels(parts: list[Array], where: str) -> Reader:
    images = [channels_last(part, where) for part in parts]
    for part in images:
        if bad := infinite(part):
            raise InputError(where, f"image {min(bad)} holds NaN or infinity ({len(bad)} such images)")
    return pixels(images)


def _ids(arrays: dict[str, Array], subsets: list[str]) -> tuple[str, ...]:
    """Names of the file where they are there and differ; else the place in the file."""
    names = arrays.get("names")
    if names is not None and names.shape == (len(subsets),) and len(set(names.tolist())) == len(subsets):
        return tuple(str(name) for name in names)
    places, seen = [], dict.fromkeys(subsets, 0)
    for subset in subsets:
        places.append(f"{subset}/{seen[subset]}" if subset else str(seen[subset]))
        seen[subset] += 1
    return tuple(places)


def _texts(arrays: dict[str, Array], key: str, default: list[str], where: str) -> tuple[str, ...]:
    if key not in arrays:
        return tuple(default)
    if arrays[key].shape != (len(default),):
        raise InputError(where, f"{len(default)} images but `{key}` has shape {arrays[key].shape}")
    return tuple(str(value) for value in arrays[key])
