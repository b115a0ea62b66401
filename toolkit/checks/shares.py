"""Each layer's share of a file's time on a device, where its runtime tells: a profiler slows layers down unevenly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit import benchmark_model
from toolkit.checks.latency import TIMEOUT_S, job
from toolkit.core import Artifact, Measurement, MeasureSpec, Session
from toolkit.devices import DeviceProfile

DELEGATED = "Delegate/"  # before what benchmark_model calls an operator of a delegate's


@dataclass(frozen=True)
class Profile:
    """What a runtime tells of one file. layers: {name, kind, share, by, operator, reads, writes}, as far as it does.

    pieces: places of the operators in each piece that a delegate took, None where nobody says. why: of no layers.
    """

    artifact: str
    sha256: str
    device: str
    runtime: str
    delegate: str
    threads: int
    layers: tuple[Mapping[str, Any], ...] = ()
    pieces: tuple[tuple[int, ...], ...] | None = None
    how: str = ""
    why: str = ""

    def measurements(self, profile: DeviceProfile) -> tuple[Measurement, ...]:
        """A `layer_share:` for each layer, the largest first."""
        told = {"runtime": self.runtime, "delegate": self.delegate, "threads": self.threads, **profile.how}
        ranked = sorted(self.layers, key=lambda layer: float(layer["share"]), reverse=True)
        return tuple(
            Measurement(
                self.artifact,
                f"layer_share:{layer['name']}",
                layer["share"],
                "",
                profile.provenance,
                profile.name,
                None,
                {**told, "kind": layer["kind"], "estimator": self.how},
            )
            for layer in ranked
        )


def profiled(
    artifact: Artifact, session: Session, spec: MeasureSpec, profile: DeviceProfile, *, runtime: tuple[str, str]
) -> Profile:
    """The profile of a file, in a process of its own."""
    found = _found(artifact, session, spec, profile, runtime)
    pieces = found.get("pieces")
    return Profile(
        artifact.name,
        artifact.sha256,
        profile.name,
        *runtime,
        spec.threads,
        tuple(found["layers"]),
        None if pieces is None else tuple(map(tuple, pieces)),
        found.get("how", ""),
        found.get("why", ""),
    )


def measure(
    artifact: Artifact, session: Session, spec: MeasureSpec, profile: DeviceProfile, *, runtime: tuple[str, str]
) -> tuple[tuple[Measurement, ...], str]:
    """A `layer_share:` for each layer, the largest first; or none of them, and why."""
    found = profiled(artifact, session, spec, profile, runtime=runtime)
    return found.measurements(profile), "" if found.layers else f"{artifact.name}: no shares by layer: {found.why}"


def _found(
    artifact: Artifact, session: Session, spec: MeasureSpec, profile: DeviceProfile, runtime: tuple[str, str]
) -> dict[str, Any]:
    if profile.python:
        return session.run(job("layers", artifact, session, spec, runtime), timeout_s=TIMEOUT_S)
    rows = benchmark_model.by_operator(artifact, session, spec, profile, runtime[1])
    layers = [
        {
            "name": row.name,
            "kind": row.kind.removeprefix(DELEGATED),
            "share": row.share,
            "by": "delegate" if DELEGATED in (row.kind[: len(DELEGATED)], row.name[: len(DELEGATED)]) else "built-in",
        }
        for row in rows
    ]
    return {"layers": layers, "how": "benchmark_model's profile", "why": "it listed no operator"}
