"""What is installed here, what is missing and for what, and what of it was ever tried."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from toolkit import kernels

TRIED_PYTHON = ((3, 11),)  # CPython versions the whole test suite has passed on
TRIED_HOST = ("Linux", "x86_64")

# distribution, what it is for, how to get it; None = part of every install
PACKAGES: tuple[tuple[str, str, str | None], ...] = (
    ("tensorflow", "reading, training and converting models", None),
    ("keras", "the model in memory", None),
    ("ai-edge-litert", "running .tflite files", None),
    ("ai-edge-quantizer", "quantizing .tflite files", None),
    ("onnx", "writing .onnx files", None),
    ("tf2onnx", "converting to ONNX", None),
    ("onnxruntime", "running and quantizing .onnx files", None),
    ("pydantic", "recipes and profiles", None),
    ("click", "the command line", None),
    ("rich", "progress", None),
    ("pillow", "decoding images", None),
    ("scikit-learn", "metrics, and the digits of the demo", None),
    ("tf_keras", "reading legacy Keras 2 models", "pip install 'edgekit[legacy]'"),
    ("tensorflow-datasets", "datasets by name (dataset `tfds`)", "pip install 'edgekit[tfds]'"),
    ("openvino", "running .onnx and .tflite files with OpenVINO", "pip install 'edgekit[openvino]'"),
    ("tflite-micro", "outputs and arena of microcontrollers", "pip install 'edgekit[mcu]'"),
    ("ethos-u-vela", "estimates for Ethos-U", "pip install 'edgekit[mcu]'"),
    (
        "tensorrt",
        "building and running TensorRT engines",
        "on a machine with an NVIDIA GPU only: pip install tensorrt; JetPack has its own",
    ),
    (
        "tflite-runtime",
        "running .tflite files on boards that have LiteRT's predecessor",
        "on the board only: numpy < 2",
    ),
)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer. state: ok, missing (needed), absent (optional), untested."""

    name: str
    state: Literal["ok", "missing", "absent", "untested"]
    detail: str


def examine() -> tuple[Finding, ...]:
    """Everything the doctor looks at; imports none of the packages it reports."""
    return (_python(), _host(), _processor(), *(_package(*row) for row in PACKAGES))


def healthy(findings: tuple[Finding, ...]) -> bool:
    """Whether nothing that every install needs is missing."""
    return not any(finding.state == "missing" for finding in findings)


def host() -> dict[str, str | int]:
    """This machine in the words of a manifest."""
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 0,
        "memory_mib": _memory_mib(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Installed version of Edgekit and of every package it can use."""
    found = {name: _version(name) for name in ("edgekit", "numpy", *(row[0] for row in PACKAGES))}
    return {name: version for name, version in found.items() if version}


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] in TRIED_PYTHON:
        return Finding("python", "ok", version)
    tried = ", ".join(".".join(map(str, pair)) for pair in TRIED_PYTHON)
    return Finding("python", "untested", f"{version}; Edgekit's tests have passed on {tried} only")


def _host() -> Finding:
    here = (platform.system(), platform.machine())
    if here == TRIED_HOST:
        return Finding("host", "ok", platform.platform())
    return Finding("host", "untested", f"{' '.join(here)}; Edgekit's tests have passed on {' '.join(TRIED_HOST)} only")


def _processor() -> Finding:
    flags = kernels.flags()
    vnni = flags & {"avx512_vnni", "avx_vnni", "asimddp"}
    note = f"int8 dot products: {', '.join(sorted(vnni)) or 'none'}" if flags else "instruction set unknown"
    if kernels.saturates(platform.machine(), flags):
        note += "; ONNX Runtime's uint8 x int8 kernels saturate here: weights of int8 .onnx files are written in 7 bits"
    return Finding("cpu", "ok", f"{_cpu_model()}, {os.cpu_count()} cores, {_memory_mib()} MiB; {note}")


def _package(name: str, purpose: str, fix: str | None) -> Finding:
    version = _version(name)
    if version:
        return Finding(name, "ok", f"{version}: {purpose}")
    if fix is None:
        return Finding(name, "missing", f"needed for {purpose}. Fix: pip install {name}")
    return Finding(name, "absent", f"for {purpose}. To get it: {fix}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace").splitlines() if path.is_file() else []


def _cpu_model() -> str:
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
