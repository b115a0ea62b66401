"""The estimate of a file on a device, by what the profile gives: Vela for an Ethos-U, a roofline for anything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit.core import Measurement
from toolkit.devices import DeviceProfile
from toolkit.errors import InputError
from toolkit.estimates import roofline, vela, workload
from toolkit.estimates.roofline import Estimate
from toolkit.estimates.vela import Compiled


def estimate_file(
    path: Path,
    profile: DeviceProfile,
    *,
    threads: int | None = None,
    processor: str = "",
    told: Mapping[str, str] | None = None,
) -> Estimate | Compiled:
    """What a file takes on a profile's processor, the first by default. told: what Vela is told instead of the profile.

    Raises UnsupportedError, saying why, where nothing can be estimated.
    """
    chosen = roofline.processor_of(profile, processor)
    if chosen.vela is None:
        if told:
            problem = f"is for an Ethos-U, and {chosen.name} of {profile.name} is none"
            raise InputError(f"--{next(iter(told)).replace('_', '-')}", problem, "leave it out")
        return roofline.estimate(profile, workload.read(path), threads=threads, processor=processor)
    return vela.compile_file(path, chosen.vela.model_copy(update=dict(told or {})))


def measurements(
    path: Path, profile: DeviceProfile, subject: str, *, threads: int | None = None
) -> tuple[Measurement, ...]:
    """The estimate as numbers of a run."""
    return estimate_file(path, profile, threads=threads).measurements(subject, profile.name)


def as_dict(found: Estimate | Compiled, subject: str, device: str) -> dict[str, Any]:
    """An estimate as data."""
    rows = found.measurements(subject, device)
    return {"device": device, "measurements": [asdict(row) for row in rows], "estimate": asdict(found)}
