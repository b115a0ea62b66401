"""What a model file says it is, found by its first bytes and read as data; and the limits on what it may unpack to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.errors import InputError

MAX_CONFIG = 64 * 2**20  # bytes; EfficientNetV2L's is 0.6 MB
MAX_TOTAL = 8 * 2**30  # bytes unpacked: far more than a network for an edge device
MAX_RATIO = 50  # unpacked to packed; trained weights hardly shrink, and Keras stores them unpacked
SMALL = 64 * 2**20  # bytes unpacked below which the ratio does not matter

Form = Literal[".keras", ".h5", "SavedModel"]


@dataclass(frozen=True)
class Saved:
    """An architecture as it was saved. version: of the Keras that wrote it, "" where the file does not say."""

    form: Form
    version: str
    config: dict[str, Any]

    @property
    def legacy(self) -> bool:
        """Whether Keras 2 (TensorFlow up to 2.15, or tf_keras) wrote it. Keras 3 always says its version."""
        return not self.version or self.version.split(".")[0] in ("0", "1", "2")


def form_of(path: Path) -> Form:
    """How the file at `path` is stored, by its first bytes; InputError, with what it is, for anything else."""
    where = str(path)
    if path.is_dir():
        raise InputError(where, *_folder(path))
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise InputError(where, "no such file", "name a model file") from None
    except OSError as error:
        raise InputError(where, f"cannot be read: {error.strerror}") from error
    if not start:
        raise InputError(where, "is empty")
    named = ".keras" if path.suffix.lower() == ".keras" else ".h5"
    if start.startswith(b"\x89HDF"):
        if named != ".h5":
            raise InputError(where, "is an HDF5 file, not a .keras archive", f"rename it to {path.stem}.h5")
        return ".h5"
    if start.startswith(b"PK"):
        if named != ".keras":
            raise InputError(where, "is a .keras archive, not an HDF5 file", f"rename it to {path.stem}.keras")
        return ".keras"
    raise InputError(where, *_other(path, start, named))


def parse_json(where: str, name: str, text: str | bytes) -> dict[str, Any]:
    """A table from JSON; InputError for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(where, f"its {name} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(where, f"its {name} is not a table")
    return found


def _folder(path: Path) -> tuple[str, str]:
    if (path / "saved_model.pb").exists():
        return "is a folder, a SavedModel", f"rename it to a name without {path.suffix or 'an ending'}"
    return "is a folder, not a model file", "name the file itself"


def _other(path: Path, start: bytes, named: str) -> tuple[str, str]:
    if start[4:8] == b"TFL3":
        return "is a TFLite file", f"rename it to {path.stem}.tflite"
    if start[:1] == b"\x08" and start[2:3] in (b"\x12", b":", b"\x1a", b"\x22"):  # ir_version, then the producer's name
        return "is an ONNX file, by its first bytes", f"rename it to {path.stem}.onnx"
    what = "a .keras archive" if named == ".keras" else "an HDF5 file"
    return f"is not {what}", "save the model with model.save('name.keras')"
