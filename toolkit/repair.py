"""The repair ladder: what brings a quantized variant that fails its accuracy gate back within it, cheapest first.

It chooses on the selection split, in the runtime the files are delivered for, by the same non-inferiority gate
(`selecting`), and stops at the first PASS there. The verdict stays the test split's, which nothing here reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from toolkit import registry, runs
from toolkit.core import Artifact, Progress, QuantSpec
from toolkit.diagnosis import Diagnoser
from toolkit.errors import InputError, UnsupportedError
from toolkit.executor import Executor
from toolkit.plan import REFERENCE, Plan, Stage, repairable
from toolkit.selecting import Selecting

if TYPE_CHECKING:
    from toolkit.datasets.splits import Splits

RANGES = ("mse", "percentile", "entropy")  # in the order in which they most often win
MIXED = (1, 2, 4, 8)  # layers in another scheme, one trial of each scheme; more is another network
IMAGES = 32  # that sensitivity is found on
BEST_FIRST = ("PASS", "INCONCLUSIVE", "FAIL")


@dataclass(frozen=True)
class Work:
    """What the ladder may use of a run. stage: carries one out; model: the file of a stage's model.

    seen: what was read (data, model, versions), so that what was chosen for it can be taken up again.
    """

    run: runs.Run
    splits: Splits
    scratch: Path
    executor: Executor
    stage: Callable[[Stage], None]
    artifact: Callable[[str], Artifact]
    model: Callable[[str], Path]
    seen: Any
    emit: Callable[[Progress], None]


@dataclass(frozen=True)
class _Change:
    """One trial: what stands in the place of the variant's quantize pass. refused: why it cannot be tried."""

    rung: str
    words: str
    use: str = ""
    component: Any = None
    refused: str = ""


def repair(plan: Plan, work: Work) -> Plan:
    """The plan with the variants' quantize passes replaced by what was chosen for them."""
    kept: dict[str, runs.RepairRecord] = {}
    for stage in filter(repairable, plan.stages) if plan.recipe.repair else ():
        record = _earlier(plan, stage, work)
        if record is None:
            record, chosen = _Ladder(plan, stage, work).climb()
            plan = _with(plan, chosen)
        kept[stage.variant] = record
    work.run.update(repairs=kept)
    return plan


def resumed(plan: Plan, work: Work) -> Plan:
    """The plan with what an earlier run on the same data chose, so that --resume does not climb again."""
    for stage in filter(repairable, plan.stages) if plan.recipe.repair else ():
        record = _earlier(plan, stage, work)
        if record is not None:
            trial = record.trials[record.chosen]
            component = registry.load("passes", trial.use)(**trial.parameters)
            plan = _with(plan, replace(stage, use=trial.use, component=component, quant=component.quant))
    return plan


def _earlier(plan: Plan, stage: Stage, work: Work) -> runs.RepairRecord | None:
    record = work.run.manifest.repairs.get(stage.variant)
    return record if record is not None and record.key == _key(plan, stage, work) else None


def _key(plan: Plan, stage: Stage, work: Work) -> str:
    """Of everything a ladder's choice depends on."""
    recipe = {key: value for key, value in plan.recipe.resolved().items() if key not in ("description", "diagnosis")}
    return runs.content_key("repair", stage.name, recipe, work.seen)


def _with(plan: Plan, chosen: Stage) -> Plan:
    """The plan with a stage in the place of that of its name, and the files of it written as it asks."""

    def placed(stage: Stage) -> Stage:
        if stage.name == chosen.name:
            return chosen
        return replace(stage, quant=_asked(stage, chosen.quant)) if stage.parent == chosen.name else stage

    return replace(plan, stages=tuple(map(placed, plan.stages)))


def _asked(export: Stage, quant: QuantSpec) -> QuantSpec:
    """What a file is asked for, as its devices compute it rightly (kernels.adapted)."""
    return replace(quant, reduce_range=export.quant.reduce_range, dense_per_tensor=export.quant.dense_per_tensor)


class _Ladder:
    """The rungs of one variant. Each trial is carried out under the variant's own names; the last one stays."""

    def __init__(self, plan: Plan, stage: Stage, work: Work) -> None:
        self.plan, self.stage, self.work, self.section = plan, stage, work, plan.recipe.repair
        self.exports = [each for each in plan.stages if each.kind == "export" and each.parent == stage.name]
        self.trials: list[runs.RepairTrial] = []
        self.changes: list[_Change] = []
        self.current: int | None = 0  # the trial whose files lie there; None after one that broke off
        self.fits = True  # the last trial was carried out, and is within the limits of size and latency
        self.started = perf_counter()

    def climb(self) -> tuple[runs.RepairRecord, Stage]:
        """Try until the first PASS; the record, and the stage that stays."""
        asked = _Change("as asked", "as the recipe has it", self.stage.use, self.stage.component)
        with closing(
            Selecting(self.plan, self.work.splits, self.work.scratch / "repair", self.work.emit)
        ) as self.judge:
            self.judge.ask_original(self.work.model(REFERENCE), self.work.executor)
            self._try(asked, done=True)
            for change in () if self._passed() else self._rungs():
                if self._late():
                    self._refused(replace(change, refused="not tried: max_seconds have gone by"))
                    break
                self._try(change)
                if self._passed():
                    break
        best = self._settle()
        trial = self.trials[best]
        said = "passes" if trial.outcome == "PASS" else "does not pass"
        text = f"repair: {self.stage.variant} {said} on the selection split ({trial.change})"
        self.work.emit(Progress(text, keep=True))
        key = _key(self.plan, self.stage, self.work)
        return runs.RepairRecord(self.stage.variant, key, tuple(self.trials), best), self._stage_of(self.changes[best])

    def _late(self) -> bool:
        return self.section is not None and perf_counter() - self.started > self.section.max_seconds

    # ------------------------------------------------------------ rungs

    def _rungs(self) -> Iterator[_Change]:
        """Every trial in the order asked; later ones build on what earlier ones have found."""
        rungs = {
            "calibration": self._calibrations,
            "equalize_bias": self._equalized,
            "mixed": self._mixes,
            "adaround": lambda: self._corrected("adaround", (*self._equalize(), "adaround", "bias")),
            "qat": self._qat,
        }
        for name in self.section.rungs if self.section else ():
            yield from rungs[name]()

    def _calibrations(self) -> Iterator[_Change]:
        own = self.stage.component
        for ranges in RANGES:
            if ranges != own.ranges:
                yield self._changed("calibration", f'ranges = "{ranges}"', ranges=ranges)

    def _equalize(self) -> tuple[str, ...]:
        """Equalization is worth it where channels share one scale (docs/quantize.md)."""
        return ("equalize",) if self.stage.component.granularity == "per_tensor" else ()

    def _equalized(self) -> Iterator[_Change]:
        """Biases first, where that is nearly everything; then equalization too."""
        if not self._equalize():
            yield from self._corrected("equalize_bias", ("bias",))
        yield from self._corrected("equalize_bias", ("equalize", "bias"))

    def _corrected(self, rung: str, corrections: tuple[str, ...]) -> Iterator[_Change]:
        if set(corrections) == set(self.stage.component.corrections):
            return
        words = f"corrections = [{', '.join(map(repr, corrections))}]".replace("'", '"')
        yield self._changed(rung, words, best=True, corrections=corrections)

    def _mixes(self) -> Iterator[_Change]:
        """The layers that win most back in float, one after another: 16-bit activations, which cost no size, first."""
        self._settle()
        try:
            diagnoser = Diagnoser(self.work.executor, self.work.scratch, IMAGES, sensitivity=True)
            found = diagnoser.of_record(self.work.run.folder, self._record(), self.judge.split)
        except (InputError, UnsupportedError) as error:
            yield _Change("mixed", "layers in another scheme", refused=str(error))
            return
        useful = [row.layer for row in found.sensitive if row.gain_db > 0]
        base, own = dict(self._best_component().layers), self.stage.component.scheme
        schemes = ["int16x8", "float32"] if own == "int8" else ["float32"]
        for count in MIXED:
            if count > len(useful) or count > max(1, len(found.sensitive) // 2):
                return
            for scheme in tuple(schemes):
                layers = {**base, **dict.fromkeys(useful[:count], scheme)}
                words = f"{scheme}: {', '.join(useful[:count])}"
                yield self._changed("mixed", words, best=True, layers=layers)
                if not self.fits:  # more layers cost more, and what cannot be written stays so
                    schemes.remove(scheme)

    def _qat(self) -> Iterator[_Change]:
        if self.work.splits.train is None or not len(self.work.splits.train):
            yield _Change("qat", "training", refused="there is no train split")
            return
        own, qat = self.stage.component, registry.load("passes", "qat")
        shared = {name: getattr(own, name) for name in ("granularity", "flavour", "io") if name in qat.model_fields}
        if own.scheme != "int8":
            yield _Change("qat", "training", refused=f"qat trains int8, the variant is {own.scheme}")
            return
        component = qat(**shared, **(self.section.qat if self.section else {}))
        yield _Change("qat", f"trained for {component.epochs} epochs", "qat", component)

    def _changed(self, rung: str, words: str, *, best: bool = False, **update: Any) -> _Change:
        """The pass (or, `best`, the best so far) with other values; refused where it or an exporter says so."""
        own = self._best_component() if best else self.stage.component
        given = {name: getattr(own, name) for name in own.model_fields_set}
        try:
            component = type(own)(**{**given, **update})
        except ValueError as error:
            return _Change(rung, words, refused=str(error).splitlines()[-1].strip())
        refused = component.refusal(self.plan.kind) or self._refusal(component.quant)
        return _Change(rung, words, refused=refused) if refused else _Change(rung, words, "quantize", component)

    def _refusal(self, quant: QuantSpec) -> str:
        """Why an exporter cannot write it, or a device cannot run it, or ""."""
        for export in self.exports:
            if refusal := export.component.refusal(_asked(export, quant), self.plan.kind):
                return str(refusal)
            try:
                for check in self.plan.checks:
                    if check.artifact == export.name:
                        check.device.runtime_for(export.component.format, *quant.schemes)
            except UnsupportedError as error:
                return str(error)
        return ""

    # ------------------------------------------------------------ trials

    def _try(self, change: _Change, *, done: bool = False) -> None:
        """Carry out a change and judge its files; what cannot be written is told and passed over."""
        if change.refused:
            self._refused(change)
            return
        self.work.emit(Progress(f"repair: {self.stage.variant}: {change.words}", keep=True))
        started = perf_counter()
        try:
            if not done:
                self.current = None
                self._carry_out(change)
        except (InputError, UnsupportedError) as error:
            self._refused(replace(change, refused=str(error)))
            return
        found = self.judge.judge([self.work.artifact(export.name) for export in self.exports])
        self.current, self.fits = len(self.trials), found.fits
        self.changes.append(change)
        self.trials.append(
            runs.RepairTrial(
                rung=change.rung,
                change=change.words,
                use=change.use,
                parameters=change.component.model_dump(mode="json"),
                seconds=round(perf_counter() - started, 3),
                outcome=found.outcome,
                reason=found.reason,
                loss=found.loss,
                agreement=found.agreement,
                sqnr_db=found.sqnr_db,
                size_bytes=sum(self.work.artifact(export.name).size_bytes for export in self.exports),
                latency_ms=found.latency_ms,
            )
        )

    def _refused(self, change: _Change) -> None:
        self.fits = False
        self.changes.append(change)
        self.trials.append(runs.RepairTrial(change.rung, change.words, reason=change.refused))

    def _carry_out(self, change: _Change) -> None:
        stage = self._stage_of(change)
        self.work.stage(stage)
        for export in self.exports:
            self.work.stage(replace(export, quant=_asked(export, stage.quant)))

    def _stage_of(self, change: _Change) -> Stage:
        return replace(self.stage, use=change.use, component=change.component, quant=change.component.quant)

    def _passed(self) -> bool:
        return self.trials[-1].outcome == "PASS"

    def _settle(self) -> int:
        """Put the best trial's files in place; its index."""
        best = self._best()
        if best != self.current:
            self._carry_out(self.changes[best])
            self.current = best
        return best

    def _best(self) -> int:
        """The best outcome, of those the one that loses least; of equals the earlier, which costs less."""
        done = [i for i, trial in enumerate(self.trials) if trial.use]

        def rank(i: int) -> tuple[float, ...]:
            trial = self.trials[i]
            return (
                BEST_FIRST.index(trial.outcome),
                trial.loss or 0.0,
                -(trial.agreement or 0.0),
                -(trial.sqnr_db or 0.0),
            )

        return min(done, key=rank)

    def _best_component(self) -> Any:
        """Of the quantize passes so far."""
        best = self.changes[self._best()]
        return best.component if best.use == "quantize" else self.stage.component

    def _record(self) -> runs.ArtifactRecord:
        names = {export.name for export in self.exports}
        return next(record for record in self.work.run.manifest.artifacts if record.name in names)
