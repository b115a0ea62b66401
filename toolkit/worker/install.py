"""What to install where a runtime is missing or too old: one command, for this processor and this Python.

Wheels, as PyPI has them in November 2026 (pip takes the newest that fits): ai-edge-litert for CPython 3.9 to 3.14 on
x86_64 and aarch64; tflite-runtime 2.14 for CPython 3.8 to 3.11, also on armv7l, with numpy 1; onnxruntime for
CPython 3.8 on, x86_64 and aarch64; openvino for x86_64 and aarch64.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
from typing import Dict, Optional, Tuple

Range = Tuple[Tuple[int, int], Tuple[int, int]]
PACKAGES = {
    "litert": "ai-edge-litert",
    "tflite-runtime": "tflite-runtime 'numpy<2'",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tflite-micro": "--pre tflite-micro",
}
WIDE = ("x86_64", "aarch64", "arm64")
MACHINES = {  # of Linux wheels
    "litert": WIDE,
    "tflite-runtime": ("x86_64", "aarch64", "armv7l"),
    "onnxruntime": WIDE,
    "openvino": WIDE,
    "tflite-micro": ("x86_64",),
}
PYTHONS: Dict[str, Range] = {  # first and last CPython there is a wheel for
    "litert": ((3, 9), (3, 14)),
    "tflite-runtime": ((3, 8), (3, 11)),
    "onnxruntime": ((3, 8), (3, 14)),
    "openvino": ((3, 8), (3, 14)),
    "tflite-micro": ((3, 10), (3, 14)),
}
INSTEAD = {"litert": "tflite-runtime", "tflite-runtime": "litert"}  # the other one of .tflite files


def advice(runtime: str) -> str:
    """The command that installs a runtime here, or why there is none and what to do instead."""
    if runtime == "tensorrt":
        return "install TensorRT's Python module (JetPack has it; on other NVIDIA machines: pip install tensorrt)"
    if runtime not in PACKAGES:
        return ""
    refusal = _refusal(runtime)
    if not refusal:
        return pip(PACKAGES[runtime])
    other = INSTEAD.get(runtime)
    if other is None or _refusal(other):
        return "%s; use another device, or another Python" % refusal
    return '%s; use = "%s" in its profile, and there %s' % (refusal, other, pip(PACKAGES[other]))


def _refusal(runtime: str) -> str:
    """Why no wheel of a runtime fits here, or ""."""
    machine, (first, last) = platform.machine(), PYTHONS[runtime]
    package = PACKAGES[runtime].replace("--pre ", "").split()[0]
    if machine not in MACHINES[runtime]:
        return "PyPI has no %s for %s" % (package, machine)
    if not first <= sys.version_info[:2] <= last:
        words = (package, "%d.%d" % first, "%d.%d" % last, platform.python_version())
        return "PyPI has %s for Python %s to %s, this is %s" % words
    return ""


def pip(packages: str, upgrade: bool = False) -> str:
    """A command for this Python, or for an environment beside it where the system's may not be changed (PEP 668)."""
    how = "install %s%s" % ("--upgrade " if upgrade else "", packages)
    own = sys.prefix != sys.base_prefix
    if own or not os.path.isfile(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")):
        return "%s -m pip %s" % (sys.executable or "python3", how)
    folder = "~/edgekit-env"
    made = "%s -m venv %s && %s/bin/pip %s" % (sys.executable or "python3", folder, folder, how)
    return '%s, with python = "%s/bin/python" in its profile' % (made, os.path.expanduser(folder))


def newer(runtime: str) -> str:
    """The command that brings a runtime up to date."""
    return _refusal(runtime) or pip(PACKAGES[runtime], upgrade=True) if runtime in PACKAGES else ""


# What runtimes say of a file that is newer than they are
TOO_NEW = (
    (r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'", "it has no %s of version %s"),
    (r"Unsupported data type (\d+) in tensor", "it has no tensors of type %s"),
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        "the file's IR version is %s, it reads up to %s",
    ),
    (
        r"[Oo]pset (\d+) is under development[\s\S]*?till opset (\d+)",
        "the file's operator set is %s, it reads up to %s",
    ),
)


def too_new(text: str) -> Optional[str]:
    """What of a file a runtime is too old for, in the words of its own refusal; None where it refuses for another."""
    for pattern, words in TOO_NEW:
        found = re.search(pattern, text)
        if found:
            return words % found.groups()
    return None
