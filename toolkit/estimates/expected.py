"""Where nothing is timed: the estimates of a run's files, what a plan can say before, what does not fit a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from toolkit.core import Artifact, Measurement
from toolkit.devices import DeviceProfile
from toolkit.errors import EdgekitError
from toolkit.estimates import estimated, roofline, vela

LATENCY = "latency_p50_ms"


def to_plan(profiles: Iterable[DeviceProfile], source: Path | None) -> Iterator[str]:
    """For each device that nothing will be timed on: what its estimates will rest on.

    source: the recipe's model; of a .tflite or .onnx file also the estimate itself.
    """
    for profile in {profile.name: profile for profile in profiles}.values():
        if (profile.measurable and not profile.emulated) or not profile.processors:
            continue
        chosen = roofline.processor_of(profile)
        if chosen.vela and vela.version() is None:
            yield f"{profile.name}: latency there is not even estimated: ethos-u-vela is not installed ({vela.INSTALL})"
            continue
        basis = f"Vela for {chosen.vela.accelerator}" if chosen.vela else roofline.knowledge(profile)[1]
        text = f"{profile.name}: latency there will be estimated, not measured ({chosen.name}; {basis})"
        yield text + _of_source(source, profile)


def _of_source(source: Path | None, profile: DeviceProfile) -> str:
    if source is None or source.suffix.lower() not in (".tflite", ".onnx") or not source.is_file():
        return ""
    if roofline.processor_of(profile).vela:
        return ""  # compiling is work
    try:
        (found,) = estimated.measurements(source, profile, source.name, threads=profile.measure.threads)
    except EdgekitError as error:
        return f"; {source.name}: no estimate: {error.problem}"
    span = f" ({found.interval.low:.3g} .. {found.interval.high:.3g})" if found.interval else ""
    return f"; {source.name} as it is: {found.value:.3g} ms{span}"


def of_file(
    artifact: Artifact, profile: DeviceProfile, known: Iterable[Measurement], *, threads: int
) -> tuple[Measurement, ...]:
    """The estimate of a file on a device that has not timed it; nothing where it was timed, or nothing can be said.

    Raises UnsupportedError or UnavailableError, saying why, where the profile has processors and yet nothing is known.
    """
    timed = any(
        item.subject == artifact.name and item.device == profile.name and item.name == LATENCY
        for item in known
        if item.source != "estimated"
    )
    if timed or not profile.processors:
        return ()
    return estimated.measurements(artifact.path, profile, artifact.name, threads=threads)


def too_large(profile: DeviceProfile, artifact: Artifact, known: Iterable[Measurement]) -> Iterator[str]:
    """What of a file is more than the device has: its size of the room for files, its arena or SRAM of the memory."""
    if profile.storage_kib is not None and artifact.size_bytes > 1024 * profile.storage_kib:
        size = artifact.size_bytes / 1024
        yield f"{artifact.name} has {size:,.0f} KiB, {profile.name} has room for {profile.storage_kib:,}"
    if profile.memory_kib is None:
        return
    for item in known:
        own = item.subject == artifact.name and item.device == profile.name
        if own and item.name in ("arena_kib", "sram_kib") and item.value > profile.memory_kib:
            what = f"{item.value:,.0f} KiB of {'arena' if item.name == 'arena_kib' else 'SRAM'} ({item.source})"
            yield f"{artifact.name} needs {what}, {profile.name} has {profile.memory_kib:,} KiB of memory"
