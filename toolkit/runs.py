"""A run's directory and its manifest: the one record that report, compare and deploy read.

    RUN/manifest.json  recipe.toml  extends/  log.txt  report.html  artifacts/  samples/

The manifest is written by temporary file and `os.replace` after each stage, so that a crash leaves a valid one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from toolkit.checks.changed import Changed
from toolkit.checks.coverage import CalibrationCheck
from toolkit.checks.details import Details
from toolkit.checks.diagnosis import Diagnosis
from toolkit.checks.equivalence import Equivalence
from toolkit.checks.inputs import InputsCheck
from toolkit.checks.speed import Speed
from toolkit.core import Artifact, Measurement, Scheme, Signature, TensorSpec, Verdict
from toolkit.digest import file_sha256
from toolkit.errors import InputError, UnavailableError
from toolkit.manifest_versions import SCHEMA, upgraded

SUSTAINED = "sustained"  # before "@" and a device, in the record of its runs without pause


@dataclass(frozen=True)
class StageRecord:
    """One stage that ran. changes: [{layer, before, after, reason}]; curves: name -> value per epoch."""

    name: str  # "original", "01-prune", "phone.02-quantize", "phone.tflite"
    use: str  # registry name: "prune", "tflite", ...
    kind: Literal["source", "pass", "export", "check"]
    parent: str  # name of the stage or artifact it worked on, "" for the source
    key: str  # content hash of inputs, parameters, seed and versions
    parameters: dict[str, Any]
    seconds: float
    reused: bool = False
    same_graph: bool = False  # a pass that only set what exporters must realise
    files: dict[str, str] = field(default_factory=dict)  # path relative to the run -> sha256
    changes: tuple[dict[str, str], ...] = ()
    curves: dict[str, tuple[float, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArtifactRecord:
    """One delivered file. stage: the stage its model came from; path: relative to the run directory."""

    name: str  # "phone.tflite"
    variant: str
    stage: str
    path: str
    format: str
    scheme: Scheme
    size_bytes: int
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...] = ()
    pixels: bool = False  # it takes uint8 pixels as decoded

    def artifact(self, folder: Path) -> Artifact:
        """The file, in the run directory `folder`."""
        return Artifact(
            name=self.name,
            path=folder / self.path,
            format=self.format,
            scheme=self.scheme,
            size_bytes=self.size_bytes,
            sha256=self.sha256,
            signature=Signature(self.inputs, self.outputs),
            notes=self.notes,
            pixels=self.pixels,
        )


@dataclass(frozen=True)
class DataRecord:
    """One split: how many images, of what, in which order (the fingerprint)."""

    split: str
    images: int
    fingerprint: str
    source: str
    per_class: tuple[int, ...] = ()
    name: str = ""  # of the sample: "calibration: 200 of train, seed 0"
    ids: str = ""  # file in the run directory that lists its images


@dataclass(frozen=True)
class LeftOutRecord:
    """Images that no split got. reason: "unreadable" (names say why), "elsewhere" or "equal" (see LeftOut)."""

    source: str
    reason: str
    images: int
    names: tuple[str, ...]  # the first of them; samples/left-out.json has all


@dataclass(frozen=True)
class DiagnosisRecord:
    """A file's diagnosis. sha256: of that file; asked: (images, sensitivity), so that --resume knows what it has."""

    sha256: str
    asked: tuple[int, bool]
    diagnosis: Diagnosis


@dataclass(frozen=True)
class RepairTrial:
    """One rung's try. use, parameters: the pass that was carried out, "" where it was not, for `reason`.

    loss: of the score on the selection split, against the original; agreement, sqnr_db: beside it. latency_ms: where a
    budget asks for it, measured here. All of the variant's worst file; size_bytes of all its files.
    """

    rung: str
    change: str
    use: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    outcome: Literal["PASS", "FAIL", "INCONCLUSIVE", "NOT TRIED"] = "NOT TRIED"
    reason: str = ""
    loss: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    size_bytes: int | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class RepairRecord:
    """A variant's ladder on the selection split. trials: the first is as the recipe has it. chosen: what stays."""

    variant: str
    key: str
    trials: tuple[RepairTrial, ...]
    chosen: int


@dataclass(frozen=True)
class Manifest:
    """Everything a run found out.

    per_class: subject -> [{correct, total}] in the order of `classes`. details: subject -> what its pictures need.
    changed: test images that files decide otherwise than the original.
    """

    name: str
    status: Literal["running", "done", "failed"]
    started: str  # ISO 8601, UTC
    recipe: dict[str, Any]  # resolved: defaults and overrides filled in
    seed: int
    host: dict[str, Any]  # cpu, cores, memory, system, python
    versions: dict[str, str]  # package -> version
    invocation: dict[str, Any] = field(default_factory=dict)  # recipe path and options, for --resume
    schema: int = SCHEMA
    error: str = ""
    seconds: float = 0.0
    outcome: Literal["PASS", "FAIL", "INCONCLUSIVE", "NO GATE", ""] = ""
    classes: tuple[str, ...] = ()
    data: tuple[DataRecord, ...] = ()
    left_out: tuple[LeftOutRecord, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    artifacts: tuple[ArtifactRecord, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    per_class: dict[str, tuple[dict[str, int], ...]] = field(default_factory=dict)
    details: dict[str, Details] = field(default_factory=dict)
    diagnoses: dict[str, DiagnosisRecord] = field(default_factory=dict)
    repairs: dict[str, RepairRecord] = field(default_factory=dict)
    equivalence: Equivalence | None = None  # None too where a run is older than it
    calibrations: dict[str, CalibrationCheck] = field(default_factory=dict)
    inputs: InputsCheck | None = None  # whether the images come as the model was trained on
    speeds: tuple[Speed, ...] = ()
    warnings: tuple[str, ...] = ()
    changed: Changed | None = None


class Run:
    """A run directory and the only writer of its manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    @classmethod
    def create(cls, folder: Path, manifest: Manifest, recipe: bytes, bases: Sequence[tuple[str, bytes]] = ()) -> Run:
        """A new directory; InputError if there is something in it already. recipe, bases: as of `keep_recipe`."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(str(folder), "already exists and is not empty", "name a new folder, or --resume it")
        run = cls(folder, manifest)
        try:
            for part in ("artifacts", "samples"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            run.keep_recipe(recipe, bases)
        except OSError as error:
            raise UnavailableError(str(folder), f"cannot be written: {error.strerror}") from error
        run.update()
        return run

    def update(self, **changes: Any) -> None:
        """Replace fields of the manifest and write it."""
        self.manifest = replace(self.manifest, **changes)
        write_atomically(self.folder / "manifest.json", dump(self.manifest))

    def keep_recipe(self, recipe: bytes, bases: Sequence[tuple[str, bytes]]) -> None:
        """Byte copies of the recipe's file and of those it extends (name, bytes), in the place of an earlier run's."""
        write_atomically(self.folder / "recipe.toml", recipe)
        shutil.rmtree(self.folder / "extends", ignore_errors=True)
        for number, (name, text) in enumerate(bases, start=1):
            (self.folder / "extends").mkdir(exist_ok=True)
            write_atomically(self.folder / "extends" / f"{number}-{name}", text)

    def add_stage(self, stage: StageRecord) -> None:
        """Record a stage, in the place of an earlier one of the same name."""
        self.update(stages=(*(s for s in self.manifest.stages if s.name != stage.name), stage))

    def add_measurements(self, found: Iterable[Measurement]) -> None:
        """Record numbers, in the place of earlier ones of the same subject, name and device."""
        new = {(m.subject, m.name, m.device): m for m in found}
        kept = (m for m in self.manifest.measurements if (m.subject, m.name, m.device) not in new)
        self.update(measurements=(*kept, *new.values()))

    def order_devices(self, names: Sequence[str]) -> None:
        """Numbers of one device after those of the one before it, whichever was done first."""
        rank = {name: place for place, name in enumerate(names)}
        measurements = sorted(self.manifest.measurements, key=lambda m: rank.get(m.device, -1))
        self.update(measurements=tuple(measurements))

    def forget(self, subjects: Container[str]) -> None:
        """Drop every number about these subjects: what they were measured on is about to change.

        All files of a device are timed together, so that its timing goes with one of them, even where the file that
        comes is the same byte for byte.
        """
        devices = {m.device for m in self.manifest.measurements if m.subject in subjects}
        timed = {f"{what}@{device}" for what in ("latency", SUSTAINED) for device in devices}
        stages = tuple(s for s in self.manifest.stages if s.use != "latency" or s.name not in timed)
        kept = tuple(m for m in self.manifest.measurements if m.subject not in subjects)
        per_class = {name: counts for name, counts in self.manifest.per_class.items() if name not in subjects}
        details = {name: found for name, found in self.manifest.details.items() if name not in subjects}
        self.update(stages=stages, measurements=kept, per_class=per_class, details=details)

    def forget_latency(self, device: str) -> None:
        """Drop what was timed on a device, as a run that measures no latency must not judge an earlier one's."""
        timed = {s.name for s in self.manifest.stages if s.use == "latency" and s.name == f"latency@{device}"}
        kept = tuple(
            m for m in self.manifest.measurements if m.device != device or "samples" not in m.how or "minutes" in m.how
        )
        stages = tuple(s for s in self.manifest.stages if s.name not in timed)
        self.update(measurements=kept, stages=stages)

    def forget_sustained(self, device: str) -> None:
        """Drop what files took on a device when they were run without pause."""
        kept = tuple(m for m in self.manifest.measurements if m.device != device or "minutes" not in m.how)
        stages = tuple(s for s in self.manifest.stages if s.name != f"{SUSTAINED}@{device}")
        self.update(measurements=kept, stages=stages)

    def forget_device(self, device: str) -> None:
        """Drop every number got on a device, as those of an earlier run must not stand for one that failed."""
        kept = tuple(m for m in self.manifest.measurements if m.device != device)
        self.update(measurements=kept)

    def keep_only(self, names: Container[str]) -> None:
        """Drop stages, files and numbers of an earlier run that are no part of this one (check stages stay)."""
        stages = tuple(s for s in self.manifest.stages if s.name in names or (s.kind == "check" and s.parent in names))
        latency = tuple(s for s in self.manifest.stages if s.use == "latency")
        artifacts = tuple(a for a in self.manifest.artifacts if a.name in names)
        gone = {m.subject for m in self.manifest.measurements} - {
            m.subject for m in self.manifest.measurements if m.subject in names
        }
        self.update(stages=(*stages, *latency), artifacts=artifacts, equivalence=None)
        self.forget(gone)

    def reusable(self, name: str, key: str) -> StageRecord | None:
        """The finished stage of this name and key, if its files are still what they were."""
        stage = next((s for s in self.manifest.stages if s.name == name and s.key == key), None)
        if stage and all(_is(self.folder / path, digest) for path, digest in stage.files.items()):
            return replace(stage, reused=True)
        return None


def dump(manifest: Manifest) -> bytes:
    """The manifest as JSON; numbers as `plain` has them."""
    return json.dumps(plain(asdict(manifest)), indent=1, allow_nan=False).encode() + b"\n"


def read(folder: Path) -> Manifest:
    """The manifest of a run directory, also an earlier Edgekit's; InputError if there is none or it is not one."""
    path = folder / "manifest.json" if folder.is_dir() else folder
    try:
        return TypeAdapter(Manifest).validate_json(upgraded(path.read_bytes(), str(path)))
    except FileNotFoundError:
        raise InputError(str(folder), "holds no manifest.json", "name a directory that `edgekit run` made") from None
    except (OSError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        place = ".".join(map(str, first["loc"]))
        raise InputError(str(path), f"is not a manifest of schema {SCHEMA}: {place} {first['msg']}") from error


def new_folder(name: str, parent: Path = Path("runs")) -> Path:
    """`runs/<UTC time>_<name>`, with a number behind it where that is taken."""
    stem = f"{datetime.now(UTC):%Y%m%d-%H%M%S}_{name}"
    candidates = (parent / (stem if n == 1 else f"{stem}_{n}") for n in range(1, 1000))
    return next(path for path in candidates if not path.exists())


def content_key(*parts: Any) -> str:
    """Hash of anything JSON can hold; the same for the same content whatever the order of keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def content_sha256(path: Path) -> str:
    """Of a file its hash; of a folder that of the names and hashes of all its files."""
    if not path.is_dir():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = (f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, flush, then replace; on an error the old file stays."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        fix = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another folder"
        raise UnavailableError(str(path), f"cannot be written: {error.strerror}", fix) from error


def make_folder(path: Path) -> None:
    """A folder that is there afterwards; InputError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(str(path), f"cannot be made: {error.strerror}", "choose another folder") from error


def remove_scratch(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _is(path: Path, digest: str) -> bool:
    return path.exists() and content_sha256(path) == digest


def plain(value: Any) -> Any:
    """JSON-able: infinities and NaN as the strings "Infinity", "-Infinity", "NaN"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
