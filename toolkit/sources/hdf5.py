"""An HDF5 file of Keras looked at as data, before any loader runs.

HDF5 can name other files (external links, external and virtual storage) and declare arrays far larger than the file;
no Keras model needs either. Format: the HDF5 File Format Specification; what Keras writes: keras.io, "Legacy HDF5".
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError
from toolkit.sources import code, hdf5_trial
from toolkit.sources.saved import MAX_CONFIG, MAX_RATIO, MAX_TOTAL, SMALL, Saved, parse_json

if TYPE_CHECKING:
    import h5py

TRIAL_SECONDS = 300  # a gigabyte takes a few
MAX_OBJECTS = 100_000  # groups and datasets; EfficientNetV2L's file has about 5,000
AGAIN = "save the model again"


def check(path: Path, allowed: code.Allowed) -> Saved:
    """What the file holds. Raises InputError for an unsound file, UnsupportedError (by layer) for one with code."""
    import h5py

    _try(str(path), path)
    try:
        with h5py.File(path, "r") as file:
            total = max(_check_objects(str(path), file, path.stat().st_size), path.stat().st_size)
            config = _config(path, file)
            version = _text(file.attrs.get("keras_version", ""))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError) as error:  # of the HDF5 library
        raise InputError(str(path), f"is damaged or no HDF5 file ({_line(error)})", AGAIN) from error
    code.check(str(path), config, allowed)
    code.check_widths(str(path), config, total)
    return Saved(".h5", version, config)


def check_weights(where: str, source: Path | bytes) -> int:
    """How many weight values a file of weights holds, its optimizer's left out; InputError for an unsound one."""
    import h5py

    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    _try(where, source)
    try:
        with h5py.File(BytesIO(source) if isinstance(source, bytes) else source, "r") as file:
            found = _check_objects(where, file, size)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(where, f"is damaged or no HDF5 file ({_line(error)})", AGAIN) from error
    return found


def _try(where: str, source: Path | bytes) -> None:
    """Read all of it in a process of its own, since the HDF5 library may crash on a damaged file."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    command = [sys.executable, hdf5_trial.__file__, str(_limit(size))]
    data = source if isinstance(source, bytes) else None
    command += [] if isinstance(source, bytes) else [str(source.absolute())]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=TRIAL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(where, f"is damaged: reading it takes more than {TRIAL_SECONDS} s", AGAIN) from None
    if done.returncode:
        crash = "reading it crashes the HDF5 library"
        reason = crash if done.returncode < 0 else _line(RuntimeError(done.stderr.decode(errors="replace")))
        raise InputError(where, f"is damaged or no HDF5 file ({reason})", AGAIN)


def _limit(size: int) -> int:
    """Most bytes that the arrays in a file of that size may have together."""
    return min(MAX_TOTAL, max(SMALL, MAX_RATIO * size))


def _check_objects(where: str, file: h5py.File, size: int) -> int:
    """Values in the datasets outside the optimizer's groups."""
    total = values = 0
    for name, item in _objects(where, file):
        _check_attributes(where, name, item)
        if hasattr(item, "shape"):
            _check_dataset(where, name, item)
            total += prod(item.shape) * item.dtype.itemsize
            values += 0 if name.startswith(("/optimizer", "//optimizer")) else prod(item.shape)
        if total > _limit(size):
            problem = f"declares arrays of {total:,} bytes by {name!r} in a file of {size:,}, as no trained model does"
            raise InputError(where, problem, AGAIN)
    return values


def _objects(where: str, file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Every group and dataset once; InputError at a link that leaves the file."""
    import h5py

    pending: list[tuple[str, Any]] = [("", file)]
    seen: set[int] = set()
    while pending:
        name, item = pending.pop()
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            continue
        seen.add(address)
        if len(seen) > MAX_OBJECTS:
            raise InputError(where, f"holds more than {MAX_OBJECTS:,} groups and arrays")
        yield name, item
        for key in item if isinstance(item, h5py.Group) else ():
            link = item.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                problem = f"its {name}/{key} is a link to another file, {link.filename!r}"
                raise InputError(where, problem, "save the model as one file")
            if isinstance(link, h5py.SoftLink):
                raise InputError(where, f"its {name}/{key} is a symbolic link, which Keras never writes", AGAIN)
            pending.append((f"{name}/{key}", item[key]))


def _check_dataset(where: str, name: str, item: h5py.Dataset) -> None:
    if item.external or item.is_virtual:
        problem = f"its array {name!r} is stored in other files"
        raise InputError(where, problem, "save the model as one file")


def _check_attributes(where: str, name: str, item: Any) -> None:
    import h5py

    for index in range(h5py.h5a.get_num_attrs(item.id)):
        attribute = h5py.h5a.open(item.id, index=index)
        if attribute.get_type().get_size() * prod(attribute.shape) > MAX_CONFIG:
            problem = f"attribute {attribute.name.decode(errors='replace')!r} of {name or '/'!r} is too large"
            raise InputError(where, f"{problem} (over {MAX_CONFIG >> 20} MiB)", AGAIN)


def _config(path: Path, file: h5py.File) -> dict[str, Any]:
    """The architecture; Keras puts attributes beyond 64 KiB into numbered parts."""
    if "model_config" in file.attrs:
        text = _text(file.attrs["model_config"])
    else:
        names = [f"model_config{number}" for number in range(len(file.attrs))]
        text = "".join(_text(file.attrs[name]) for name in names if name in file.attrs)
    if not text:
        raise InputError(str(path), *_without_model(file))
    if len(text) > MAX_CONFIG:
        raise InputError(str(path), f"its model_config is larger than {MAX_CONFIG >> 20} MiB")
    return parse_json(str(path), "model_config", text)


def _without_model(file: h5py.File) -> tuple[str, str]:
    weights = "layer_names" in file.attrs or {"layers", "_layer_checkpoint_dependencies", "vars"} & set(file)
    if weights:
        return "holds weights only: no architecture", "save the whole model with model.save('name.keras')"
    return "is an HDF5 file, but no Keras model", "save the model with model.save('name.keras')"


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    parts = list(value) if hasattr(value, "__iter__") else [json.dumps(str(value))]
    return "".join(_text(part) for part in parts)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
