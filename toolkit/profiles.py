"""`edgekit device`: what profiles there are, what one says and what a plan would make of it, and their mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toolkit import compat, registry
from toolkit.core import QuantSpec
from toolkit.devices import DeviceProfile, DeviceRuntime, load_device, shipped
from toolkit.errors import InputError
from toolkit.hardware import FAMILIES


def listed(*, measurable: bool = False, family: str | None = None) -> list[dict[str, Any]]:
    """The shipped profiles: name, family, title, how it can be measured, formats; as far as asked for."""
    if family is not None and family not in FAMILIES:
        raise InputError("--family", f"no such family, got {family!r}", registry.suggest(family, FAMILIES))
    profiles = [load_device(name) for name in sorted(shipped("devices"))]
    return [
        {
            "name": profile.name,
            "family": profile.family,
            "title": profile.title,
            "reached": reach(profile),
            "formats": sorted({format for runtime in profile.runtimes for format in runtime.formats}),
        }
        for profile in profiles
        if (not measurable or profile.transport) and family in (None, profile.family)
    ]


def reach(profile: DeviceProfile) -> str:
    """In a word or two: how it is measured."""
    if profile.emulated:
        return f"emulated: {profile.emulated}"
    return {"": "planned for only", "local": "here"}.get(profile.transport, f"--{profile.transport}")


def shown(name: str | Path) -> dict[str, Any]:
    """Everything a profile says, and what a plan would say."""
    profile = load_device(name)
    return {**profile.model_dump(mode="json", exclude_defaults=True), "plan": list(planned(profile))}


def planned(profile: DeviceProfile) -> Iterator[str]:
    """What a plan would say of files for this device."""
    yield _reached(profile)
    for runtime in profile.runtimes:
        version = f" {runtime.version}" if runtime.version else ", whatever version is installed"
        formats, schemes = "/".join(runtime.formats), ", ".join(runtime.schemes)
        delegates = f" ({', '.join(runtime.delegates)})" if runtime.delegates else ""
        yield f"{formats} as {schemes}: {runtime.use}{version}{delegates}"
        yield from (f"{runtime.use}: {known.fact} ({known.source})" for known in runtime.kernels)
        yield from dict.fromkeys(line.removeprefix(f"{profile.name}: ") for line in _versions(profile, runtime))
    yield from (f"its {each.name} {each.why}: not measured" for each in profile.no_runtime)


def _reached(profile: DeviceProfile) -> str:
    if profile.emulated:
        return f"imitated ({profile.emulated}): its numbers are emulated, its latency gates INCONCLUSIVE"
    if profile.transport == "local":
        return "measured here"
    if not profile.transport:
        return "nothing reaches it as its profile stands: its latency gates are INCONCLUSIVE"
    where = f"where --{profile.transport} {profile.name}=... says it is"
    return f"measured {where}; until then its latency gates are INCONCLUSIVE"


def _versions(profile: DeviceProfile, runtime: DeviceRuntime) -> Iterator[str]:
    """What the exporters write in their usual settings and this runtime's version does not read."""
    for name in registry.names("exporters"):
        exporter = registry.load("exporters", name)
        if exporter.format in runtime.formats and name != "tensorrt":
            for scheme in exporter.schemes:
                if scheme in runtime.schemes:
                    yield from compat.expected(exporter(), QuantSpec(scheme), [(profile, runtime)])


def read_by(path: Path, device: str | Path) -> list[str]:
    """A line for each runtime of a device that takes such files: that it reads this one, or what of it it does not."""
    profile = load_device(device)
    runtimes = [each for each in profile.runtimes if path.suffix.lower().removeprefix(".") in each.formats]
    if not runtimes:
        return [f"{profile.name}: none of its runtimes takes {path.suffix} files"]
    lines: list[str] = []
    for runtime in runtimes:
        wrong = compat.refusals(path, runtime)
        unknown = "" if runtime.version else ", as far as is known without its version"
        name = " ".join(filter(None, (runtime.use, runtime.version)))
        lines += [f"{profile.name}: {line}" for line in wrong] or [f"{profile.name}: {name} reads it{unknown}"]
    return list(dict.fromkeys(lines))


def shown_lines(found: dict[str, Any]) -> Iterator[str]:
    """What `edgekit device show` prints."""
    yield f"{found['name']}: {found.get('title', '')}".rstrip(": ")
    if found.get("notes"):
        yield f"  {found['notes']}"
    yield from ("", "what a plan says:", *(f"  {line}" for line in found["plan"]))
    limits = [(key, found[key]) for key in ("memory_kib", "storage_kib", "bandwidth_gb_s") if key in found]
    if limits:
        yield from ("", "limits:", *(f"  {key}: {value}" for key, value in limits))
    if found.get("processors"):
        yield from ("", "processors:")
    for each in found.get("processors", ()):
        macs = ", ".join(f"{value:g} {kind}" for kind, value in each["macs_per_cycle"].items())
        isa = f", {', '.join(each['isa'])}" if each.get("isa") else ""
        cores = f"{each['cores']} x {each['name']} at {each['clock_ghz']:g} GHz"
        yield f"  {cores}, MACs a cycle: {macs}{isa} [{each['source']}]"
    if found.get("facts"):
        yield from ("", "facts:")
    for fact in found.get("facts", ()):
        yield f"  {fact['name']}: {fact['value']} {fact.get('unit', '')}".rstrip() + f" [{fact['source']}]"
    if found.get("published"):
        yield from ("", "published by others, quoted, not measured by Edgekit:")
    for each in found.get("published", ()):
        about = ", ".join(filter(None, (each.get("processor"), each.get("runtime"))))
        about = f" ({about})" if about else ""
        yield f"  {each['model']} {each['arithmetic']}: {each['milliseconds']:g} ms{about} [{each['source']}]"


def checked(files: Sequence[str]) -> list[str]:
    """The names of the profiles that were read, all shipped ones by default; raises InputError with every mistake."""
    names: list[str] = []
    wrong: list[InputError] = []
    for file in files or sorted(shipped("devices")):
        try:
            names.append(load_device(file).name)
        except InputError as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise InputError(wrong[0].where, "\n".join(map(str, wrong)).removeprefix(f"{wrong[0].where}: "))
    return names
