"""What a recipe will do, or what cannot work and why: worked out before any work.

Stages form a small directed graph: the original, the trunk's passes, each variant's passes, its files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from toolkit import compat, data, kernels, ordering, pruning, registry
from toolkit.checks import fit, gate
from toolkit.checks.installed import absent_here
from toolkit.core import STATIC, Budget, Kind, MeasureSpec, QuantSpec
from toolkit.devices import DeviceProfile, DeviceRuntime
from toolkit.errors import InputError, UnavailableError, UnsupportedError
from toolkit.estimates import expected
from toolkit.recipe import Recipe, Step, Variant
from toolkit.schema import paths_in

REFERENCE = "original"  # the variant of files written from the original, float32, to compare with; no gate judges it
TRAIN = "train"  # what the first stage uses where the recipe makes its model

NO_GRAPH: dict[Kind, str] = {
    "keras": "this model has one",
    "savedmodel": "a SavedModel without Keras has none",
    "tflite": "a .tflite file has none",
    "onnx": "an .onnx file has none",
}


@dataclass(frozen=True)
class Stage:
    """One step from a model to a model, or to a file.

    name: "original", "01-prune", "phone.02-quantize" or, for files, the artifact's name "phone.tflite".
    parent: the stage whose model it takes. quant: what the model asks of its exporter after this stage.
    """

    name: str
    kind: Literal["source", "pass", "export"]
    use: str
    component: Any
    parent: str
    variant: str
    quant: QuantSpec
    where: str  # of the recipe, for messages


@dataclass(frozen=True)
class Check:
    """One artifact to be judged on one device, and with what; runtime "" when the device cannot be measured."""

    artifact: str
    device: DeviceProfile
    runtime: str
    delegate: str
    measure: MeasureSpec
    budget: Budget
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """The stages in an order that works, the checks, and what stands in the way.

    problems: what cannot work (exit 2). missing: what this environment lacks (exit 3). notes: what to know.
    """

    recipe: Recipe
    stages: tuple[Stage, ...]
    checks: tuple[Check, ...]
    problems: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    kind: Kind = "keras"  # of graph, from the source to the files

    def require_possible(self) -> None:
        """Raise what stands in the way, all of it, in one error."""
        if self.problems:
            raise InputError("plan", _joined(self.problems))
        if self.missing:
            raise UnavailableError("plan", _joined(self.missing))

    def stage(self, name: str) -> Stage:
        """The stage called `name`."""
        return next(stage for stage in self.stages if stage.name == name)


def make_plan(recipe: Recipe) -> Plan:
    """Resolve a recipe against what its passes, exporters, runtimes and devices can do."""
    problems: list[str] = []
    kind = model_kind(recipe)
    notes: list[str] = []
    stages = tuple(_stages(recipe, problems, notes))
    checks: list[Check] = []
    for stage in stages:
        if stage.kind == "export":
            checks += _checks(recipe, stage, problems, notes)
    judged = [check for check in checks if check.runtime and not check.artifact.startswith(f"{REFERENCE}.")]
    notes += gate.too_few_processes((each.device.name, each.measure.processes, each.budget) for each in judged)
    notes += expected.to_plan((check.device for check in checks), recipe.model.source)
    problems += ordering.problems(stages)
    problems += _kind_problems(stages, kind)
    problems += _split_problems(recipe, stages)
    problems += data.unlabelled_problems(recipe, [(x.where, x.component) for x in stages if x.kind == "pass"])
    problems += _head_problems(recipe)
    problems += _batch_problems(recipe)
    problems += _repair_problems(recipe, stages)
    for stage in stages:
        if stage.kind == "pass":
            problems += [f"{stage.where}: {stage.use}.{each}" for each in pruning.problems(recipe, stage.component)]
            notes += pruning.notes(recipe, stage.component)
    missing = [*_missing(checks), *_missing_for(stages, kind)]
    unique = {(check.artifact, check.device.name): check for check in checks}  # two targets may share a device
    return Plan(recipe, stages, tuple(unique.values()), _once(problems), _once(missing), _once(notes), kind)


# ---------------------------------------------------------------- stages


def _stages(recipe: Recipe, problems: list[str], notes: list[str]) -> Iterator[Stage]:
    original = _original(recipe, problems)
    yield original
    for use, step in _formats(recipe).items():
        yield from _exports(recipe, Variant(REFERENCE, (), (replace(step, use=use),)), original, problems, notes)
    last = original
    for last in _passes(recipe.passes, original, variant="", number=1, recipe=recipe):
        yield last
    for variant in recipe.variants:
        tip = last
        number = 1 + len(recipe.passes)
        for tip in _passes(variant.passes, last, variant=variant.name, number=number, recipe=recipe):
            yield tip
        yield from _exports(recipe, variant, tip, problems, notes)


def _original(recipe: Recipe, problems: list[str]) -> Stage:
    """The model as it is read, or made."""
    if recipe.train is not None:
        if recipe.train.patience and not recipe.data.splits.selection:
            where = recipe.where("train", "patience")
            problems.append(f"{where}: there is no selection split to judge epochs on. Fix: set data.splits.selection")
        return Stage(REFERENCE, "source", TRAIN, recipe.train, "", "", QuantSpec(), recipe.where("train"))
    name = source_name(recipe)
    component = _source_component(recipe, registry.load("sources", name), problems)
    return Stage(REFERENCE, "source", name, component, "", "", QuantSpec(), recipe.where("model"))


def _passes(steps: tuple[Step, ...], parent: Stage, *, variant: str, number: int, recipe: Recipe) -> Iterator[Stage]:
    for offset, step in enumerate(steps):
        where, prefix = recipe.where(*step.key), f"{variant}." if variant else ""
        quant = getattr(step.component, "quant", parent.quant)
        name = f"{prefix}{number + offset:02d}-{step.use}"
        parent = Stage(name, "pass", step.use, step.component, parent.name, variant, quant, where)
        yield parent


def _exports(recipe: Recipe, variant: Variant, tip: Stage, problems: list[str], notes: list[str]) -> Iterator[Stage]:
    written: set[str] = set()
    for export in variant.exports:
        step = _typed(_laid_out(export, variant, recipe, problems), variant, recipe, tip.quant, problems)
        where = recipe.where(*step.key)
        kind = model_kind(recipe)
        running = list(_running(recipe, variant, step.component.format, tip.quant))
        quant, told = kernels.adapted(tip.quant, running)
        if quant.reduce_range and getattr(tip.component, "corrections", None):
            told.append("corrections are for 8-bit weights and may cost accuracy in 7: compare with corrections = []")
        notes += [f"variant {variant.name}: {note}" for note in told]
        problems += [f"{where}: variant {variant.name}: {each}" for each in kernels.refusals(quant, running)]
        notes += [f"variant {variant.name}: {note}" for note in compat.expected(step.component, quant, running)]
        refusal = step.component.refusal(quant, kind) if kind != "keras" else step.component.refusal(quant)
        if refusal and variant.name != REFERENCE:  # what the reference cannot be, no variant can
            problems.append(f"{where}: variant {variant.name}: {refusal}")
        name = f"{variant.name}{step.component.suffix}"
        if name in written:
            problems.append(f"{where}: variant {variant.name}: two of its files would be {name}. Fix: set rest in both")
        written.add(name)
        yield Stage(name, "export", step.use, step.component, tip.name, variant.name, quant, where)


def _running(
    recipe: Recipe, variant: Variant, format: str, quant: QuantSpec
) -> Iterator[tuple[DeviceProfile, DeviceRuntime]]:
    """The devices a variant's file of this format is for, each with the runtime that would run it."""
    for target in recipe.targets:
        if variant.name in target.variants:
            with suppress(UnsupportedError):  # said where checks are made
                yield target.profile, target.profile.runtime_for(format, *quant.schemes)


def _laid_out(step: Step, variant: Variant, recipe: Recipe, problems: list[str]) -> Step:
    """The export in the layout its devices want, where the exporter has a choice and the recipe made none."""
    component = step.component
    if "layout" not in type(component).model_fields or "layout" in component.model_fields_set:
        return step
    devices = {
        target.profile.name: runtime.layout
        for target in recipe.targets
        if variant.name in target.variants or variant.name == REFERENCE
        for runtime in target.profile.runtimes
        if component.format in runtime.formats and runtime.layout
    }
    if len(set(devices.values())) > 1:
        wanted = ", ".join(f"{name} {layout}" for name, layout in devices.items())
        problem = f"variant {variant.name}: its devices want different layouts ({wanted}). Fix: set layout"
        problems.append(f"{recipe.where(*step.key)}: {problem}, or make two variants")
    update = {"layout": next(iter(devices.values()))} if devices else {}
    return replace(step, component=component.model_copy(update=update))


def _typed(step: Step, variant: Variant, recipe: Recipe, quant: QuantSpec, problems: list[str]) -> Step:
    """The export with the type beside int8 that its devices' TensorRT takes, where it has one and the recipe says none.

    Version 8 reads no float16 scales and 9 is built like it; 10 and later are typed by the graph, so that float32
    would be computed in float32.
    """
    component = step.component
    if "rest" not in type(component).model_fields or quant.scheme not in STATIC:
        reference = variant.name == REFERENCE and getattr(component, "rest", None)
        return replace(step, component=component.model_copy(update={"rest": None})) if reference else step
    types = {
        f"{target.profile.name} ({runtime.use} {runtime.version})": "float16" if major >= 10 else "float32"
        for target in recipe.targets
        for runtime in target.profile.runtimes
        if variant.name in target.variants and runtime.use == "tensorrt"
        for major in map(int, re.findall(r"^\d+", runtime.version))
    }
    if component.rest is not None or not types:
        return step
    if len(set(types.values())) > 1:
        wanted = ", ".join(f"{name} {kind}" for name, kind in types.items())
        problem = f"variant {variant.name}: its devices want different types beside int8 ({wanted})"
        problems.append(f"{recipe.where(*step.key)}: {problem}. Fix: export it twice, with each `rest`")
    return replace(step, component=component.model_copy(update={"rest": next(iter(types.values()))}))


def _formats(recipe: Recipe) -> dict[str, Step]:
    """Each exporter the variants use, as the first of them uses it."""
    found: dict[str, Step] = {}
    for variant in recipe.variants:
        for step in variant.exports:
            found.setdefault(step.use, step)
    return found


def source_name(recipe: Recipe) -> str:
    """The registered source that reads the recipe's model file or folder; raises InputError when none does."""
    path = recipe.model.source
    if path is None:
        return "keras"
    name = "applications" if recipe.model.application else source_of(path)
    if name is None:
        problem = f"a model file's name ends in {' or '.join(sorted(_suffixes()))}, got {path.name!r}"
        raise InputError(recipe.where("model", "source"), problem)
    return name


def source_of(path: Path) -> str | None:
    """The registered source for a model file, by its suffix, or for a folder; None when there is none."""
    if path.is_dir():
        return next((name for name in registry.names("sources") if getattr(_source(name), "folders", False)), None)
    return _suffixes().get(path.suffix.lower())


def model_kind(recipe: Recipe) -> Kind:
    """What kind of graph the recipe's model is; looks at names of files, not into them."""
    source, path = _source(source_name(recipe)), recipe.model.source
    ask = getattr(source, "kind_of", None)
    kind: Kind = ask(path) if ask and path else getattr(source, "kind", "keras")
    return kind


def _source(name: str) -> Any:
    return registry.load("sources", name)


def _suffixes() -> dict[str, str]:
    return {suffix: name for name in registry.names("sources") for suffix in _source(name).suffixes}


def _source_component(recipe: Recipe, source: Any, problems: list[str]) -> Any:
    """The source with what [model] says, as far as it has the field; the rest is noted when it says something."""
    given = recipe.model.model_dump(exclude={"source", "classes", "classes_file"})  # those are for the data
    defaults = type(recipe.model).model_fields
    problems += [
        f"{recipe.where('model', name)}: says nothing to this kind of model. Fix: leave it out"
        for name in sorted(given.keys() - source.model_fields.keys())
        if given[name] != defaults[name].default
    ]
    given["allow_code"] = recipe.allow_code
    if recipe.model.application:
        if not given["weights"]:
            fix = 'set model.weights to "imagenet" or to a weights file'
            raise InputError(recipe.where("model", "weights"), "is missing: there are no random weights", fix)
        names = recipe.model.classes
        given["classes"] = len(names) or None
    return source(**{name: value for name, value in given.items() if name in source.model_fields})


def _kind_problems(stages: tuple[Stage, ...], kind: Kind) -> Iterator[str]:
    """Passes that need another kind of graph, or a file that is not there; exporters answer in their `refusal`."""
    for stage in stages:
        for key, value in paths_in(stage.component) if stage.kind == "pass" else ():
            if not value.exists() or source_of(value) is None:
                problem = "no such file" if not value.exists() else "no kind of model that can be read"
                yield f"{stage.where}: {'.'.join(map(str, (stage.use, *key)))}: {problem}, got {str(value)!r}"
        if stage.kind != "pass":
            continue
        if kind not in stage.component.takes:
            yield f"{stage.where}: {stage.use} {no_graph(kind)}"
        elif (ask := getattr(stage.component, "refusal", None)) and (refusal := ask(kind)):
            yield f"{stage.where}: {stage.use}: {refusal}"


def no_graph(kind: Kind) -> str:
    """Why a pass that changes layers cannot take this kind of model."""
    return f"needs a Keras graph; {NO_GRAPH[kind]}"


def _missing_for(stages: tuple[Stage, ...], kind: Kind) -> Iterator[str]:
    """Packages that an exporter needs for this kind of model and this request, and a pass for what it is told."""
    for stage in stages:
        needs = getattr(stage.component, "packages", None)
        for package, extra in needs(stage.quant, kind) if needs else ():
            if not _installed(package):
                yield f"{stage.where}: {package} is not installed here. Fix: pip install '{extra}'"


def _installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


# ---------------------------------------------------------------- checks


def _checks(recipe: Recipe, stage: Stage, problems: list[str], notes: list[str]) -> Iterator[Check]:
    for target in recipe.targets:
        reference = stage.variant == REFERENCE
        if not reference and stage.variant not in target.variants:
            continue
        profile = target.profile
        notes += [f"{profile.name}: its {each.name} {each.why}: not measured" for each in profile.no_runtime]
        try:
            runtime = profile.runtime_for(stage.component.format, *stage.quant.schemes)
        except UnsupportedError as error:
            if not reference:
                problems.append(f"{stage.where}: variant {stage.variant}: {error}")
            continue
        delegate = runtime.delegates[0] if runtime.delegates else "none"
        note = ""
        if not profile.measurable:
            why = f"give {profile.where}" if profile.needs_host else "no transport"
            note = f"{profile.name} cannot be measured from here ({why}): its latency gates will be INCONCLUSIVE"
            notes.append(note)
        use = runtime.use if profile.measurable else ""
        yield Check(stage.name, profile, use, delegate, target.measure, target.budget, note)


def _split_problems(recipe: Recipe, stages: tuple[Stage, ...]) -> Iterator[str]:
    given = {name for name in ("train", "selection", "calibration", "test") if getattr(recipe.data.splits, name)}
    for stage in stages:
        needing = stage.kind == "pass" or stage.use == TRAIN
        for need in stage.component.needs if needing else ():
            if need not in given:
                yield f"{stage.where}: {stage.use} needs the {need} split. Fix: set data.splits.{need}"
        lacking = getattr(stage.component, "lacking", None) if stage.kind == "pass" else None
        for key, problem, fix in lacking(given) if lacking else ():
            yield f"{stage.where}: {stage.use}.{key}: {problem}. Fix: {fix}"
    if "test" not in given:
        yield f"{recipe.where('data', 'splits')}: there is no test split to judge on. Fix: set data.splits.test"


def _head_problems(recipe: Recipe) -> Iterator[str]:
    """Limits and metrics that such a head cannot have, where the recipe says what the head is."""
    if recipe.model.head == "auto":
        return
    found = [problem for target in recipe.targets for problem in fit.budget_problems(recipe.model.head, target.budget)]
    found += fit.metric_problems(recipe.model.head, [step.component for step in recipe.metrics])
    for where, problem, fix in found:
        yield f"{recipe.where(*where.split('.')[:1])}: {where.split('.')[1]}: {problem}. Fix: {fix}"


def _batch_problems(recipe: Recipe) -> Iterator[str]:
    """Limits of latency are of one image; what several at once take is another number."""
    for target in recipe.targets:
        if target.measure.batch != 1 and any(getattr(target.budget, name) is not None for name in gate.LATENCY):
            said = f"a limit of latency is of one image, and {target.profile.name} is timed at batch"
            yield f"{recipe.where('budget')}: {said} {target.measure.batch}. Fix: set measure.batch = 1"


def repairable(stage: Stage) -> bool:
    """Whether it is a variant's own static quantize pass, which [repair] may change."""
    quantize = stage.kind == "pass" and stage.use == "quantize" and stage.variant not in ("", REFERENCE)
    return quantize and stage.quant.scheme in STATIC


def _repair_problems(recipe: Recipe, stages: tuple[Stage, ...]) -> Iterator[str]:
    """What a recipe that asks for repair lacks."""
    if recipe.repair is None:
        return
    where, splits = recipe.where("repair"), recipe.data.splits
    if not splits.selection:
        yield f"{where}: it chooses on the selection split. Fix: set data.splits.selection"
    if "qat" in recipe.repair.rungs and "rungs" in recipe.repair.model_fields_set and not splits.train:
        yield f"{where}: rung qat needs the train split. Fix: set data.splits.train, or leave the rung out"
    if not any(map(repairable, stages)):
        yield f"{where}: no variant has a static quantize pass of its own. Fix: leave [repair] out"
    if not any(gate.gates_on_answers(target.budget) for target in recipe.targets):
        yield f"{where}: no budget says what may be lost. Fix: set budget.max_accuracy_drop"


def _missing(checks: list[Check]) -> Iterator[str]:
    for check in checks:
        if check.runtime and check.device.transport == "local":
            absent = absent_here(check.runtime)
            if absent:
                yield f"{check.device.name}: {absent[0]}. Fix: {absent[1]}"


def _once(items: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _joined(problems: tuple[str, ...]) -> str:
    return problems[0] if len(problems) == 1 else "\n  " + "\n  ".join(problems)
