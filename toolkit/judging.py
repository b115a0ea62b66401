"""Runs every artifact on every device, measures, and lets the gate speak.

The test split is prepared once; the original and each stage answer on it in Keras, each artifact in the runtime
that the device would use, all devices at once. What a device answers is compared with what this machine does.
Answers and raw latency samples stay in the run's `samples/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING

from toolkit import compat, faster, registry, runs
from toolkit.checks import details, gate
from toolkit.checks.accuracy import Predictions, measure_accuracy
from toolkit.checks.chance import chance_warning
from toolkit.checks.evidence import Evidence
from toolkit.checks.installed import installed
from toolkit.checks.parity import beside_host, measure_parity
from toolkit.core import (
    Artifact,
    Dataset,
    Kind,
    Meaning,
    Measurement,
    Progress,
    Session,
    Signature,
    Verdict,
)
from toolkit.devices import DeviceProfile, load_device, open_session
from toolkit.errors import EdgekitError, UnavailableError, UnsupportedError
from toolkit.executor import Executor
from toolkit.parts import Emit, beside
from toolkit.plan import REFERENCE, Check, Plan
from toolkit.sources.store import path_of
from toolkit.staged import NONE, Staged
from toolkit.timing import Timing
from toolkit.together import on_each
from toolkit.weighing import weighed

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.datasets.splits import Splits
    from toolkit.datasets.stream import Split

HERE = "this-machine"
# what answers for a model before any export: its name, and the packages whose versions count, its own first
RUNTIMES: dict[Kind, tuple[str, tuple[str, ...]]] = {
    "keras": ("keras", ("keras", "tensorflow")),
    "savedmodel": ("tensorflow", ("tensorflow",)),
    "tflite": ("litert", ("ai-edge-litert",)),
    "onnx": ("onnxruntime", ("onnxruntime",)),
}
NOT_JUDGED = "nothing of it is judged"  # what is said of a device that failed, behind its name
EXAMPLE_IDS = "example ids"  # array beside the outputs in samples/*.answers.npz; no output is called so


@dataclass(frozen=True)
class Answers:
    """Outputs in the original's order. kernels: what computed them, "" where the runtime does not say."""

    outputs: list[Array]
    kernels: str
    seconds: float
    reused: bool


class Judge:
    """The checks of one run."""

    def __init__(
        self, plan: Plan, run: runs.Run, executor: Executor, scratch: Path, emit: Callable[[Progress], None]
    ) -> None:
        self.plan, self.run, self.executor, self.scratch, self.emit = plan, run, executor, scratch, emit
        self.confidence = plan.recipe.budget.confidence
        self.original: Predictions | None = None
        self.evidence: dict[tuple[str, str], Evidence] = {}  # (subject, device) -> what its gates are judged on
        self._answered: dict[tuple[str, str], Predictions] = {}  # (artifact, device) -> its first output
        self._failed: dict[str, EdgekitError] = {}  # device -> why nothing was found out there
        self._recording = Lock()  # one device at a time writes down what it found
        self._ids: tuple[str, ...] = ()
        self._versions: dict[tuple[str, str], str] = {}  # (device, runtime) -> what is installed there

    def judge(
        self, models: Mapping[str, Path], artifacts: Mapping[str, Artifact], splits: Splits, staged: Staged = NONE
    ) -> None:
        """Measure everything and record the verdicts. staged: files that are timed on the first device, not judged."""
        from toolkit.checks.inference import OnDisk

        test = splits.test
        self._ids = test.ids
        self._inputs = OnDisk(test, self._signature().inputs, self.scratch, what="test", emit=self.emit)
        for name, path in models.items():
            self._model(name, path, test)
        for artifact in artifacts.values():
            self.run.add_measurements(self._weighed(artifact))
            self._inherit_macs(artifact)
        for pixels in {artifact.pixels for artifact in artifacts.values()}:
            self._inputs.paths(pixels=pixels)  # before threads ask for them
        checks = self._by_device()

        def work(profile: DeviceProfile, session: Session) -> None:
            for check in checks[profile.name] if profile.answers else ():
                self._predictions(check, artifacts[check.artifact], session, test)
            timing = Timing(
                run=self.run,
                profile=profile,
                session=session,
                checks=checks[profile.name],
                artifacts=artifacts,
                staged=staged if profile.name == next(iter(checks)) else NONE,
                version=lambda use: self._version(profile, use, session),
                recording=self._recording,
                emit=self._told(profile.name),
                warn=self._warn,
            )
            timing.take_latency()
            timing.run_without_pause()

        self._failed = on_each([own[0].device for own in checks.values()], work)
        for device, error in self._failed.items():
            self.run.forget_device(device)
            self._warn(f"{device}: {NOT_JUDGED}: {error}")
        for check in (own for each in checks.values() for own in each if own.device.name not in self._failed):
            if check.device.answers:  # in the plan's order, whichever device was the first to finish
                self._compare(self._answered[check.artifact, check.device.name], test)
        self.run.order_devices(tuple(checks))
        self._in_place_of([check for check in self.plan.checks if not check.device.answers], artifacts, test)
        self._beside_host([check for own in checks.values() for check in own], artifacts, test)
        self._estimates(artifacts)
        faster.explain(self.run, self.plan.checks, artifacts)
        self._gate()

    def _weighed(self, artifact: Artifact) -> list[Measurement]:
        folder, stage = self.run.folder / "artifacts", self.plan.stage(artifact.name)
        checks = [check for check in self.plan.checks if check.artifact == artifact.name]
        return weighed(artifact, checks, path_of(folder, stage.parent, self.plan.kind))

    # ------------------------------------------------------------ answers

    def _model(self, name: str, path: Path, test: Split) -> None:
        """What the original or a stage's model answers on this machine, by the runtime of its kind."""
        digest = runs.content_sha256(path)
        runtime, packages = RUNTIMES[self.plan.kind]
        versions = {k: v for k, v in self.run.manifest.versions.items() if k in packages}
        key = runs.content_key("answers", digest, test.fingerprint, versions)

        def work() -> tuple[dict[str, Array], str]:
            import numpy as np

            found = self.executor.call("predict", model=path, inputs=self._inputs.paths(), folder=self.scratch / name)
            return {output: np.load(file) for output, file in found.items()}, ""

        answers = self._answers(name, "", key, work)
        head = self._head()
        how = {"runtime": runtime, "version": versions.get(packages[0], "")}
        predictions = Predictions(name, answers.outputs[0], head, source="measured", how=how)
        if self.original is None:
            self.original = predictions
        self._compare(predictions, test)
        self._record(f"answers:{name}", runtime, parent=name, key=key, answers=answers)

    def _artifact(self, check: Check, artifact: Artifact, session: Session, test: Split) -> None:
        """What a file answers on a device, beside the original's answers."""
        self._compare(self._predictions(check, artifact, session, test), test)

    def _predictions(self, check: Check, artifact: Artifact, session: Session, test: Split) -> Predictions:
        """What a file answers on a device."""
        from toolkit.checks import inference

        version = self._version(check.device, check.runtime, session)
        settings = {"runtime": check.runtime, "version": version, "delegate": check.delegate}
        device = check.device.name
        key = runs.content_key("answers", artifact.sha256, test.fingerprint, device, settings, check.measure.threads)

        def work() -> tuple[dict[str, Array], str]:
            compat.require_read(artifact.path, device, check.runtime, version)
            self.emit(Progress(f"checking {artifact.name} on {device}: {len(test)} test images", keep=True))
            answer = inference.run(
                artifact,
                session,
                runtime=check.runtime,
                delegate=check.delegate,
                prepared=self._inputs.paths(pixels=artifact.pixels),
                folder=self.scratch / f"{artifact.name}@{device}",
                threads=check.measure.threads,
                emit=self._told(device),
            )
            found = {spec.name: answer.outputs[spec.name] for spec in self._signature().outputs}
            return found, answer.kernel_path

        answers = self._answers(artifact.name, device, key, work)
        how = {**{k: str(v) for k, v in settings.items()}, "threads": check.measure.threads}
        how |= {"kernels": answers.kernels} if answers.kernels else {}
        how |= check.device.how
        predictions = Predictions(artifact.name, answers.outputs[0], self._head(), device, check.device.provenance, how)
        with self._recording:
            self._answered[artifact.name, device] = predictions
            what = f"answers:{artifact.name}@{device}"
            self._record(what, check.runtime, parent=artifact.name, key=key, answers=answers)
        return predictions

    def _answers(
        self, subject: str, device: str, key: str, work: Callable[[], tuple[dict[str, Array], str]]
    ) -> Answers:
        """From the earlier run if they are those; else from `work`, and kept."""
        import numpy as np

        file = self.run.folder / "samples" / f"{subject}{f'@{device}' if device else ''}.answers.npz"
        before = self.run.reusable(f"answers:{subject}{f'@{device}' if device else ''}", key)
        if before and file.is_file():
            with np.load(file) as stored:
                outputs = [stored[name] for name in stored.files if name != EXAMPLE_IDS]
            return Answers(outputs, before.parameters.get("kernels", ""), 0.0, True)
        started = perf_counter()
        found, kernels = work()
        np.savez(file, allow_pickle=False, **found, **{EXAMPLE_IDS: np.array(self._ids)})
        return Answers(list(found.values()), kernels, perf_counter() - started, False)

    def _compare(self, predictions: Predictions, test: Dataset) -> None:
        """Measure one model's answers, beside the original's, and keep what gates and pictures need of them."""
        if self.original is None:
            return
        other = None if predictions is self.original else self.original
        metrics = [step.component for step in self.plan.recipe.metrics]
        accuracy = measure_accuracy(predictions, test, original=other, confidence=self.confidence, metrics=metrics)
        found = list(accuracy.measurements)
        if other:
            found += measure_parity(predictions, other, test, confidence=self.confidence)
        elif found:
            self._warn_of_chance(found[0], test)
        self.run.add_measurements(found)
        subject, manifest = predictions.subject, self.run.manifest
        self.evidence[subject, predictions.device] = accuracy.evidence
        self.run.update(per_class={**manifest.per_class, subject: accuracy.per_class})
        if predictions.device or other is None:  # no pictures of the stages between
            drawn = details.of_answers(predictions, test, original=other, left_out=accuracy.left_out)
            self.run.update(details={**manifest.details, subject: drawn})

    def _warn_of_chance(self, score: Measurement, test: Dataset) -> None:
        """Say so when the original itself guesses: labels or preprocessing are wrong then, not the compression."""
        if warning := chance_warning(score, test):
            self._warn(warning)

    def _warn(self, warning: str) -> None:
        self.emit(Progress(f"warning: {warning}", keep=True))
        self.run.update(warnings=(*self.run.manifest.warnings, warning))

    # ------------------------------------------------------------ this machine beside the devices

    def _in_place_of(self, checks: list[Check], artifacts: Mapping[str, Artifact], test: Split) -> None:
        """What files answer here, for devices that cannot be asked."""
        silent = {check.artifact: check for check in checks if (check.artifact, HERE) not in self._answered}
        if silent:
            with closing(open_session(load_device(HERE))) as session:
                for name, check in silent.items():
                    self._artifact(self._here(check), artifacts[name], session, test)

    def _beside_host(self, checks: list[Check], artifacts: Mapping[str, Artifact], test: Split) -> None:
        """How far each other device's answers are from those of this machine on the same file and images."""
        answered = [check for check in checks if (check.artifact, check.device.name) in self._answered]
        others = [check for check in answered if check.device.needs_host or check.device.emulated]
        if not others:
            return
        with closing(open_session(load_device(HERE))) as session:
            for check in others:
                there = self._answered[check.artifact, check.device.name]
                try:
                    here = self._answered.get((check.artifact, HERE)) or self._predictions(
                        self._here(check), artifacts[check.artifact], session, test
                    )
                except EdgekitError as error:
                    self._warn(f"{check.artifact} on {check.device.name} is not compared with this machine: {error}")
                else:
                    self.run.add_measurements(beside_host(there, here, test, confidence=self.confidence))

    def _here(self, check: Check) -> Check:
        """The same check on this machine: by the same runtime where it is installed, else by its own for such files."""
        here, quant = load_device(HERE), self._kind(check.artifact)
        same = next((runtime for runtime in here.runtimes if runtime.use == check.runtime), None)
        runtime = same if same and quant[0] in same.formats else here.runtime_for(*quant)
        delegate = runtime.delegates[0] if runtime.delegates else "none"
        return replace(check, device=here, runtime=runtime.use, delegate=delegate)

    # ------------------------------------------------------------ what was not timed

    def _estimates(self, artifacts: Mapping[str, Artifact]) -> None:
        """Estimate what no device timed, and say what does not fit a device."""
        from toolkit.estimates import expected

        for check in self.plan.checks:
            artifact, known = artifacts[check.artifact], self.run.manifest.measurements
            try:
                found = expected.of_file(artifact, check.device, known, threads=check.measure.threads)
            except (UnsupportedError, UnavailableError) as error:
                self.emit(Progress(f"no estimate of {artifact.name} on {check.device.name}: {error}", keep=True))
                continue
            self.run.add_measurements(found)
            for problem in expected.too_large(check.device, artifact, (*known, *found)):
                self._warn(problem)

    # ------------------------------------------------------------ verdicts

    def _gate(self) -> None:
        judged = [check for check in self.plan.checks if not self._is_reference(check.artifact)]
        comparisons = sum(gate.statistical_gates(check.budget) for check in judged)
        verdicts: list[Verdict] = []
        for check in judged:
            verdicts += gate.judge(
                check.artifact,
                check.device.name,
                budget=check.budget,
                facts=self._facts(check),
                comparisons=comparisons,
            )
        verdicts = [self._with_reason(verdict) for verdict in verdicts]
        self.run.update(verdicts=tuple(verdicts), outcome=gate.run_outcome(verdicts))

    def _with_reason(self, verdict: Verdict) -> Verdict:
        """Why a device has no numbers, where its connection or its runtime failed."""
        error = self._failed.get(verdict.device)
        if error is None or verdict.outcome != "INCONCLUSIVE":
            return verdict
        return replace(verdict, reason=f"{verdict.reason}: {error}")

    def _facts(self, check: Check) -> gate.Facts:
        """What a check is judged on: a device that cannot be asked borrows the answers' numbers from this machine."""
        found, device = list(self.run.manifest.measurements), check.device.name
        if not check.device.answers:
            found = [m for m in found if m.device in ("", device)] + [
                Measurement(m.subject, m.name, m.value, m.unit, m.source, device, m.interval, m.how)
                for m in found
                if m.device == HERE and m.name in gate.ON_ANSWERS
            ]
        answered = device if check.device.answers else HERE
        evidence = self.evidence.get((check.artifact, answered), Evidence())
        return replace(gate.gather(found, check.artifact, device), evidence=evidence)

    # ------------------------------------------------------------ small things

    def _told(self, device: str) -> Emit:
        """Where what is done on a device is told: by its name where others are at work beside it."""
        return beside(self.emit, device) if len(self._by_device()) > 1 else self.emit

    def _version(self, profile: DeviceProfile, runtime: str, session: Session) -> str | None:
        """Of a runtime on the device: what is installed there."""
        if not profile.python:
            return ""
        if not profile.needs_host:
            found: str | None = registry.load("runtimes", runtime)().version()
            return found
        if (profile.name, runtime) not in self._versions:
            self._versions[profile.name, runtime] = installed(session, profile, runtime)
        return self._versions[profile.name, runtime]

    def _by_device(self) -> dict[str, list[Check]]:
        """Checks by the device that carries them out; what cannot be reached is answered, not timed, here."""
        found: dict[str, list[Check]] = {}
        for check in self.plan.checks:
            if check.device.measurable:
                found.setdefault(check.device.name, []).append(check)
        if not found:
            here = load_device(HERE)
            for check in self.plan.checks:
                runtime = here.runtime_for(*self._kind(check.artifact))
                delegate = runtime.delegates[0] if runtime.delegates else "none"
                measure = check.measure.model_copy(update={"cores": ()})  # those named are the device's own
                local = Check(check.artifact, here, runtime.use, delegate, measure, check.budget)
                known = found.setdefault(here.name, [])
                if check.artifact not in [each.artifact for each in known]:
                    known.append(local)
        return found

    def _kind(self, artifact: str) -> tuple[str, str]:
        record = next(record for record in self.run.manifest.artifacts if record.name == artifact)
        return record.format, record.scheme

    def _is_reference(self, artifact: str) -> bool:
        return self.plan.stage(artifact).variant == REFERENCE

    def _inherit_macs(self, artifact: Artifact) -> None:
        """A file has the MACs and parameters of the model it was written from."""
        parent = self.plan.stage(artifact.name).parent
        known = {(m.subject, m.name): m for m in self.run.manifest.measurements}
        for name in ("macs", "parameters"):
            found = known.get((parent, name))
            if found:
                how = {"method": f"of the model it was written from, {parent}"}
                self.run.add_measurements(
                    [Measurement(artifact.name, name, found.value, found.unit, "computed", how=how)]
                )

    def _head(self) -> Meaning:
        return self._signature().outputs[0].meaning

    def _signature(self) -> Signature:
        """The original's, whose names and order every stage and file keeps."""
        from toolkit.sources import store

        path = store.path_of(self.run.folder / "artifacts", REFERENCE, self.plan.kind)
        return store.read_contract(path).signature

    def _record(self, name: str, use: str, *, parent: str, key: str, answers: Answers) -> None:
        parameters = {"kernels": answers.kernels} if answers.kernels else {}
        seconds = round(answers.seconds, 3)
        self.run.add_stage(
            runs.StageRecord(name, use, "check", parent, key, parameters, seconds, reused=answers.reused)
        )
