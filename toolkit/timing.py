"""What a run times on a device: latency, all files in turns, and, where it is asked for, runs without pause."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter

from toolkit import faster, runs
from toolkit.checks import latency, sustained
from toolkit.checks.sustained import Sustained
from toolkit.core import Artifact, Measurement, MeasureSpec, Session
from toolkit.devices import DeviceProfile
from toolkit.parts import Emit, passed, watching
from toolkit.plan import Check
from toolkit.staged import Staged


@dataclass(frozen=True)
class Timing:
    """One device's files. staged: files of stages that are timed with them.

    version: of a runtime there. recording: held while the manifest is written. warn: is told what was left out.
    """

    run: runs.Run
    profile: DeviceProfile
    session: Session
    checks: Sequence[Check]
    artifacts: Mapping[str, Artifact]
    staged: Staged
    version: Callable[[str], str | None]
    recording: AbstractContextManager[object]
    emit: Emit
    warn: Callable[[str], None]

    @property
    def spec(self) -> MeasureSpec:
        """How all of them are measured."""
        return self.checks[0].measure

    def take_latency(self) -> None:
        """Time all files together, interleaved, so that they share the machine's moods."""
        if not self.spec.processes:
            with self.recording:
                self.run.forget_latency(self.profile.name)
            return
        checks = self._able()
        if not checks:
            return
        chosen, beside = [self.artifacts[check.artifact] for check in checks], self.staged.timed_with(checks)
        runtimes = {check.artifact: (check.runtime, check.delegate) for check in checks} | beside
        timed = [*chosen, *(self.staged.files[name] for name in beside)]
        versions = {use: self.version(use) for use, _ in runtimes.values()}
        settings = self.spec.model_dump(exclude={"sustained_seconds"})
        key = runs.content_key("latency", _digests(timed), runtimes, versions, settings, self._where())
        name = f"latency@{self.profile.name}"
        if self._known(name, key):
            return
        started, samples = perf_counter(), self.run.folder / "samples"
        found = latency.measure(
            timed, self.session, self.spec, self.profile, runtimes=runtimes, samples=samples, emit=self.emit
        )
        faster.profile_files(
            chosen, self.session, self.spec, self.profile, runtimes=runtimes, samples=samples, emit=self.emit
        )
        self._record(name, key, self.staged.told(found), perf_counter() - started)

    def _able(self) -> list[Check]:
        """Checks of files that can be timed there."""
        python = self.profile.python
        able = [check for check in self.checks if python or self.artifacts[check.artifact].format == "tflite"]
        if len(able) < len(self.checks):
            left = ", ".join(check.artifact for check in self.checks if check not in able)
            why = "it has no Python and benchmark_model runs .tflite"
            with self.recording:
                self.warn(f"{self.profile.name}: not timed, since {why}: {left}")
        return able

    def run_without_pause(self) -> None:
        """Run every file for so long, one after another: latency once warm and, where a sensor tells power, energy."""
        if not self.spec.sustained_seconds or not self.profile.python:
            with self.recording:
                self.run.forget_sustained(self.profile.name)
                if self.spec.sustained_seconds:
                    self.warn(f"{self.profile.name}: nothing is run without pause, which needs Python there")
            return
        files = [self.artifacts[check.artifact] for check in self.checks]
        runtimes = {check.artifact: (check.runtime, check.delegate) for check in self.checks}
        versions = {use: self.version(use) for use, _ in runtimes.values()}
        settings = self.spec.model_dump()
        key = runs.content_key("sustained", _digests(files), runtimes, versions, settings, self._where())
        name = f"{runs.SUSTAINED}@{self.profile.name}"
        if self._known(name, key):
            return
        started, found = perf_counter(), [self._without_pause(file, runtimes[file.name]) for file in files]
        with self.recording:
            self.run.forget_sustained(self.profile.name)
            for note in dict.fromkeys(note for each in found for note in each.notes):
                if note == sustained.NO_ENERGY or sustained.LOST in note:
                    self.warn(f"{self.profile.name}: {note}")
        rows = (row for each in found for row in each.measurements)
        self._record(name, key, rows, perf_counter() - started)

    def _without_pause(self, file: Artifact, runtime: tuple[str, str]) -> Sustained:
        seconds = self.spec.sustained_seconds
        with watching(self.emit, f"running {file.name} without pause", passed(seconds)):
            return sustained.measure(
                file,
                self.session,
                self.spec,
                self.profile,
                runtime=runtime,
                minutes=seconds / 60,
                samples=self.run.folder / "samples",
            )

    def _where(self) -> object:
        return self.profile.host or self.run.manifest.host

    def _known(self, name: str, key: str) -> bool:
        """Whether an earlier run has measured just that."""
        if reused := self.run.reusable(name, key):
            with self.recording:
                self.run.add_stage(reused)
        return bool(reused)

    def _record(self, name: str, key: str, found: Iterable[Measurement], seconds: float) -> None:
        with self.recording:
            self.run.add_measurements(found)
            settings = self.spec.model_dump(mode="json")
            self.run.add_stage(runs.StageRecord(name, "latency", "check", "", key, settings, round(seconds, 3)))


def _digests(files: Sequence[Artifact]) -> dict[str, str]:
    return {file.name: file.sha256 for file in files}
