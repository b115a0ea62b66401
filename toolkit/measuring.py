"""`bench` and `eval`: one file measured on a device, without a recipe."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import examining, faster, registry, runs
from toolkit.bench import Bench
from toolkit.checks import fit
from toolkit.checks.installed import absent_here, installed
from toolkit.contract import Contract, contract_beside, contract_path
from toolkit.core import (
    Artifact,
    Layout,
    Measurement,
    MeasureSpec,
    Progress,
    Provenance,
    Session,
    Signature,
    TensorSpec,
)
from toolkit.devices import DeviceProfile, load_device, open_session, reached
from toolkit.errors import InputError, UnavailableError
from toolkit.inspection import FORMATS, read_artifact
from toolkit.plan import source_of

if TYPE_CHECKING:
    from toolkit.checks.inputs import InputsCheck
    from toolkit.core import Dataset
    from toolkit.datasets.stream import Split

    Answered = tuple[Any, Dataset, Any, dict[str, Any], str]

LAYER = "layer_share:"
HEADS = ("auto", *fit.TARGETS)
Emit = Callable[[Progress], None]


def bench_files(
    files: Sequence[Path],
    *,
    device: str = "this-machine",
    threads: int | Sequence[int] | None = None,
    processes: int | None = None,
    seconds: float | None = None,
    batch: int | None = None,
    cores: Sequence[int] | None = None,
    sustained: float | None = None,
    layers: bool = False,
    samples: Path | None = None,
    emit: Emit = lambda progress: None,
    **places: Any,
) -> dict[str, Any]:
    """Latency of files on a device, interleaved. Options that are None are the profile's.

    threads: several are swept over. sustained: minutes that each file is run for without pause, instead of the short
    processes. layers: each layer's share too. samples: folder for raw samples and series, else they go.
    Returns {"device", "files": {name: sha256}, "measurements": [...], "notes": [...]} and of sustained runs
    "series": {file: {"units", "rows"}};
    see `core.Measurement` for their fields. places: ssh, adb, replay, record, as `devices.reached` takes them.
    """

    (profile,) = reached([load_device(device)], **places)
    sweep = (threads,) if isinstance(threads, int) else tuple(threads or ())
    given = {"processes": processes, "seconds": seconds, "batch": batch, "cores": cores}
    given |= {"threads": sweep[0] if sweep else None}
    settings = {**profile.measure.model_dump(), **{k: v for k, v in given.items() if v is not None}}
    artifacts = [read_artifact(path) for path in files]
    if len({artifact.name for artifact in artifacts}) < len(artifacts):
        raise InputError("bench", "two files have the same name", "rename one")
    runtimes = {artifact.name: _runtime(profile, artifact) for artifact in artifacts}
    with closing(open_session(profile)) as session, tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        spec = _checked("bench", MeasureSpec, settings)
        if not spec.processes:
            raise InputError("bench --processes", "0 processes measure nothing", "ask for 1 or more")
        _look_for(session, profile, runtimes.values())
        for count in sweep:
            _checked("bench", MeasureSpec, {**settings, "threads": count})
        if samples is not None:
            runs.make_folder(samples)
        asked = Bench(session, profile, spec, runtimes, samples or Path(folder), emit)
        found = asked.sustained(artifacts, sustained) if sustained else asked.timed(artifacts, sweep)
        if layers:
            asked.layers(artifacts, found)
    return {"device": profile.name, "files": {artifact.name: artifact.sha256 for artifact in artifacts}, **found}


def evaluate_file(
    file: Path,
    *,
    data: str,
    preprocess: str | dict[str, Any] | None = None,
    subset: str | None = None,
    head: str = "auto",
    layout: Layout | None = None,
    device: str = "this-machine",
    allow_code: Sequence[str] = (),
    emit: Emit = lambda progress: None,
    **places: Any,
) -> dict[str, Any]:
    """The metrics of one file's head on labelled images, in the runtime the device uses (Keras for a .keras or .h5
    file, TensorFlow for a SavedModel folder).

    preprocess: None is as the contract beside the file states, with its layout, head and order of classes; "raw" where
    there is none. layout: of the file's image input, where it is not to be seen from its shape. Returns {"file",
    "measurements", "per_class", "left_out", "inputs"}; inputs as checks.inputs has them, None without images.
    allow_code: modules whose code a trained model may need.
    """
    from toolkit.checks.accuracy import Predictions, measure_accuracy

    if head not in HEADS:
        raise InputError("--head", f"no such head, got {head!r}", registry.suggest(head, HEADS))
    asked = _asked(file, _Asked(data, preprocess, subset, head, layout))
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        source: Provenance = "measured"
        if file.suffix.lower() not in FORMATS and source_of(file):
            reader = _source(file, asked, allow_code)
            found, odd = _trained_answers(file, asked, reader, folder=Path(folder), emit=emit)
        else:
            (profile,) = reached([load_device(device)], **places)
            found, odd = _file_answers(file, asked, profile, folder=Path(folder), emit=emit)
            source = profile.provenance
    outputs, dataset, meaning, how, where = found
    predictions = Predictions(file.name, outputs, meaning, where, source, {**how, "preprocess": asked.shown()})
    accuracy = measure_accuracy(predictions, dataset)
    classes = [{"class": name, **counts} for name, counts in zip(dataset.classes, accuracy.per_class, strict=False)]
    rows = [asdict(measurement) for measurement in accuracy.measurements]
    told = {"file": str(file), "measurements": rows, "per_class": classes, "left_out": dict(accuracy.left_out)}
    return told | {"inputs": odd and asdict(odd)}


def images_for(file: Path, data: str, preprocess: str | None, first: TensorSpec, emit: Emit) -> Split:
    """Images as `eval` would give them to a file whose model takes `first`."""
    asked = _asked(file, _Asked(data, preprocess, None, "auto", None))
    return _dataset(asked, _channels_last(first), first.name, emit)


def measurement_lines(found: dict[str, Any]) -> Iterator[str]:
    """What `bench` and `eval` print: one line a number, with its interval and how it was taken; then what it ran on."""
    from toolkit.report.numbers import plain, show

    swept = len({row["how"].get("threads") for row in found["measurements"]} - {None}) > 1
    explained = [faster.as_speed(each) for each in found.get("speed", ())]
    told = {f"{speed.artifact} {LAYER}" for speed in explained}  # layers of these have a table of their own
    shown = [row for row in found["measurements"] if f"{row['subject']} {row['name'][: len(LAYER)]}" not in told]
    for row in shown:
        measurement = Measurement(**{**row, "interval": None})
        value = plain(show(measurement.name, measurement.value, measurement.unit))
        span = row["interval"]
        if span:
            sure = f" at {100 * span['confidence']:g}%" if span["confidence"] else ""
            low, high = (plain(show(measurement.name, span[end], measurement.unit)) for end in ("low", "high"))
            value += f"  ({low} .. {high}{sure})"
        taken = f": {row['how']['estimator']}" if row["how"].get("estimator") else ""
        yield f"{_subject(row, swept)}  {row['name']}  {value}  [{row['source']}{taken}]"
    yield from _how_lines(shown, swept)
    for finding in (found.get("inputs") or {}).get("findings", ()):
        yield f"warning: {finding['text']}. Fix: {finding['fix']}"
    yield from (f"note: {note}" for note in found.get("notes", ()))
    for name, why in found.get("left_out", {}).items():
        yield f"left out of {name}: {why}"
    yield from faster.lines(explained)


def _subject(row: Mapping[str, Any], swept: bool) -> str:
    """The file, whose name may hold anything, and of a sweep the number of threads."""
    name, count = row["subject"], row["how"].get("threads")
    named = name if name.isprintable() else repr(name)
    return f"{named}  {count} thread{'s' * (count != 1)}" if swept and count is not None else named


def _how_lines(rows: Sequence[Mapping[str, Any]], swept: bool) -> Iterator[str]:
    """What each file ran on, said once; and of single numbers what is true of them alone (a sensor of power)."""
    told: dict[str, dict[str, Any]] = {}
    several = len({_subject(row, swept) for row in rows}) > 1
    for row in rows:
        subject = _subject(row, swept)
        apart = (
            "estimator",
            "process_ms",
            *(() if "sensor" in row["how"] else ("kind",)),
        )  # of a layer: its name says it
        known = told.get(subject, {})
        own = {key: value for key, value in row["how"].items() if key not in apart and known.get(key) != value}
        if own:
            who = " ".join([*([subject] if several else []), *([row["name"]] if known else [])])
            yield f"how{f' ({who})' if who else ''}: " + ", ".join(f"{key} {value}" for key, value in own.items())
            told[subject] = {**known, **own}


@dataclass(frozen=True)
class _Asked:
    """What the data is and what outputs mean, as the options say."""

    data: str
    preprocess: str | dict[str, Any] | None
    subset: str | None
    head: str
    layout: Layout | None
    contract: Contract | None = None  # the file's own, where it says how to preprocess

    def shown(self) -> str:
        """Where the preprocessing comes from."""
        if self.contract is not None:
            return f"from {contract_path(Path(self.contract.file)).name}"
        return str(self.preprocess or "raw (no contract beside the file)")


def _asked(file: Path, asked: _Asked) -> _Asked:
    """With what the contract beside the file states, where no preprocessing is asked for."""
    if asked.preprocess is not None or file.suffix.lower() not in FORMATS:
        return asked
    contract = contract_beside(file, read_artifact(file).sha256)
    if contract is None:
        return asked
    layout, meant = contract.inputs[0].layout, contract.outputs[0].meaning
    told: Layout | None = None if layout == "none" else layout
    head = meant if asked.head == "auto" and meant in HEADS else asked.head
    return replace(asked, layout=asked.layout or told, head=head, contract=contract)


def _file_answers(
    file: Path, asked: _Asked, profile: DeviceProfile, *, folder: Path, emit: Emit
) -> tuple[Answered, InputsCheck | None]:
    from toolkit.checks import inference

    artifact = _in_layout(read_artifact(file), asked.layout)
    first = artifact.signature.inputs[0]
    shape = _channels_last(first)
    dataset = _dataset(asked, shape, first.name, emit)
    data: Dataset = dataset
    if artifact.pixels:
        emit(Progress("the file takes pixels: colour order, scale and offset are inside it", keep=True))
        data = dataset.pixels()
    if asked.head != "auto":
        fit.check_data(replace(artifact.signature.outputs[0], meaning=asked.head), dataset)  # type: ignore[arg-type]
    runtime, delegate = _runtime(profile, artifact)
    if not profile.python:
        raise UnavailableError(profile.name, "has no Python, which answers need", "evaluate on another device")
    with closing(open_session(profile)) as session:
        _look_for(session, profile, [(runtime, delegate)])
        emit(Progress(f"evaluating {artifact.name} on {len(dataset)} images", keep=True))
        wanted = replace(_as_nhwc(first, shape), dtype="uint8" if artifact.pixels else "float32")

        def watch(images: int) -> None:
            emit(Progress("preparing images", images / len(dataset)))

        prepared = inference.prepare(data, (wanted,), folder / "inputs", watch).paths
        answer = inference.run(
            artifact,
            session,
            runtime=runtime,
            delegate=delegate,
            prepared=prepared,
            folder=folder / "outputs",
            threads=1,
            emit=emit,
        )
    outputs = answer.outputs[artifact.signature.outputs[0].name]
    how = {"runtime": runtime, "version": answer.versions.get(runtime, ""), "delegate": delegate, **profile.how}
    meaning = _meaning(asked.head, outputs, dataset)
    odd = examining.of_file(_in_layout(artifact, asked.layout), meaning, dataset, folder, emit)
    return (outputs, dataset, meaning, how, profile.name), odd


def _source(file: Path, asked: _Asked, allow_code: Sequence[str]) -> Any:
    """What reads a trained model, told as much as it takes."""
    source = registry.load("sources", source_of(file) or "")
    given = {"head": asked.head, "layout": asked.layout or "auto", "allow_code": tuple(allow_code)}
    return source(**{name: value for name, value in given.items() if name in source.model_fields})


def _trained_answers(
    file: Path, asked: _Asked, source: Any, *, folder: Path, emit: Emit
) -> tuple[Answered, InputsCheck | None]:
    """In the executor's process, whose libraries may print what they like."""
    from importlib.metadata import version

    import numpy as np

    from toolkit.checks import inference
    from toolkit.datasets.preprocess import PreprocessSpec
    from toolkit.executor import Executor

    saved = folder / "model.keras"
    with Executor(folder / "log.txt", emit, getattr(source, "allow_code", ())) as executor:
        facts = executor.call(
            "load_source", source=source, path=file.absolute(), preprocess=PreprocessSpec(), save_as=saved
        )
        first, output = facts.signature.inputs[0], facts.signature.outputs[0]
        dataset = _dataset(asked, _channels_last(first), first.name, emit)
        fit.check_data(output, dataset)
        prepared = inference.prepare(dataset, facts.signature.inputs, folder / "inputs").paths
        answers = executor.call("predict", model=saved, inputs=prepared, folder=folder / "outputs")
        odd = examining.looked_at(executor, saved, dataset, folder=folder, emit=emit, key="--preprocess")
    package = "tensorflow" if getattr(source, "kind_of", lambda path: "keras")(file) == "savedmodel" else "keras"
    how = {"runtime": package, "version": version(package)}
    return (np.load(answers[output.name]), dataset, output.meaning, how, ""), odd


def _dataset(asked: _Asked, shape: tuple[int | None, ...], name: str, emit: Emit) -> Split:
    """All images of a dataset, or those of one subset, as one split; those that cannot be read are named, left out."""
    from toolkit.datasets.census import checked, take_census
    from toolkit.datasets.preprocess import PreprocessSpec
    from toolkit.datasets.stream import Split
    from toolkit.overrides import toml_value

    records, subset, preprocess = checked(_records(asked.data)), asked.subset, asked.preprocess
    if asked.contract is not None and asked.contract.outputs[0].meaning != "embedding":  # compared, not named
        records = _named(records, asked.contract)
    indexes = [i for i in range(len(records)) if subset is None or records.subsets[i] == subset]
    if not indexes:
        known = ", ".join(sorted(set(records.subsets) - {""})) or "none"
        raise InputError("--subset", f"no image of {asked.data} is in {subset!r}", f"its subsets: {known}")
    if isinstance(preprocess, str) and preprocess.startswith("{"):
        preprocess = toml_value(preprocess)
    own = asked.contract
    spec = own.preprocess() if own else _checked("--preprocess", PreprocessSpec, preprocess or "raw")
    census = take_census(records, indexes)
    for unread in census.named(records):
        emit(Progress(f"warning: left out: {unread}", keep=True))
    kept = [index for index in indexes if index not in census.corrupt]
    return Split(subset or "all", records, kept, spec.resolve(shape), input_name=name)


def _named(records: Any, contract: Contract) -> Any:
    """The records with the contract's classes; InputError where the data has others, or in another order.

    Data that shows fewer classes, or has numbers for names, is read by place.
    """
    classes, known = contract.classes, records.classes
    if records.task == "classes" and len(known) < len(classes):
        known = (*known, *classes[len(known) :])
    known = tuple(own if name == str(i) else name for i, (name, own) in enumerate(zip_longest(known, classes)))
    place = next((i for i, (own, name) in enumerate(zip_longest(classes, known)) if own != name), None)
    if place is not None:
        theirs, ours = (repr(names[place]) if place < len(names) else "none" for names in (classes, known))
        problem = f"class {place} is {theirs} in {contract_path(Path(contract.file)).name}, {ours} in the data"
        fix = "list the data's classes in the contract's order, or give --preprocess, which sets the contract aside"
        raise InputError("--data", problem, fix)
    return replace(records, classes=classes)


def _records(data: str) -> Any:
    """What `--data` names: a path, a dataset's name, or a table with a path and parameters of its dataset."""
    from toolkit.documents import Document
    from toolkit.overrides import toml_value, with_data
    from toolkit.schema import Reader

    more = toml_value(data) if data.startswith("{") else {}
    if not isinstance(more, dict) or (more and not isinstance(more.get("path"), str)):
        raise InputError(
            "--data", f"is no table with a path, got {data}", 'write {path = "labels.csv", label = "kind"}'
        )
    table = {**with_data(Document("--data", {}), more.get("path", data)).data["data"], **more}
    given = {key: value for key, value in table.items() if key != "use"}
    reader = Reader(Document("--data", given))
    dataset = reader.read(registry.load("datasets", table["use"]), given)
    reader.finish()
    return dataset.load() if dataset else None


def _runtime(profile: DeviceProfile, artifact: Artifact) -> tuple[str, str]:
    runtime = profile.runtime_for(artifact.format, artifact.scheme)
    return runtime.use, runtime.delegates[0] if runtime.delegates else "none"


def _look_for(session: Session, profile: DeviceProfile, runtimes: Iterable[tuple[str, str]]) -> None:
    """Raises where a runtime is missing, here or, before anything is sent there, on a device that is elsewhere."""
    for runtime in sorted({runtime for runtime, _ in runtimes}):
        if profile.needs_host and profile.python:
            installed(session, profile, runtime)
        absent = absent_here(runtime) if profile.transport == "local" else None
        if absent:
            raise UnavailableError(profile.name, *absent)


def _in_layout(artifact: Artifact, layout: Layout | None) -> Artifact:
    """The artifact with its first input's layout as told, or as its channel count shows."""
    first, *rest = artifact.signature.inputs
    if len(first.shape) == 4:
        shown: Layout = "NCHW" if first.shape[1] in (1, 3) and first.shape[3] not in (1, 3) else "NHWC"
        first = replace(first, layout=layout or shown, meaning="image")
    return replace(artifact, signature=Signature((first, *rest), artifact.signature.outputs))


def _channels_last(spec: TensorSpec) -> tuple[int | None, ...]:
    n, *others = spec.shape
    return (n, others[1], others[2], others[0]) if spec.layout == "NCHW" else spec.shape


def _as_nhwc(spec: TensorSpec, shape: tuple[int | None, ...]) -> TensorSpec:
    return TensorSpec(spec.name, shape, "float32", spec.meaning, "NHWC" if len(shape) == 4 else "none")


def _meaning(head: str, outputs: Any, data: Dataset) -> Any:
    """What outputs are, where nothing says: what the data is about; probabilities when every row is one."""
    if head != "auto":
        return head
    if data.task != "classes":
        return "sigmoids" if data.task == "labels" else "regression"
    import numpy as np

    if outputs.shape[-1] == 1:
        return "sigmoid" if outputs.min() >= 0 and outputs.max() <= 1 else "logits"
    sums = outputs.reshape(len(outputs), -1).sum(axis=1)
    steps = outputs.shape[-1] / 256  # an int8 softmax is off by up to half a step a class
    return "softmax" if outputs.min() >= 0 and np.all(np.abs(sums - 1) <= max(0.02, steps)) else "logits"


def _checked(option: str, cls: Any, value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return cls.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{option} {place}".strip(), f"{first['msg']}, got {first['input']!r}") from error
