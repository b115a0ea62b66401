"""Each layer's share of a file's time on a device, where its runtime tells: a profiler slows layers down unevenly."""

from __future__ import annotations

from typing import Any

from toolkit import benchmark_model
from toolkit.checks.latency import TIMEOUT_S, job
from toolkit.core import Artifact, Measurement, MeasureSpec, Session
from toolkit.devices import DeviceProfile


def measure(
    artifact: Artifact, session: Session, spec: MeasureSpec, profile: DeviceProfile, *, runtime: tuple[str, str]
) -> tuple[tuple[Measurement, ...], str]:
    """A `layer_share:` for each layer, the largest first; or none of them, and why."""
    found = _found(artifact, session, spec, profile, runtime)
    how: dict[str, Any] = {"runtime": runtime[0], "delegate": runtime[1], "threads": spec.threads, **profile.how}
    ranked = sorted(found["layers"], key=lambda layer: layer["share"], reverse=True)
    rows = tuple(
        Measurement(
            artifact.name,
            f"layer_share:{layer['name']}",
            layer["share"],
            "",
            profile.provenance,
            profile.name,
            None,
            {**how, "kind": layer["kind"], "estimator": found["how"]},
        )
        for layer in ranked
    )
    return rows, "" if rows else f"{artifact.name}: no shares by layer: {found['why']}"


def _found(
    artifact: Artifact, session: Session, spec: MeasureSpec, profile: DeviceProfile, runtime: tuple[str, str]
) -> dict[str, Any]:
    if profile.python:
        return session.run(job("layers", artifact, session, spec, runtime), timeout_s=TIMEOUT_S)
    rows = benchmark_model.by_operator(artifact, session, spec, profile, runtime[1])
    layers = [{"name": row.name, "kind": row.kind, "share": row.share} for row in rows]
    return {"layers": layers, "how": "benchmark_model's profile", "why": "it listed no operator"}
