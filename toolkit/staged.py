"""Each stage's model as a file of its own, so that the stage's share of size and latency is measured and not guessed.

The files are float32, written as the original's own file to compare with is; nobody judges them, and they are timed in
turns with the delivered ones, on the first device.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter

from toolkit import runs
from toolkit.checks.size import measure_size
from toolkit.core import Artifact, Measurement, Progress, QuantSpec
from toolkit.errors import EdgekitError
from toolkit.executor import Executor
from toolkit.plan import REFERENCE, Check, Plan, Stage
from toolkit.sources.store import path_of

FORMAT = "format"  # in a measurement's `how`: of which format the stage's file was
FOLDER = "stages"  # in a run's artifacts/
RECORD = "file:"  # before a stage's name, in the manifest's record of its file


@dataclass(frozen=True)
class Staged:
    """A stage's file each, by the stage's name. reference: the original's file that they are like."""

    reference: str = ""
    files: Mapping[str, Artifact] = field(default_factory=dict)

    def timed_with(self, checks: Iterable[Check]) -> dict[str, tuple[str, str]]:
        """(runtime, delegate) of each file, where these checks time the original's; else none."""
        check = next((check for check in checks if check.artifact == self.reference), None)
        return dict.fromkeys(self.files, (check.runtime, check.delegate)) if check else {}

    def told(self, found: Iterable[Measurement]) -> list[Measurement]:
        """The numbers, those of a stage saying what they were measured on."""
        return [self._told(each) for each in found]

    def _told(self, found: Measurement) -> Measurement:
        file = self.files.get(found.subject)
        how = {**found.how, FORMAT: file.format, "of": f"its float32 .{file.format} file"} if file else found.how
        return replace(found, how=how)


NONE = Staged()


def write(
    plan: Plan,
    run: runs.Run,
    executor: Executor,
    stages: Iterable[str],
    *,
    open_data: Callable[[], None],
    emit: Callable[[Progress], None],
) -> Staged:
    """Write and weigh what these stages made. A stage that asks for integers is left to its exporter.

    One whose file cannot be written has no size and no latency, and a warning says why.
    """
    asked = plan.recipe.report is None or plan.recipe.report.stages
    names = [name for name in stages if asked and name != REFERENCE and plan.stage(name).quant.scheme == "float32"]
    _forget(run, names)
    like = _reference(plan)
    if like is None or not names:
        return Staged()
    files = {}
    for name in names:
        try:
            files[name] = _written(plan, run, executor, name, like, open_data=open_data, emit=emit)
        except EdgekitError as error:
            warning = f"{name}: its size and latency are not known, as it cannot be written as a file: {error}"
            emit(Progress(f"warning: {warning}", keep=True))
            run.update(warnings=(*run.manifest.warnings, warning))
    _forget(run, files)
    staged = Staged(like.name, files)
    run.add_measurements(staged.told(row for name, file in files.items() for row in measure_size(name, file.path)))
    return staged


def _reference(plan: Plan) -> Stage | None:
    """The original's file that the first device takes, else the first one."""
    references = {stage.name: stage for stage in plan.stages if stage.kind == "export" and stage.variant == REFERENCE}
    timed = [check for check in plan.checks if check.device.measurable] or list(plan.checks)
    first = [references[each.artifact] for each in timed if each.artifact in references and _same(each, timed[0])]
    return next(iter([*first, *references.values()]), None)


def _same(check: Check, first: Check) -> bool:
    return check.device.name == first.device.name


def _written(
    plan: Plan,
    run: runs.Run,
    executor: Executor,
    name: str,
    like: Stage,
    *,
    open_data: Callable[[], None],
    emit: Callable[[Progress], None],
) -> Artifact:
    """The file, from the earlier run if it is that."""
    folder = run.folder / "artifacts"
    path, label = folder / FOLDER / f"{name}{like.component.suffix}", f"{RECORD}{name}"
    own = next(stage for stage in run.manifest.stages if stage.name == name)
    parameters = like.component.model_dump(mode="json")
    key = runs.content_key("file", own.key, like.use, parameters)
    before, started = run.reusable(label, key), perf_counter()
    if before is None:
        emit(Progress(f"writing {name} as a file, to weigh and to time"))
        open_data()
        path.parent.mkdir(exist_ok=True)
        parent = path_of(folder, name, plan.kind)
        asked = {"exporter": like.component, "parent": parent, "path": path, "provenance": {}, "asked": QuantSpec()}
        executor.call("export", **asked)
    digest, seconds = runs.content_sha256(path), round(perf_counter() - started, 3)
    files = {str(path.relative_to(run.folder)): digest}
    new = runs.StageRecord(label, like.use, "check", name, key, parameters, seconds, files=files)
    run.add_stage(before or new)
    known = next(record for record in run.manifest.artifacts if record.name == like.name).artifact(run.folder)
    return replace(known, name=name, path=path, size_bytes=path.stat().st_size, sha256=digest, notes=())


def _forget(run: runs.Run, names: Container[str]) -> None:
    """Drop what an earlier run measured on files of other stages."""
    kept = tuple(m for m in run.manifest.measurements if FORMAT not in m.how or m.subject in names)
    known = tuple(s for s in run.manifest.stages if not s.name.startswith(RECORD) or s.parent in names)
    run.update(measurements=kept, stages=known)
