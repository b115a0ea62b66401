"""Carries out a plan: stages in the executor's process, checks on the devices, the gate, the manifest, the report.

Everything found out goes into the run's manifest as it is found; nothing else is read afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from toolkit import (
    allowed,
    beside,
    coverage,
    doctor,
    equivalence,
    examining,
    pruning,
    runs,
    split_records,
    staged,
    thumbnails,
    trained,
)
from toolkit.checks import fit
from toolkit.contract import make_origin
from toolkit.core import STATIC, Artifact, Meaning, Measurement, Model, Progress, Task
from toolkit.data import check_classes, class_names, learning_unlabelled, load_splits
from toolkit.diagnosis import diagnosed
from toolkit.ending import ending
from toolkit.errors import InputError
from toolkit.executor import Executor
from toolkit.judging import Judge
from toolkit.parts import Emit, Part
from toolkit.plan import Plan, Stage, make_plan
from toolkit.recipe import Recipe
from toolkit.recipe_reader import load_recipe
from toolkit.repair import Work, repair, resumed
from toolkit.reporting import write_report
from toolkit.run_log import RunLog
from toolkit.schema import paths_in
from toolkit.sources import store

if TYPE_CHECKING:
    from toolkit.datasets.splits import Splits

# packages whose version is part of what a stage is
VERSIONED = (
    *("edgekit", "tensorflow", "keras", "numpy", "onnx", "onnxruntime", "tf2onnx", "ai-edge-litert"),
    *("ai-edge-quantizer", "tensorflow-model-optimization", "pillow"),
)
PROVENANCE = ("edgekit", "tensorflow", "keras")  # of those, what a file's metadata names


@dataclass(frozen=True)
class Result:
    """A finished run: where it is, and everything it found out."""

    folder: Path
    manifest: runs.Manifest

    def json(self) -> str:
        """The manifest and the run's folder, as JSON."""
        return json.dumps({"folder": str(self.folder), **json.loads(runs.dump(self.manifest))}, indent=1)


def run(  # the command's options, one by one
    recipe: str | Path | None = None,
    *,
    model: str | Path | None = None,
    data: str | None = None,
    devices: Sequence[str] = (),
    overrides: Sequence[str] = (),
    allow_code: Sequence[str] = (),
    out: Path | None = None,
    resume: Path | None = None,
    emit: Emit = lambda progress: None,
    **places: Any,
) -> Result:
    """Carry out a recipe (a path or a shipped name) and judge what comes out.

    resume: an earlier run's directory; stages whose inputs, parameters and versions are unchanged are
    not repeated. Without `recipe` it is run again as it was called. Raises EdgekitError; the run directory then says
    what happened. allow_code: modules whose code a model or dataset may need; none is run otherwise.
    places: as of `load_recipe`.
    """
    earlier = runs.read(resume) if resume else None
    invocation: dict[str, Any] = {"recipe": recipe, "model": model, "data": data}
    invocation |= {"devices": devices, "overrides": overrides, "allow_code": allow_code}
    if earlier and recipe is None:
        invocation = {**earlier.invocation, "allow_code": allow_code}  # what one may run is said anew each time
    if invocation["recipe"] is None:
        raise InputError("run", "no recipe is given", "name one (`edgekit list recipes`), or --resume a run")
    if resume and out:
        raise InputError("--out", "cannot stand beside --resume, which goes on in its own directory")
    invocation = {key: _plain(value) for key, value in invocation.items()}
    name, options = invocation["recipe"], {key: value for key, value in invocation.items() if key != "recipe"}
    loaded = load_recipe(name, **options, **places)  # hosts do not stand in a manifest
    loaded.require_runnable()
    plan = make_plan(loaded)
    plan.require_possible()
    target = _open(resume, earlier, out, loaded, invocation)
    return _Pipeline(plan, target, emit).carry_out()


def _open(
    resume: Path | None, earlier: runs.Manifest | None, out: Path | None, recipe: Recipe, invocation: dict[str, Any]
) -> runs.Run:
    fresh = {
        "status": "running",
        "error": "",
        "outcome": "",
        "recipe": recipe.resolved(),
        "seed": recipe.seed,
        "host": doctor.host(),
        "versions": doctor.versions(),
        "invocation": invocation,
        "warnings": (),
        "verdicts": (),
    }
    if resume and earlier:
        target = runs.Run(resume, earlier)
        target.update(**fresh)
        target.keep_recipe(recipe.text, recipe.bases)
        return target
    started = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = runs.Manifest(name=recipe.name, started=started, **fresh)  # type: ignore[arg-type]
    return runs.Run.create(out or runs.new_folder(recipe.name), manifest, recipe.text, recipe.bases)


class _Pipeline:
    """One run being carried out."""

    def __init__(self, plan: Plan, target: runs.Run, emit: Emit) -> None:
        self.plan, self.run, self.recipe = plan, target, plan.recipe
        self.log = RunLog(target.folder / "log.txt")
        self.emit = self.log.keeping(emit)
        self.executor = Executor(self.log.path, self.emit, self.recipe.allow_code)
        self.versions = {name: target.manifest.versions.get(name) for name in VERSIONED}
        self.scratch = target.folder / "scratch"
        self.keys: dict[str, str] = {}  # stage -> content hash
        self.graph_of: dict[str, str] = {}  # stage -> the stage whose graph it kept
        self.artifacts: dict[str, Artifact] = {}
        self.origin = ""  # hash of the model that was read
        self.done = 0
        self.parts = len(plan.stages) + 1  # the checks come last

    def carry_out(self) -> Result:
        with ending(self.run, self.log, self.emit, self.scratch), self.executor:
            self._work()
        try:
            write_report(self.run.folder)
        except KeyboardInterrupt:  # all is measured and judged
            hint = f"the run is done; `edgekit report {self.run.folder}` writes its report"
            self.emit(Progress(hint, keep=True))
            raise
        return Result(self.run.folder, self.run.manifest)

    def _work(self) -> None:
        self.emit(Progress(f"run directory {self.run.folder}", keep=True))
        self.run.keep_only({stage.name for stage in self.plan.stages})
        source = self.plan.stages[0]
        splits = self._made(source) if self.recipe.train is not None else self._read(source)
        repairs = self._repairs(splits)
        self.plan = resumed(self.plan, repairs)
        for stage in self.plan.stages[1:]:
            self._stage(stage)
        self.plan = repair(self.plan, repairs)
        self.emit(Part.of("checks", self.parts, self.parts))
        judge = Judge(self.plan, self.run, self.executor, self.scratch, self.emit)
        models = {name: self._file(name) for name in self._graphs()}
        files = staged.write(self.plan, self.run, self.executor, models, open_data=self._open_data, emit=self.emit)
        judge.judge(models, self.artifacts, splits, files)
        self.run.update(equivalence=equivalence.of_run(self.run.folder, self.run.manifest))
        thumbnails.keep(self.run, splits.test, self.recipe.report.images if self.recipe.report else None)
        diagnosed(self.plan, self.run, self.executor, splits, self.scratch)
        coverage.checked(self.plan, self.run, self.executor, self._open_data)

    def _require_fit(self, head: Meaning, task: Task | None = None) -> None:
        """Raise where the head and what the recipe asks for do not belong together."""
        budgets = [check.budget for check in self.plan.checks]
        fit.require(head, budgets, [step.component for step in self.recipe.metrics], task)

    # ------------------------------------------------------------ stages

    def _read(self, stage: Stage) -> Splits:
        """Read the model, then the data that it takes."""
        contract = self._source(stage)
        self._require_fit(contract.head)
        splits = self._data(contract)
        self._require_fit(contract.head, splits.test.task)
        examining.of_run(self.run, self.executor, self._file(stage.name), splits, self.emit)
        return splits

    def _made(self, stage: Stage) -> Splits:
        """Read the data, then make the model from it; checkpoints lie in the run directory until it is there."""
        planned = trained.contract(self.recipe)
        splits = self._data(planned)
        self._require_fit(trained.head_of(self.recipe, splits), splits.test.task)
        target, folder = self._file(stage.name), self.run.folder / "checkpoints"
        key = trained.key_of(self.recipe, self.fingerprints, self.versions)

        def work() -> dict[str, Any]:
            self._open_data()
            facts = self.executor.call("train", **trained.job(self.recipe, planned.preprocessing, key, folder, target))
            self._model_facts(stage.name, facts)
            return _told(facts)

        self._once(stage, key, stage.component.resolved(), (target, store.contract_path(target)), work)
        runs.remove_scratch(folder)
        return splits

    def _source(self, stage: Stage) -> Model:
        """Read the model; its contract, without the graph."""
        section, wanted = self.recipe.model, self.recipe.data.preprocess
        if section.source is None:
            raise InputError("recipe", "model.source is not given", "give --model PATH")
        parameters = {**stage.component.model_dump(mode="json"), "preprocess": wanted.model_dump(mode="json")}
        files = (*section.files(), *allowed.files(self.recipe.allow_code))
        digests = [runs.content_sha256(path) for path in files]
        self.origin = digests[0] if section.files() else ""
        key = runs.content_key("source", stage.use, section.application, digests, parameters, self.versions)
        target = self._file(stage.name)
        what = section.application or section.source.absolute()

        def work() -> dict[str, Any]:
            facts = self.executor.call(
                "load_source", source=stage.component, path=what, preprocess=wanted, save_as=target
            )
            self._model_facts(stage.name, facts)
            return {"notes": facts.notes}

        named = {**parameters, "file": section.source.name, "sha256": self.origin}
        self._once(stage, key, named, (target, store.contract_path(target)), work)
        return store.read_contract(target)

    def _data(self, contract: Model) -> Splits:
        self.emit(Progress("reading and hashing images", keep=True))
        self.opening: dict[str, Any] = {
            "spec": self.recipe.data,
            "preprocessing": contract.preprocessing,
            "seed": self.recipe.seed,
            "input_name": contract.signature.inputs[0].name,
            "allow_code": self.recipe.allow_code,
        }
        named = class_names(self.recipe.model.classes, self.recipe.model.classes_file)
        splits = load_splits(**self.opening)
        self.opening["chosen"] = splits.chosen
        if contract.signature.outputs:  # a model that is yet to be made takes what the data has
            fit.check_data(contract.signature.outputs[0], splits.test)
        if any(getattr(stage.component, "embed_preprocessing", False) for stage in self.plan.stages):
            splits.test.pixels()  # raises now, rather than after hours, where images have no pixels
        if named:
            check_classes(named, splits.test.classes)
        split_records.keep(self.run, splits)
        for warning in splits.warnings:
            self.emit(Progress(f"warning: {warning}", keep=True))
        self.fingerprints = {split.name: split.fingerprint for split in splits.present()}
        self._data_open = False
        return splits

    def _repairs(self, splits: Splits) -> Work:
        """What the repair ladder may use of this run."""
        seen = (self.keys[self.plan.stages[0].name], self.fingerprints, self.versions)
        run, scratch, executor = self.run, self.scratch, self.executor
        return Work(run, splits, scratch, executor, self._stage, self._artifact, self._file, seen, self.emit)

    def _stage(self, stage: Stage) -> None:
        parameters = stage.component.model_dump(mode="json")
        files = {".".join(map(str, key)): runs.content_sha256(path) for key, path in paths_in(stage.component)}
        more = ("unlabelled",) if "unlabelled" in self.fingerprints and learning_unlabelled(stage.component) else ()
        uses = ("train", "selection", "calibration", *more) if stage.kind == "pass" else ("calibration",)
        data: dict[str, Any] = {name: self.fingerprints.get(name) for name in uses}
        if stage.kind == "export" and stage.quant.scheme not in STATIC:
            data = {}
        written: tuple[Any, ...] = ()
        if stage.kind == "export":
            written = (self.recipe.name, self.run.manifest.classes)  # beside the file
        else:
            written = pruning.said(stage.component, pruning.needs(self.recipe, stage.component))
        if getattr(stage.component, "metadata", False):
            data |= {"provenance": self._provenance(stage)}
        parts = (stage.kind, stage.use, self.keys[stage.parent], parameters, asdict(stage.quant), data, files, *written)
        key = runs.content_key(*parts, self.recipe.seed, self.versions)
        if stage.kind == "pass":
            self._pass(stage, key, parameters)
        else:
            self._export(stage, key, parameters)

    def _pass(self, stage: Stage, key: str, parameters: dict[str, Any]) -> None:
        target, folder = self._file(stage.name), self.run.folder / f"checkpoint-{stage.name}"

        def work() -> dict[str, Any]:
            self._open_data()
            facts = self.executor.call(
                "run_pass",
                component=stage.component,
                parent=self._file(stage.parent),
                original=self._file("original"),
                save_as=target,
                seed=self.recipe.seed,
                checkpoint=folder / "state.npz",
                key=key,
                needs=pruning.needs(self.recipe, stage.component),
            )
            self._model_facts(stage.name, facts)
            return {**_told(facts), "same_graph": facts.same_graph}

        record = self._once(stage, key, parameters, (target, store.contract_path(target)), work)
        runs.remove_scratch(folder)
        self.graph_of[stage.name] = stage.parent if record.same_graph else stage.name

    def _export(self, stage: Stage, key: str, parameters: dict[str, Any]) -> None:
        target = self.run.folder / "artifacts" / stage.name

        def work() -> dict[str, Any]:
            self._open_data()
            artifact = self.executor.call(
                "export",
                exporter=stage.component,
                parent=self._file(stage.parent),
                path=target,
                provenance=self._provenance(stage),
                asked=stage.quant,
            )
            artifact = replace(artifact, name=stage.name, path=target)
            origin = make_origin(artifact, self.recipe.name, stage.quant.granularity, self.versions)
            beside.write(artifact, self.opening["preprocessing"], self.run.manifest.classes, origin)
            self._record_artifact(stage, artifact)
            return {"notes": artifact.notes}

        self._once(stage, key, parameters, (target, *beside.paths(target)), work)
        self.artifacts[stage.name] = self._artifact(stage.name)

    def _provenance(self, stage: Stage) -> dict[str, str]:
        """Where a file comes from, for its metadata: the model it was made of, and what made it."""
        source = self.recipe.model.source
        origin = {"model": source.name, "sha256": self.origin} if source else {}
        made = {name: version for name in PROVENANCE if (version := self.versions.get(name))}
        return {**origin, "recipe": self.recipe.name, "stage": stage.parent, **made}

    def _once(
        self, stage: Stage, key: str, parameters: dict[str, Any], files: tuple[Path, ...], work: Callable[[], Any]
    ) -> runs.StageRecord:
        """Do a stage unless the run has it already; record it."""
        self.keys[stage.name] = key
        self.done = min(self.done + 1, self.parts - 1)  # repair carries some out again
        step = stage.name, self.done, self.parts
        record = self.run.reusable(stage.name, key)
        if record is None:
            self.emit(Part.of(*step))
            self.run.forget((stage.name,))
            started = perf_counter()
            found = work()
            record = runs.StageRecord(
                name=stage.name,
                use=stage.use,
                kind=stage.kind,
                parent=stage.parent,
                key=key,
                parameters=parameters,
                seconds=round(perf_counter() - started, 3),
                files={str(path.relative_to(self.run.folder)): runs.content_sha256(path) for path in files},
                **found,
            )
        else:
            self.emit(Part.of(f"{stage.name}: unchanged, taken from the earlier run", *step[1:]))
        self.run.add_stage(record)
        return record

    def _open_data(self) -> None:
        """Have the child open the splits, the first time a stage needs them."""
        if not self._data_open:
            self.executor.call("use_data", **self.opening)
            self._data_open = True

    # ------------------------------------------------------------ records

    def _model_facts(self, subject: str, facts: Any) -> None:
        """Counts of a model; one that cannot be counted is left out, and a gate that asks for it is inconclusive."""
        how = {"method": "counted in the graph, for one image"}
        found = (("parameters", facts.parameters, ""), ("macs", facts.macs, ""))
        self.run.add_measurements(
            Measurement(subject, name, float(value), unit, "computed", how=how)
            for name, value, unit in found
            if value is not None
        )

    def _record_artifact(self, stage: Stage, artifact: Artifact) -> None:
        record = runs.ArtifactRecord(
            name=stage.name,
            variant=stage.variant,
            stage=stage.parent,
            path=f"artifacts/{stage.name}",
            format=artifact.format,
            scheme=artifact.scheme,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
            inputs=artifact.signature.inputs,
            outputs=artifact.signature.outputs,
            notes=artifact.notes,
            pixels=artifact.pixels,
        )
        others = (known for known in self.run.manifest.artifacts if known.name != stage.name)
        self.run.update(artifacts=(*others, record))

    def _artifact(self, name: str) -> Artifact:
        """An artifact as the manifest has it."""
        record = next(record for record in self.run.manifest.artifacts if record.name == name)
        return record.artifact(self.run.folder)

    def _graphs(self) -> list[str]:
        """Stages whose graph is their own."""
        return ["original", *(name for name, graph in self.graph_of.items() if name == graph)]

    def _file(self, stage: str) -> Path:
        return store.path_of(self.run.folder / "artifacts", stage, self.plan.kind)


def _told(facts: Any) -> dict[str, Any]:
    """What a stage says it did, as the manifest keeps it."""
    changes = tuple({name: str(text) for name, text in asdict(change).items()} for change in facts.changes)
    return {"changes": changes, "curves": {name: tuple(map(float, line)) for name, line in facts.curves.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute()) if value.exists() else str(value)
    return list(value) if isinstance(value, tuple | list) else value
