"""A split as arrays on disk, and an artifact's answers on it, by the worker, at the batch that was delivered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, BinaryIO

from toolkit.core import Artifact, Batch, Dataset, Progress, Session, TensorSpec
from toolkit.errors import InputError, StageError
from toolkit.parts import Emit, told_in, watching

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.datasets.stream import Split

BATCH = 64
FLOATS, PIXELS = "<f4", "|u1"  # float32 and uint8, as .npy headers name them
TIMEOUT_BASE_S = 120.0  # for starting and loading
BUILDING_S = 3600.0  # ... and for building an engine first: many minutes on a small Jetson
TIMEOUT_PER_IMAGE_S = 2.0  # slower than any network a device can use


@dataclass(frozen=True)
class Prepared:
    """Inputs as .npy files, NHWC, float32 or uint8, by input name. seconds: spent on decoding and preprocessing."""

    paths: Mapping[str, Path]
    images: int
    seconds: float


@dataclass(frozen=True)
class Answer:
    """Outputs by name, float32, first dimension the images. seconds_invoke: inside the interpreter alone."""

    outputs: Mapping[str, Array]
    seconds_invoke: float
    seconds_total: float
    kernel_path: str
    versions: Mapping[str, str]


def prepare(
    data: Dataset, inputs: Sequence[TensorSpec], folder: Path, watch: Callable[[int], None] = lambda images: None
) -> Prepared:
    """Decode and preprocess a split once, batch by batch: memory does not grow with the number of images.

    An input of type uint8 is written as that, any other as float32.
    watch: is told how many are done.
    Plain writes, so that a full disk is an OSError; through a memory map it would kill the process with SIGBUS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started, paths = perf_counter(), {spec.name: folder / f"input-{i}.npy" for i, spec in enumerate(inputs)}
    images = 0
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for batch in data.batches(BATCH):
            for spec in inputs:
                name, path = spec.name, paths[spec.name]
                dtype = PIXELS if spec.dtype == "uint8" else FLOATS
                if name not in batch.inputs:
                    raise InputError("data", f"has no input {name!r}", "name the data's inputs as the model does")
                if name not in files:
                    files[name] = stack.enter_context(path.open("wb"))
                    _header(files[name], (len(data), *batch.inputs[name].shape[1:]), dtype)
                _append(files[name], name, batch, dtype)
            images += len(batch.ids)
            watch(images)
    if images != len(data):
        raise InputError("data", f"gave {images} of its {len(data)} images", "read the data again from its source")
    return Prepared(paths, images, perf_counter() - started)


class OnDisk:
    """A split's inputs as arrays on disk, as a model takes them or as uint8 pixels, each prepared when first asked for.

    what: the split's name, for messages.
    """

    def __init__(  # what is prepared, where to, and who is told
        self, data: Split, inputs: Sequence[TensorSpec], folder: Path, *, what: str, emit: Callable[[Progress], None]
    ) -> None:
        self._data, self._inputs, self._folder, self._what, self._emit = data, inputs, folder, what, emit
        self._paths: dict[bool, Mapping[str, Path]] = {}

    def paths(self, *, pixels: bool = False) -> Mapping[str, Path]:
        """By input name. pixels: as decoded, for files that have the rest of the preprocessing inside."""
        if pixels not in self._paths:
            words = f"preparing {len(self._data)} {self._what} images{' as pixels' if pixels else ''}"
            self._emit(Progress(words, keep=True))
            data, folder = (self._data.pixels(), "pixels") if pixels else (self._data, "inputs")
            specs = [replace(spec, dtype="uint8") if pixels else spec for spec in self._inputs]

            def watch(images: int) -> None:
                self._emit(Progress(words, images / len(self._data)))

            self._paths[pixels] = prepare(data, specs, self._folder / folder, watch).paths
        return self._paths[pixels]


def _header(file: BinaryIO, shape: tuple[int, ...], dtype: str) -> None:
    import numpy as np

    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})


def _append(file: BinaryIO, name: str, batch: Batch, dtype: str) -> None:
    """One batch's rows; InputError, naming the image, for NaN or infinity, or for what is no pixel."""
    import numpy as np

    rows = np.ascontiguousarray(batch.inputs[name], dtype="<f4")
    if dtype == PIXELS:
        pixels = rows.astype(np.uint8)
        wrong = (pixels != rows).reshape(len(rows), -1).any(axis=1)
        if wrong.any():
            raise InputError(batch.ids[int(np.argmax(wrong))], f"input {name!r} is no uint8 pixels", "give images")
        file.write(pixels.data)
        return
    finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
        where = batch.ids[int(np.argmin(finite))]
        raise InputError(where, f"input {name!r} is NaN or infinite", "correct or remove this image")
    file.write(rows.data)


def run(
    artifact: Artifact,
    session: Session,
    *,
    runtime: str,
    delegate: str,
    prepared: Mapping[str, Path],
    folder: Path,
    threads: int,
    emit: Emit = lambda progress: None,
) -> Answer:
    """What a file answers, in the runtime it is delivered for. Raises StageError, naming the output, for NaN."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    images = int(np.load(next(iter(prepared.values())), mmap_mode="r").shape[0])
    names = [spec.name for spec in artifact.signature.outputs]
    remote = {name: f"{session.folder()}/{artifact.name}-{i}.npy" for i, name in enumerate(names)}
    job = {
        "kind": "eval",
        "runtime": runtime,
        "delegate": delegate,
        "threads": threads,
        "name": artifact.name,
        "model": session.push(artifact.path),
        "inputs": {name: session.push(path) for name, path in prepared.items()},
        "layouts": {spec.name: spec.layout for spec in artifact.signature.inputs},
        "outputs": remote,
    }
    loading = BUILDING_S if "tensorrt" in (runtime, delegate) else TIMEOUT_BASE_S
    told = told_in(Path(session.folder()) / "told")  # of a worker on this machine
    with watching(emit, f"{artifact.name}: answering {images} images", told):
        found = session.run(job, timeout_s=loading + TIMEOUT_PER_IMAGE_S * images)
    outputs = {}
    for i, name in enumerate(names):
        session.pull(remote[name], folder / f"output-{i}.npy")
        outputs[name] = np.load(folder / f"output-{i}.npy")
        bad = int(np.count_nonzero(~np.isfinite(outputs[name]).reshape(images, -1).all(axis=1)))
        if bad:
            raise StageError(artifact.name, f"output {name!r} is NaN or infinite for {bad} of {images} images")
    return Answer(outputs, found["seconds_invoke"], found["seconds_total"], found["kernel_path"], found["versions"])
