"""A made-up device to estimate for."""

from __future__ import annotations

from pathlib import Path

BOARD = """
schema = 1
arch = "aarch64"
bandwidth_gb_s = 8.0

[[runtimes]]
use = "litert"
formats = ["tflite"]
schemes = ["float32", "int8"]

[[processors]]
name = "core"
cores = 4
clock_ghz = 2.0
macs_per_cycle = { float32 = 4, int8 = 8 }
source = "made up"

[[processors]]
name = "accelerator"
kind = "npu"
cores = 1
clock_ghz = 0.5
macs_per_cycle = { int8 = 1000 }
source = "made up"
"""
QUOTED = """
[[published]]
model = "mobilenet_v1_1.0_224"
arithmetic = "int8"
milliseconds = {milliseconds}
threads = 4
source = "made up"
"""


def board(folder: Path, more: str = "") -> Path:
    """Its profile."""
    path = folder / "board.toml"
    path.write_text(BOARD + more)
    return path


MICRO = """
schema = 1
arch = "cortex-m"
transport = "local"
emulated = "tflite-micro on this machine"
memory_kib = 8
storage_kib = 1024

[measure]
processes = 1
seconds = 0.02
warmup_seconds = 0

[[runtimes]]
use = "tflite-micro"
formats = ["tflite"]
schemes = ["float32", "int8", "int16x8"]
delegates = ["none"]

[[processors]]
name = "Cortex-M7"
cores = 1
clock_ghz = 0.28
macs_per_cycle = { float32 = 1, int8 = 2 }
isa = ["dsp"]
source = "made up"
"""


def micro(folder: Path) -> Path:
    """A microcontroller's profile, with little memory."""
    path = folder / "micro.toml"
    path.write_text(MICRO)
    return path
