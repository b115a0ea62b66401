"""A `.keras` archive looked at as data, before any loader runs: models are code, and this runs none of it.

Format: a zip of config.json, metadata.json and model.weights.h5 (keras.io, "Save, serialize, and export models").
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.errors import InputError
from toolkit.sources import code, saved
from toolkit.sources.saved import MAX_CONFIG, MAX_RATIO, MAX_TOTAL, SMALL, Saved, parse_json

MAX_MEMBERS = 10_000
WEIGHTS = "model.weights.h5"
NOTHING = code.Allowed()
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


def check(path: Path, allowed: code.Allowed = NOTHING) -> Saved:
    """What the archive holds. Raises InputError for an unsound file, UnsupportedError (by layer) for one with code."""
    if saved.form_of(path) != ".keras":
        raise InputError(str(path), "is not a .keras archive")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
            config = _json(path, archive, "config.json")
            metadata = _json(path, archive, "metadata.json")
            room = archive.getinfo(WEIGHTS).file_size
    except DAMAGE as error:
        problem = f"is damaged or not a .keras file ({error})"
        raise InputError(str(path), problem, "save the model again with model.save('name.keras')") from error
    code.check(str(path), config, allowed)
    code.check_widths(str(path), config, room)
    return Saved(".keras", str(metadata.get("keras_version", "")), config)


def weights(path: Path) -> bytes:
    """The archive's file of weights; call `check` first, which bounds its size."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(WEIGHTS)


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    names = [member.filename for member in members]
    for name in names:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name:
            raise InputError(str(path), f"has a member that climbs out of the archive, {name!r}")
    if len(set(names)) < len(names):  # zip readers differ in which of them they take
        raise InputError(str(path), "holds two members of one name", "save the model again")
    if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_TOTAL:
        raise InputError(str(path), f"unpacks to more than {MAX_TOTAL >> 30} GiB or {MAX_MEMBERS:,} members")
    unpacked, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if unpacked > max(SMALL, MAX_RATIO * packed):
        raise InputError(
            str(path), f"unpacks to {unpacked // max(1, packed):,} times its size, as no trained model does"
        )
    missing = {"config.json", "metadata.json", WEIGHTS} - set(names)
    if missing:
        problem = f"is a zip file without {', '.join(sorted(missing))}"
        raise InputError(str(path), problem, "save the model with model.save('name.keras')")
    damaged = archive.testzip() if len(members) < 100 else None
    if damaged:
        raise InputError(str(path), f"is damaged: the checksum of {damaged} does not match")


def _json(path: Path, archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > MAX_CONFIG:
        raise InputError(str(path), f"its {name} unpacks to more than {MAX_CONFIG >> 20} MiB")
    return parse_json(str(path), name, archive.read(name))
