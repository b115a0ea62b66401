"""One delivered file with everything that its user needs, as an archive that reproduces byte for byte.

    NAME.bundle/
      bundle.json       what this is: hashes of all files, verdicts, measurements
      MODEL_CARD.md     for people
      phone.tflite  phone.tflite.json  labels.txt
      example_litert.py  example_tflite_runtime.py
      tflite-micro/     for a microcontroller: the file as a C array, its operators, its arena
      reference/        images, and what the file answers to them, for a smoke test on the device

A plain tar: names sorted, no times, no owners, and no compression, whose bytes depend on the compressor's version.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from toolkit import card as cards
from toolkit import compat, reference, runs
from toolkit.contract import Contract, contract_beside, contract_path
from toolkit.core import Artifact, Measurement, Progress, Scheme, Signature, TensorSpec, Verdict
from toolkit.devices import DeviceProfile, DeviceRuntime, load_device, safe_name
from toolkit.digest import file_sha256
from toolkit.errors import GateError, InputError, UnsupportedError
from toolkit.recipe_file import CardSection
from toolkit.recipe_reader import RESERVED
from toolkit.sample_code import program_of, runtimes_of, sample_code

SCHEMA: Literal[1] = 1
MANIFEST, CARD, LABELS = "bundle.json", "MODEL_CARD.md", "labels.txt"
REFERENCE = "reference"  # folder
MICRO = "tflite-micro"  # runtime whose programs hold the file, and folder of what they need
Emit = Callable[[Progress], None]


@dataclass(frozen=True)
class Bundle:
    """What an archive holds, as `bundle.json` says it. name: the recipe's. files: name -> sha256, all but this one."""

    schema: Literal[1]
    name: str
    artifact: str
    file: str
    format: str
    scheme: Scheme
    size_bytes: int
    sha256: str
    pixels: bool
    run: dict[str, Any]
    stated: dict[str, str]
    files: dict[str, str]
    verdicts: tuple[Verdict, ...]
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = ()

    def as_artifact(self, contract: Contract, path: Path) -> Artifact:
        """Its model file, at `path`."""
        ends = [
            tuple(TensorSpec(end.name, end.shape, end.dtype, end.meaning, end.layout) for end in ends)
            for ends in (contract.inputs, contract.outputs)
        ]
        signature = Signature(ends[0], ends[1])
        return Artifact(
            self.artifact, path, self.format, self.scheme, self.size_bytes, self.sha256, signature, pixels=self.pixels
        )


@dataclass(frozen=True)
class Packed:
    """A bundle in memory, with its archive's hash. folder: the one name at the archive's top; path: the run's file."""

    bundle: Bundle
    files: Mapping[str, bytes]
    folder: str
    archive: bytes
    sha256: str
    path: Path


@dataclass(frozen=True)
class Written:
    """An archive on disk."""

    path: Path
    packed: Packed

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        packed = self.packed
        facts = {"path": str(self.path), "sha256": packed.sha256, "size_bytes": len(packed.archive)}
        return {**facts, **asdict(packed.bundle)}

    def lines(self) -> Iterator[str]:
        """For people."""
        packed = self.packed
        yield f"{self.path}  {len(packed.archive):,} bytes  sha256 {packed.sha256}"
        yield from (f"  {name}  {len(content):,}" for name, content in sorted(packed.files.items()))
        yield from (f"note: {note}" for note in packed.bundle.notes)


def bundle(
    run: Path,
    artifact: str | None = None,
    *,
    device: str | None = None,
    out: Path | None = None,
    card: Sequence[str] = (),
    allow_failed: bool = False,
    emit: Emit = lambda progress: None,
) -> Written:
    """Write a run's file with all that belongs to it as an archive. device: whose gates count, where it is for one.

    Raises GateError for a file with a failed gate, unless `allow_failed`.
    """
    profile = load_device(device) if device else None
    packed = pack(run, artifact, profile=profile, card=card, allow_failed=allow_failed, emit=emit)
    path = (
        out or (run if run.is_dir() else run.parent) / "bundles" / f"{packed.bundle.artifact}-{packed.sha256[:12]}.tar"
    )
    if path.is_dir():
        raise InputError(str(path), "is a folder", "name a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(str(path.parent), f"cannot be made: {error.strerror}", "give --out") from error
    runs.write_atomically(path, packed.archive)
    return Written(path, packed)


def pack(
    run: Path,
    artifact: str | None,
    *,
    profile: DeviceProfile | None,
    card: Sequence[str],
    allow_failed: bool,
    emit: Emit,
) -> Packed:
    """Everything of one file of a finished run; see `bundle`."""
    manifest = runs.read(run)
    folder = run if run.is_dir() else run.parent
    if manifest.status != "done":
        raise InputError(str(run), f"is no finished run: {manifest.status}", f"edgekit run --resume {folder}")
    record = chosen(manifest, artifact, profile)
    failed = require_passed(manifest, record, profile, allow_failed=allow_failed)
    found = record.artifact(folder)
    contract = _whole(manifest, folder, record, found)
    said = cards.stated(manifest, card)
    files = _for_device(found, profile) if profile else {}
    files |= _files(found, contract, reference.kept(folder, found, contract, emit))
    programs = sorted(name for name in files if name.endswith(".py"))
    files[CARD] = cards.model_card(manifest, record, contract, said, programs).encode()
    notes = [f"delivered although it failed {verdict.gate} on {verdict.device}" for verdict in failed]
    verdicts = verdicts_for(manifest, record, profile)
    unsettled = dict.fromkeys(f"{v.gate} on {v.device}" for v in verdicts if v.outcome == "INCONCLUSIVE")
    notes += [f"not settled: {', '.join(unsettled)}"] if unsettled else []
    notes += [] if verdicts else ["no gate judged it"]
    if LABELS not in files and contract.classes:
        notes.append(f"no {LABELS}: a class name holds a line end; {record.name}.json has all names")
    described = _described(manifest, record, files, said=said, notes=notes)
    files[MANIFEST] = (
        json.dumps(runs.plain(asdict(described)), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    )
    top = f"{record.name}.bundle"
    packed = archive({f"{top}/{name}": content for name, content in files.items()})
    return Packed(described, files, top, packed, hashlib.sha256(packed).hexdigest(), found.path)


def archive(files: Mapping[str, bytes]) -> bytes:
    """A tar of these files, the same bytes for the same content whenever and wherever it is made."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)  # its defaults: mode 644, owner 0, time 0
            entry.size = len(files[name])
            tar.addfile(entry, io.BytesIO(files[name]))
    return written.getvalue()


def read_manifest(content: bytes, where: str) -> Bundle:
    """`bundle.json`, as it came from a device; InputError if it is not one, or names files elsewhere."""
    try:
        found = TypeAdapter(Bundle).validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(where, f"is no bundle of schema {SCHEMA}: {place} {first['msg']}", "deploy anew") from error
    for name in (found.file, *found.files):
        if any(part in ("", ".", "..") for part in name.split("/")) or not name.isprintable():
            raise InputError(where, f"names a file elsewhere: {name!r}", "deploy anew")
    return found


# ---------------------------------------------------------------- which file, and may it leave


def chosen(manifest: runs.Manifest, name: str | None, profile: DeviceProfile | None) -> runs.ArtifactRecord:
    """The file of that name, or the only one it can be: of those the device runs, the only one that passed."""
    records = {record.name: record for record in manifest.artifacts}
    if name is not None:
        if name not in records:
            raise InputError(name, f"is no file of this run, which has {', '.join(records)}")
        if profile is not None:
            profile.runtime_for(records[name].format, records[name].scheme)
        return records[name]
    able = [r for r in records.values() if r.variant != RESERVED and _runs(profile, r)]
    where = profile.name if profile else "this run"
    if not able:
        raise InputError(where, f"runs none of {', '.join(records) or 'no files'}", "name a file, or another device")
    passed = [record for record in able if outcome(manifest, record, profile) == "PASS"]
    if len(able) == 1 or len(passed) == 1:
        return able[0] if len(able) == 1 else passed[0]
    told = ", ".join(f"{record.name} ({outcome(manifest, record, profile)})" for record in able)
    raise InputError("ARTIFACT", f"could be any of {told}", f"name one: {(passed or able)[0].name}")


def verdicts_for(manifest: runs.Manifest, record: runs.ArtifactRecord, profile: DeviceProfile | None) -> list[Verdict]:
    """The file's verdicts on the device; all it has where that device was not judged, or none is meant."""
    every = [verdict for verdict in manifest.verdicts if verdict.artifact == record.name]
    there = [verdict for verdict in every if profile is not None and verdict.device == profile.name]
    return there or every


def outcome(manifest: runs.Manifest, record: runs.ArtifactRecord, profile: DeviceProfile | None) -> str:
    """The worst of its verdicts, or "no gate"."""
    found = {verdict.outcome for verdict in verdicts_for(manifest, record, profile)}
    return next((each for each in ("FAIL", "INCONCLUSIVE", "PASS") if each in found), "no gate")


def require_passed(
    manifest: runs.Manifest, record: runs.ArtifactRecord, profile: DeviceProfile | None, *, allow_failed: bool
) -> list[Verdict]:
    """Its failed gates, which are none unless `allow_failed`; GateError for those."""
    failed = [verdict for verdict in verdicts_for(manifest, record, profile) if verdict.outcome == "FAIL"]
    if failed and not allow_failed:
        told = "; ".join(f"{verdict.gate} on {verdict.device}: {verdict.reason}" for verdict in failed)
        raise GateError(record.name, f"failed {told}", "--allow-failed delivers it all the same")
    return failed


def _runs(profile: DeviceProfile | None, record: runs.ArtifactRecord) -> bool:
    if profile is None:
        return True
    try:
        profile.runtime_for(record.format, record.scheme)
    except UnsupportedError:
        return False
    return True


def _whole(manifest: runs.Manifest, folder: Path, record: runs.ArtifactRecord, artifact: Artifact) -> Contract:
    """The file's contract; InputError where file or contract are not what the run wrote, or lie elsewhere."""
    inside = artifact.path.resolve().is_relative_to(folder.resolve())
    if not inside or safe_name(record.name) != record.name or safe_name(artifact.path.name) != artifact.path.name:
        raise InputError("manifest.json", f"names a file elsewhere: {record.path!r}", "name a run that Edgekit made")
    if not artifact.path.is_file():
        raise InputError(str(artifact.path), "no such file", f"edgekit run --resume {folder}")
    if file_sha256(artifact.path) != record.sha256:
        raise InputError(str(artifact.path), "is not the file that was judged (sha256 differs)", "run it again")
    contract, beside = contract_beside(artifact.path, record.sha256), contract_path(artifact.path)
    if contract is None:
        raise InputError(str(beside), "no such file", f"edgekit run --resume {folder}")
    written = {name: digest for stage in manifest.stages for name, digest in stage.files.items()}
    if file_sha256(beside) != written.get(f"{record.path}.json", file_sha256(beside)):
        problem = "is not the contract that the run wrote (sha256 differs)"
        raise InputError(str(beside), problem, f"remove it, then edgekit run --resume {folder}")
    return contract


# ---------------------------------------------------------------- what is in it


def _files(artifact: Artifact, contract: Contract, answers: Mapping[str, bytes]) -> dict[str, bytes]:
    """All but the card and the manifest, by name."""
    file = artifact.path.name
    found = {file: artifact.path.read_bytes(), f"{file}.json": contract_path(artifact.path).read_bytes()}
    if contract.classes and not any("\n" in name or "\r" in name for name in contract.classes):
        found[LABELS] = "".join(f"{name}\n" for name in contract.classes).encode()
    return found | _programs(artifact, contract) | {f"{REFERENCE}/{name}": each for name, each in answers.items()}


def require_readable(path: Path, profile: DeviceProfile, runtime: DeviceRuntime, version: str = "") -> None:
    """Raise UnsupportedError where the runtime is too old for the file. version: what is really there, if known."""
    for refused in compat.refusals(path, runtime, version):
        raise UnsupportedError(profile.name, f"cannot read {path.name}: {refused}", "a newer runtime, or a file for it")


def _for_device(artifact: Artifact, profile: DeviceProfile) -> dict[str, bytes]:
    """What the device's runtime needs beside the file; UnsupportedError where its version cannot read the file."""
    runtime = profile.runtime_for(artifact.format, artifact.scheme)
    for refused in compat.refusals(artifact.path, runtime):
        raise UnsupportedError(
            profile.name, f"cannot read {artifact.name}: {refused}", "a newer runtime, or a file for it"
        )
    if runtime.use != MICRO:
        return {}
    from toolkit.estimates import micro

    return {f"{MICRO}/{name}": text.encode() for name, text in micro.sources(artifact.path).items()}


def _programs(artifact: Artifact, contract: Contract) -> dict[str, bytes]:
    """An example for each runtime of the format."""
    first = artifact.signature.inputs[0]
    n, *others = first.shape
    shape = (n, others[1], others[2], others[0]) if first.layout == "NCHW" else first.shape
    preprocessing, found = contract.preprocess().resolve(shape), {}
    for runtime in runtimes_of(artifact):
        name = program_of(runtime)
        text = sample_code(artifact, preprocessing, contract.classes, runtime=runtime, program=name)
        found[name] = text.encode()
    return found


def _described(
    manifest: runs.Manifest,
    record: runs.ArtifactRecord,
    files: Mapping[str, bytes],
    *,
    said: CardSection,
    notes: Sequence[str],
) -> Bundle:
    source = manifest.stages[0].parameters if manifest.stages else {}
    return Bundle(
        schema=SCHEMA,
        name=manifest.name,
        artifact=record.name,
        file=Path(record.path).name,
        format=record.format,
        scheme=record.scheme,
        size_bytes=record.size_bytes,
        sha256=record.sha256,
        pixels=record.pixels,
        run={
            "recipe": manifest.name,
            "started": manifest.started,
            "seed": manifest.seed,
            "outcome": manifest.outcome,
            "source_sha256": source.get("sha256") or cards.UNKNOWN,
            "data": {data.split: data.fingerprint for data in manifest.data},
            "versions": dict(sorted(manifest.versions.items())),
        },
        stated={key: text or cards.UNKNOWN for key, text in said.model_dump().items()},
        files={name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
        verdicts=tuple(v for v in manifest.verdicts if v.artifact == record.name),
        measurements=tuple(m for m in manifest.measurements if m.subject == record.name),
        notes=tuple(notes),
    )
