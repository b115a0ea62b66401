"""The four disjoint splits of a run: train, selection, calibration, test.

Early stopping, repair and search choose on selection; the verdict is computed on test, once. Draws are stratified by
class (largest remainder), the same for a seed, and every split comes in a seeded order, so that any prefix is a fair
sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from toolkit.core import Batch, Preprocessing, Records, Task
from toolkit.datasets.preprocess import geometry, normalise
from toolkit.errors import InputError
from toolkit.registry import suggest
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array, Labels

ENOUGH_CALIBRATION = 100  # images; fewer leave ranges to chance (LiteRT's guide asks for "around 100-500")
_CACHE_BYTES = 256 * 2**20


class Draw(Component):
    """Some of the images of a subset that the data itself names: `{ from = "train", count = 200 }`."""

    model_config = ConfigDict(populate_by_name=True)

    subset: str = Field(alias="from", min_length=1)
    """Name of the data's own subset."""
    count: Annotated[int, Field(ge=1)]
    """Number of images."""


def _part(value: Any) -> Any:
    """One sentence for whatever is no way to say a part, rather than one for each way there is."""
    count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    fraction = isinstance(value, float) and 0 < value <= 1
    if count or fraction or isinstance(value, Draw) or (isinstance(value, str) and value):
        return value
    if isinstance(value, dict) and value.keys() == {"from", "count"}:
        subset, number = value["from"], value["count"]
        if (
            isinstance(subset, str)
            and subset
            and isinstance(number, int)
            and not isinstance(number, bool)
            and number > 0
        ):
            return Draw(subset=subset, count=number)
    raise ValueError(
        'give a fraction (0.2), a number of images (200), a subset of the data ("test"), '
        '{ from = "train", count = 200 } or "rest"'
    )


Part = Annotated[int | float | str | Draw, BeforeValidator(_part)]


class SplitSpec(Component):
    """Which images each split gets: a fraction, a number, a subset of the data, a draw from one, or "rest"."""

    train: Part | None = "rest"
    """Images that passes may train on."""
    selection: Part | None = None
    """Images on which early stopping, repair and search choose."""
    calibration: Part | None = None
    """Images that give quantization its ranges."""
    test: Part | None = "rest"
    """Images that judge, once; drawn (as selection is) from the held-out data where there is any."""


class Split:
    """One split: a `core.Dataset` that decodes lazily and keeps small images once decoded."""

    def __init__(
        self,
        name: str,
        records: Records,
        indexes: Sequence[int],
        preprocessing: Preprocessing,
        *,
        input_name: str = "image",
    ) -> None:
        self._name, self._records, self._preprocessing = name, records, preprocessing
        self._input = input_name  # what the model calls its image
        self._indexes = tuple(int(index) for index in indexes)
        self._cache: dict[int, Array] = {}

    @property
    def name(self) -> str:
        return self._name

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
        """Number of images of each class."""
        import numpy as np

        return tuple(int(count) for count in np.bincount(self.labels, minlength=len(self.classes)))

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """sha256 of each image's content."""
        return tuple(hashlib.sha256(self._records.content(index)).digest() for index in self._indexes)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over ids, labels, contents, class names and preprocessing, in order."""
        whole = hashlib.sha256(repr((self.classes, self._preprocessing)).encode())
        for name, label, digest in zip(self.ids, self.labels, self.digests, strict=True):
            whole.update(f"{len(name)}:{name}={label};".encode() + digest)
        return whole.hexdigest()

    def is_float(self) -> bool:
        """Whether images are floats, that is inputs already (told from the first)."""
        return bool(self._indexes) and self._records.read(self._indexes[0]).dtype.kind == "f"

    def __len__(self) -> int:
        return len(self._indexes)

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of at most `size`: the input (n, height, width, channels) float32, and target `label` (n,)."""
        import numpy as np

        labels = self.labels
        for start in range(0, len(self), size):
            indexes = self._indexes[start : start + size]
            images = [self._image(index) for index in indexes]
            if len({image.shape for image in images}) > 1:
                raise InputError(self.source, "images differ in size", "give `size` in preprocess")
            yield Batch(
                inputs={self._input: normalise(np.stack(images), self._preprocessing)},
                targets={"label": labels[start : start + size]},
                ids=tuple(self._records.ids[index] for index in indexes),
            )

    def _image(self, index: int) -> Array:
        if index in self._cache:
            return self._cache[index]
        image = geometry(self._records.read(index), self._preprocessing)
        if image.nbytes * len(self) <= _CACHE_BYTES:
            self._cache[index] = image
        return image


@dataclass(frozen=True)
class Splits:
    """The splits of a run; one that was not asked for is None. warnings: what a user should know of them."""

    train: Split | None
    selection: Split | None
    calibration: Split | None
    test: Split
    warnings: tuple[str, ...] = ()

    def present(self) -> tuple[Split, ...]:
        """The splits there are, in the order above."""
        return tuple(split for split in (self.train, self.selection, self.calibration, self.test) if split is not None)


def make_splits(
    main: Records,
    held_out: Records | None,
    spec: SplitSpec,
    preprocessing: Preprocessing,
    seed: int,
    *,
    input_name: str = "image",
) -> Splits:
    """Share out the records: selection and test from `held_out` where given, else all from `main`.

    Draws from a subset come first, then whole subsets, then fractions and numbers (of what no subset took), then
    "rest". Raises InputError for a split that asks for more than there is, and for an empty test split.
    """
    if held_out is not None and held_out.classes != main.classes:
        problem = f"its {len(held_out.classes)} classes differ from the {len(main.classes)} of {main.source}"
        raise InputError(held_out.source, problem, "give both the same classes in the same order")
    parts = {name: getattr(spec, name) for name in ("train", "calibration", "selection", "test")}
    if held_out is None:
        taken = _share_out(main, parts, seed)
    else:
        judging = {name: parts.pop(name) for name in ("selection", "test")}
        taken = {**_share_out(main, parts, seed), **_share_out(held_out, judging, seed)}
    made: dict[str, Split] = {}
    for name, indexes in taken.items():
        records = held_out if held_out is not None and name in ("selection", "test") else main
        if indexes:
            made[name] = Split(name, records, indexes, preprocessing, input_name=input_name)
    if "test" not in made:
        where = (held_out or main).source
        raise InputError(where, "no images are left for the test split", "set splits.test, such as 0.2")
    test = made["test"]
    warnings = (*_calibration_warnings(made.get("calibration")), *_overlaps(made), *_float_warning(test))
    return Splits(made.get("train"), made.get("selection"), made.get("calibration"), test, warnings)


def _share_out(records: Records, parts: dict[str, Any], seed: int) -> dict[str, list[int]]:
    """Indexes of each part's records, no record twice."""
    import numpy as np

    free = np.ones(len(records), dtype=bool)
    subsets = np.array(records.subsets)
    asked = {name: part for name, part in parts.items() if part is not None}
    taken: dict[str, list[int]] = {}

    def take(name: str, candidates: Array, count: int) -> None:
        drawn = _draw(candidates, records.labels, count, where=f"splits.{name}", seed=[seed, *name.encode()])
        free[drawn] = False
        taken[name] = drawn

    for name, part in asked.items():
        if isinstance(part, Draw):
            candidates = np.flatnonzero(free & (subsets == _known(part.subset, records, name)))
            take(name, candidates, part.count)
    for name, part in asked.items():
        if isinstance(part, str) and part != "rest":
            candidates = np.flatnonzero(free & (subsets == _known(part, records, name)))
            take(name, candidates, max(1, len(candidates)))
    unclaimed = int(np.count_nonzero(free))
    for name, part in asked.items():
        if isinstance(part, (int, float)):
            count = part if isinstance(part, int) else max(1, round(part * unclaimed))
            take(name, np.flatnonzero(free), count)
    rest = [name for name, part in asked.items() if part == "rest"]
    if len(rest) > 1:
        problem = f'{" and ".join(rest)} are both "rest"'
        raise InputError("splits", problem, f"say how much {rest[-1]} gets, such as 0.2, or name held-out data")
    for name in rest:
        take(name, np.flatnonzero(free), int(np.count_nonzero(free)))
    return taken


def _known(subset: str, records: Records, name: str) -> str:
    known = sorted(set(records.subsets) - {""})
    if subset not in known:
        fix = suggest(subset, known) if known else "use a fraction or a number of images"
        raise InputError(f"splits.{name}", f"{records.source} has no subset {subset!r}", fix)
    return subset


def _draw(candidates: Array, labels: Labels, count: int, *, where: str, seed: Sequence[int]) -> list[int]:
    """`count` of the candidates in random order, each class in proportion."""
    import numpy as np

    if count > len(candidates):
        raise InputError(where, f"asks for {count} images, {len(candidates)} are left", "ask for fewer")
    rng = np.random.default_rng(list(seed))
    if count < len(candidates):
        own = labels[candidates]
        present, sizes = np.unique(own, return_counts=True)
        quota, remainder = np.divmod(sizes * count, len(candidates))
        order = np.lexsort((rng.random(len(present)), -remainder))  # largest remainder first, ties by chance
        quota[order[: count - int(quota.sum())]] += 1
        chosen = zip(present, quota, strict=True)
        drawn = [rng.choice(candidates[own == label], number, replace=False) for label, number in chosen]
        candidates = np.concatenate(drawn)
    return [int(index) for index in rng.permutation(candidates)]


def _calibration_warnings(calibration: Split | None) -> tuple[str, ...]:
    if calibration is None:
        return ()
    found = []
    if len(calibration) < ENOUGH_CALIBRATION:
        found.append(f"calibration: {len(calibration)} images; fewer than {ENOUGH_CALIBRATION} leave ranges to chance")
    missing = [name for name, count in zip(calibration.classes, calibration.per_class, strict=True) if not count]
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        found.append(f"calibration: no image of {len(missing)} of {len(calibration.classes)} classes ({some})")
    return tuple(found)


def _overlaps(made: dict[str, Split]) -> tuple[str, ...]:
    """A warning for each split that holds images of the test split, byte for byte."""
    found = []
    for name, split in made.items():
        known = set(split.digests) if name != "test" else set()
        count = sum(digest in known for digest in made["test"].digests)
        if count:
            found.append(f"{count} of {len(made['test'])} test images are in {name} as well, byte for byte")
    return tuple(found)


def _float_warning(test: Split) -> tuple[str, ...]:
    """Float images are model inputs already: say so where preprocessing asks for a scale."""
    wanted = test.preprocessing
    plain = set(wanted.scale) == {1.0} and set(wanted.offset) == {0.0}
    if plain or not test.is_float():
        return ()
    return ("images are float arrays, taken as already preprocessed: scale and offset are not applied",)
