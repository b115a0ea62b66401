"""The manifest's JSON schema (draft 2020-12), from the dataclasses that it is written from and their comments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from toolkit.runs import Manifest

COMMENT = re.compile(r"^    (\w+): [^#\n]*#\s+(.*)$", re.MULTILINE)


class _AsWritten(GenerateJsonSchema):
    """Infinities and NaN, which JSON has not, are strings (runs.plain)."""

    def float_schema(self, schema: Any) -> dict[str, Any]:
        return {"anyOf": [super().float_schema(schema), {"enum": ["Infinity", "-Infinity", "NaN"]}]}


def manifest_schema() -> dict[str, Any]:
    """What a manifest that is written today looks like. Readers pass over what they do not know."""
    made = TypeAdapter(Manifest).json_schema(mode="serialization", schema_generator=_AsWritten)
    found: dict[str, Any] = _without_titles(made)
    for kind in _dataclasses(Manifest):
        own = found if kind is Manifest else found["$defs"][kind.__name__]
        said = dict(COMMENT.findall(inspect.getsource(kind)))
        for field in fields(kind):
            if field.name in said:
                own["properties"][field.name]["description"] = said[field.name]
    head = {"$schema": GenerateJsonSchema.schema_dialect, "title": "Manifest of an Edgekit run"}
    found["required"] = [*found["required"], "schema"]
    return head | found


def _dataclasses(kind: Any, seen: set[Any] | None = None) -> Iterator[Any]:
    """Every dataclass in a type, itself and what its fields are of."""
    seen = set() if seen is None else seen
    if is_dataclass(kind) and isinstance(kind, type) and kind not in seen:
        seen.add(kind)
        yield kind
        for hint in get_type_hints(kind).values():
            yield from _dataclasses(hint, seen)
    for part in get_args(kind):
        yield from _dataclasses(part, seen)


def _without_titles(value: Any) -> Any:
    """Pydantic titles everything by its own name."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key != "title" or not isinstance(item, str)}
        return {key: _without_titles(item) for key, item in kept.items()}
    return [_without_titles(item) for item in value] if isinstance(value, list) else value
