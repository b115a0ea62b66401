"""The command line's changes to a recipe: `--set passes.0.sparsity=0.6` and `--data PATH`."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit import registry
from toolkit.documents import Document, Key
from toolkit.errors import InputError
from toolkit.recipe_file import DATA_KEYS

_ARRAYS = ("passes", "variants", "targets", "export")


def with_override(document: Document, text: str) -> Document:
    """The document with `--set KEY=VALUE` applied; the value is TOML where it can be read as such, else text."""
    path, equals, value = text.partition("=")
    option = f"--set {path.strip()}"
    if not equals or not path.strip():
        raise InputError(f"--set {text}", "is not KEY=VALUE", "write for example passes.0.sparsity=0.6")
    return document.with_option(_address(document.data, path.strip(), option), toml_value(value.strip()), option)


def toml_value(text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return found["value"] if len(found) == 1 else text


def _address(node: Any, path: str, option: str) -> Key:
    """The key path that `path` names, items of arrays by number or by what they are called."""
    key: Key = ()
    parts = path.split(".")
    if len(parts) > 1 and parts[0] in _ARRAYS and parts[0] not in node:
        raise InputError(
            option, f"the recipe has no {parts[0]}", f"set all of `{parts[0]}`, or write them in the recipe"
        )
    for part in parts:
        step: str | int = part
        if isinstance(node, list):
            step = int(part) if part.isdecimal() else _index_of(part, node, option)
        key = (*key, step)
        inside = (isinstance(node, list) and isinstance(step, int) and step < len(node)) or (
            isinstance(node, dict) and step in node
        )
        node = node[step] if inside else None
    return key


def _index_of(name: str, items: list[Any], option: str) -> int:
    called = [_called(item) for item in items]
    if called.count(name) == 1:
        return called.index(name)
    if name in called:
        raise InputError(option, f"{called.count(name)} items are called {name!r}", "use the number of one, from 0")
    raise InputError(option, f"no item is called {name!r}", registry.suggest(name, filter(None, called)))


def _called(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    return str(next((item[key] for key in ("name", "use", "device") if key in item), ""))


def with_data(document: Document, given: str) -> Document:
    """The document with `--data` applied: a path or a dataset's name; the keys of another kind of dataset go."""
    table = document.data.get("data")
    table = table if isinstance(table, dict) else {}
    path = Path(given).expanduser()
    known = registry.names("datasets")
    by_name = not path.exists() and given in known
    if not by_name and not path.exists():
        problem = f"no such file or folder, and no dataset of that name, got {given!r}"
        raise InputError("--data", problem, registry.suggest(given, known))
    use = given if by_name else dataset_kind(path) or table.get("use")
    if use is None:
        raise InputError("--data", f"cannot tell what kind of dataset {given!r} is", dataset_kinds())
    before = table.get("use") or dataset_kind(document.folder(("data", "path")) / str(table.get("path", "")))
    if use != before or by_name:
        kept = {key: value for key, value in table.items() if key in DATA_KEYS}
        document = replace(document, data={**copy.deepcopy(document.data), "data": kept})
    document = document.with_option(("data", "use"), use, "--data")
    return document if by_name else document.with_option(("data", "path"), str(path.absolute()), "--data")


def dataset_kind(path: Path) -> str | None:
    """The dataset's name, as the path shows it."""
    known = {".npz": "npz", ".csv": "csv", ".jsonl": "jsonl"}
    if path.is_dir():
        return "npy" if (path / "images.npy").is_file() else "folder"
    if ".tfrecord" in path.name.lower():
        return "tfrecord"
    return known.get(path.suffix.lower()) or (None if path.suffix else "folder")


def dataset_kinds() -> str:
    """A `Fix:` text for a path that does not show what kind of dataset it is."""
    names = ", ".join(sorted(registry.names("datasets")))
    return f"give a .npz, .csv, .jsonl or .tfrecord file or a folder, or add `use`, one of {names}"
