"""The equivalence of a run's models, from the answers in its `samples/`: at its end, and for any earlier one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.checks.equivalence import Equivalence, Subject, compare
from toolkit.judging import EXAMPLE_IDS
from toolkit.kept import UNREADABLE
from toolkit.runs import ArtifactRecord, Manifest

if TYPE_CHECKING:
    from toolkit.core import Array

ANSWERS = "answers:"  # what a check stage that asked a model is called; then the model and, of a file, "@" its device
NOT_ASKED = ("estimated", "quoted")


def of_run(folder: Path, manifest: Manifest) -> Equivalence | None:
    """All pairs of what answered on the test images; None where less than two did, or their answers are gone."""
    heads = [record.outputs[0].meaning for record in manifest.artifacts if record.outputs]
    found = [subject for subject in _subjects(manifest) if _file(folder, subject).is_file()]
    if not heads:
        return None
    return compare(found, heads[0], lambda subject: _read(_file(folder, subject)))


def completed(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest with its equivalence, as far as the run directory of an earlier version still tells it."""
    if manifest.equivalence is not None or manifest.status != "done":
        return manifest
    return replace(manifest, equivalence=of_run(folder, manifest))


def model_of(manifest: Manifest, record: ArtifactRecord) -> str:
    """The stage that answers for a file's model: the last one before it that changed the graph."""
    stages = {stage.name: stage for stage in manifest.stages}
    name = record.stage
    while name in stages and stages[name].same_graph:
        name = stages[name].parent
    return name


def _subjects(manifest: Manifest) -> list[Subject]:
    """Models first, in the run's order, then files. A device that failed keeps no number, and its answers are old."""
    alive = list(dict.fromkeys(found.device for found in manifest.measurements if found.source not in NOT_ASKED))
    records = {record.name: record for record in manifest.artifacts}
    found = []
    for stage in manifest.stages:
        if stage.kind != "check" or not stage.name.startswith(ANSWERS):
            continue
        record = records.get(stage.parent)
        device = stage.name.removeprefix(ANSWERS + stage.parent).removeprefix("@")
        if record is None:
            found.append(Subject(stage.parent, runtime=stage.use))
        elif device in alive:
            found.append(Subject(stage.parent, device, stage.use, record.scheme, model_of(manifest, record)))
    places = {name: place for place, name in enumerate(records)}

    def order(each: Subject) -> tuple[int, int]:
        return (places[each.name], alive.index(each.device)) if each.device else (-1, 0)

    return sorted(found, key=order)


def _file(folder: Path, subject: Subject) -> Path:
    where = f"@{subject.device}" if subject.device else ""
    return folder / "samples" / f"{subject.name}{where}.answers.npz"


def _read(path: Path) -> Array | None:
    """The first output, as it is judged; None where the file is damaged, so that a report comes out all the same."""
    import numpy as np

    try:
        with np.load(path) as stored:
            outputs: Array = stored[next(name for name in stored.files if name != EXAMPLE_IDS)]
    except (*UNREADABLE, StopIteration):
        return None
    return outputs
