"""Reference images and what a file answers to them: how a device is seen to compute what this machine computes.

The images are smooth fields of color drawn from a hash, so that no image of the user's leaves the machine with a file.
Integer kernels differ in rounding: XNNPACK's answers and those of the built-in kernels are both kept, and a device is
held against the nearer ones. Made once for a run and kept in its `samples/`, so that bundles reproduce byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from toolkit.contract import Contract
from toolkit.core import Artifact, Meaning, Progress, Records, Scheme, TensorSpec
from toolkit.devices import load_device, open_session
from toolkit.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from toolkit.checks.inference import Answer
    from toolkit.core import Array

SCHEMA: Literal[1] = 1
FILE = "reference.json"
FEWEST, MOST, ROOM = 4, 16, 256 * 1024  # images, and bytes of them in a bundle where that is more than the fewest
FIELDS = (3, 5, 8, 12)  # patches along a side of each image: from broad areas to fine texture
SIDE = 64  # pixels, of a file that takes images of any size
# Least SQNR of a device's answers. Of floats, two sets of kernels gave 115 dB and more on the networks tried
# (ResNet8, ResNet20, MobileNetV1 0.25); of int8 15.6 dB and more, where an image upside down gives 9.2 dB at most.
FLOAT_DB, INTEGER_DB = 40.0, 12.0
FLOATS = ("float32", "float16", "weight_int8", "weight_int4")  # what computes in floats
# what else can compute a format's files on this machine: delegates beside the profile's first
OTHER_KERNELS = {"tflite": ("none",)}


@dataclass(frozen=True)
class Answers:
    """What one set of kernels answered. files: output -> .npy of float32, a row for each image."""

    runtime: str
    version: str
    delegate: str
    kernel_path: str
    files: dict[str, str]


@dataclass(frozen=True)
class Reference:
    """Images and answers of one file. sha256: of that file. machine: the processor's architecture."""

    schema: Literal[1]
    sha256: str
    machine: str
    images: tuple[str, ...]
    answers: tuple[Answers, ...]
    least_sqnr_db: float

    @property
    def files(self) -> tuple[str, ...]:
        """Every file beside `reference.json`."""
        return (*self.images, *(name for answers in self.answers for name in answers.files.values()))


@dataclass(frozen=True)
class Smoke:
    """A device's answers beside the nearest reference ones. sqnr_db: infinite where all are the same.

    differing, values: how many of all numbers are not the same to the bit. decisions: images decided alike, None of a
    file that decides nothing.
    """

    passed: bool
    sqnr_db: float
    least_sqnr_db: float
    differing: int
    values: int
    largest: float
    decisions: int | None
    images: int
    nearest: str
    kernel_path: str
    version: str

    def line(self) -> str:
        """In words."""
        close = "the same to the bit" if not self.differing else f"SQNR {self.sqnr_db:.1f} dB"
        differ = f"{self.differing} of {self.values} values differ, at most by {self.largest:.3g}"
        decided = "" if self.decisions is None else f"; decided alike on {self.decisions} of {self.images} images"
        kernels = f"{self.kernel_path} there, {self.nearest} here"
        return f"{close}; {differ}{decided} ({kernels}; {self.least_sqnr_db:g} dB are needed)"


def kept(run: Path, artifact: Artifact, contract: Contract, emit: Callable[[Progress], None]) -> dict[str, bytes]:
    """The reference of a run's file, by name: as it was kept in the run, or made and kept there."""
    folder = run / "samples" / f"{artifact.name}.reference"
    if (folder / FILE).is_file() and read(folder).sha256 == artifact.sha256:
        return {name: (folder / name).read_bytes() for name in (FILE, *read(folder).files)}
    emit(Progress(f"computing what {artifact.name} answers to reference images", keep=True))
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        made = make(artifact, contract, Path(scratch) / "reference")
        found = {name: (Path(scratch) / "reference" / name).read_bytes() for name in (FILE, *made.files)}
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in sorted(found, key=FILE.__eq__):  # that file last: with it the folder is whole
            (folder / name).write_bytes(found[name])
    except OSError as error:
        words = f"{folder} cannot be written ({error.strerror}): a later bundle of this run may differ"
        emit(Progress(f"warning: {words}", keep=True))
        shutil.rmtree(folder, ignore_errors=True)
    return found


def make(artifact: Artifact, contract: Contract, folder: Path) -> Reference:
    """Draw the images, run the file on them here with every set of kernels there is, and write both."""
    import numpy as np

    from toolkit.checks import inference

    folder.mkdir(parents=True)
    images = _draw(contract, folder)
    here = load_device("this-machine")
    runtime = here.runtime_for(artifact.format, artifact.scheme)
    delegates = dict.fromkeys((*(runtime.delegates[:1] or ("none",)), *OTHER_KERNELS.get(artifact.format, ())))
    answers = []
    with closing(open_session(here)) as session, tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        prepared = inputs(artifact, contract, [folder / name for name in images], Path(scratch))
        for delegate in delegates:
            found = inference.run(
                artifact,
                session,
                runtime=runtime.use,
                delegate=delegate,
                prepared=prepared,
                folder=Path(scratch) / delegate,
                threads=1,
            )
            files = {name: f"{delegate}-{i}.npy" for i, name in enumerate(found.outputs)}
            for name, file in files.items():
                np.save(folder / file, found.outputs[name])
            version = found.versions.get(runtime.use, "")
            answers.append(Answers(runtime.use, version, delegate, found.kernel_path, files))
    made = Reference(
        SCHEMA, artifact.sha256, platform.machine(), images, tuple(answers), least_sqnr_db(artifact.scheme)
    )
    (folder / FILE).write_bytes(json.dumps(asdict(made), indent=1).encode() + b"\n")
    return made


def least_sqnr_db(scheme: Scheme) -> float:
    """How near answers must be: floats are the same but for rounding, integers as kernels round them."""
    return FLOAT_DB if scheme in FLOATS else INTEGER_DB


def read(folder: Path) -> Reference:
    """What `make` wrote; InputError if it is not that."""
    try:
        found = TypeAdapter(Reference).validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(str(folder / FILE), "cannot be read as a reference of schema 1", "make it anew") from error
    for name in found.files:
        if Path(name).name != name or name.startswith("."):
            raise InputError(str(folder / FILE), f"names a file elsewhere, {name!r}", "make it anew")
    return found


def inputs(artifact: Artifact, contract: Contract, images: Sequence[Path], folder: Path) -> Mapping[str, Path]:
    """Images as the file takes them, in .npy files by name of input: preprocessed by its own contract."""
    import numpy as np

    from toolkit.checks import inference
    from toolkit.datasets.images import decode
    from toolkit.datasets.stream import Split

    first, names = artifact.signature.inputs[0], tuple(path.name for path in images)
    n, *others = first.shape
    shape = (n, others[1], others[2], others[0]) if first.layout == "NCHW" else first.shape
    records = Records(
        source="reference images",
        ids=names,
        labels=np.zeros(len(names), np.int64),
        subsets=("",) * len(names),
        classes=contract.classes,
        read=lambda i: decode(images[i].read_bytes(), names[i]),
        content=lambda i: images[i].read_bytes(),
    )
    split = Split("reference", records, range(len(names)), contract.preprocess().resolve(shape), input_name=first.name)
    spec = TensorSpec(first.name, shape, "uint8" if artifact.pixels else "float32", "image", "NHWC")
    return inference.prepare(split.pixels() if artifact.pixels else split, (spec,), folder).paths


def compare(found: Answer, reference: Reference, folder: Path, *, head: Meaning, version: str) -> Smoke:
    """A device's answers, and the nearest of the reference's. folder: where the reference's files lie."""
    import numpy as np

    best: Smoke | None = None
    for answers in reference.answers:
        expected = {name: np.load(folder / file, allow_pickle=False) for name, file in answers.files.items()}
        if {name: array.shape for name, array in expected.items()} != {n: a.shape for n, a in found.outputs.items()}:
            raise InputError(FILE, "has other outputs than the file", "make the bundle anew")
        differences = {name: np.abs(found.outputs[name] - array) for name, array in expected.items()}
        worst = min(_sqnr_db(array, found.outputs[name]) for name, array in expected.items())
        first = next(iter(expected))
        here, there = (_decisions(outputs[first], head) for outputs in (expected, found.outputs))
        smoke = Smoke(
            passed=worst >= reference.least_sqnr_db,
            sqnr_db=worst,
            least_sqnr_db=reference.least_sqnr_db,
            differing=sum(int(np.count_nonzero(array)) for array in differences.values()),
            values=sum(array.size for array in differences.values()),
            largest=max(float(array.max()) for array in differences.values()),
            decisions=None if here is None or there is None else int(np.count_nonzero(here == there)),
            images=len(reference.images),
            nearest=f"{answers.runtime} {answers.version}, {answers.kernel_path}",
            kernel_path=found.kernel_path,
            version=version,
        )
        best = smoke if best is None or smoke.sqnr_db > best.sqnr_db else best
    if best is None:
        raise InputError(FILE, "holds no answers", "make the bundle anew")
    return best


def as_dict(smoke: Smoke) -> dict[str, Any]:
    """JSON-able: of equal answers the SQNR is None."""
    return {**asdict(smoke), "sqnr_db": smoke.sqnr_db if math.isfinite(smoke.sqnr_db) else None}


def _sqnr_db(expected: Array, found: Array) -> float:
    """10 log10 of the energy of the signal over that of the difference."""
    import numpy as np

    noise = float(np.square(found.astype(np.float64) - expected).sum())
    signal = float(np.square(expected.astype(np.float64)).sum())
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _decisions(outputs: Array, head: Meaning) -> Array | None:
    """The class of the largest score, or which side of the limit one score is on; None for what decides nothing."""
    rows = outputs.reshape(len(outputs), -1)
    if head not in ("logits", "softmax", "sigmoid"):
        return None
    decided: Array = rows.argmax(axis=1) if rows.shape[1] > 1 else rows[:, 0] > (0 if head == "logits" else 0.5)
    return decided


def _draw(contract: Contract, folder: Path) -> tuple[str, ...]:
    """The images as .bmp, which no compressor's version changes; InputError for a file that takes no image."""
    from PIL import Image

    first = contract.inputs[0]
    if len(contract.inputs) != 1 or len(first.shape) != 4:
        problem = f"takes {len(contract.inputs)} inputs, the first of shape {first.shape}"
        raise UnsupportedError(contract.file, problem, "reference images are for files of one image input")
    rows, columns = first.shape[2:] if first.layout == "NCHW" else first.shape[1:3]
    height, width = contract.preprocessing.size or (rows or SIDE, columns or SIDE)
    channels = 1 if contract.preprocessing.color == "gray" else 3
    count = max(FEWEST, min(MOST, ROOM // (height * width * channels)))
    names = tuple(f"{i}.bmp" for i in range(count))
    for i, name in enumerate(names):
        pixels = field(i, height, width, channels)
        picture, content = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels), io.BytesIO()
        picture.save(content, "BMP")
        (folder / name).write_bytes(content.getvalue())
    return names


def field(index: int, height: int, width: int, channels: int) -> Array:
    """Image `index`, uint8: random colors at the corners of patches, linear between them, in whole numbers alone."""
    import numpy as np

    patches = FIELDS[index % len(FIELDS)]
    size = (patches + 1) ** 2 * channels
    blocks = (hashlib.sha256(f"edgekit reference {index} {i}".encode()).digest() for i in range(size // 32 + 1))
    corners = np.frombuffer(b"".join(blocks)[:size], np.uint8).reshape(patches + 1, patches + 1, channels)
    along = [_between(length, patches) for length in (height, width)]
    (top, down), (left, right) = along
    grid, down, right = corners.astype(np.int64), down[:, None, None], right[None, :, None]
    upper = grid[top][:, left] * (256 - right) + grid[top][:, left + 1] * right
    lower = grid[top + 1][:, left] * (256 - right) + grid[top + 1][:, left + 1] * right
    pixels: Array = ((upper * (256 - down) + lower * down) >> 16).astype(np.uint8)
    return pixels


def _between(length: int, patches: int) -> tuple[Array, Array]:
    """For each pixel the corner before it, and how far it is to the next, of 256."""
    import numpy as np

    place = np.arange(length, dtype=np.int64) * patches * 256 // length
    return place // 256, place % 256
