"""Files judged on the selection split as the run's checks judge them on test: in their runtime, by the same gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checks import gate
from toolkit.core import Artifact, Budget, Measurement, Outcome, Progress, Verdict
from toolkit.devices import load_device, open_session
from toolkit.errors import InputError
from toolkit.executor import Executor
from toolkit.plan import REFERENCE, Check, Plan
from toolkit.sources import store

if TYPE_CHECKING:
    from toolkit.checks.accuracy import Predictions
    from toolkit.datasets.splits import Splits

HERE = "this-machine"
WORST_FIRST: tuple[Outcome, ...] = ("FAIL", "INCONCLUSIVE", "PASS")


@dataclass(frozen=True)
class Judged:
    """What the worst of some files has. loss: of the score, against the original; None where it was not measured.

    fits: whether it is within the limits of size and latency.
    """

    outcome: Outcome
    reason: str
    fits: bool = True
    loss: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    latency_ms: float | None = None


class Selecting:
    """The selection split, the original's answers on it, and a session on this machine."""

    def __init__(self, plan: Plan, splits: Splits, folder: Path, emit: Callable[[Progress], None]) -> None:
        if splits.selection is None:
            raise InputError("repair", "chooses on the selection split", "set data.splits.selection")
        self.split = splits.selection
        self._plan, self._folder, self._emit = plan, folder, emit
        self._session = open_session(load_device(HERE))

    def ask_original(self, model: Path, executor: Executor) -> None:
        """Have the original, saved at `model`, answer."""
        import numpy as np

        from toolkit.checks.accuracy import Predictions
        from toolkit.checks.inference import OnDisk

        signature = store.read_contract(model).signature
        self._inputs = OnDisk(self.split, signature.inputs, self._folder, what="selection", emit=self._emit)
        paths = executor.call("predict", model=model, inputs=self._inputs.paths(), folder=self._folder / REFERENCE)
        output = signature.outputs[0]
        self._original: Predictions = Predictions(REFERENCE, np.load(paths[output.name]), output.meaning)

    def close(self) -> None:
        """Leave the device."""
        self._session.close()

    def judge(self, artifacts: Sequence[Artifact]) -> Judged:
        """The worst of these files, all limits together."""
        found = [self._judge(artifact) for artifact in artifacts]
        return min(found, key=lambda each: (WORST_FIRST.index(each.outcome), -(each.loss or 0.0)))

    def _judge(self, artifact: Artifact) -> Judged:
        checks = [check for check in self._plan.checks if check.artifact == artifact.name]
        measured, evidence = self._measured(artifact)
        latency = self._latency(artifact, checks)
        size = Measurement(artifact.name, "size_bytes", artifact.size_bytes, "B", "computed")
        facts = replace(gate.gather([*measured, size, *latency], artifact.name, HERE), evidence=evidence)
        verdicts: list[Verdict] = []
        for check in checks:
            limits, comparisons = _judgeable(check.budget, latency), self._comparisons()
            verdicts += gate.judge(artifact.name, HERE, budget=limits, facts=facts, comparisons=comparisons)
        worst = min(verdicts, key=lambda verdict: WORST_FIRST.index(verdict.outcome), default=None)
        over = [each for each in verdicts if each.outcome == "FAIL" and each.gate not in gate.STATISTICAL]
        loss = facts.accuracy_drop or facts.error_increase
        return Judged(
            outcome=worst.outcome if worst else "PASS",
            reason=f"{artifact.name}: {worst.reason}" if worst else "",
            fits=not over,
            loss=loss.value if loss else None,
            agreement=facts.agreement.value if facts.agreement else None,
            sqnr_db=next((each.value for each in measured if each.name == "sqnr_db"), None),
            latency_ms=facts.latency_p50.value if facts.latency_p50 else None,
        )

    def _comparisons(self) -> int:
        judged = [check for check in self._plan.checks if self._plan.stage(check.artifact).variant != REFERENCE]
        return sum(gate.statistical_gates(check.budget) for check in judged)

    def _measured(self, artifact: Artifact) -> tuple[list[Measurement], Any]:
        """What the file answers on selection, in its runtime here, beside the original."""
        from toolkit.checks import inference
        from toolkit.checks.accuracy import Predictions, measure_accuracy
        from toolkit.checks.parity import measure_parity

        runtime, delegate = _runtime(artifact)
        original, split = self._original, self.split
        answer = inference.run(
            artifact,
            self._session,
            runtime=runtime,
            delegate=delegate,
            prepared=self._inputs.paths(pixels=artifact.pixels),
            folder=self._folder / artifact.name,
            threads=1,
            emit=self._emit,
        )
        outputs = answer.outputs[artifact.signature.outputs[0].name]
        own = Predictions(artifact.name, outputs, original.head, HERE, "measured", {"split": "selection"})
        confidence = self._plan.recipe.budget.confidence
        accuracy = measure_accuracy(own, split, original=original, confidence=confidence)
        parity = measure_parity(own, original, split, confidence=confidence)
        return [*accuracy.measurements, *parity], accuracy.evidence

    def _latency(self, artifact: Artifact, checks: list[Check]) -> list[Measurement]:
        """Timed here, where a budget of this machine asks for it."""
        from toolkit.checks import latency

        asked = [check for check in checks if check.device.name == HERE and check.measure.processes]
        if not any(check.budget.max_latency_p50_ms or check.budget.max_latency_p90_ms for check in asked):
            return []
        runtimes = {artifact.name: _runtime(artifact)}
        folder = self._folder
        found = latency.measure(
            [artifact],
            self._session,
            asked[0].measure,
            load_device(HERE),
            runtimes=runtimes,
            samples=folder,
            emit=self._emit,
        )
        return list(found)


def _runtime(artifact: Artifact) -> tuple[str, str]:
    runtime = load_device(HERE).runtime_for(artifact.format, artifact.scheme)
    return runtime.use, runtime.delegates[0] if runtime.delegates else "none"


def _judgeable(budget: Budget, latency: list[Measurement]) -> Budget:
    """What can be judged before the run's own checks: answers and size, and latency where it was measured here."""
    later = ["max_macs", "max_arena_kib", *([] if latency else ["max_latency_p50_ms", "max_latency_p90_ms"])]
    return budget.model_copy(update=dict.fromkeys(later))
