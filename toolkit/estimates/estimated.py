"""The estimate of a file on a device, by what the profile gives: Vela for an Ethos-U, a roofline for anything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    if threads is not None:
        raise InputError("--threads", f"{chosen.name} of {profile.name} runs no threads of a runtime", "leave it out")
    return vela.compile_file(path, chosen.vela.model_copy(update=dict(told or {})))


def measurements(
    path: Path, profile: DeviceProfile, subject: str, *, threads: int | None = None
) -> tuple[Measurement, ...]:
    """The estimate as numbers of a run."""
    asked = None if roofline.processor_of(profile).vela else threads
    return estimate_file(path, profile, threads=asked).measurements(subject, profile.name)


def notes(path: Path, profile: DeviceProfile) -> Iterator[str]:
    """Why the file would not run there, whatever its layers take: no runtime for its format, no room."""
    form = path.suffix.lower().removeprefix(".")
    taken = sorted({taken for runtime in profile.runtimes for taken in runtime.formats})
    if form not in taken:
        yield f"{profile.name} runs no .{form} files, only {', '.join(taken)}: export the model so"
    size = path.stat().st_size / 1024
    if profile.storage_kib is not None and size > profile.storage_kib:
        yield f"{path.name} has {size:,.0f} KiB, {profile.name} has room for {profile.storage_kib:,}"


def as_dict(found: Estimate | Compiled, path: Path, profile: DeviceProfile) -> dict[str, Any]:
    """An estimate as data."""
    rows = found.measurements(path.name, profile.name)
    numbers = {"measurements": [asdict(row) for row in rows], "estimate": asdict(found)}
    return {"device": profile.name, **numbers, "notes": list(notes(path, profile))}


def lines(found: Estimate | Compiled, path: Path, profile: DeviceProfile) -> Iterator[str]:
    """For a person."""
    yield from found.lines(path.name, profile.name)
    yield from (f"note: {note}" for note in notes(path, profile))
