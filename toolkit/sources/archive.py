"""A `.keras` archive looked at as data, before any loader runs: models are code, and this runs none of it.

Format: a zip of config.json, metadata.json and model.weights.h5 (keras.io, "Save, serialize, and export models").
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.errors import InputError, UnsupportedError

MAX_CONFIG = 64 * 2**20  # bytes; EfficientNetV2L's is 0.6 MB
MAX_TOTAL = 8 * 2**30  # bytes unpacked: far more than a network for an edge device
MAX_MEMBERS = 10_000
MAX_RATIO = 50  # unpacked to packed; trained weights hardly shrink, and Keras stores them unpacked
SMALL = 64 * 2**20  # bytes unpacked below which the ratio does not matter
TRUSTED = ("keras.", "keras_core.")
# Keras classes that hold code of the file's author
CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")


def check(path: Path) -> None:
    """Raises InputError for what is no sound `.keras` file, UnsupportedError (by layer) for one that holds code."""
    _check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
            config = _json(path, archive, "config.json")
            metadata = _json(path, archive, "metadata.json")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        problem = f"is damaged or not a .keras file ({error})"
        raise InputError(str(path), problem, "save the model again with model.save('name.keras')") from error
    version = str(metadata.get("keras_version", ""))
    if version.startswith(("1.", "2.")):
        problem = f"was written by Keras {version}, and only Keras 3 files can be read"
        raise UnsupportedError(str(path), problem, "rebuild it under Keras 3 and save it from there")
    _check_code(path, config)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(str(path), "is a folder, not a .keras file")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise InputError(str(path), "no such file", "name a .keras file") from None
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from error
    if not start:
        raise InputError(str(path), "is empty")
    if start.startswith(b"\x89HDF"):
        raise InputError(str(path), "is an HDF5 file, not a .keras archive", "save the model as name.keras")
    if not start.startswith(b"PK"):
        raise InputError(str(path), "is not a .keras archive", "save the model with model.save('name.keras')")


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    for member in members:
        name = PurePosixPath(member.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in member.filename:
            raise InputError(str(path), f"has a member that climbs out of the archive, {member.filename!r}")
    if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_TOTAL:
        raise InputError(str(path), f"unpacks to more than {MAX_TOTAL >> 30} GiB or {MAX_MEMBERS:,} members")
    unpacked, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if unpacked > max(SMALL, MAX_RATIO * packed):
        raise InputError(
            str(path), f"unpacks to {unpacked // max(1, packed):,} times its size, as no trained model does"
        )
    missing = {"config.json", "metadata.json", "model.weights.h5"} - {member.filename for member in members}
    if missing:
        problem = f"is a zip file without {', '.join(sorted(missing))}"
        raise InputError(str(path), problem, "save the model with model.save('name.keras')")
    damaged = archive.testzip() if len(members) < 100 else None
    if damaged:
        raise InputError(str(path), f"is damaged: the checksum of {damaged} does not match")


def _json(path: Path, archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > MAX_CONFIG:
        raise InputError(str(path), f"its {name} unpacks to more than {MAX_CONFIG >> 20} MiB")
    try:
        found = json.loads(archive.read(name))
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), f"its {name} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(str(path), f"its {name} is not a table")
    return found


def _check_code(path: Path, config: dict[str, Any]) -> None:
    for layer, entry in _classes(config, "the model"):
        kind, module = str(entry.get("class_name")), entry.get("module")
        registered = entry.get("registered_name")
        foreign = isinstance(module, str) and not (module + ".").startswith(TRUSTED) and module != "builtins"
        custom = isinstance(registered, str) and ">" in registered
        if kind in CODE or foreign or custom or (kind == "function" and module == "builtins"):
            what = f"{module}.{kind}" if foreign else str(registered) if custom else kind
            problem = f"layer {layer!r} holds code of its own ({what}), which is not run from a model file"
            raise UnsupportedError(str(path), problem, "replace it by built-in layers")


def _classes(node: Any, layer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every serialized object, with the name of the layer it belongs to. Iterative: depth is the file's to choose."""
    pending = [(node, layer)]
    while pending:
        item, owner = pending.pop()
        if isinstance(item, dict):
            inner = item.get("config")
            if "class_name" in item and isinstance(inner, dict) and isinstance(inner.get("name"), str):
                owner = inner["name"]
            if "class_name" in item:
                yield owner, item
            pending += [(value, owner) for value in item.values()]
        elif isinstance(item, list):
            pending += [(value, owner) for value in item]
