"""Vela, Arm's compiler for Ethos-U: what it says a .tflite file takes of time and memory there, by its own estimate.

github.com/nxp-imx/ethos-u-vela, OPTIONS.md and PERFORMANCE.md. It gives no range, and counts the accelerator alone: the
operators that it leaves to the CPU are named, and their time is not in it.
"""

from __future__ import annotations

import csv
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from toolkit.core import Completed, Measurement
from toolkit.errors import InputError, UnavailableError, UnsupportedError
from toolkit.estimates.workload import readable
from toolkit.exporters import tflite_file
from toolkit.hardware import Vela
from toolkit.sources import opening
from toolkit.transports.local import run_program

CONFIG = "Arm/vela.ini"  # the configurations that Vela ships
INSTALL = "pip install 'edgekit[mcu]'"
PATIENCE_S = 600.0  # compiling takes seconds; large networks a minute or two
REFUSED = re.compile(r"operator: (\S+), ofm: '([^']*)'\s*\n\s*(?:Reason|.*?): (.+)")


@dataclass(frozen=True)
class Compiled:
    """What Vela says of one file. on_cpu: operators it leaves to the CPU, each with its reason."""

    milliseconds: float
    cycles: int
    sram_kib: float
    flash_kib: float
    dram_kib: float
    macs: int
    npu_operators: int
    cpu_operators: int
    on_cpu: tuple[str, ...]
    target: Vela
    version: str

    def measurements(self, subject: str, device: str) -> tuple[Measurement, ...]:
        """As numbers of a run, all estimated."""
        how = {
            "method": f"Vela {self.version}, its internal estimate; it gives no range",
            "accelerator": self.target.accelerator,
            "system config": self.target.system_config,
            "memory mode": self.target.memory_mode,
            "operators": f"{self.npu_operators} on the NPU, {self.cpu_operators} on the CPU, whose time is not in it",
            **({"on the CPU": "; ".join(self.on_cpu)} if self.on_cpu else {}),
        }
        numbers = (
            ("latency_p50_ms", self.milliseconds, "ms"),
            ("npu_cycles", float(self.cycles), "cycles"),
            ("sram_kib", self.sram_kib, "KiB"),
            ("flash_kib", self.flash_kib, "KiB"),
            ("dram_kib", self.dram_kib, "KiB"),
        )
        return tuple(
            Measurement(subject, name, value, unit, "estimated", device, how=how)
            for name, value, unit in numbers
            if value or name != "dram_kib"
        )

    def lines(self, subject: str, device: str) -> Iterator[str]:
        """For a person."""
        yield f"{subject} on {device}: {self.milliseconds:.3g} ms  [estimated by Vela {self.version}, without a range]"
        dram = f", DRAM {self.dram_kib:,.1f} KiB" if self.dram_kib else ""
        yield f"  {self.cycles:,} cycles, SRAM {self.sram_kib:,.1f} KiB, flash {self.flash_kib:,.1f} KiB{dram}"
        where = f"{self.target.accelerator}, {self.target.system_config}, {self.target.memory_mode}"
        yield f"  {self.npu_operators} operators on the NPU ({where}), {self.cpu_operators} on the CPU"
        yield from (f"  on the CPU, its time not counted: {text}" for text in self.on_cpu)


def version() -> str | None:
    """Of the installed Vela, or None."""
    try:
        return metadata.version("ethos-u-vela")
    except metadata.PackageNotFoundError:
        return None


def compile_file(path: Path, target: Vela) -> Compiled:
    """Compile a .tflite file in a process of its own, and read what Vela says of it.

    Raises UnavailableError where Vela is not installed, InputError for a configuration that it does not have, and
    UnsupportedError for a file of which nothing would run on the accelerator.
    """
    if path.suffix.lower() != ".tflite":
        raise InputError(str(path), "is no .tflite file, and Vela takes no other", "export the model as tflite")
    opening.check_kind(path, "a .tflite file")
    readable(path, tflite_file.read)  # what Vela says of a damaged file is for those who wrote Vela
    installed = version()
    if installed is None:
        raise UnavailableError("ethos-u-vela", "is not installed here", INSTALL)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        said = run_program(_command(path, target, folder), timeout_s=PATIENCE_S)
        found = next(Path(folder).glob("*_summary_*.csv"), None)
        if said.returncode or found is None:
            raise _failure(path, said)
        with found.open(newline="") as file:
            row = next(csv.DictReader(file))
    compiled = _read(row, said.stdout, target, installed)
    if not compiled.npu_operators:
        why = f": {compiled.on_cpu[0]}" if compiled.on_cpu else ""
        problem = f"nothing of it would run on {target.accelerator}{why}"
        raise UnsupportedError(str(path), problem, "quantize it with scheme int8")
    return compiled


def _command(path: Path, target: Vela, folder: str) -> list[str]:
    options = {
        "--accelerator-config": target.accelerator,
        "--system-config": target.system_config,
        "--memory-mode": target.memory_mode,
        "--config": CONFIG,
        "--output-dir": folder,
    }
    pairs = [text for option in options.items() for text in option]
    return [sys.executable, "-m", "ethosu.vela", str(path.absolute()), *pairs]


def _read(row: Mapping[str, str], said: str, target: Vela, installed: str) -> Compiled:
    counts = {kind: int(count) for kind, count in re.findall(r"(CPU|NPU) operators = (\d+)", said)}
    flash = sum(float(row[name]) for name in ("on_chip_flash_memory_used", "off_chip_flash_memory_used"))
    return Compiled(
        milliseconds=1000 * float(row["inference_time"]),
        cycles=int(float(row["cycles_total"])),
        sram_kib=float(row["sram_memory_used"]),
        flash_kib=flash,
        dram_kib=float(row["dram_memory_used"]),
        macs=int(float(row["nn_macs"])),
        npu_operators=counts.get("NPU", 0),
        cpu_operators=counts.get("CPU", 0),
        on_cpu=tuple(f"{kind} {name!r} ({why.strip()})" for kind, name, why in REFUSED.findall(said)),
        target=target,
        version=installed,
    )


def _failure(path: Path, said: Completed) -> InputError:
    """What Vela's last words mean."""
    words = [line.strip() for line in (said.stdout + "\n" + said.stderr).splitlines() if line.strip()]
    last = words[-1] if words else "it says nothing"
    wrong = re.search(r"Incorrect argument to CLI option (--[a-z-]+)=(\S+?): (.*?)'?$", last)
    if wrong:
        problem = f"Vela has no such configuration, got {wrong[2]!r} ({wrong[3].rstrip(chr(39))})"
        return InputError(wrong[1], problem, f"`vela --list-configs {CONFIG}` lists them")
    return InputError(str(path), f"Vela cannot compile it: {last}")
