"""A captured device as a profile: the TOML that `edgekit device capture` writes, each fact with where it was read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit import cores, kernels
from toolkit.capture import Cores, Machine

if TYPE_CHECKING:
    from toolkit.tensorrt.detection import Detected

TFLITE = ("float32", "float16", "dynamic", "int8", "weight_int8", "weight_int4")
WIDE = ("float32", "int8", "int16x8")  # on the built-in kernels: XNNPACK has none of 16 bits
NO_INT4 = ("tflite-runtime",)  # its DEQUANTIZE reads no int4 (compat.TYPED)
ONNX = ("float32", "float16", "dynamic", "int8", "weight_int8")
ENGINES = ("float32", "float16", "int8")
NO_INT8 = ("5.3", "6.2")  # compute capabilities without int8 tensor or dot-product kernels in TensorRT's support matrix
RATES = "rates unverified"  # of what a core computes; toolkit/cores.py says how they were worked out
# package -> what a profile calls it: name, formats, schemes, delegates; in the order of preference
RUNTIMES: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "ai-edge-litert": ("litert", ("tflite",), TFLITE, ("xnnpack",)),
    "tflite-runtime": ("tflite-runtime", ("tflite",), TFLITE, ("xnnpack",)),
    "onnxruntime": ("onnxruntime", ("onnx",), ONNX, ("cpu",)),
    "onnxruntime-gpu": ("onnxruntime", ("onnx",), ONNX, ("cuda", "cpu")),
    "openvino": ("openvino", ("onnx", "tflite"), ("float32", "float16", "int8"), ("cpu",)),
}


@dataclass(frozen=True)
class Reached:
    """How the profile's device is reached. python: what the worker is started with there."""

    transport: str
    python: str = "python3"
    runtimes: tuple[str, ...] = field(default=tuple(found[0] for found in RUNTIMES.values()))  # that can be used here


def profile_text(machine: Machine, name: str, reached: Reached, *, system: Detected | None = None) -> str:
    """The profile. system: what an NVIDIA device says besides, by `engines.detect`."""
    title = machine.model or name
    lines = [
        f"# {title}: captured from the device itself by `edgekit device capture`.",
        "# Each fact says where it was read; what the device did not say is listed under `notes`.",
        "schema = 1",
        f"name = {_value(name)}",
        f"title = {_value(title)}",
        "",
        f"transport = {_value(reached.transport)}",
        *_python(machine, reached),
        f"arch = {_value(machine.arch or 'any')}",
        *_nvidia(machine, system),
        *_limits(machine),
        f"notes = {_value(_notes(machine, system))}",
        *_tables("runtimes", _runtimes(machine, reached, system), _advice(machine, reached, system)),
        *_tables("processors", _processors(machine), "Rates: multiply-accumulates of one core in one cycle, at most."),
        *_tables("facts", _facts(machine, system), ""),
    ]
    return "\n".join(lines) + "\n"


def _python(machine: Machine, reached: Reached) -> Iterator[str]:
    if reached.transport == "adb" and not machine.python:
        yield "# There is none: TFLite's benchmark_model does the measuring."
        yield 'python = ""'
    elif reached.python != "python3" and reached.transport != "local":
        yield f"python = {_value(reached.python)}"


def _nvidia(machine: Machine, system: Detected | None) -> Iterator[str]:
    capability = (system.target.compute_capability if system else "") or (machine.gpu[1] if machine.gpu else "")
    if capability:
        yield "# Of the GPU. Source: " + ("the device tree" if machine.tegra else "nvidia-smi")
        yield f"compute_capability = {_value(capability)}"


def _limits(machine: Machine) -> Iterator[str]:
    if machine.available_kib:
        yield "# MemAvailable when it was captured."
        yield f"memory_kib = {machine.available_kib}"
    if machine.storage_kib:
        yield "# Free in the work folder when it was captured (df)."
        yield f"storage_kib = {machine.storage_kib}"


def _notes(machine: Machine, system: Detected | None) -> str:
    missing = [*machine.missing, *(system.missing if system else ())]
    said = f"Not found out: {'; '.join(missing)}." if missing else "Everything that is asked was answered."
    shipped = f" Edgekit ships a profile of this module: {system.profile}." if system and system.profile else ""
    return said + shipped


def _advice(machine: Machine, reached: Reached, system: Detected | None) -> str:
    if found(machine, reached) or system:
        return "Runtimes that were found there, the preferred one first."
    return f"No runtime was found there, so none has a version: {install(machine, reached.transport)}"


def found(machine: Machine, reached: Reached) -> list[str]:
    """Packages there that Edgekit can use."""
    return [
        package for package, line in RUNTIMES.items() if package in machine.packages and line[0] in reached.runtimes
    ]


def install(machine: Machine, transport: str) -> str:
    """What to do where no runtime was found."""
    if machine.system.startswith("Android") or transport == "adb":
        return "put TFLite's benchmark_model into /data/local/tmp"
    package = "'tflite-runtime' 'numpy<2'" if machine.arch == "armv7l" else "ai-edge-litert"
    return f"pip install {package}"


def _runtimes(machine: Machine, reached: Reached, system: Detected | None) -> Iterator[dict[str, Any]]:
    if system is not None and system.target.compute_capability:
        able: tuple[str, ...] = ENGINES if system.target.compute_capability not in NO_INT8 else ENGINES[:2]
        source = "parser of tensorrt_rtx 1.7.1: Non-zero zero point is not supported"
        known = [{"fact": "symmetric_only", "source": source}] if "int8" in able else []
        line: dict[str, Any] = {"use": "tensorrt", "formats": ["onnx"], "schemes": able, "delegates": ["gpu"]}
        yield {**line, "version": system.target.tensorrt, "layout": "NCHW", "kernels": known}
    narrow = machine.arch == "armv7l"
    for package in found(machine, reached) or ([] if system else ["tflite-runtime" if narrow else "ai-edge-litert"]):
        use, formats, schemes, delegates = RUNTIMES[package]
        entry: dict[str, Any] = {"use": use, "formats": formats, "schemes": schemes, "delegates": delegates}
        entry["schemes"] = tuple(each for each in schemes if use not in NO_INT4 or each != "weight_int4")
        about = {"version": machine.packages.get(package, ""), "kernels": _kernels(machine, use)}
        yield {**entry, **about}
        if "xnnpack" in delegates:
            yield {**entry, "schemes": WIDE, "delegates": ("none",), **about}


def _kernels(machine: Machine, use: str) -> list[dict[str, str]]:
    if use != "onnxruntime" or not kernels.saturates(machine.arch, machine.flags):
        return []
    return [{"fact": "saturating", "source": "its /proc/cpuinfo names neither avx512_vnni nor avx_vnni"}]


def _processors(machine: Machine) -> Iterator[dict[str, Any]]:
    for group in machine.cores:
        rates = cores.rates(group.name, machine.isa)
        if group.clock_ghz and rates:
            yield {
                "name": group.name,
                "kind": "cpu",
                "cores": group.count,
                "clock_ghz": round(group.clock_ghz, 3),
                "macs_per_cycle": rates,
                "isa": machine.isa,
                "source": f"/proc/cpuinfo and cpufreq of the device; {RATES}",
            }


def _facts(machine: Machine, system: Detected | None) -> Iterator[dict[str, Any]]:
    said: list[tuple[str, Any, str, str]] = [
        ("system", machine.system, "", "/etc/os-release" if "Android" not in machine.system else "getprop"),
        ("kernel", machine.kernel, "", "uname -r"),
        ("cores", sum(group.count for group in machine.cores), "", "/proc/cpuinfo"),
        ("core types", ", ".join(map(_group, machine.cores)), "", "/proc/cpuinfo and cpufreq"),
        ("instruction sets", ", ".join(machine.isa), "", "/proc/cpuinfo"),
        ("memory", machine.memory_kib, "KiB", "/proc/meminfo, MemTotal"),
        ("Python", machine.python, "", "the worker's Python"),
        ("numpy", machine.packages.get("numpy", ""), "", "package metadata"),
        ("programs", ", ".join(machine.tools), "", "command -v"),
        ("GPU", machine.gpu[0] if machine.gpu else "", "", "nvidia-smi"),
        ("L4T", system.target.l4t if system else "", "", "/etc/nv_tegra_release"),
        ("CUDA", system.target.cuda if system else "", "", "dpkg-query"),
        ("power mode", system.target.power_mode if system else "", "", "nvpmodel or nvidia-smi"),
    ]
    for kind in dict.fromkeys(kind for kind, _ in machine.sensors):
        names = "; ".join(name for each, name in machine.sensors if each == kind)
        said.append((f"{kind} sensors", names, "", "/sys and command -v"))
    for name, value, unit, source in said:
        if value:
            yield {"name": name, "value": value, "unit": unit, "source": f"{source}, read on the device"}


def _group(group: Cores) -> str:
    return f"{group.count} x {group.name}" + (f" at {group.clock_ghz:g} GHz" if group.clock_ghz else "")


def _tables(name: str, rows: Iterator[dict[str, Any]], comment: str) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield ""
        if not number and comment:
            yield f"# {comment}"
        yield f"[[{name}]]"
        yield from (f"{key} = {_value(value)}" for key, value in row.items() if value not in ("", [], ()))


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)  # TOML's basic strings and numbers are JSON's
