"""What a device is, asked of the device itself: one shell script, so that any transport and no Python will do.

Read there: uname, os-release, Android's properties, the device tree, /proc/cpuinfo and meminfo, /sys (proc(5), and
the kernel's ABI documents sysfs-devices-system-cpu, sysfs-class-thermal, sysfs-class-hwmon). Serial numbers, host and
user names are never asked for. Nothing is guessed: what did not say itself is listed as missing.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolkit import cores
from toolkit.core import Session
from toolkit.errors import UnavailableError

PROBE_S = 120.0  # a busy board's Python takes a while to list packages
PACKAGES = ("ai-edge-litert", "tflite-runtime", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "numpy")
PROPERTIES = ("ro.product.manufacturer", "ro.product.model", "ro.soc.manufacturer", "ro.soc.model",
              "ro.build.version.release", "ro.build.version.sdk", "ro.product.cpu.abi")  # fmt: skip
TOOLS = ("vcgencmd", "tegrastats", "nvidia-smi", "benchmark_model", "trtexec", "taskset")
PYTHON = f"""import sys
print('python', '.'.join(map(str, sys.version_info[:3])))
try:
    from importlib.metadata import version
except ImportError:
    version = None
for name in {PACKAGES!r}:
    try:
        print(name, version(name))
    except Exception:
        pass
"""
# $1: what begins a section; $2: Python; $3: its program
SCRIPT = f"""say() {{ printf '\\n%s %s\\n' "$mark" "$1"; }}
mark=$1
each() {{ for f in "$@"; do [ -r "$f" ] && v=$(cat "$f" 2>/dev/null) && printf '%s %s\\n' "$f" "$v"; done; }}
say machine; uname -s; uname -m; uname -r; getconf LONG_BIT
say os; cat /etc/os-release
say properties; command -v getprop >/dev/null && for p in {" ".join(PROPERTIES)}; do echo "$p=$(getprop $p)"; done
t=/proc/device-tree; [ -d $t ] || t=/sys/firmware/devicetree/base
say model; [ -r $t/model ] && tr -d '\\000' <$t/model
say compatible; [ -r $t/compatible ] && tr '\\000' '\\n' <$t/compatible
say board; each /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name
say cpuinfo; grep -v -i '^serial' /proc/cpuinfo
say meminfo; grep -E '^(MemTotal|MemAvailable|SwapTotal)' /proc/meminfo
say clocks; each /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq
say storage; df -Pk .
say thermal; each /sys/class/thermal/thermal_zone*/type
say hwmon; for d in /sys/class/hwmon/hwmon*; do
for f in $d/temp*_input $d/power*_input $d/power*_average $d/curr*_input; do
[ -r "$f" ] && printf '%s %s\\n' "$(cat $d/name)" "${{f##*/}}"; done; done
say powercap; each /sys/class/powercap/*:[0-9]/name
say battery; each /sys/class/power_supply/*/type
say tools; for t in {" ".join(TOOLS)}; do command -v $t; done
for t in /data/local/tmp/benchmark_model /usr/src/tensorrt/bin/trtexec; do [ -x $t ] && echo $t; done
say gpu; command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader
say python; "$2" -c "$3"
say end
"""


@dataclass(frozen=True)
class Cores:
    """Alike cores. clock_ghz: the highest, None where it was not said."""

    name: str
    count: int
    clock_ghz: float | None = None


@dataclass(frozen=True)
class Machine:
    """What a device said of itself; empty, 0 or None for what it did not say, which `missing` names with a reason.

    arch: of its programs (a 64-bit kernel may run 32-bit ones). packages, tools: what of Edgekit's can be used there.
    sensors: (what it measures, where it is read).
    """

    model: str
    arch: str
    system: str
    kernel: str
    cores: tuple[Cores, ...]
    isa: tuple[str, ...]
    memory_kib: int
    available_kib: int
    storage_kib: int
    python: str
    packages: Mapping[str, str]
    tools: tuple[str, ...]
    sensors: tuple[tuple[str, str], ...]
    gpu: tuple[str, str] | None = None  # of NVIDIA: name, compute capability
    tegra: bool = False
    flags: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()


def ask(session: Session, *, python: str = "python3") -> Machine:
    """What the device at the other end of a session is; raises UnavailableError where its shell says nothing."""
    mark = f"--{secrets.token_hex(8)}"  # nothing that a program says begins a line so
    found = session.execute(["sh", "-c", SCRIPT, "capture", mark, python, PYTHON], timeout_s=PROBE_S)
    sections = split(found.stdout, mark)
    if "end" not in sections:
        said = (found.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UnavailableError("capture", f"the device's shell did not get through, it said: {said}")
    return parse(sections)


def split(text: str, mark: str) -> dict[str, str]:
    """Name of a section -> what was said in it."""
    parts = text.replace("\r\n", "\n").split(f"\n{mark} ")[1:]
    return {name: body for name, _, body in (part.partition("\n") for part in parts)}


def parse(sections: Mapping[str, str]) -> Machine:
    """What the sections of SCRIPT's output say."""
    said = {name: text.strip() for name, text in sections.items()}
    machine = said.get("machine", "").splitlines()
    properties = _pairs(said.get("properties", ""), "=")
    blocks, flags = _processors(said.get("cpuinfo", ""))
    found = Machine(
        model=_model(said, properties),
        arch=_arch(machine, properties),
        system=_system(machine, said.get("os", ""), properties),
        kernel=machine[2] if len(machine) > 2 else "",
        cores=_cores(blocks, said.get("clocks", "")),
        isa=cores.isa(flags),
        memory_kib=_kib(said, "MemTotal"),
        available_kib=_kib(said, "MemAvailable"),
        storage_kib=_storage(said.get("storage", "")),
        python=_pairs(said.get("python", ""), " ").get("python", ""),
        packages={k: v for k, v in _pairs(said.get("python", ""), " ").items() if k in PACKAGES},
        tools=tuple(dict.fromkeys(said.get("tools", "").split())),
        sensors=tuple(_sensors(said)),
        gpu=_gpu(said.get("gpu", "")),
        tegra="tegra" in said.get("compatible", ""),
        flags=flags,
    )
    return Machine(**{**vars(found), "missing": tuple(_missing(found))})


def _missing(found: Machine) -> Iterator[str]:
    facts: Sequence[tuple[object, str]] = (
        (found.model, "the model: no device tree, no DMI, no Android property says it"),
        (found.arch, "the architecture: uname says nothing"),
        (found.system, "the system: no /etc/os-release"),
        (found.cores, "the cores: /proc/cpuinfo names none that is known"),
        (all(group.clock_ghz for group in found.cores), "clocks: neither cpufreq nor /proc/cpuinfo says them"),
        (found.memory_kib, "the memory: no /proc/meminfo"),
        (found.python, "Python: there is none of that name, so the worker cannot run"),
        (any(kind == "temperature" for kind, _ in found.sensors), "temperature: no sensor can be read"),
        (any(kind == "power" for kind, _ in found.sensors), "power: no sensor can be read, so no energy is measured"),
    )
    yield from (text for value, text in facts if not value)
    if found.python and not set(found.packages) - {"numpy"}:
        yield f"runtimes: Python {found.python} has none of {', '.join(PACKAGES[:-1])}"


# ---------------------------------------------------------------- one section each


def _model(said: Mapping[str, str], properties: Mapping[str, str]) -> str:
    phone = " ".join(filter(None, (properties.get("ro.product.manufacturer"), properties.get("ro.product.model"))))
    chip = " ".join(filter(None, (properties.get("ro.soc.manufacturer"), properties.get("ro.soc.model"))))
    board = " ".join(_pairs(said.get("board", ""), " ").values())
    described = f"{phone} ({chip})" if phone and chip else phone
    return _plain(described or said.get("model", "") or board)


def _arch(machine: Sequence[str], properties: Mapping[str, str]) -> str:
    """Of the programs: Raspberry Pi OS of 32 bits has a kernel of 64."""
    name = machine[1] if len(machine) > 1 else ""
    bits = machine[3] if len(machine) > 3 else ""
    narrow = bits == "32" or properties.get("ro.product.cpu.abi") == "armeabi-v7a"
    return {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(name, name) if narrow else name


def _system(machine: Sequence[str], release: str, properties: Mapping[str, str]) -> str:
    android, level = properties.get("ro.build.version.release"), properties.get("ro.build.version.sdk")
    if android:
        return _plain(f"Android {android} (API level {level})" if level else f"Android {android}")
    named = re.search(r'^PRETTY_NAME="?([^"\n]+)"?', release, re.M)
    return _plain(named[1] if named else machine[0] if machine else "")


def _processors(cpuinfo: str) -> tuple[list[dict[str, str]], frozenset[str]]:
    """The keys of each processor, and the flags that all of them have."""
    texts = re.split(r"^processor\s*:", cpuinfo, flags=re.M)[1:]
    blocks = [_pairs(f"processor:{text}", ":") for text in texts if re.match(r"\s*\d+", text)]
    last = _pairs(cpuinfo.rpartition("\n\n")[2], ":")  # old kernels say what all have in common once, at the end
    blocks = [{**{k: v for k, v in last.items() if k.startswith("CPU ")}, **block} for block in blocks]
    every = [set((block.get("flags") or block.get("Features") or last.get("Features", "")).split()) for block in blocks]
    return blocks, frozenset(set.intersection(*every) if every else ())


def _cores(blocks: Sequence[Mapping[str, str]], clocks: str) -> tuple[Cores, ...]:
    """Alike cores together, the fastest first; of hyper-threads one counts."""
    top = {int(number): int(khz) for number, khz in re.findall(r"/cpu(\d+)/cpufreq/\S+ (\d+)", clocks)}
    groups: dict[str, tuple[set[tuple[str, ...]], list[float]]] = {}
    for block in blocks:
        name, number = _core(block), int(block["processor"])
        places, speeds = groups.setdefault(name, (set(), []))
        whole = "core id" in block
        places.add((block.get("physical id", ""), block["core id"]) if whole else ("", str(number)))
        speeds += [top[number] / 1e6] if number in top else _stated(block)
    found = (Cores(name, len(places), max(speeds, default=None)) for name, (places, speeds) in groups.items() if name)
    return tuple(sorted(found, key=lambda group: -(group.clock_ghz or 0)))


def _core(block: Mapping[str, str]) -> str:
    if "CPU part" in block:
        number = int(block.get("CPU implementer", "0"), 0), int(block["CPU part"], 0)
        return cores.NAMES.get(number, f"implementer {number[0]:#x} part {number[1]:#x}")
    return _plain(re.sub(r"\((?:R|TM)\)|CPU|\d+-Core Processor|@.*", "", block.get("model name", "")))


def _stated(block: Mapping[str, str]) -> list[float]:
    """The clock in an Intel processor's name, which is the one that it keeps; "cpu MHz" is that of the moment."""
    return [float(found) for found in re.findall(r"@ ([\d.]+)GHz", block.get("model name", ""))]


def _kib(said: Mapping[str, str], name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", said.get("meminfo", ""), re.M)
    return int(found[1]) if found else 0


def _storage(text: str) -> int:
    """Room in the work folder, in KiB; a long device name may have a line of its own."""
    found = re.search(r"\s\d+\s+\d+\s+(\d+)\s+\d+%", text)
    return int(found[1]) if found else 0


def _sensors(said: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for path, name in _pairs(said.get("thermal", ""), " ").items():
        yield "temperature", f"{path.rpartition('/')[0]} ({name})"
    for line in said.get("hwmon", "").splitlines():
        name, _, file = line.partition(" ")
        kind = "temperature" if file.startswith("temp") else "power" if file.startswith("power") else "current"
        yield kind, f"hwmon {name} {file}"
    for path, name in _pairs(said.get("powercap", ""), " ").items():
        yield "power", f"{path.rpartition('/')[0]} ({name})"
    for path, name in _pairs(said.get("battery", ""), " ").items():
        if name == "Battery":
            yield "current", path.rpartition("/")[0]
    tools = {tool.rpartition("/")[2] for tool in said.get("tools", "").split()}
    yield from (
        (("temperature", "vcgencmd measure_temp"), ("throttling", "vcgencmd get_throttled"))
        if ("vcgencmd" in tools)
        else ()
    )
    yield from (("power", name) for name in ("tegrastats", "nvidia-smi") if name in tools)


def _gpu(text: str) -> tuple[str, str] | None:
    found = re.search(r"^(.+), (\d+\.\d)$", text, re.M)
    return (found[1], found[2]) if found else None


def _pairs(text: str, mark: str) -> dict[str, str]:
    """`key<mark>value` lines, the first of each key."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, given, value = line.partition(mark)
        if given and value.strip():
            found.setdefault(key.strip(), value.strip())
    return found


def _plain(text: str) -> str:
    """One line of printable text, with single spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
