"""What `bench` measures of files on one device: short processes, or minutes without pause; and each layer's share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit import registry
from toolkit.core import Artifact, Interval, Measurement, MeasureSpec, Progress, Session
from toolkit.devices import DeviceProfile
from toolkit.errors import UnsupportedError
from toolkit.parts import passed, watching


@dataclass(frozen=True)
class Bench:
    """What `bench` measures with."""

    session: Session
    profile: DeviceProfile
    spec: MeasureSpec
    runtimes: dict[str, tuple[str, str]]
    samples: Path
    emit: Callable[[Progress], None]

    def timed(self, artifacts: Sequence[Artifact], sweep: Sequence[int]) -> dict[str, Any]:
        """In short processes, interleaved."""
        from toolkit.checks import latency

        found = latency.measure(
            artifacts,
            self.session,
            self.spec,
            self.profile,
            runtimes=self.runtimes,
            samples=self.samples,
            emit=self.emit,
            threads=sweep,
        )
        notes = [*_fastest(found), *(f"{name}: {self._untimed(name)}" for name in self.runtimes if self._untimed(name))]
        return {"measurements": [asdict(measurement) for measurement in found], "notes": notes}

    def _untimed(self, name: str) -> str:
        """Why a file's latency is not taken here, or ""."""
        use = self.runtimes[name][0]
        if getattr(registry.load("runtimes", use), "timed", True):
            return ""
        estimate = f"edgekit device estimate {name} --device {self.profile.name}"
        return f"no latency: {use} on this machine says nothing of {self.profile.name}'s; `{estimate}` does"

    def sustained(self, artifacts: Sequence[Artifact], minutes: float) -> dict[str, Any]:
        """One after another, each for so many minutes."""
        from toolkit.checks import sustained

        rows, notes, series = [], [], {}
        for name in self.runtimes:
            if self._untimed(name):
                raise UnsupportedError(name, self._untimed(name))
        for artifact in artifacts:
            self.emit(Progress(f"running {artifact.name} for {minutes:g} minutes", keep=True))
            with watching(self.emit, f"running {artifact.name}", passed(minutes * 60)):
                found = sustained.measure(
                    artifact,
                    self.session,
                    self.spec,
                    self.profile,
                    runtime=self.runtimes[artifact.name],
                    minutes=minutes,
                    samples=self.samples,
                )
            rows += [asdict(measurement) for measurement in found.measurements]
            notes += [f"{artifact.name}: {note}" for note in found.notes]
            series[artifact.name] = {"units": dict(found.units), "rows": list(found.series)}
        return {"measurements": rows, "notes": notes, "series": series}

    def layers(self, artifacts: Sequence[Artifact], found: dict[str, Any]) -> None:
        """Adds each layer's share, or a note why there is none; and why the files are no faster."""
        from toolkit import faster
        from toolkit.checks import shares

        known = [
            Measurement(**{**row, "interval": Interval(**row["interval"]) if row["interval"] else None})
            for row in found["measurements"]
        ]
        profiles = [
            shares.profiled(each, self.session, self.spec, self.profile, runtime=self.runtimes[each.name])
            for each in artifacts
        ]
        for profile in profiles:
            found["measurements"] += [asdict(row) for row in profile.measurements(self.profile)]
            found["notes"] += [] if profile.layers else [f"{profile.artifact}: no shares by layer: {profile.why}"]
        found["speed"] = faster.benched(artifacts, self.profile, profiles, known)


def _fastest(found: Iterable[Measurement]) -> Iterator[str]:
    """Of a sweep, which number of threads was the fastest for each file, where the ranges tell."""
    medians: dict[str, list[Measurement]] = {}
    for row in found:
        if row.name == "latency_p50_ms":
            medians.setdefault(row.subject, []).append(row)
    for subject, rows in medians.items():
        if len(rows) > 1:
            first, second = sorted(rows, key=lambda row: row.value)[:2]
            apart = bool(first.interval and second.interval and first.interval.high < second.interval.low)
            count = first.how["threads"]
            words = f"{count} {'threads were' if count > 1 else 'thread was'} the fastest, "
            words += f"{second.value / first.value:.2f} times as fast"
            told = "" if apart else "; their ranges overlap, so measure longer before you rely on it"
            yield f"{subject}: {words} as {second.how['threads']}{told}"
