"""One split as a stream of batches: decoded by several threads, ahead of whoever reads, in an order that never changes.

Memory is bounded: at most `_AHEAD` batches are in the making, and only splits of small images are kept once decoded.
Pillow and NumPy let other threads run while they work, so that threads are enough.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from toolkit.core import Preprocessing, Records, Task
from toolkit.datasets.images import picture
from toolkit.datasets.preprocess import geometry, normalise
from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.core import Array, Batch

_CACHE_BYTES = 256 * 2**20  # of one split's images after geometry; larger splits are decoded anew each time
_AHEAD = 2  # batches beyond the one being read
_PIECE = 8  # images a thread takes at once


def cpu_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Split:
    """One split: a `core.Dataset` that decodes lazily and keeps small images once decoded.

    digests: sha256 of each image's content where they are known already.
    """

    def __init__(
        self,
        name: str,
        records: Records,
        indexes: Sequence[int],
        preprocessing: Preprocessing,
        *,
        input_name: str = "image",
        digests: Sequence[bytes] | None = None,
        drawn: str = "",
        threads: int | None = None,
    ) -> None:
        self._name, self._records, self._preprocessing = name, records, preprocessing
        self._input = input_name  # what the model calls its image
        self._indexes = tuple(int(index) for index in indexes)
        self._known = tuple(digests) if digests is not None else None
        self._drawn, self._threads = drawn, threads or cpu_count()
        self._cache: dict[int, Array] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def drawn(self) -> str:
        """The sample's name: how many images of what, by which seed."""
        return self._drawn or f"{self._name}: {len(self)} images"

    @property
    def source(self) -> str:
        """Where the images come from."""
        return self._records.source

    @property
    def preprocessing(self) -> Preprocessing:
        return self._preprocessing

    @property
    def classes(self) -> tuple[str, ...]:
        return self._records.classes

    @property
    def indexes(self) -> tuple[int, ...]:
        """Places among the records."""
        return self._indexes

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._records.ids[index] for index in self._indexes)

    @property
    def task(self) -> Task:
        return self._records.task

    @property
    def labels(self) -> Array:
        return self._records.labels[list(self._indexes)]

    @property
    def per_class(self) -> tuple[int, ...]:
        """Number of images of each class, or with each label; () for values."""
        import numpy as np

        if self.task == "values":
            return ()
        counts = self.labels.sum(axis=0, dtype=np.int64) if self.task == "labels" else None
        found = np.bincount(self.labels, minlength=len(self.classes)) if counts is None else counts
        return tuple(int(count) for count in found)

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """sha256 of each image's content."""
        if self._known is not None:
            return self._known
        return tuple(hashlib.sha256(self._records.content(index)).digest() for index in self._indexes)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over ids, labels, contents, class names and preprocessing, in order."""
        whole = hashlib.sha256(repr((self.classes, self._preprocessing)).encode())
        for name, label, digest in zip(self.ids, self.labels.tolist(), self.digests, strict=True):
            whole.update(f"{len(name)}:{name}={label};".encode() + digest)
        return whole.hexdigest()

    def pixels(self) -> Split:
        """The same images as uint8 pixels, RGB or gray: what a file takes that does the rest itself.

        Raises InputError where images are floats, whose pixels nobody knows.
        """
        if self.is_float():
            problem = "images are float arrays, and the file takes uint8 pixels"
            raise InputError(self.source, problem, "give the images as uint8, or export without embed_preprocessing")
        color: Literal["gray", "rgb"] = "gray" if self._preprocessing.color == "gray" else "rgb"
        plain = replace(self._preprocessing, color=color, scale=(1.0,), offset=(0.0,))
        known, drawn, threads = self._known, self._drawn, self._threads
        return Split(
            self._name,
            self._records,
            self._indexes,
            plain,
            input_name=self._input,
            digests=known,
            drawn=drawn,
            threads=threads,
        )

    def shown(self, place: int) -> Array:
        """One image as uint8 pixels, cropped and resized as the model sees it; raises as `pixels`."""
        import numpy as np

        image: Array = np.asarray(self.pixels()._image(self._indexes[place]))
        return image if image.dtype == np.uint8 else image.round().clip(0, 255).astype(np.uint8)

    def is_float(self) -> bool:
        """Whether images are floats, that is inputs already (told from the first)."""
        if self._records.encoded:
            return False
        return bool(self._indexes) and self._records.read(self._indexes[0]).dtype.kind == "f"

    def __len__(self) -> int:
        return len(self._indexes)

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of at most `size`: the input (n, height, width, channels) float32, and target `label` (n, ...)."""
        from toolkit.core import Batch

        labels, ids = self.labels, self.ids
        for start, inputs in self._filled(size):
            stop = start + len(inputs)
            yield Batch({self._input: inputs}, {"label": labels[start:stop]}, ids[start:stop])

    def _filled(self, size: int) -> Iterator[tuple[int, Array]]:
        """(first place, images) of each batch, a few of them in the making at any time."""
        import numpy as np

        shape: tuple[int, ...] = self._image(self._indexes[0]).shape if self._indexes else ()
        making: deque[tuple[int, Array, list[Future[None]]]] = deque()
        threads = ThreadPoolExecutor(self._threads, "decode")
        try:
            for start in range(0, len(self), size):
                batch = np.empty((min(size, len(self) - start), *shape), np.float32)
                pieces = range(0, len(batch), _PIECE)
                making.append((start, batch, [threads.submit(self._fill, batch, start, at) for at in pieces]))
                if len(making) > _AHEAD:
                    yield _finished(making.popleft())
            while making:
                yield _finished(making.popleft())
        finally:
            threads.shutdown(cancel_futures=True)

    def _fill(self, batch: Array, start: int, at: int) -> None:
        """Images `at` and those that follow it, into their places of the batch that begins at `start`."""
        for place in range(at, min(at + _PIECE, len(batch))):
            image = self._image(self._indexes[start + place])
            if image.shape != batch.shape[1:]:
                raise InputError(self.source, "images differ in size", "give `size` in preprocess")
            normalise(image, self._preprocessing, out=batch[place])

    def _image(self, index: int) -> Array:
        if index in self._cache:
            return self._cache[index]
        image = geometry(self._decoded(index), self._preprocessing)
        if image.nbytes * len(self) <= _CACHE_BYTES:
            self._cache[index] = image
        return image

    def _decoded(self, index: int) -> Any:
        """The image as an array, or as Pillow's, which `geometry` takes without a copy."""
        if not self._records.encoded:
            return self._records.read(index)
        return picture(self._records.content(index), f"{self.source}: {self._records.ids[index]}")


def _finished(made: tuple[int, Array, list[Future[None]]]) -> tuple[int, Array]:
    start, batch, pieces = made
    for piece in pieces:
        piece.result()
    return start, batch
