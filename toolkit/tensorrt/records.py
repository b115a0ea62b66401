"""The JSON beside an engine (`m.engine` -> `m.engine.json`), and whether an engine may be loaded on a system.

An engine is code for one version of TensorRT on one kind of GPU, and loading it runs that code: it must be one's own,
be the file its record speaks of, and its record must match the system. What fails says how to build the engine anew.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit.digest import file_sha256
from toolkit.errors import EdgekitError, InputError, UnsupportedError
from toolkit.tensorrt.types import EngineRecord, Target
from toolkit.tensorrt.versions import parse

SCHEMA = 1
LARGEST = 16 * 2**20  # bytes of a record that is read; real ones have a few thousand
SHA256 = re.compile(r"[0-9a-f]{64}")
# CUDA major -> least driver (NVIDIA, CUDA Compatibility, minor version compatibility, table 1); Jetson counts otherwise
DRIVERS = {11: 450, 12: 525, 13: 580}


def record_path(engine: Path) -> Path:
    """Where the record of an engine lies."""
    return engine.with_name(f"{engine.name}.json")


def sha256_of(path: Path) -> str:
    """Hash of a file's content; InputError when it cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from None


# ---------------------------------------------------------------- the file


def write(engine: Path, record: EngineRecord) -> Path:
    """Write the record beside its engine; InputError when it speaks of another file."""
    if sha256_of(engine) != record.engine_sha256:
        raise InputError(str(engine), "is not the engine its record speaks of", "write the record of this very file")
    path = record_path(engine)
    _replace(path, (json.dumps(asdict(record), indent=2) + "\n").encode(), mode=0o644)
    return path


def read(engine: Path) -> EngineRecord:
    """The record beside an engine, read strictly; InputError with one line for what is missing, damaged or foreign."""
    from pydantic import TypeAdapter, ValidationError

    path = record_path(engine)
    found = _json(path)
    number = found.get("schema")
    if number != SCHEMA or isinstance(number, bool):
        fix = "upgrade edgekit" if isinstance(number, int) and number > SCHEMA else "build the engine again"
        raise InputError(str(path), f"is no engine record of schema {SCHEMA}, got schema {number!r}", fix)
    try:
        record = TypeAdapter(EngineRecord).validate_json(json.dumps(found), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"{key}: {first['msg'].lower()}") from None
    _complete(path, record, found)
    return record


def _complete(path: Path, record: EngineRecord, found: dict[str, Any]) -> None:
    """Nothing more and nothing less than what is written, and hashes that are hashes."""
    kept = json.loads(json.dumps(asdict(record)))
    for key in sorted({*found} ^ {*kept}):
        raise _damaged(path, f"{key}: {'no such key' if key in found else 'is missing'}")
    for key, value in kept.items():
        if found[key] != value:
            raise _damaged(path, f"{key}: has keys too many or too few")
    for key in ("engine_sha256", "onnx_sha256"):
        if not SHA256.fullmatch(found[key]):
            raise _damaged(path, f"{key}: is no sha256")


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise _damaged(path, "too large")
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except FileNotFoundError:
        problem = "is missing: nothing says what the engine was built for"
        raise InputError(str(path), problem, "keep it beside the engine, or build the engine again") from None
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a key twice, nested without end
        raise _damaged(path, str(error).splitlines()[0]) from None
    if not isinstance(found, dict):
        raise _damaged(path, "no JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _damaged(path: Path, problem: str) -> InputError:
    return InputError(str(path), f"is a damaged engine record: {problem}", "build the engine again")


def _replace(path: Path, content: bytes, *, mode: int) -> None:
    """Write by a temporary file beside it, so that a crash leaves the old content or the new."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(mode)
        os.replace(name, path)  # noqa: PTH105  (onto a path that may exist)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# ---------------------------------------------------------------- one's own


def own_file() -> Path:
    """Where the hashes of the engines this user built are kept."""
    state = os.environ.get("XDG_STATE_HOME", "")
    home = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"  # as the XDG standard says
    return home / "edgekit" / "engines"


def remember(engine_sha256: str) -> None:
    """Count an engine as one's own: call it where the engine was built, and nowhere else."""
    if not SHA256.fullmatch(engine_sha256):
        raise InputError("engine", f"no sha256, got {engine_sha256[:80]!r}")
    path = own_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = sorted({*own(), engine_sha256})
        _replace(path, "".join(f"{line}\n" for line in lines).encode(), mode=0o600)
    except OSError as error:
        raise InputError(str(path), f"cannot be written: {error.strerror}", "set XDG_STATE_HOME") from None


def own() -> frozenset[str]:
    """Hashes of one's own engines; InputError when others could have written the list."""
    path = own_file()
    try:
        state = path.stat()
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot be read: {error}", "remove it; engines are then built again") from None
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise InputError(str(path), "can be written by others", f"remove it, or check it and chmod 600 {path}")
    return frozenset(line for line in text.split() if SHA256.fullmatch(line))


# ---------------------------------------------------------------- may it be loaded?


def check(
    engine: Path, target: Target, *, allow: Iterable[str] = (), rebuild: str = "edgekit engine MODEL.onnx --device NAME"
) -> EngineRecord:
    """The record of an engine that may be loaded on `target`; else one error that ends with the rebuild command.

    allow: sha256 of engines of others that the user named (`--allow-engine`).
    """
    try:
        record, actual = read(engine), sha256_of(engine)
    except EdgekitError as error:
        raise InputError(error.where, error.problem, f"build the engine again: {rebuild}") from None
    if actual != record.engine_sha256:
        problem = (
            f"is not the file its record speaks of (sha256 {actual[:12]}..., recorded {record.engine_sha256[:12]}...)"
        )
        raise InputError(str(engine), problem, f"build it again: {rebuild}")
    if actual not in own() and actual not in set(allow):
        problem = "was not built by this user, and an engine is code"
        raise UnsupportedError(str(engine), problem, f"build it: {rebuild}; or trust it with --allow-engine {actual}")
    wrong = mismatches(record, target)
    if wrong:
        problem = f"does not fit {target.device or 'the target'}: {'; '.join(wrong)}"
        raise UnsupportedError(str(engine), problem, f"build it again: {rebuild}")
    return record


def rebuild_command(engine: Path, *, onnx: Path | str = "MODEL.onnx", device: str = "NAME", host: str = "") -> str:
    """The command that builds the engine anew."""
    words = ["edgekit", "engine", str(onnx), "--device", device, *(("--ssh", host) if host else ())]
    return shlex.join([*words, "--out", str(engine)])


def mismatches(record: EngineRecord, target: Target) -> tuple[str, ...]:
    """Why an engine cannot be loaded on a system, one text for each reason.

    What must match: TensorRT to the third number, its edition, compute capability, platform and the GPU itself (engines
    here are built without hardware compatibility); CUDA's major version, a driver new enough for it, and Jetson Linux
    to the second number where both sides are known.
    """
    return (*_library(record.target, target), *_hardware(record.target, target), *_system(record.target, target))


def _library(built: Target, here: Target) -> Iterator[str]:
    if built.flavour != here.flavour:
        yield f"built by {built.flavour}, the target has {here.flavour}"
    elif not built.tensorrt or not here.tensorrt:
        yield "TensorRT's version is not known on both sides"
    elif parse(built.tensorrt).release != parse(here.tensorrt).release:
        yield f"built by TensorRT {built.tensorrt}, the target has {here.tensorrt}"


def _hardware(built: Target, here: Target) -> Iterator[str]:
    rows = (
        ("compute capability", built.compute_capability, here.compute_capability),
        ("platform", built.platform, here.platform),
        ("device", built.device, here.device),
    )
    for name, was, found in rows:
        if was != found or not was:
            yield f"built for {name} {was or 'unknown'}, the target is {found or 'unknown'}"


def _system(built: Target, here: Target) -> Iterator[str]:
    major = _numbers(built.cuda)[:1]
    if built.cuda and here.cuda and major != _numbers(here.cuda)[:1]:
        yield f"built with CUDA {built.cuda}, the target has {here.cuda}"
    least = DRIVERS.get(major[0]) if major else None
    if least and here.driver and not here.l4t and _numbers(here.driver) < (least,):
        yield f"CUDA {built.cuda} needs driver {least} or newer, the target has {here.driver}"
    if (built.l4t or here.l4t) and _numbers(built.l4t)[:2] != _numbers(here.l4t)[:2]:
        yield f"built on Jetson Linux {built.l4t or 'unknown'}, the target has {here.l4t or 'none'}"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))
