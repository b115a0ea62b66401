"""One look at every image before anything is drawn: is it whole, and which others is it equal to.

Several threads read, hash and look at the images, so that the bytes are read once for all three. Images that cannot be
read are left out, counted and named; a share of them above the limit is an error.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from toolkit.core import Records
from toolkit.datasets.stream import cpu_count
from toolkit.datasets.whole import Finding, look
from toolkit.errors import InputError
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array

_CHUNK = 64  # images handed to a thread at once, so that handing over costs nothing


class CensusSpec(Component):
    """What is expected of the images as a whole: the keys `max_corrupt` and `verify` of [data]."""

    max_corrupt: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Largest share of images that may be unreadable; they are left out, and named in the run's record."""
    verify: Literal["structure", "decode"] = "structure"
    """How images are looked at beforehand: by the structure of the file (quick), or by decoding every one."""


@dataclass(frozen=True)
class Census:
    """digests: sha256 of each record's content, b"" for those in `corrupt`, index -> reason. animated: how many."""

    digests: tuple[bytes, ...]
    corrupt: dict[int, str]
    animated: int = 0

    def named(self, records: Records) -> tuple[str, ...]:
        """Each corrupt record as `id: reason`."""
        return tuple(f"{records.ids[index]}: {reason}" for index, reason in sorted(self.corrupt.items()))


def take_census(records: Records, indexes: Sequence[int], spec: CensusSpec | None = None) -> Census:
    """Look at these records; InputError when too many of them cannot be read."""
    from concurrent.futures import ThreadPoolExecutor

    spec, known = spec or CensusSpec(), records.faults()
    full = spec.verify == "decode"

    def seen(chunk: Sequence[int]) -> list[tuple[bytes, Finding]]:
        return [_seen(records, index, known.get(index, ""), full=full) for index in chunk]

    chunks = [indexes[start : start + _CHUNK] for start in range(0, len(indexes), _CHUNK)]
    with ThreadPoolExecutor(cpu_count()) as threads:
        found = [item for part in threads.map(seen, chunks) for item in part]
    digests = [b""] * len(records)
    for index, (digest, _) in zip(indexes, found, strict=True):
        digests[index] = digest
    corrupt = {index: finding.reason for index, (_, finding) in zip(indexes, found, strict=True) if finding.reason}
    census = Census(tuple(digests), corrupt, sum(finding.animated for _, finding in found))
    if len(corrupt) > spec.max_corrupt * len(indexes):
        raise _too_many(records, census, len(indexes), spec.max_corrupt)
    return census


def _seen(records: Records, index: int, fault: str, *, full: bool) -> tuple[bytes, Finding]:
    if fault:
        return b"", Finding(fault)
    try:
        content = records.content(index)
    except InputError as error:
        return b"", Finding(error.problem)
    finding = look(content, records.ids[index], full=full) if records.encoded else Finding()
    return (b"" if finding.reason else hashlib.sha256(content).digest()), finding


def _too_many(records: Records, census: Census, among: int, limit: float) -> InputError:
    names, count = census.named(records), len(census.corrupt)
    some = "; ".join(names[:3]) + (f"; and {count - 3} more" if count > 3 else "")
    problem = f"{count} of {among} images cannot be read, more than {limit:.4g} of them: {some}"
    return InputError(records.source, problem, "replace or remove them, or raise data.max_corrupt")


# ---------------------------------------------------------------- what every dataset promises


def checked(records: Records) -> Records:
    """The records, or InputError where their parts do not fit each other (a dataset may be anyone's)."""
    import numpy as np

    count, where = len(records.ids), records.source
    labels = np.asarray(records.labels)
    if not count:
        raise InputError(where, "holds no images")
    for name, length in (("labels", len(labels)), ("subsets", len(records.subsets))):
        if length != count:
            raise InputError(where, f"gives {count} ids but {length} {name}")
    if records.groups and len(records.groups) != count:
        raise InputError(where, f"gives {count} ids but {len(records.groups)} groups")
    if len(set(records.ids)) != count:
        twice = next(name for name, times in Counter(records.ids).items() if times > 1)
        raise InputError(where, f"two images have the id {twice!r}", "give each image a name of its own")
    return replace(records, labels=_checked_labels(labels, records))


def _checked_labels(labels: Array, records: Records) -> Array:
    import numpy as np

    where, columns = records.source, len(records.classes)
    if records.task == "classes":
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or np.any((labels < 0) | (labels >= columns)):
            raise InputError(where, f"labels are not indexes of its {columns} classes")
        return labels.astype(np.int64)
    if labels.ndim != 2 or labels.shape[1] != columns:
        raise InputError(where, f"labels have shape {labels.shape}, not a column for each of {columns} names")
    if records.task == "labels":
        if not np.all((labels == 0) | (labels == 1)):
            raise InputError(where, "labels are not 0 or 1")
        return labels.astype(np.uint8)
    if not np.all(np.isfinite(labels)):
        row = int(np.flatnonzero(~np.isfinite(labels).all(axis=1))[0])
        raise InputError(where, f"the values of {records.ids[row]!r} are NaN or infinite")
    return labels.astype(np.float32)
