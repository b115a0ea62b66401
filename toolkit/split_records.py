"""What a run's manifest says of its splits, and the lists of their images beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolkit.core import Array, Batch, Task
    from toolkit.datasets.splits import Splits
    from toolkit.datasets.stream import Split

LABELS = "test.labels.npz"  # in samples/
SOME = 50  # names of left-out images in the manifest itself


def keep(run: runs.Run, splits: Splits) -> None:
    """Record every split, what was left out and why, the classes and the warnings."""
    records = tuple(_record(run, split) for split in splits.present())
    left_out = tuple(
        runs.LeftOutRecord(left.source, left.reason, len(left.names), left.names[:SOME]) for left in splits.left_out
    )
    if splits.left_out:
        _list(run, "left-out", [asdict(left) for left in splits.left_out])
    _labels(run, splits.test)
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


@dataclass(frozen=True)
class Labelled:
    """A run's test split as it was kept: all of a `core.Dataset` but its images."""

    name: str
    fingerprint: str
    classes: tuple[str, ...]
    labels: Array
    task: Task
    ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[Batch]:
        """None: the images are not kept."""
        return iter(())


def labelled(samples: Path, classes: tuple[str, ...]) -> Labelled | None:
    """The labels that a run's samples/ holds, None where it holds none."""
    import numpy as np

    path = samples / LABELS
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        task: Any = str(stored["task"])
        return Labelled("test", str(stored["fingerprint"]), classes, stored["labels"], task)


def _labels(run: runs.Run, split: Split) -> None:
    """Keep what the test images' answers are judged by, so that a run can be judged again."""
    import numpy as np

    held = BytesIO()
    np.savez_compressed(held, labels=np.asarray(split.labels), task=split.task, fingerprint=split.fingerprint)
    runs.write_atomically(run.folder / "samples" / LABELS, held.getvalue())


def _list(run: runs.Run, name: str, content: Any) -> str:
    """Write what a split holds to the run's samples/; the path from the run directory."""
    path = run.folder / "samples" / f"{name}.json"
    runs.write_atomically(path, json.dumps(content, indent=0, ensure_ascii=False).encode("utf-8", "backslashreplace"))
    return path.relative_to(run.folder).as_posix()
