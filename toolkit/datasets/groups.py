"""Images that must stay on one side: equal ones, and those the data says belong together (a person, a scene).

Groups are the connected parts of "same content" and "same group name". A group whose members the data itself puts into
different splits keeps those of the split that judges most (test, then selection, calibration, train); its other members
are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.core import Records
from toolkit.datasets.census import Census

if TYPE_CHECKING:
    import numpy as np

    from toolkit.core import Array, Labels

Place = tuple[str, str]  # which data ("main" or "held_out"), and the subset it puts an image in
_RANK = {"test": 4, "selection": 3, "calibration": 2, "train": 1}


@dataclass(frozen=True)
class Pool:
    """One dataset with what is known of its images. groups: a number for each record, shared by what stays together."""

    side: str  # "main" or "held_out"
    records: Records
    census: Census
    alive: Array  # bool for each record: wanted by some split, and readable
    groups: Labels


def group(pools: Sequence[tuple[Records, Sequence[bytes]]]) -> list[Labels]:
    """Group numbers of each pool's records, over all pools; a record without digest or name is alone."""
    import numpy as np

    parent = list(range(sum(len(records) for records, _ in pools)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    first: dict[bytes | str, int] = {}
    node = 0
    for records, digests in pools:
        for index, digest in enumerate(digests):
            known = records.groups[index] if records.groups else ""
            for name in (digest, known):
                if not name:
                    continue
                one, other = root(first.setdefault(name, node)), root(node)
                parent[max(one, other)] = min(one, other)
            node += 1
    roots = np.array([root(node) for node in range(len(parent))], np.int64)
    return np.split(roots, np.cumsum([len(records) for records, _ in pools])[:-1])


def torn(pools: Sequence[Pool], wanted_by: Mapping[Place, Sequence[str]]) -> dict[str, Array]:
    """Living records whose group has its place elsewhere: for each side a mask.

    wanted_by: the splits that the recipe fills from each place by name.
    """
    import numpy as np

    def rank(place: Place) -> tuple[int, int]:
        splits = wanted_by.get(place, ())
        return place[0] == "held_out", max((_RANK[split] for split in splits), default=0)

    home: dict[int, Place] = {}
    shared = {pool.side: _shared(pools, pool) for pool in pools}
    for pool in pools:
        for index in np.flatnonzero(shared[pool.side]):
            place, number = (pool.side, pool.records.subsets[index]), int(pool.groups[index])
            if number not in home or rank(place) > rank(home[number]):
                home[number] = place
    out = {pool.side: np.zeros(len(pool.records), bool) for pool in pools}
    for pool in pools:
        for index in np.flatnonzero(shared[pool.side]):
            number = int(pool.groups[index])
            place = (pool.side, pool.records.subsets[index])
            if rank(place) < rank(home[number]):
                out[pool.side][index] = True
    return out


def _shared(pools: Sequence[Pool], pool: Pool) -> Array:
    """Which of a pool's living records are not alone in their group."""
    import numpy as np

    everything = np.concatenate([other.groups[other.alive] for other in pools])
    numbers, counts = np.unique(everything, return_counts=True)
    return pool.alive & np.isin(pool.groups, numbers[counts > 1])


def draw(candidates: Array, groups: Labels, strata: Labels, *, count: int, rng: np.random.Generator) -> Array:
    """At most `count` of the candidates in random order, groups whole, each stratum in proportion as groups allow.

    Groups that do not fit are passed over, so that fewer may come out where groups are large.
    """
    import numpy as np

    if count < len(candidates):
        own = strata[candidates]
        quota = _proportional(own, count, rng)
        if len(np.unique(groups[candidates])) == len(candidates):
            picked = [
                rng.choice(candidates[own == stratum], number, replace=False) for stratum, number in quota.items()
            ]
            candidates = np.concatenate(picked)
        else:
            candidates = np.array(_whole_groups(candidates, groups, strata, quota=quota, rng=rng), np.int64)
    return rng.permutation(candidates)


def _whole_groups(
    candidates: Array, groups: Labels, strata: Labels, *, quota: dict[int, int], rng: np.random.Generator
) -> list[int]:
    members: dict[int, list[int]] = {}
    for index in candidates.tolist():
        members.setdefault(int(groups[index]), []).append(index)
    numbers = rng.permutation(list(members)).tolist()
    left = sum(quota.values())
    taken: list[int] = []
    passed: list[list[int]] = []
    for unit in (members[number] for number in numbers):
        stratum = int(strata[unit[0]])
        if len(unit) <= quota[stratum]:
            quota[stratum] -= len(unit)
            taken += unit
        else:
            passed.append(unit)
    for unit in passed:
        if len(unit) <= left - len(taken):
            taken += unit
    return taken


def _proportional(strata: Labels, count: int, rng: np.random.Generator) -> dict[int, int]:
    """How many of `count` fall to each stratum: by largest remainder, ties by chance."""
    import numpy as np

    present, sizes = np.unique(strata, return_counts=True)
    quota, remainder = np.divmod(sizes * count, len(strata))
    order = np.lexsort((rng.random(len(present)), -remainder))
    quota[order[: count - int(quota.sum())]] += 1
    return {int(stratum): int(number) for stratum, number in zip(present, quota, strict=True)}


def strata_of(records: Records) -> Labels:
    """What draws keep in proportion: the class; the combination of labels; nothing for values."""
    import numpy as np

    if records.task == "classes":
        return records.labels
    if records.task == "labels":
        found: Labels = np.unique(records.labels, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
        return found
    return np.zeros(len(records), np.int64)
