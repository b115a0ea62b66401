"""What a run's manifest says of its splits, and the lists of their images beside it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from toolkit import runs

if TYPE_CHECKING:
    from toolkit.datasets.splits import Splits
    from toolkit.datasets.stream import Split

SOME = 50  # names of left-out images in the manifest itself


def keep(run: runs.Run, splits: Splits) -> None:
    """Record every split, what was left out and why, the classes and the warnings."""
    records = tuple(_record(run, split) for split in splits.present())
    left_out = tuple(
        runs.LeftOutRecord(left.source, left.reason, len(left.names), left.names[:SOME]) for left in splits.left_out
    )
    if splits.left_out:
        _list(run, "left-out", [asdict(left) for left in splits.left_out])
    run.update(data=records, left_out=left_out, classes=tuple(splits.test.classes), warnings=tuple(splits.warnings))


def _record(run: runs.Run, split: Split) -> runs.DataRecord:
    """What the manifest says of a split; its images are listed in a file beside."""
    content = {"name": split.drawn, "fingerprint": split.fingerprint, "ids": split.ids}
    return runs.DataRecord(
        split=split.name,
        images=len(split),
        fingerprint=split.fingerprint,
        source=split.source,
        per_class=split.per_class,
        name=split.drawn,
        ids=_list(run, split.name, content),
    )


def _list(run: runs.Run, name: str, content: Any) -> str:
    """Write what a split holds to the run's samples/; the path from the run directory."""
    path = run.folder / "samples" / f"{name}.json"
    runs.write_atomically(path, json.dumps(content, indent=0, ensure_ascii=False).encode("utf-8", "backslashreplace"))
    return path.relative_to(run.folder).as_posix()
