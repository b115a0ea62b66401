"""A resolved recipe as TOML text (https://toml.io/en/v1.0.0). None has no TOML form: such keys are left out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """`table` as TOML: plain keys first, then its tables and arrays of tables."""
    lines = [f"{_key(key)} = {value(item)}" for key, item in table.items() if item is not None and not _is_table(item)]
    blocks = ["\n".join(lines)] if lines else []
    for key, item in table.items():
        inner = (*path, key)
        name = ".".join(map(_key, inner))
        if isinstance(item, Mapping):
            blocks.append(f"[{name}]\n{toml(item, inner)}".rstrip())
        elif _is_table(item):
            blocks += [f"[[{name}]]\n{_flat(part)}".rstrip() for part in item]
    return "\n\n".join(blocks)


def value(item: Any) -> str:
    """One value, on one line."""
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int):
        return str(item)
    if isinstance(item, float):
        return _float(item)
    if isinstance(item, Mapping):
        inner = ", ".join(f"{_key(key)} = {value(part)}" for key, part in item.items() if part is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(item, Sequence) and not isinstance(item, str):
        return f"[{', '.join(value(part) for part in item if part is not None)}]"
    return _string(str(item))


def _flat(table: Mapping[str, Any]) -> str:
    return "\n".join(f"{_key(key)} = {value(item)}" for key, item in table.items() if item is not None)


def _is_table(item: Any) -> bool:
    if isinstance(item, Mapping):
        return True
    many = isinstance(item, Sequence) and not isinstance(item, str)
    return many and bool(item) and all(isinstance(part, Mapping) for part in item)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _float(number: float) -> str:
    if math.isfinite(number):
        return repr(number)
    return "nan" if math.isnan(number) else "inf" if number > 0 else "-inf"
