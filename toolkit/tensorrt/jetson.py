"""Jetson modules and their system: which module, which JetPack, which power mode, what the clocks are.

Module identifiers are those of the device tree's `compatible` (Jetson Linux, nvidia,p3767-0003 and so on). Tables of
releases: jetson_stats' and meta-tegra's lists, NVIDIA's support matrices. Not verified on a device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolkit.errors import InputError

CAPABILITY = {"tegra210": "5.3", "tegra186": "6.2", "tegra194": "7.2", "tegra234": "8.7", "tegra264": "11.0"}
# (identifier in `compatible`, words of the model where there is none, MemTotal in MiB from and to, device profile)
MODULES: tuple[tuple[str, str, int, int, str], ...] = (
    ("p3448", r"jetson nano(?! 2gb)", 3000, 4100, "jetson-nano"),
    ("p3310", r"jetson tx2(?! nx)", 6500, 8200, "jetson-tx2"),
    ("p3668", r"xavier nx", 6000, 16400, "jetson-xavier-nx"),
    ("p2888", r"agx xavier", 14000, 66000, "jetson-agx-xavier"),
    ("p3767-0004", r"orin nano", 2800, 4100, "jetson-orin-nano-4"),
    ("p3767-0003", r"orin nano", 6000, 8200, "jetson-orin-nano-8"),
    ("p3767-0005", r"orin nano", 6000, 8200, "jetson-orin-nano-8"),
    ("p3767-0001", r"orin nx", 6000, 8200, "jetson-orin-nx-8"),
    ("p3767-0000", r"orin nx", 13000, 16400, "jetson-orin-nx-16"),
    ("p3701-0004", r"agx orin", 28000, 33000, "jetson-agx-orin-32"),
    ("p3701-0000", r"agx orin", 28000, 33000, "jetson-agx-orin-32"),
    ("p3701-0005", r"agx orin", 58000, 66000, "jetson-agx-orin-64"),
    ("p3701-0000", r"agx orin", 58000, 66000, "jetson-agx-orin-64"),
    ("p3834", r"agx thor", 110000, 132000, "jetson-thor"),
)
SUPER = "jetson-orin-nano-super"
LIBRARIES = ("libnvinfer11", "libnvinfer10", "libnvinfer8")  # packages of the runtime library, newest first
# (L4T from, L4T below, JetPack, CUDA, TensorRT it came with)
RELEASES: tuple[tuple[tuple[int, ...], tuple[int, ...], str, str, str], ...] = (
    ((32, 6), (32, 7), "4.6", "10.2", "8.0.1"),
    ((32, 7), (32, 8), "4.6.1 to 4.6.6", "10.2", "8.2.1"),
    ((35, 1), (35, 2), "5.0.2", "11.4", "8.4.1"),
    ((35, 2), (35, 7), "5.1 to 5.1.6", "11.4", "8.5.2"),
    ((36, 3), (36, 4), "6.0", "12.2", "8.6.2"),
    ((36, 4), (36, 6), "6.1 to 6.2", "12.6", "10.3"),
    ((38, 2), (38, 3), "7.0", "13.0", "10.13"),
    ((38, 4), (38, 5), "7.1", "13.0", "10.13"),
    ((39, 2), (39, 2, 1), "7.2", "13.2", "10.16.2"),
    ((39, 2, 1), (39, 2, 2), "7.2.1", "13.2", "10.16.2"),
)
CLOCK = re.compile(r"^(?P<name>GPU|EMC) MinFreq=(?P<low>\d+) MaxFreq=(?P<high>\d+) CurrentFreq=(?P<now>\d+)", re.M)


@dataclass(frozen=True)
class Release:
    """A JetPack, and what it came with; a system may have been changed since."""

    jetpack: str
    cuda: str
    tensorrt: str


@dataclass(frozen=True)
class Mode:
    """A power mode. Numbers differ by board and JetPack, so that names are what is compared."""

    number: int
    name: str


@dataclass(frozen=True)
class Clock:
    """A clock of jetson_clocks --show, in Hz."""

    low_hz: int
    high_hz: int
    now_hz: int

    @property
    def locked(self) -> bool:
        """It cannot move."""
        return self.low_hz == self.high_hz


def l4t(text: str) -> str:
    """ "36.4.3" from /etc/nv_tegra_release (`# R36 (release), REVISION: 4.3, ...`), "" where it is none."""
    found = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else ""


def release(version: str) -> Release | None:
    """The JetPack of an L4T version, None for one that is in no table."""
    if not re.fullmatch(r"\d+(\.\d+)+", version):
        return None
    known = tuple(map(int, version.split(".")))
    found = next((row for row in RELEASES if row[0] <= known < row[1]), None)
    return Release(*found[2:]) if found else None


def texts(raw: str) -> tuple[str, ...]:
    """The strings of a device-tree property, which end in NUL."""
    return tuple(item.strip() for item in raw.split("\0") if item.strip())


def compute_capability(compatible: Sequence[str]) -> str:
    """ "8.7" from the SoC in the device tree's `compatible`, "" where none is named."""
    return next((CAPABILITY[name] for item in compatible if (name := item.rpartition(",")[2]) in CAPABILITY), "")


def module(model: str, compatible: Sequence[str], memory_mib: int | None, modes: Sequence[Mode] = ()) -> str:
    """Name of the shipped device profile, "" where no one profile fits.

    By the module's identifier where the device tree has one, else by the model's words; the memory must fit as well,
    since developer kits carry another module's words, and one identifier two sizes.
    """
    if memory_mib is None:
        return ""
    parts = {part for item in compatible for part in re.findall(r"p\d{4}(?:-\d{4})?", item)}
    identified = any(part.startswith(row[0][:5]) for part in parts for row in MODULES)
    fitting = [row for row in MODULES if row[2] <= memory_mib <= row[3]]
    if identified:
        named = {row[4] for row in fitting if any(part.startswith(row[0]) for part in parts)}
    else:
        named = {row[4] for row in fitting if re.search(row[1], model.lower())}
    if len(named) != 1:
        return ""
    (found,) = named
    return SUPER if found == "jetson-orin-nano-8" and is_super(model, modes) else found


def is_super(model: str, modes: Sequence[Mode]) -> bool:
    """Whether an Orin Nano 8 was flashed with the Super configuration: its model or its power modes say so."""
    return model.rstrip().endswith("Super") or any("SUPER" in mode.name.upper() for mode in modes)


def power_mode(text: str) -> Mode | None:
    """The mode of `nvpmodel -q`, verbose or not: its name, and its number on the next line."""
    found = re.search(r"NV Power Mode: *(?P<name>\S+)\s*\n\s*(?P<number>\d+)\s*$", text, re.M)
    return Mode(int(found["number"]), found["name"]) if found else None


def power_modes(text: str) -> tuple[Mode, ...]:
    """The modes of `nvpmodel -p --verbose`."""
    found = re.finditer(r"POWER_MODEL: ID=(\d+) NAME=(\S+)", text)
    return tuple(dict.fromkeys(Mode(int(item[1]), item[2]) for item in found))


def mode_command(name: str, modes: Sequence[Mode]) -> list[str]:
    """The command that takes the system to a mode by its name. Needs root; some changes ask for a restart."""
    found = next((mode for mode in modes if mode.name.lower() == name.lower()), None)
    if found is None:
        have = ", ".join(mode.name for mode in modes) or "none that could be read"
        raise InputError("power mode", f"this board has no '{name}'", f"one of its own: {have}")
    return ["nvpmodel", "-m", str(found.number)]


def clocks(text: str) -> dict[str, Clock]:
    """GPU and EMC (memory) clocks of `jetson_clocks --show`, which needs root; none where it refused."""
    return {item["name"]: Clock(*(int(item[part]) for part in ("low", "high", "now"))) for item in CLOCK.finditer(text)}


def clocks_commands(store: str) -> tuple[list[str], list[str], list[str]]:
    """(keep the clocks as they are in the file `store`, lock all to their greatest, put them back). All need root."""
    return ["jetson_clocks", "--store", store], ["jetson_clocks"], ["jetson_clocks", "--restore", store]


def as_root(command: Sequence[str]) -> list[str]:
    """With sudo that never asks for a password: for who said --allow-sudo."""
    return ["sudo", "-n", *command]


def packages(text: str) -> dict[str, str]:
    """Versions by package, from `dpkg-query -W` (name, tab, version) or `dpkg -l` (rows that start with ii)."""
    return dict(_package_rows(text))


def tensorrt_version(installed: dict[str, str]) -> str:
    """ "8.5.2" from libnvinfer's package (8.5.2-1+cuda11.4), "" where it is none of the system's packages."""
    for name in (*LIBRARIES, "libnvinfer-bin", "tensorrt"):
        found = re.match(r"(?:\d+:)?(\d+\.\d+\.\d+)", installed.get(name, ""))
        if found:
            return found[1]
    return ""


def cuda_version(installed: dict[str, str]) -> str:
    """ "12.6" from the package cuda-cudart-12-6, the newest of several; "" where there is none."""
    named = [re.fullmatch(r"cuda-cudart-(\d+)-(\d+)", name) for name, version in installed.items() if version]
    found = [(int(item[1]), int(item[2])) for item in named if item]
    return "{}.{}".format(*max(found)) if found else ""


def _package_rows(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, tab, version = line.partition("\t")
        listed = re.match(r"ii\s+(\S+)\s+(\S+)", line)
        if listed:
            name, version = listed[1], listed[2]
        if (tab or listed) and version.strip():
            yield name.partition(":")[0].strip(), version.strip()
