"""`gate`: a finished run judged again, on what its manifest and samples/ hold; nothing is run and nothing re-measured.

Counts and numbers are the manifest's. Resampled losses and losses by class are made anew from the answers and labels
beside it, what each process gave from the raw samples of latency. What is not there is INCONCLUSIVE, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit import runs
from toolkit.budget_file import Limits, merged, name_of, read_limits
from toolkit.checks import gate, processes
from toolkit.checks.evidence import Evidence
from toolkit.core import Budget, Measurement, Verdict
from toolkit.errors import InputError
from toolkit.judging import HERE, NOT_JUDGED
from toolkit.kept import UNREADABLE, AbsentError, Kept
from toolkit.plan import REFERENCE

OWN = "its own recipe"
ON_EVIDENCE = ("max_class_drop", "max_error_increase", "min_cosine")  # judged on more than the manifest's counts


@dataclass(frozen=True)
class Rejudged:
    """Verdicts of a run by other limits. before: what the run itself says, of the same artifact, device and gate."""

    run: str
    budget: str
    outcome: gate.RunOutcome
    verdicts: tuple[Verdict, ...]
    before: Mapping[tuple[str, str, str], str]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Built-in types only, fit for JSON."""
        rows = [{**asdict(each), "before": self._before(each)} for each in self.verdicts]
        found = {"run": self.run, "budget": self.budget, "outcome": self.outcome, "verdicts": rows}
        plain: dict[str, Any] = runs.plain({**found, "notes": self.notes})
        return plain

    def lines(self) -> Iterator[str]:
        """Device x artifact x gate, one line a verdict; what the run itself said, where that was something else."""
        from toolkit.report.numbers import plain, quantity
        from toolkit.report.text import table

        head = ("device", "artifact", "gate", "verdict", "why")
        rows = [
            (each.device or "-", each.artifact, quantity(each.gate).label, self._outcome(each), each.reason)
            for each in self.verdicts
        ]
        yield from table([head, *(tuple(plain(cell) for cell in row) for row in rows)], left=4)
        yield ""
        yield from (f"note: {plain(note)}" for note in self.notes)
        counts = {outcome: sum(each.outcome == outcome for each in self.verdicts) for outcome in gate.WORST_FIRST}
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        yield f"{self.outcome}: {told or 'nothing was asked for'}, by the limits of {plain(self.budget)}"

    def _before(self, verdict: Verdict) -> str:
        return self.before.get((verdict.artifact, verdict.device, verdict.gate), "")

    def _outcome(self, verdict: Verdict) -> str:
        before = self._before(verdict)
        return f"{verdict.outcome} (was {before})" if before not in ("", verdict.outcome) else verdict.outcome


def rejudge(folder: Path, budget: Path | None = None, *, write: bool = False) -> Rejudged:
    """Judge the run in `folder` by the limits in a file, by default by its own recipe's.

    write: put the verdicts into its manifest, and write its report anew; else the run is left as it is.
    """
    manifest = runs.read(folder)
    folder = folder if folder.is_dir() else folder.parent
    judged = [record for record in manifest.artifacts if record.variant != REFERENCE]
    if not judged:
        raise InputError(str(folder), "delivered no file that could be judged", "name a run that ended")
    devices = tuple(dict.fromkeys([*_named(manifest), *(item.device for item in manifest.measurements if item.device)]))
    limits = read_limits(budget, devices) if budget else _own(manifest)
    pairs = [(record, device) for record in judged for device in _devices(manifest, record, limits)]
    asked = [limits.of(record.variant, device) for record, device in pairs]
    comparisons = sum(map(gate.statistical_gates, asked))
    known, verdicts = _Known(folder, manifest), []
    for (record, device), own in zip(pairs, asked, strict=True):
        facts, why = known.facts(record.name, device, own)
        found = gate.judge(record.name, device, budget=own, facts=facts, comparisons=comparisons)
        verdicts += [_with_reason(verdict, why.get(verdict.gate, "")) for verdict in found]
    before = {(each.artifact, each.device, each.gate): each.outcome for each in manifest.verdicts}
    notes = tuple(_notes(manifest, limits))
    made = Rejudged(str(folder), limits.source, gate.run_outcome(verdicts), tuple(verdicts), before, notes)
    if write:
        _write(folder, manifest, made)
    return made


def _write(folder: Path, manifest: runs.Manifest, made: Rejudged) -> None:
    from toolkit.reporting import write_report

    day = datetime.now(UTC).isoformat(timespec="seconds")
    told = f"judged again at {day} by the limits of {made.budget}"
    told += "" if made.budget == OWN else ", which are not those of the recipe shown here"
    runs.Run(folder, manifest).update(verdicts=made.verdicts, outcome=made.outcome, warnings=(*manifest.warnings, told))
    write_report(folder)


def _notes(manifest: runs.Manifest, limits: Limits) -> Iterator[str]:
    """What the verdicts do not say."""
    if manifest.status != "done":
        yield f"the run's status is {manifest.status}: {manifest.error}"
    variants = {record.variant for record in manifest.artifacts}
    for device, variant in limits.devices:
        if variant and variant not in variants:
            yield f"limits for variant {variant!r} on {device} judge nothing here: the run has no such variant"


def _with_reason(verdict: Verdict, why: str) -> Verdict:
    return replace(verdict, reason=f"{verdict.reason}: {why}") if why and verdict.outcome == "INCONCLUSIVE" else verdict


# ---------------------------------------------------------------- what is judged where


def _named(manifest: runs.Manifest) -> Iterator[str]:
    return (name_of(str(target["device"])) for target in manifest.recipe.get("targets", ()))


def _own(manifest: runs.Manifest) -> Limits:
    """The limits that the run itself was judged by."""
    recipe = manifest.recipe
    found = {
        (name_of(str(target["device"])), variant): Budget.model_validate(target["budget"])
        for target in recipe.get("targets", ())
        for variant in target["variants"]
    }
    return Limits(OWN, merged(Budget(), Budget.model_validate(recipe.get("budget", {}))), found)


def _devices(manifest: runs.Manifest, record: runs.ArtifactRecord, limits: Limits) -> tuple[str, ...]:
    """Where a file was meant for or measured, and where else the limits ask for it."""
    targets = manifest.recipe.get("targets", ())
    meant = [name_of(str(target["device"])) for target in targets if record.variant in target["variants"]]
    judged = [each.device for each in manifest.verdicts if each.artifact == record.name]
    return tuple(dict.fromkeys([*meant, *judged, *limits.asked(record.variant)]))


# ---------------------------------------------------------------- what is known


class _Known:
    """What is known of a run's files."""

    def __init__(self, folder: Path, manifest: runs.Manifest) -> None:
        self.kept, self.manifest = Kept(folder, manifest), manifest

    def facts(self, artifact: str, device: str, budget: Budget) -> tuple[gate.Facts, dict[str, str]]:
        """What a file is judged on there, and for each gate why it has nothing to judge on, or less than it had."""
        answered, found = device, list(self.manifest.measurements)
        if not self._answers_on(artifact, device) and not self._failed(device):
            answered = HERE  # as the run itself does for a device that cannot be asked
            borrowed = [m for m in found if m.device == HERE and m.name in gate.ON_ANSWERS]
            found = [m for m in found if m.device in ("", device)] + [replace(m, device=device) for m in borrowed]
        why: dict[str, str] = {}
        timed = [self._timed(m, why) if m.name in processes.PERCENTILES else m for m in found if m.subject == artifact]
        facts = gate.gather(timed, artifact, device)
        evidence = Evidence()
        needing = _on_evidence(budget, facts)
        if needing:
            try:
                evidence = self._evidence(artifact, answered)
            except (*UNREADABLE, InputError) as error:  # InputError: labels and answers do not fit each other
                problem = (
                    str(error) if isinstance(error, (AbsentError, InputError)) else f"{type(error).__name__}: {error}"
                )
                why |= dict.fromkeys(needing, problem)
        return replace(facts, evidence=evidence), why

    def _answers_on(self, artifact: str, device: str) -> bool:
        return any(stage.name == f"answers:{artifact}@{device}" for stage in self.manifest.stages)

    def _failed(self, device: str) -> bool:
        return any(warning.startswith(f"{device}: {NOT_JUDGED}") for warning in self.manifest.warnings)

    def _timed(self, measured: Measurement, why: dict[str, str]) -> Measurement:
        """With what each process gave: a run of before that was kept has it in its raw samples."""
        if measured.source != "measured" or processes.EACH in measured.how:
            return measured
        try:
            raw = self.kept.processes(measured.subject, measured.device)
            told = processes.told(processes.each(raw, measured.name))
        except UNREADABLE as error:
            why |= {name: str(error) for name, of in gate.LATENCY.items() if of == measured.name}
            return measured
        return replace(measured, how={**measured.how, **told})

    def _evidence(self, artifact: str, device: str) -> Evidence:
        """Resamples and counts by class, from the answers."""
        from toolkit.checks.accuracy import measure_accuracy

        before, after = self.kept.predictions(REFERENCE), self.kept.predictions(artifact, device)
        return measure_accuracy(after, self.kept.labels(), original=before).evidence


def _on_evidence(budget: Budget, facts: gate.Facts) -> tuple[str, ...]:
    """The limits that are judged on resamples or on counts by class."""
    resampled = facts.accuracy_drop is not None and facts.accuracy_drop.name == "mean_average_precision_drop"
    gates = (*ON_EVIDENCE, *(("max_accuracy_drop",) if resampled else ()))
    return tuple(name for name in gates if getattr(budget, name) is not None)
