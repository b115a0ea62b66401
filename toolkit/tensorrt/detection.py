"""What a target is, from the output of a few programs of its own: Jetson or a computer with a discrete GPU.

Nothing is guessed: what a program did not say is listed as missing, with why. The programs only read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from toolkit.tensorrt import jetson, trtexec
from toolkit.tensorrt.jetson import Clock, Mode, Release
from toolkit.tensorrt.types import Target

GPU_FIELDS = ("name", "driver_version", "compute_cap", "memory.total", "clocks.sm", "clocks.max.sm", "power.limit")
# what is asked, by name; lists of arguments, no shell. Those of Jetson answer nothing elsewhere, and the reverse
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "machine": ("uname", "-sm"),
    "os": ("cat", "/etc/os-release"),
    "model": ("cat", "/proc/device-tree/model"),
    "compatible": ("cat", "/proc/device-tree/compatible"),
    "release": ("cat", "/etc/nv_tegra_release"),
    "memory": ("cat", "/proc/meminfo"),
    "packages": ("dpkg-query", "-W", "libnvinfer*", "tensorrt", "cuda-cudart-*", "nvidia-jetpack"),
    "mode": ("nvpmodel", "-q"),
    "modes": ("nvpmodel", "-p", "--verbose"),
    "clocks": ("jetson_clocks", "--show"),
    "gpu": ("nvidia-smi", f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader,nounits"),
    "container": ("ls", "-d", "/.dockerenv"),
    **{f"trtexec {place}": command for place, command in zip(trtexec.PLACES, trtexec.PROBES, strict=True)},
}


class Ran(Protocol):
    """A finished command, as a session's `execute` gives it."""

    @property
    def returncode(self) -> int: ...
    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...


@dataclass(frozen=True)
class Gpu:
    """A row of nvidia-smi; "" and None for what it does not give ([N/A] on Thor, unknown fields of old drivers)."""

    name: str
    driver: str = ""
    compute_capability: str = ""
    memory_mib: int | None = None
    clock_mhz: float | None = None
    top_clock_mhz: float | None = None
    power_limit_w: float | None = None


@dataclass(frozen=True)
class Detected:
    """What a system is. target's fields are "" or None where they are among `missing`.

    profile: name of a shipped device profile, "" for none. trtexec: its path, "" for none; trtexec_version may be
    another than the libraries'. clocks: empty where root is needed. how: for measurements taken there.
    """

    target: Target
    profile: str
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()
    trtexec: str = ""
    trtexec_version: str = ""
    release: Release | None = None
    mode: Mode | None = None
    modes: tuple[Mode, ...] = ()
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    gpu: Gpu | None = None

    def how(self) -> dict[str, str]:
        """Power mode and clocks, as far as they are known, under the names that `power.incomparable` reads."""
        gpu = self.clocks.get("GPU")
        locked = {} if gpu is None else {"clocks": "locked" if gpu.locked else "not locked"}
        return {**({"power_mode": self.target.power_mode} if self.target.power_mode else {}), **locked}


def detected(outputs: Mapping[str, Ran]) -> Detected:
    """What the system is, of the outputs of COMMANDS by the same names; one that was not run counts as missing."""
    return (
        _jetson(outputs)
        if _said(outputs, "compatible", "tegra") or _said(outputs, "release", "# R")
        else _discrete(outputs)
    )


def gpus(text: str) -> tuple[Gpu, ...]:
    """The rows of nvidia-smi's answer to COMMANDS["gpu"]."""
    return tuple(_gpu([part.strip() for part in line.split(",")]) for line in text.splitlines() if line.count(",") >= 6)


def _jetson(outputs: Mapping[str, Ran]) -> Detected:
    model = " ".join(jetson.texts(_text(outputs, "model")))
    compatible = jetson.texts(_text(outputs, "compatible"))
    version = jetson.l4t(_text(outputs, "release"))
    modes, mode = jetson.power_modes(_both(outputs, "modes")), jetson.power_mode(_both(outputs, "mode"))
    memory = _memory(_text(outputs, "memory"))
    common = _common(outputs)
    found = Detected(
        target=Target(
            compute_capability=jetson.compute_capability(compatible),
            device=model,
            l4t=version,
            driver=_driver(outputs),
            power_mode=mode.name if mode else "",
            memory_mib=memory,
            tensorrt=common.tensorrt,
            platform=common.platform,
            os=common.os,
            cuda=common.cuda,
        ),
        profile=jetson.module(model, compatible, memory, modes),
        missing=(),
        trtexec=common.trtexec,
        trtexec_version=common.trtexec_version,
        release=jetson.release(version),
        mode=mode,
        modes=modes,
        clocks=jetson.clocks(_text(outputs, "clocks")),
    )
    return _with(found, (*_missing(found, outputs), *_missing_of_jetson(found, outputs)), _notes(found, outputs))


def _discrete(outputs: Mapping[str, Ran]) -> Detected:
    rows = gpus(_text(outputs, "gpu"))
    gpu, common = (rows[0] if rows else None), _common(outputs)
    limit = f"limit {gpu.power_limit_w:g} W" if gpu and gpu.power_limit_w is not None else ""
    found = Detected(
        target=Target(
            compute_capability=gpu.compute_capability if gpu else "",
            device=gpu.name if gpu else "",
            driver=gpu.driver if gpu else "",
            power_mode=limit,
            memory_mib=gpu.memory_mib if gpu else None,
            tensorrt=common.tensorrt,
            platform=common.platform,
            os=common.os,
            cuda=common.cuda,
        ),
        profile="",
        missing=(),
        trtexec=common.trtexec,
        trtexec_version=common.trtexec_version,
        gpu=gpu,
    )
    several = (f"{len(rows)} GPUs, this is the first",) if len(rows) > 1 else ()
    return _with(
        found, (*_missing(found, outputs), *_missing_of_gpu(found, outputs)), (*several, *_notes(found, outputs))
    )


@dataclass(frozen=True)
class _Common:
    tensorrt: str
    platform: str
    os: str
    cuda: str
    trtexec: str
    trtexec_version: str


def _common(outputs: Mapping[str, Ran]) -> _Common:
    """What is asked of every system alike. Libraries' packages say the version, trtexec where there are none."""
    installed = jetson.packages(_text(outputs, "packages"))
    path, own = next(_trtexecs(outputs), ("", ""))
    system = re.search(r'^PRETTY_NAME="?([^"\n]+)"?', _text(outputs, "os"), re.M)
    return _Common(
        tensorrt=jetson.tensorrt_version(installed) or own,
        platform="-".join(_text(outputs, "machine").lower().split()[:2]),
        os=system[1] if system else "",
        cuda=jetson.cuda_version(installed),
        trtexec=path,
        trtexec_version=own,
    )


def _trtexecs(outputs: Mapping[str, Ran]) -> Iterator[tuple[str, str]]:
    for place in trtexec.PLACES:
        version = trtexec.version_from(_text(outputs, f"trtexec {place}"))
        if version:
            yield place, version


def _missing(found: Detected, outputs: Mapping[str, Ran]) -> Iterator[str]:
    if not found.target.tensorrt:
        usual = f"; JetPack {found.release.jetpack} came with {found.release.tensorrt}" if found.release else ""
        yield f"TensorRT's version: no package and no trtexec say it{usual}"
    if not found.trtexec:
        yield f"trtexec: not in {', not in '.join(trtexec.PLACES[:-1])}, not in PATH"
    for value, name, key in (
        (found.target.platform, "the platform", "machine"),
        (found.target.os, "the operating system", "os"),
        (found.target.cuda, "CUDA's version", "packages"),
    ):
        if not value:
            yield f"{name}: {_why(outputs, key)}"


def _missing_of_jetson(found: Detected, outputs: Mapping[str, Ran]) -> Iterator[str]:
    target = found.target
    facts: tuple[tuple[object, str, str], ...] = (
        (target.device, "the module's name", "model"),
        (target.compute_capability, "the compute capability", "compatible"),
        (target.l4t, "the L4T version", "release"),
        (target.memory_mib, "the memory", "memory"),
        (found.mode, "the power mode", "mode"),
        (found.modes, "the power modes there are", "modes"),
        (found.clocks, "whether the clocks are locked", "clocks"),
    )
    yield from (f"{name}: {_why(outputs, key)}" for value, name, key in facts if not value)
    if target.l4t and found.release is None:
        yield f"the JetPack: L4T {target.l4t} is in no table of Edgekit's"
    if target.device and not found.profile:
        yield f"the device profile: none is for '{target.device}' with {target.memory_mib or 'unknown'} MiB"


def _missing_of_gpu(found: Detected, outputs: Mapping[str, Ran]) -> Iterator[str]:
    if found.gpu is None:
        yield f"the GPU: {_why(outputs, 'gpu')}"
        return
    facts = (
        (found.gpu.compute_capability, "the compute capability"),
        (found.gpu.driver, "the driver"),
        (found.gpu.memory_mib, "the memory"),
        (found.gpu.power_limit_w, "the power limit"),
    )
    yield from (f"{name}: nvidia-smi does not say it" for value, name in facts if not value)


def _notes(found: Detected, outputs: Mapping[str, Ran]) -> tuple[str, ...]:
    notes = []
    libraries = sorted(name for name in jetson.packages(_text(outputs, "packages")) if name in jetson.LIBRARIES)
    if len(libraries) > 1:
        notes.append(f"several TensorRT libraries are installed ({', '.join(libraries)}): the newest is meant")
    own, library = found.trtexec_version, found.target.tensorrt
    if own and library and own.split(".")[:3] != library.split(".")[:3]:
        notes.append(f"trtexec is of TensorRT {own}, the library packages are of {library}")
    if _ok(outputs, "container"):
        notes.append("in a container: the packages are its own, and power mode and clocks may be out of reach")
    if found.release and library and not f"{library}.".startswith(f"{found.release.tensorrt}."):
        notes.append(f"JetPack {found.release.jetpack} came with TensorRT {found.release.tensorrt}, this has {library}")
    return tuple(notes)


def _with(found: Detected, missing: tuple[str, ...], notes: tuple[str, ...]) -> Detected:
    return replace(found, missing=missing, notes=notes)


def _gpu(parts: list[str]) -> Gpu:
    name, driver, capability, *numbers = parts
    memory, clock, top, limit = (_number(item) for item in numbers[:4])
    capability = capability if re.fullmatch(r"\d+\.\d+", capability) else ""
    driver = driver if re.match(r"\d", driver) else ""
    return Gpu(name, driver, capability, None if memory is None else int(memory), clock, top, limit)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None


def _driver(outputs: Mapping[str, Ran]) -> str:
    """Thor has nvidia-smi; on the others the driver is part of L4T."""
    rows = gpus(_text(outputs, "gpu"))
    return rows[0].driver if rows else ""


def _memory(text: str) -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", text, re.M)
    return int(found[1]) // 1024 if found else None


def _ok(outputs: Mapping[str, Ran], name: str) -> bool:
    return name in outputs and outputs[name].returncode == 0


def _text(outputs: Mapping[str, Ran], name: str) -> str:
    """Its stdout, whatever the exit code: dpkg-query exits with 1 where one of several packages is not there."""
    return outputs[name].stdout if name in outputs else ""


def _both(outputs: Mapping[str, Ran], name: str) -> str:
    return f"{outputs[name].stdout}\n{outputs[name].stderr}" if name in outputs else ""


def _said(outputs: Mapping[str, Ran], name: str, part: str) -> bool:
    return part in _text(outputs, name)


def _why(outputs: Mapping[str, Ran], name: str) -> str:
    """Why a command gave nothing, in its own words."""
    command = " ".join(COMMANDS[name][:2])
    if name not in outputs:
        return f"`{command}` was not run"
    ran = outputs[name]
    said = next((line.strip() for line in (*ran.stderr.splitlines(), *ran.stdout.splitlines()) if line.strip()), "")
    if ran.returncode == 127 or "not found" in said:
        return f"`{command}`: there is no such program here"
    return f"`{command}` says '{said}'" if said else f"`{command}` says nothing (exit {ran.returncode})"
