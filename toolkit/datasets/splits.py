"""The four disjoint splits of a run: train, selection, calibration, test.

Early stopping, repair and search choose on selection; the verdict is computed on test, once. Draws are stratified by
class or combination of labels (largest remainder), the same for a seed, and every split comes in a seeded order, so
that any prefix is a fair sample. Images of equal content, and those the data groups, are never on two sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from toolkit.core import Preprocessing, Records
from toolkit.datasets.census import CensusSpec, checked, take_census
from toolkit.datasets.groups import Place, Pool, draw, group, strata_of, torn
from toolkit.datasets.stream import Split
from toolkit.datasets.unlabelled import Fresh, fresh
from toolkit.errors import InputError
from toolkit.registry import suggest
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array

__all__ = ["Chosen", "Draw", "LeftOut", "Split", "SplitSpec", "Splits", "make_splits", "open_splits"]

ENOUGH_CALIBRATION = 100  # images; fewer leave ranges to chance (LiteRT's guide asks for "around 100-500")
UNLABELLED = "unlabelled"  # the side, and the split
_DRAWING = ("train", "calibration", "selection", "test")  # the order in which parts of one kind are served


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


@dataclass(frozen=True)
class LeftOut:
    """Records that no split got, and why: "unreadable" (names say more), "elsewhere" (equal or grouped images), or
    "equal" (images without labels that the data or these have already)."""

    source: str
    reason: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """Which records each split has, so that another process can open the same splits without looking at images again.

    places: split -> (side, indexes); drawn: split -> the sample's name; listing: hash of each side's ids.
    """

    places: Mapping[str, tuple[str, tuple[int, ...]]]
    drawn: Mapping[str, str]
    listing: Mapping[str, str]


@dataclass(frozen=True)
class Splits:
    """The splits of a run; one that was not asked for is None. warnings: what a user should know of them.

    unlabelled: more images to train on, by a teacher alone.
    """

    train: Split | None
    selection: Split | None
    calibration: Split | None
    test: Split
    warnings: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    chosen: Chosen | None = None
    unlabelled: Split | None = None

    def present(self) -> tuple[Split, ...]:
        """The splits there are, in the order above."""
        splits = (self.train, self.selection, self.calibration, self.test, self.unlabelled)
        return tuple(split for split in splits if split is not None)


def make_splits(
    main: Records,
    held_out: Records | None,
    spec: SplitSpec,
    preprocessing: Preprocessing,
    seed: int,
    *,
    input_name: str = "image",
    census: CensusSpec | None = None,
    unlabelled: Records | None = None,
) -> Splits:
    """Share out the records: selection and test from `held_out` where given, else all from `main`.

    unlabelled: images to train on without labels, as far as they are none of the others (datasets.unlabelled). Draws
    from a subset come first, then whole subsets, then fractions and numbers (of what no subset took), then "rest".
    Raises InputError for a split that asks for more than there is, for an empty test split, and for too many
    unreadable images.
    """
    asked, sides = _asked(spec, held_out is not None), {"main": checked(main)}
    if held_out is not None:
        sides["held_out"] = checked(held_out)
        _same_classes(*sides.values())
    pools, left = _pools(sides, asked, census)
    taken = {name: item for pool in pools for name, item in _share_out(pool, asked[pool.side], seed).items()}
    places = {name: (side, indexes) for name, (side, indexes, _) in taken.items() if indexes}
    drawn = {name: text for name, (_, _, text) in taken.items()}
    digests: dict[str, Sequence[bytes]] = {pool.side: pool.census.digests for pool in pools}
    if unlabelled is not None:
        found = fresh(unlabelled, [(pool.records, pool.census.digests) for pool in pools], census)
        left = (*left, *_left_of(unlabelled, found))
        sides[UNLABELLED], places[UNLABELLED] = unlabelled, (UNLABELLED, found.indexes)
        drawn[UNLABELLED] = f"{UNLABELLED}: {len(found.indexes)} of {len(unlabelled)}"
        digests[UNLABELLED] = found.digests
    listing = {side: _listing(records) for side, records in sides.items()}
    made = open_splits(
        sides["main"],
        sides.get("held_out"),
        Chosen(places, drawn, listing),
        preprocessing,
        input_name=input_name,
        known=digests,
        unlabelled=unlabelled,
    )
    notes = [note for pool in pools for note in (*pool.records.notes, *_animated(pool.census.animated))]
    notes += unlabelled.notes if unlabelled is not None else ()
    return replace(
        made, warnings=(*notes, *_left_warnings(left), *_label_warnings(pools), *made.warnings), left_out=left
    )


def open_splits(
    main: Records,
    held_out: Records | None,
    chosen: Chosen,
    preprocessing: Preprocessing,
    *,
    input_name: str = "image",
    known: Mapping[str, Sequence[bytes]] | None = None,
    unlabelled: Records | None = None,
) -> Splits:
    """The splits whose records are chosen already. known: each side's digests."""
    others = {"held_out": held_out, UNLABELLED: unlabelled}
    sides = {"main": main} | {side: records for side, records in others.items() if records is not None}
    made: dict[str, Split] = {}
    for side, records in sides.items():
        if known is None and _listing(records) != chosen.listing.get(side):
            raise InputError(
                records.source, "other images than when the run began", "leave the data alone while it runs"
            )
    for name, (side, indexes) in chosen.places.items():
        digests = [known[side][index] for index in indexes] if known else None
        drawn = chosen.drawn[name]
        made[name] = Split(
            name, sides[side], indexes, preprocessing, input_name=input_name, digests=digests, drawn=drawn
        )
    if "test" not in made:
        raise InputError(
            (held_out or main).source, "no images are left for the test split", "set splits.test, such as 0.2"
        )
    _check_same_kind(made)
    warnings = (*_coverage_warnings(made), *_float_warning(made["test"]))
    train, selection, calibration = (made.get(name) for name in ("train", "selection", "calibration"))
    more = made.get(UNLABELLED)
    return Splits(train, selection, calibration, made["test"], warnings, chosen=chosen, unlabelled=more)


def _left_of(records: Records, found: Fresh) -> Iterator[LeftOut]:
    """Images without labels that are not trained on."""
    for reason, names in (("unreadable", found.unreadable), ("equal", found.equal)):
        if names:
            yield LeftOut(records.source, reason, names)


def _check_same_kind(made: Mapping[str, Split]) -> None:
    """Raise where images without labels are pixels and the others inputs already, or the other way round."""
    if UNLABELLED in made and made[UNLABELLED].is_float() != made["test"].is_float():
        kinds = [("float arrays" if made[name].is_float() else "pixels") for name in (UNLABELLED, "test")]
        problem = f"its images are {kinds[0]}, those of the data {kinds[1]}"
        raise InputError(made[UNLABELLED].source, problem, "give both in one form")


def _asked(spec: SplitSpec, held_out: bool) -> dict[str, dict[str, Any]]:
    """The parts that each side serves."""
    parts: dict[str, Any] = {name: getattr(spec, name) for name in _DRAWING if getattr(spec, name) is not None}
    if not held_out:
        return {"main": parts}
    judging: dict[str, Any] = {name: parts.pop(name) for name in ("selection", "test") if name in parts}
    return {"main": parts, "held_out": judging}


def _same_classes(main: Records, held_out: Records) -> None:
    if held_out.task != main.task or held_out.classes != main.classes:
        differ = next(
            (i for i, pair in enumerate(zip(held_out.classes, main.classes, strict=False)) if len({*pair}) > 1), 0
        )
        problem = f"its {len(held_out.classes)} classes differ from the {len(main.classes)} of {main.source}"
        if held_out.task == main.task and len(held_out.classes) == len(main.classes):
            problem += f": class {differ} is {held_out.classes[differ]!r} here, {main.classes[differ]!r} there"
        raise InputError(held_out.source, problem, "give both the same classes in the same order")


def _pools(
    sides: Mapping[str, Records], asked: Mapping[str, Mapping[str, Any]], spec: CensusSpec | None
) -> tuple[list[Pool], tuple[LeftOut, ...]]:
    """Each side's records, looked at and grouped; what no split can have is not alive, and is listed."""
    import numpy as np

    wanted_by: dict[Place, list[str]] = {}
    for side, parts in asked.items():
        for name, part in parts.items():
            if subset := _subset(part):
                wanted_by.setdefault((side, _known(subset, sides[side], name)), []).append(name)
    censuses, alive, left = {}, {}, []
    for side, records in sides.items():
        common = any(_subset(part) is None for part in asked[side].values())
        alive[side] = np.array([common or (side, subset) in wanted_by for subset in records.subsets], bool)
        census = censuses[side] = take_census(records, np.flatnonzero(alive[side]).tolist(), spec)
        alive[side][list(census.corrupt)] = False
        left += [LeftOut(records.source, "unreadable", census.named(records))] if census.corrupt else []
    numbers = group([(records, censuses[side].digests) for side, records in sides.items()])
    pools = [
        Pool(side, records, censuses[side], alive[side], groups)
        for (side, records), groups in zip(sides.items(), numbers, strict=True)
    ]
    out = torn(pools, wanted_by)
    for pool in pools:
        names = tuple(pool.records.ids[index] for index in np.flatnonzero(out[pool.side]))
        left += [LeftOut(pool.records.source, "elsewhere", names)] if names else []
    return [replace(pool, alive=pool.alive & ~out[pool.side]) for pool in pools], tuple(left)


def _share_out(pool: Pool, parts: Mapping[str, Any], seed: int) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """(side, indexes, the sample's name) of each part, no record twice."""
    import numpy as np

    records, free, strata = pool.records, pool.alive.copy(), strata_of(pool.records)
    subsets = np.array(records.subsets)
    taken: dict[str, tuple[str, tuple[int, ...], str]] = {}

    def take(name: str, candidates: Array, count: int, of: str) -> None:
        if count > len(candidates):
            raise InputError(f"splits.{name}", f"asks for {count} images, {len(candidates)} are left", "ask for fewer")
        rng = np.random.default_rng([seed, *name.encode()])
        drawn = draw(candidates, pool.groups, strata, count=count, rng=rng)
        if count and not len(drawn):
            problem = f"asks for {count} images, and every group of images that stay together is larger"
            raise InputError(f"splits.{name}", problem, "ask for more")
        free[drawn] = False
        taken[name] = (pool.side, tuple(drawn.tolist()), f"{name}: {len(drawn)} of {of}, seed {seed}")

    for name, part in parts.items():
        if isinstance(part, Draw):
            take(name, np.flatnonzero(free & (subsets == part.subset)), part.count, part.subset)
    for name, part in parts.items():
        if isinstance(part, str) and part != "rest":
            candidates = np.flatnonzero(free & (subsets == part))
            take(name, candidates, max(1, len(candidates)), part)
    unclaimed = int(np.count_nonzero(free))
    for name, part in parts.items():
        if isinstance(part, (int, float)):
            count = part if isinstance(part, int) else max(1, round(part * unclaimed))
            take(name, np.flatnonzero(free), count, str(unclaimed))
    rest = [name for name, part in parts.items() if part == "rest"]
    if len(rest) > 1:
        problem = f'{" and ".join(rest)} are both "rest"'
        raise InputError("splits", problem, f"say how much {rest[-1]} gets, such as 0.2, or name held-out data")
    for name in rest:
        take(name, np.flatnonzero(free), int(np.count_nonzero(free)), "the rest")
    return taken


def _subset(part: Any) -> str | None:
    """The data's own subset that a part names."""
    if isinstance(part, Draw):
        return part.subset
    return part if isinstance(part, str) and part != "rest" else None


def _known(subset: str, records: Records, name: str) -> str:
    known = sorted(set(records.subsets) - {""})
    if subset not in known:
        fix = suggest(subset, known) if known else "use a fraction or a number of images"
        raise InputError(f"splits.{name}", f"{records.source} has no subset {subset!r}", fix)
    return subset


def _listing(records: Records) -> str:
    """Hash of the records' names in their order."""
    return hashlib.sha256("\n".join(records.ids).encode("utf-8", "surrogateescape")).hexdigest()


# ---------------------------------------------------------------- warnings


def _animated(count: int) -> tuple[str, ...]:
    return (f"{count} images are animated: the first frame of each is used",) if count else ()


def _left_warnings(left: Sequence[LeftOut]) -> tuple[str, ...]:
    words = {
        "unreadable": "cannot be read and are left out",
        "elsewhere": "equal images of a split that judges, or are grouped with some, and are left out",
        "equal": "without labels equal others or images of the data, and are left out",
    }
    return tuple(f"{item.source}: {len(item.names)} images {words[item.reason]} ({_some(item.names)})" for item in left)


def _label_warnings(pools: Sequence[Pool]) -> tuple[str, ...]:
    """A warning where the same image has two labels: one of them is wrong."""
    found = []
    for pool in pools:
        first: dict[bytes, int] = {}
        torn_apart = [
            pool.records.ids[index]
            for index, digest in enumerate(pool.census.digests)
            if digest
            and (twin := first.setdefault(digest, index)) != index
            and (pool.records.labels[index] != pool.records.labels[twin]).any()
        ]
        if torn_apart:
            text = f"{len(torn_apart)} images equal one with another label, byte for byte ({_some(torn_apart)})"
            found.append(f"{pool.records.source}: {text}")
    return tuple(found)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _coverage_warnings(made: Mapping[str, Split]) -> tuple[str, ...]:
    found = []
    calibration = made.get("calibration")
    if calibration is not None and len(calibration) < ENOUGH_CALIBRATION:
        problem = f"fewer than {ENOUGH_CALIBRATION} leave ranges to chance"
        found.append(f"calibration: {len(calibration)} images; {problem}")
    for name in ("calibration", "test"):
        split = made.get(name)
        if split is None:
            continue
        missing = [label for label, count in zip(split.classes, split.per_class, strict=False) if not count]
        if missing:
            found.append(f"{name}: no image of {len(missing)} of {len(split.classes)} classes ({_some(missing)})")
    return tuple(found)


def _float_warning(test: Split) -> tuple[str, ...]:
    """Float images are model inputs already: say so where preprocessing asks for a scale."""
    wanted = test.preprocessing
    plain = set(wanted.scale) == {1.0} and set(wanted.offset) == {0.0}
    if plain or not test.is_float():
        return ()
    return ("images are float arrays, taken as already preprocessed: scale and offset are not applied",)
