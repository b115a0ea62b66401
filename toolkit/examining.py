"""Where data and model meet: whether images come as the model was trained on, said as warnings. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import runs
from toolkit.checks.inputs import InputsCheck, images_for
from toolkit.core import Artifact, Kind, Meaning, Model, Progress
from toolkit.errors import EdgekitError
from toolkit.executor import Executor

if TYPE_CHECKING:
    from toolkit.datasets.splits import Splits
    from toolkit.datasets.stream import Split

Emit = Callable[[Progress], None]
PACKAGES = ("edgekit", "keras", "tensorflow")


def of_run(run: runs.Run, executor: Executor, model: Path, splits: Splits, emit: Emit) -> None:
    """Look at the original and the images it gets, never those that judge; the manifest keeps what was found."""
    data = splits.selection or splits.calibration or splits.train
    if data is None:
        run.update(inputs=None)
        return
    versions = {name: run.manifest.versions.get(name) for name in PACKAGES}
    key = runs.content_key("inputs", runs.content_sha256(model), data.fingerprint, versions)
    found = run.manifest.inputs if run.manifest.inputs and run.manifest.inputs.key == key else None
    if found is None:
        found = looked_at(executor, model, data, folder=run.folder / "scratch", emit=emit)
    warnings = tuple(str(finding) for finding in found.findings) if found else ()
    for warning in warnings:
        emit(Progress(f"warning: {warning}", keep=True))
    run.update(inputs=found and replace(found, key=key), warnings=(*run.manifest.warnings, *warnings))


def of_file(artifact: Artifact, head: Meaning, data: Split, folder: Path, emit: Emit) -> InputsCheck | None:
    """The same for `eval` of a .tflite or .onnx file, on this machine."""
    if artifact.format not in ("tflite", "onnx"):
        return None
    first, *others = artifact.signature.outputs
    signature = replace(artifact.signature, outputs=(replace(first, meaning=head), *others))
    kind: Kind = "tflite" if artifact.format == "tflite" else "onnx"
    with Executor(folder / "log.txt", emit) as executor:
        model = Model(kind, artifact.path.absolute(), signature)
        return looked_at(executor, model, data, folder=folder, emit=emit, key="--preprocess")


def looked_at(
    executor: Executor,
    model: Path | Model,
    data: Split,
    *,
    folder: Path,
    emit: Emit,
    key: str = "data.preprocess",
) -> InputsCheck | None:
    """What is found on the first images of a split; None where the model takes no image, or cannot be run on them,
    which is said in the log.

    model: where it rests, or a .tflite or .onnx file as a core.Model. key: of the preprocessing, for what to set.
    """
    import numpy as np

    from toolkit.sources import store

    contract = store.read_contract(model) if isinstance(model, Path) else model
    if not _fits(contract):
        return None
    count = min(len(data), images_for(*_size(contract, data)))
    emit(Progress(f"looking at {count} images as the model gets them", keep=True))
    paths = folder / "images.npy", folder / "labels.npy"
    try:
        floats = data.is_float()
        batch = next(iter((data if floats else data.pixels()).batches(count)))
        images = np.asarray(next(iter(batch.inputs.values())), np.float32 if floats else np.uint8)
        folder.mkdir(parents=True, exist_ok=True)
        for path, array in zip(paths, (images, np.asarray(batch.targets["label"])), strict=True):
            np.save(path, array)
        found: InputsCheck = executor.call(
            "examine", model=model, preprocessing=data.preprocessing, images=paths[0], labels=paths[1], key=key
        )
    except EdgekitError as error:
        emit(Progress(f"the inputs were not looked at: {error}", keep=True))
        return None
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
    return found


def _fits(contract: Model) -> bool:
    """Whether a model takes images, and nothing beside them."""
    inputs = contract.signature.inputs
    return len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].dtype != "uint8"


def _size(contract: Model, data: Split) -> tuple[int, int]:
    size = data.preprocessing.size
    if size is None:
        sides = [side for side in contract.signature.inputs[0].shape[1:] if side and side > 4]
        size = (sides[0], sides[-1]) if sides else (224, 224)
    return size
