"""TOML files to frozen, typed objects; every mistake is named as `file:line: key: what is wrong. Fix: ...`.

A `Component` is a frozen pydantic model: its fields are its parameters, with bounds and a description. A `Reader`
turns the tables of one `Document` into components and keeps every mistake until `finish` raises them all at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from toolkit.documents import Document, Key
from toolkit.errors import InputError
from toolkit.registry import suggest

SCHEMA = 1  # of the files users write; a change adds one upgrade function


class Component(BaseModel):
    """Base of everything a recipe or profile can name: its fields are its parameters, with bounds and a description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, use_attribute_docstrings=True, allow_inf_nan=False
    )


C = TypeVar("C", bound=BaseModel)


def paths_in(component: BaseModel, key: Key = ()) -> Iterator[tuple[Key, Path]]:
    """Every path among a component's parameters, in components inside it too, with where it stands."""
    for name, value in component:
        if isinstance(value, Path):
            yield (*key, name), value
        elif isinstance(value, BaseModel):
            yield from paths_in(value, (*key, name))
        elif isinstance(value, tuple):
            yield from (((*key, name, i), item) for i, item in enumerate(value) if isinstance(item, Path))


def relocated(component: C, place: Callable[[Path], Path]) -> C:
    """The component with each of its paths put where `place` says."""
    update: dict[str, Any] = {}
    for name, value in component:
        if isinstance(value, Path):
            update[name] = place(value)
        elif isinstance(value, BaseModel) and any(paths_in(value)):
            update[name] = relocated(value, place)
        elif isinstance(value, tuple) and any(isinstance(item, Path) for item in value):
            update[name] = tuple(place(item) if isinstance(item, Path) else item for item in value)
    return component.model_copy(update=update) if update else component


# ---------------------------------------------------------------- validation


@dataclass(frozen=True)
class Mistake:
    """One thing wrong with a document."""

    key: Key
    where: str
    problem: str
    fix: str | None = None

    def __str__(self) -> str:
        return str(InputError(self.where, self.problem, self.fix))


class Reader:
    """Turns tables of one document into components, keeping every mistake until `finish`."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._mistakes: list[Mistake] = []

    def wrong(self, key: Key, problem: str, fix: str | None = None) -> None:
        """Note a mistake at `key`."""
        self._mistakes.append(Mistake(key, self.document.where(key), problem, fix))

    def unknown(self, key: Key, name: Any, what: str, known: Iterable[str]) -> None:
        """Note a name that is none of `known`: `no such pass, got 'prunee'. Fix: did you mean 'prune'?`."""
        known = list(known)
        self.wrong(key, f"no such {what}, got {shown(name)}", suggest(str(name), known) if known else None)

    def version(self) -> None:
        """Check the document's `schema` number."""
        number = self.document.data.get("schema")
        if number is None:
            self.wrong(("schema",), "is missing", f"add `schema = {SCHEMA}`")
        elif not isinstance(number, int) or isinstance(number, bool) or number < 1:
            self.wrong(("schema",), f"must be {SCHEMA}, got {shown(number)}", f"write `schema = {SCHEMA}`")
        elif number > SCHEMA:
            problem = f"schema {number} is newer than this Edgekit, which reads {SCHEMA}"
            self.wrong(("schema",), problem, "upgrade edgekit, or write the file for the older schema")

    def read(self, cls: type[C], data: Any, key: Key = (), *, also: Iterable[str] = ()) -> C | None:
        """`data`, found at `key`, as a `cls`; None when it has mistakes.

        also: further keys that may stand in the same table, for suggestions.
        """
        try:
            component = cls.model_validate(data)
            mistakes = list(_bent(cls, component, data))
        except ValidationError as error:
            mistakes = _explained(cls, data, error, also)
        for inner, problem, fix in mistakes:
            self.wrong((*key, *inner), problem, fix)
        return None if mistakes else component

    def table(self, key: Key, data: Any) -> dict[str, Any]:
        """`data` as a table: noted as a mistake and read as empty when it is something else."""
        if isinstance(data, dict):
            return data
        self.wrong(key, f"must be a table, got {shown(data)}")
        return {}

    def array(self, key: Key, data: Any) -> list[Any]:
        """`data` as an array: noted as a mistake and read as empty when it is something else."""
        if isinstance(data, list):
            return data
        self.wrong(key, f"must be an array, got {shown(data)}", "put it in [ ]")
        return []

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong so far."""
        return not self._mistakes

    def finish(self) -> None:
        """Raise one InputError with a line for each mistake, in the file's order, if there was any."""
        mistakes = sorted(dict.fromkeys(self._mistakes), key=lambda mistake: self.document.place(mistake.key))
        if not mistakes:
            return
        first = mistakes[0]
        if len(mistakes) == 1:
            raise InputError(first.where, first.problem, first.fix)
        raise InputError(first.where, "\n".join(map(str, mistakes)).removeprefix(f"{first.where}: "))


def validate(cls: type[C], document: Document) -> C:
    """The whole document as a `cls`, its `schema` number checked; raises InputError with a line for each mistake."""
    reader = Reader(document)
    reader.version()
    component = reader.read(cls, {name: value for name, value in document.data.items() if name != "schema"})
    reader.finish()
    if component is None:
        raise InputError(document.name, "cannot be read")
    return component


_WORDS = MappingProxyType(
    {
        "missing": "is missing",
        "extra_forbidden": "no such key",
        "string_type": "must be text",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "int_parsing": "must be a whole number",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "tuple_type": "must be an array",
        "dict_type": "must be a table",
        "model_type": "must be a table",
        "model_attributes_type": "must be a table",
        "path_type": "must be a path",
        "greater_than": "must be more than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "finite_number": "must be a finite number",
        "literal_error": "must be {expected}",
        "too_short": "needs {min_length} or more items",
        "too_long": "takes {max_length} or fewer items",
        "string_too_short": "must not be empty",
        "value_error": "{error}",
    }
)


def _explained(
    cls: type[BaseModel], data: Any, error: ValidationError, also: Iterable[str]
) -> list[tuple[Key, str, str | None]]:
    """(key, problem, fix) of each mistake; the branches of a union that all refuse one value are one mistake."""
    problems: dict[Key, list[str]] = {}
    fixes: dict[Key, str | None] = {}
    containers: set[Key] = set()  # refused as a whole by one branch of a union; another may name what is wrong inside
    for item in error.errors(include_url=False):
        kind, given = item["type"], item["input"]
        if kind == "too_short" and len(given) >= item["ctx"]["min_length"]:
            continue  # its items are wrong, and are named themselves
        key = _in_data(item["loc"], data, missing=kind == "missing")
        template = _WORDS.get(kind)
        limits = {name: _plain(value) for name, value in item.get("ctx", {}).items()}
        message = template.format(**limits) if template else item["msg"][:1].lower() + item["msg"][1:]
        if kind in _LIMITS and isinstance(given, bool | str):
            message = "must be a number"
        problems.setdefault(key, []).append(message)
        docs = _fields_at(cls, _named(key)[:-1])
        if kind == "extra_forbidden":
            fixes[key] = suggest(str(key[-1]), [*docs, *(also if len(key) == 1 else ())])
        elif kind == "missing":
            fixes[key] = _fix(docs, key, "add")
        elif kind == "value_error":
            fixes.setdefault(key, None)
        else:
            fixes.setdefault(key, _closest(given, item) or _fix(docs, key, "give"))
            problems[key][-1] = f"{message}, got {shown(given)}"
            if kind.endswith("_type") and isinstance(given, dict | list):
                containers.add(key)
    inside = {key for key in containers if any(len(other) > len(key) == _shared(key, other) for other in problems)}
    return [(key, _joined(problems[key]), fixes[key]) for key in problems if key not in inside]


def _shared(one: Key, other: Key) -> int:
    """How many parts two key paths begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _bent(cls: type[BaseModel], value: Any, data: Any, key: Key = ()) -> Iterator[tuple[Key, str, str | None]]:
    """Values that pydantic read as another type than the file has ("0.5" as a number, 1 as true), as `_explained`."""
    if isinstance(value, BaseModel) and isinstance(data, dict):
        for name, info in type(value).model_fields.items():
            written = info.alias or name
            if written in data:
                yield from _bent(cls, getattr(value, name), data[written], (*key, written))
    elif isinstance(value, tuple | list) and isinstance(data, list) and len(value) == len(data):
        for index, pair in enumerate(zip(value, data, strict=True)):
            yield from _bent(cls, *pair, (*key, index))
    elif isinstance(value, int | float) and isinstance(data, str | int | float):
        if type(value) is type(data) or (type(value), type(data)) == (float, int):
            return
        fix = _fix(_fields_at(cls, _named(key)[:-1]), key, "give")
        yield key, f"must be {_KINDS[type(value)]}, got {shown(data)}", fix


_LIMITS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_KINDS = MappingProxyType({bool: "true or false", int: "a whole number", float: "a number"})


def _joined(messages: list[str]) -> str:
    """One sentence of several that end in the same `, got X`."""
    unique = list(dict.fromkeys(messages))
    heads, got = [text.rpartition(", got ")[0] or text for text in unique], unique[0].rpartition(", got ")[2]
    if len(unique) == 1:
        return unique[0]
    return " or ".join([heads[0], *(head.removeprefix("must be ") for head in heads[1:])]) + f", got {got}"


def _closest(given: Any, item: Any) -> str | None:
    """`did you mean ...?` for a value outside a fixed set, when one is close."""
    if item["type"] != "literal_error" or not isinstance(given, str):
        return None
    close = suggest(given, re.findall(r"'([^']*)'", item["ctx"]["expected"]))
    return close if close.startswith("did you mean") else None


def _fix(docs: Mapping[str, FieldDoc], key: Key, verb: str) -> str | None:
    name = _named(key)
    doc = docs.get(str(name[-1])) if name else None
    if doc is None:
        return None
    if name != key:
        return f"give `{doc.name}` as {doc.words}"
    return f"add `{doc.name}`, {doc.words}" if verb == "add" else f"give {doc.words}"


def _named(key: Key) -> Key:
    """A key path up to its last name: that of the array, for an item of one."""
    return _named(key[:-1]) if key and isinstance(key[-1], int) else key


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _in_data(loc: tuple[int | str, ...], data: Any, *, missing: bool) -> Key:
    """A pydantic location without the names of union members, which stand in no file."""
    key: Key = ()
    for part in loc:
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if inside:
            key, data = (*key, part), data[part]
    return (*key, loc[-1]) if missing else key


def _fields_at(cls: type[BaseModel], key: Key) -> dict[str, FieldDoc]:
    """The fields a table at `key` may have."""
    models = [cls]
    for part in key:
        if isinstance(part, str):
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [inner for item in fields for inner in _models_in(item.annotation)]
    return {doc.name: doc for model in models for doc in describe(model)}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def shown(value: Any) -> str:
    """A value as a message quotes it: short, in TOML's words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    text = value.isoformat() if isinstance(value, date | time) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---------------------------------------------------------------- descriptions


@dataclass(frozen=True)
class FieldDoc:
    """One parameter: its type and bounds in words, its default (None and `required` when it has none), what it is."""

    name: str
    type: str
    bounds: str
    default: Any
    required: bool
    description: str

    @property
    def words(self) -> str:
        """Type and bounds: `a number > 0, < 1`."""
        return f"{self.type}{',' if self.bounds.startswith('at ') else ''} {self.bounds}".strip()


def summary(cls: type[BaseModel]) -> str:
    """The first line of a component's docstring."""
    return (cls.__doc__ or "").strip().split("\n")[0]


def describe(cls: type[BaseModel]) -> tuple[FieldDoc, ...]:
    """Every parameter of `cls`, from its one definition."""
    tree = cls.model_json_schema()
    defs, required = tree.get("$defs", {}), tree.get("required", ())
    return tuple(
        FieldDoc(
            name=name,
            type=_type_words(node, defs),
            bounds=_bounds(node),
            default=node.get("default"),
            required=name in required,
            description=" ".join(str(node.get("description", "")).split()),
        )
        for name, node in tree.get("properties", {}).items()
    )


_TYPES = MappingProxyType(
    {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false", "null": ""}
)


def _type_words(node: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if "$ref" in node:
        return _type_words(defs[node["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in node:
        words = [_type_words(branch, defs) for branch in node["anyOf"]]
        return " or ".join(dict.fromkeys(word for word in words if word))
    if "enum" in node or "const" in node:
        *first, last = (repr(value) for value in node.get("enum", [node.get("const")]))
        return f"{', '.join(first)} or {last}" if first else last
    if node.get("format") in {"path", "file-path", "directory-path"}:
        return "a path"
    if node.get("type") == "array":
        items = node.get("prefixItems") or [node.get("items") or {}]
        inner = " and ".join(dict.fromkeys(_type_words(item, defs) for item in items))
        count = f"{len(node['prefixItems'])} values" if "prefixItems" in node else "values"
        return f"an array of {count}, each {inner}"
    if node.get("type") == "object":
        return "a table"
    return _TYPES.get(node.get("type", ""), "any value")


_BOUNDS = (
    ("exclusiveMinimum", "> {}"),
    ("minimum", ">= {}"),
    ("exclusiveMaximum", "< {}"),
    ("maximum", "<= {}"),
    ("minItems", "at least {}"),
    ("maxItems", "at most {}"),
)


def _bounds(node: Mapping[str, Any]) -> str:
    if "prefixItems" in node:
        return ""
    own = [text.format(_plain(node[name])) for name, text in _BOUNDS if name in node]
    branches = [_bounds(branch) for branch in node.get("anyOf", ())]
    return ", ".join(own) or " or ".join(dict.fromkeys(branch for branch in branches if branch))
