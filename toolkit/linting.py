"""`inspect --for tensorrt`: a file's linter report for TensorRT, of no version, of one, or of a device's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.devices import load_device
from toolkit.errors import InputError, UnsupportedError
from toolkit.tensorrt.lint import lint
from toolkit.tensorrt.lint_text import lines
from toolkit.tensorrt.lint_types import Report
from toolkit.tensorrt.types import Flavour, Target

ASKED = re.compile(r"(tensorrt|tensorrt_rtx)(?:=(\d+(?:\.\d+)*))?")


@dataclass(frozen=True)
class Linted:
    """A report and what it was made for: a target, or none in particular."""

    report: Report
    target: Target | None

    @property
    def title(self) -> str:
        """What the file was looked at for."""
        if self.target is None:
            return "TensorRT 8.5 to 11"
        name = "TensorRT for RTX" if self.target.flavour == "tensorrt_rtx" else "TensorRT"
        return " ".join(filter(None, (name, self.target.tensorrt, self.target.device and f"on {self.target.device}")))

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: everything under one key."""
        return {"tensorrt": {"target": self.target and asdict(self.target), **asdict(self.report)}}


def lint_file(path: Path, runtime: str | None, device: str | None) -> Linted:
    """runtime: "tensorrt", "tensorrt=8.5", "tensorrt_rtx"; device: a profile, whose version holds where none is given.

    Raises InputError for what is no .onnx file, and UnsupportedError for a device without TensorRT.
    """
    from toolkit.inspection import read_artifact

    target = target_of(runtime, device)
    if path.suffix.lower() != ".onnx":
        raise UnsupportedError(str(path), "TensorRT reads .onnx files alone", "export the model to .onnx first")
    read_artifact(path)  # says what is wrong with a file that is none
    import onnx

    return Linted(lint(onnx.load(str(path), format="protobuf"), target=target), target)


def has_tensorrt(path: Path, device: str) -> bool:
    """Whether a device would build an engine of this file."""
    return path.suffix.lower() == ".onnx" and bool(load_device(device).compute_capability)


def lint_lines(linted: Linted) -> Iterator[str]:
    """What `edgekit inspect --for` prints after the rest."""
    yield ""
    yield from lines(linted.report, linted.title)


def target_of(runtime: str | None, device: str | None) -> Target | None:
    """What `--for` and `--device` say; None for TensorRT of no version in particular."""
    found = ASKED.fullmatch(runtime or "tensorrt")
    if found is None:
        raise InputError("--for", f"must be tensorrt or tensorrt=VERSION, got {runtime!r}", "use tensorrt=10.3")
    flavour: Flavour = "tensorrt_rtx" if found[1] == "tensorrt_rtx" else "tensorrt"
    if device is None:
        nowhere = flavour == "tensorrt" and not found[2]
        return None if nowhere else Target(found[2] or "", "", "", "", flavour)
    profile = load_device(device)
    if not profile.compute_capability:
        raise UnsupportedError(profile.name, "has no TensorRT", "use an NVIDIA device (edgekit list devices)")
    known = next((each.version for each in profile.runtimes if each.use == "tensorrt"), "")
    return Target(found[2] or known, profile.compute_capability, profile.name, f"linux-{profile.arch}", flavour)
