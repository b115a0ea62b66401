"""`diagnose`: which layer of a file is at fault; of one file, of a finished run, and at the end of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import runs
from toolkit.checks import gate
from toolkit.checks.diagnosis import IMAGES, Diagnosis
from toolkit.checks.equivalence import FLOATS
from toolkit.core import Progress
from toolkit.documents import Document
from toolkit.equivalence import model_of
from toolkit.errors import InputError, UnsupportedError
from toolkit.executor import Executor
from toolkit.plan import REFERENCE, Plan, source_of
from toolkit.sources import store

if TYPE_CHECKING:
    from toolkit.checks.between import Between
    from toolkit.core import Dataset, Scheme
    from toolkit.datasets.splits import Splits

Emit = Callable[[Progress], None]
SHOWN = 12  # layers in a terminal; --json has all


def diagnose(
    target: Path,
    artifact: str | None = None,
    *,
    model: Path | None = None,
    data: str | None = None,
    preprocess: str | None = None,
    images: int = IMAGES,
    sensitivity: bool = True,
    allow_code: Sequence[str] = (),
    emit: Emit = lambda progress: None,
) -> list[Diagnosis]:
    """Diagnoses of a run's files (all, or `artifact`), or of one .tflite or .onnx file.

    model, data, preprocess: for a file, the Keras model it was written from, and images as `eval` takes them; a run
    knows its own, and takes the selection split, else calibration. Never the test split.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        scratch = Path(folder)
        with Executor(scratch / "log.txt", emit, allow_code) as executor:
            diagnoser = Diagnoser(executor, scratch, images, sensitivity)
            given = _Given(model, data, preprocess, tuple(allow_code))
            given.require_fit(target, artifact)
            if target.is_dir():
                return list(_of_run(target, artifact, diagnoser, allow_code))
            return [_of_file(target, given, diagnoser, emit)]


def beside(
    target: Path,
    artifact: str | None = None,
    *,
    against: str,
    model: Path | None = None,
    data: str | None = None,
    preprocess: str | None = None,
    images: int = IMAGES,
    allow_code: Sequence[str] = (),
    emit: Emit = lambda progress: None,
) -> Between:
    """Where two files of one model first differ: `artifact` and `against` of a run, or two files.

    Other options as of `diagnose`.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        scratch = Path(folder)
        with Executor(scratch / "log.txt", emit, allow_code) as executor:
            diagnoser = Diagnoser(executor, scratch, images, sensitivity=False)
            given = _Given(model, data, preprocess, tuple(allow_code))
            given.require_fit(target, artifact)
            if target.is_dir():
                if artifact is None:
                    raise InputError(
                        "diagnose", "--against compares two files", "name the other: RUN FILE --against FILE"
                    )
                return _beside_in_run(target, (artifact, against), diagnoser, allow_code)
            return _beside_files((target, Path(against)), given, diagnoser, emit)


def diagnosed(plan: Plan, run: runs.Run, executor: Executor, splits: Splits, scratch: Path) -> None:
    """At the end of a run: diagnose what the recipe asks for, what failed a gate on its answers, and what answers
    otherwise than the model it was written from by more than its scheme explains.

    What cannot be looked into is a warning: the run's files and verdicts stand without it.
    """
    asked = plan.recipe.diagnosis
    count, sensitivity = (asked.images, asked.sensitivity) if asked else (IMAGES, True)
    diagnoser, kept = Diagnoser(executor, scratch, count, sensitivity), {}
    strays = run.manifest.equivalence.strays() if run.manifest.equivalence else ()
    for record in run.manifest.artifacts:
        wanted = record.name in strays or (_rounds(record) and (asked is not None or _failed(run, record)))
        if not wanted or not _fit(record, plan.kind):
            continue
        earlier = run.manifest.diagnoses.get(record.name)
        if earlier and (earlier.sha256, earlier.asked) == (record.sha256, (count, sensitivity)):
            kept[record.name] = earlier
            continue
        try:
            found = diagnoser.of_record(run.folder, record, _data(splits))
        except (InputError, UnsupportedError) as error:
            run.update(warnings=(*run.manifest.warnings, f"{record.name} could not be diagnosed: {error}"))
            continue
        kept[record.name] = runs.DiagnosisRecord(record.sha256, (count, sensitivity), found)
    run.update(diagnoses=kept)


def _failed(run: runs.Run, record: runs.ArtifactRecord) -> bool:
    """Whether a gate on a file's answers says FAIL."""
    own = (verdict for verdict in run.manifest.verdicts if verdict.artifact == record.name)
    return any(verdict.gate in gate.STATISTICAL and verdict.outcome == "FAIL" for verdict in own)


def lines(found: Sequence[Diagnosis]) -> Iterator[str]:
    """What `edgekit diagnose` prints."""
    for diagnosis in found:
        yield f"{diagnosis.artifact}: {diagnosis.advice}"
        if diagnosis.first or not diagnosis.floats:
            yield f"  {diagnosis.diverging()}"
        yield f"  ({diagnosis.images} images; SQNR in dB; own: fed with the file's own inputs)"
        rows: list[tuple[str, ...]] = [("layer", "own", "in all", "lost", "beyond", "low", "high", "wins back")]
        gains = {row.layer: row.gain_db for row in diagnosis.sensitive}
        for row in diagnosis.errors[:SHOWN]:
            gain = next((gains[name] for name in row.layers if name in gains), None)
            numbers = (row.alone_db, row.sqnr_db, row.lost_db)
            ends = (f"{100 * row.saturated:.2g}%", f"{row.low:.3g}", f"{row.high:.3g}")
            told = "" if gain is None else f"{gain:.1f}"
            rows.append((row.layer, *(f"{number:.1f}" for number in numbers), *ends, told))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for first, *rest in rows:
            cells = "  ".join(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
            yield f"  {first.ljust(widths[0])}  {cells}".rstrip()
        if len(diagnosis.errors) > SHOWN:
            yield f"  ... and {len(diagnosis.errors) - SHOWN} more; --json has all"


def as_dict(found: Sequence[Diagnosis] | Between) -> dict[str, Any]:
    """What `edgekit diagnose --json` prints."""
    if not isinstance(found, Sequence):
        return asdict(found)
    return {"diagnoses": [asdict(diagnosis) for diagnosis in found]}


@dataclass(frozen=True)
class _Given:
    """What a file does not know of itself."""

    model: Path | None
    data: str | None
    preprocess: str | None
    allow_code: tuple[str, ...]

    def require_fit(self, target: Path, artifact: str | None) -> None:
        """Raise where a run is given what it knows itself, or a file is asked for a part of it."""
        if target.is_dir() and (self.model or self.data or self.preprocess):
            raise InputError("diagnose", "a run knows its model and data", "leave --model and --data out")
        if not target.is_dir() and artifact is not None:
            problem = f"{target} is no run directory, and holds no {artifact}"
            raise InputError("diagnose", problem, "name a run directory")


class Diagnoser:
    """The executor and the settings of one or more diagnoses."""

    def __init__(self, executor: Executor, scratch: Path, images: int, sensitivity: bool) -> None:
        self.executor, self.scratch, self.images, self.sensitivity = executor, scratch, images, sensitivity

    def of_record(self, folder: Path, record: runs.ArtifactRecord, data: Dataset) -> Diagnosis:
        """Of one file of a run."""
        path = store.path_of(folder / "artifacts", record.stage, "keras")
        if not path.is_file():
            places = ((kind, store.path_of(folder / "artifacts", record.stage, kind)) for kind in store.SUFFIXES)
            if kind := next((kind for kind, place in places if place.exists()), ""):
                fix = "diagnose a file that was written from a Keras model"
                raise UnsupportedError(record.name, f"its source is a {kind} model, which shows no layers", fix)
            raise InputError(str(path), "is missing: the run does not hold the model of this file", "run it again")
        return self.of_file(folder / record.path, path, data, record.scheme)

    def of_file(self, artifact: Path, model: Path, data: Dataset, scheme: Scheme) -> Diagnosis:
        """Of any file, against a model saved at `model`."""
        paths = self._images(data)
        found: Diagnosis = self.executor.call(
            "diagnose", artifact=artifact, model=model, images=paths, sensitivity=self.sensitivity, scheme=scheme
        )
        return found

    def between(self, files: tuple[Path, Path], schemes: tuple[Scheme, Scheme], model: Path, data: Dataset) -> Between:
        """Of two files of the model saved at `model`."""
        found: Between | None = self.executor.call(
            "between", artifacts=files, schemes=schemes, model=model, images=self._images(data)
        )
        if found is None:
            raise UnsupportedError(f"{files[0].name} and {files[1].name}", "have no layer in common")
        return found

    def _images(self, data: Dataset) -> dict[str, Path]:
        import numpy as np

        from toolkit.checks.layers import take_images

        self.scratch.mkdir(parents=True, exist_ok=True)
        paths = {}
        for i, (name, array) in enumerate(take_images(data, self.images).items()):
            paths[name] = self.scratch / f"diagnosis-{i}.npy"
            np.save(paths[name], array)
        return paths


def _fit(record: runs.ArtifactRecord, kind: str) -> bool:
    """Whether a file can be compared by layer at all: of a Keras graph, and not taking raw pixels."""
    return kind == "keras" and not record.pixels


def _rounds(record: runs.ArtifactRecord) -> bool:
    """Whether a file loses something by its scheme: quantized, and not the original as a file."""
    return record.scheme not in FLOATS and record.variant != REFERENCE


def _data(splits: Splits) -> Dataset:
    """Never the images that judge."""
    data = splits.selection or splits.calibration
    if data is None:
        raise InputError("diagnosis", "needs a selection or calibration split", "set data.splits.selection")
    return data


def _of_run(folder: Path, artifact: str | None, diagnoser: Diagnoser, allow_code: Sequence[str]) -> Iterator[Diagnosis]:
    manifest = runs.read(folder)
    fit = [record for record in manifest.artifacts if _fit(record, "keras")]
    named = [record for record in manifest.artifacts if record.name == artifact]
    chosen = named if artifact else [record for record in fit if record.variant != REFERENCE]
    if not chosen:
        names = ", ".join(record.name for record in fit) or "none"
        problem = f"holds no {artifact}" if artifact else "holds no file of a Keras model"
        raise InputError(str(folder), problem, f"its files: {names}")
    for record in chosen:
        if not _fit(record, "keras"):
            raise UnsupportedError(
                record.name, "takes raw pixels", "diagnose a file that takes floats or their integers"
            )
    data = _data_of(folder, manifest, chosen[0], allow_code)
    for record in chosen:
        yield diagnoser.of_record(folder, record, data)


def _data_of(folder: Path, manifest: runs.Manifest, record: runs.ArtifactRecord, allow_code: Sequence[str]) -> Dataset:
    """A run's images, as its recipe has them."""
    from toolkit.data import load_splits
    from toolkit.recipe_reader import parse_recipe

    recipe = parse_recipe(Document("manifest.json", manifest.recipe), folder)
    contract = store.read_contract(store.path_of(folder / "artifacts", record.stage, "keras"))
    splits = load_splits(
        recipe.data,
        contract.preprocessing,
        seed=recipe.seed,
        input_name=contract.signature.inputs[0].name,
        allow_code=allow_code,
    )
    return _data(splits)


def _beside_in_run(folder: Path, names: tuple[str, str], diagnoser: Diagnoser, allow_code: Sequence[str]) -> Between:
    manifest = runs.read(folder)
    records = {record.name: record for record in manifest.artifacts if _fit(record, "keras")}
    for name in names:
        if name not in records:
            raise InputError(str(folder), f"holds no {name}", f"its files: {', '.join(records) or 'none'}")
    one, other = (records[name] for name in names)
    if model_of(manifest, one) != model_of(manifest, other):
        problem = f"were written from different models: {one.stage} and {other.stage}"
        raise InputError(f"{one.name} and {other.name}", problem, "name two files of one stage")
    model = store.path_of(folder / "artifacts", one.stage, "keras")
    files = (folder / one.path, folder / other.path)
    return diagnoser.between(files, (one.scheme, other.scheme), model, _data_of(folder, manifest, one, allow_code))


def _of_file(file: Path, given: _Given, diagnoser: Diagnoser, emit: Emit) -> Diagnosis:
    scheme = _scheme(file)
    saved, split = _loaded(file, given, diagnoser, emit)
    return diagnoser.of_file(file, saved, split, scheme)


def _beside_files(files: tuple[Path, Path], given: _Given, diagnoser: Diagnoser, emit: Emit) -> Between:
    schemes = _scheme(files[0]), _scheme(files[1])
    saved, split = _loaded(files[0], given, diagnoser, emit)
    return diagnoser.between(files, schemes, saved, split)


def _scheme(file: Path) -> Scheme:
    from toolkit.inspection import read_artifact

    artifact = read_artifact(file)
    if artifact.pixels:
        raise UnsupportedError(str(file), "takes raw pixels", "diagnose a file that takes floats or their integers")
    return artifact.scheme


def _loaded(file: Path, given: _Given, diagnoser: Diagnoser, emit: Emit) -> tuple[Path, Dataset]:
    """The model of a file, as the run's process reads it, and the images."""
    from toolkit import measuring, registry
    from toolkit.datasets.preprocess import PreprocessSpec

    if given.model is None or given.data is None:
        raise InputError(
            "diagnose", "a file needs the model it was written from, and images", "give --model and --data"
        )
    use = source_of(given.model)
    if use is None or not given.model.exists():
        raise InputError(str(given.model), "is no model that a source reads", "name the .keras file")
    source = registry.load("sources", use)
    options = {"allow_code": given.allow_code} if "allow_code" in source.model_fields else {}
    saved = diagnoser.scratch / "model.keras"
    facts = diagnoser.executor.call(
        "load_source", source=source(**options), path=given.model.absolute(), preprocess=PreprocessSpec(), save_as=saved
    )
    return saved, measuring.images_for(file, given.data, given.preprocess, facts.signature.inputs[0], emit)
