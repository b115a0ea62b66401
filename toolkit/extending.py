"""A recipe file together with those it `extends`: one document, each key of which knows the file and line it is from.

Tables are merged key by key, variants by their name; any other array, such as passes, export and targets, is replaced
as a whole, since items without a name have no counterpart. A recipe's own name and description are not handed on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from toolkit import registry
from toolkit.datasets.unlabelled import LOOSE
from toolkit.devices import find, shipped
from toolkit.documents import Document, Key, read_toml
from toolkit.errors import InputError
from toolkit.overrides import dataset_kind
from toolkit.recipe_file import DATA_KEYS
from toolkit.schema import Reader, shown

OWN = ("extends", "name", "description")  # of one file alone
# tables that are of a dataset -> keys that mean the same for every kind of it
DATASETS: Mapping[Key, tuple[str, ...]] = MappingProxyType(
    {("data",): DATA_KEYS[1:], ("data", "held_out"): (), ("data", "unlabelled"): ()}
)


def read_recipe(name_or_path: str | Path) -> Document:
    """The recipe at a path, or the shipped one of that name, over all that it extends; `bases` keeps their files.

    Raises InputError for a file that is not there, is no TOML or extends itself.
    """
    chain = list(_chain(find("recipes", name_or_path)))
    merged = chain[-1]
    for above in reversed(chain[:-1]):
        merged = _Merge(merged, above).document()
    return merged


def _chain(path: Path) -> Iterator[Document]:
    """The file, the one it extends, the one that extends, ..."""
    seen = {path.resolve(): str(path)}
    document = read_toml(path)
    yield document
    if "extends" in document.data:
        _check_version(document)
    while "extends" in document.data:
        where, path = document.where(("extends",)), _extended(document)
        if path.resolve() in seen:
            circle = " -> ".join([*seen.values(), str(path)])
            raise InputError(where, f"the files extend each other in a circle: {circle}", "leave one `extends` out")
        seen[path.resolve()] = str(path)
        document = read_toml(path)
        if "arch" in document.data:
            raise InputError(where, f"{document.name} is a device profile", "name a recipe")
        _check_version(document)
        yield document


def _check_version(document: Document) -> None:
    """Of each file by itself: merged, one of them would stand in for all."""
    reader = Reader(document)
    reader.version()
    reader.finish()


def _extended(document: Document) -> Path:
    """The file that a recipe extends: a path relative to the recipe, or a shipped name."""
    name, where = document.data["extends"], document.where(("extends",))
    if not isinstance(name, str) or not name:
        raise InputError(where, f"must be text, got {shown(name)}", "name a shipped recipe, or a path from this file")
    path = Path(os.path.normpath(Path(document.name).parent / Path(name).expanduser()))
    known = shipped("recipes")
    if path.is_file():
        return path
    if name not in known:
        problem = f"no such file, and no shipped recipe of that name, got {name!r}"
        raise InputError(where, problem, registry.suggest(name, known))
    return known[name]


class _Merge:
    """One recipe laid over the one that it extends."""

    def __init__(self, below: Document, above: Document) -> None:
        self.below, self.above = below, above
        self.lines: dict[Key, int] = {}
        self.origins: dict[Key, str] = {}

    def document(self) -> Document:
        own = {key: value for key, value in self.below.data.items() if key not in OWN}
        data = self._table(own, self.above.data, (), (), ())
        data.pop("extends")
        return Document(
            self.above.name,
            data,
            self.above.text,
            self.lines,
            origins=self.origins,
            bases=(self.below, *self.below.bases),
        )

    def _table(self, below: dict[str, Any], above: dict[str, Any], at: Key, over: Key, key: Key) -> dict[str, Any]:
        """The keys of both; at, over, key: where the table stands in the one, the other and the result."""
        below = self._kept(below, above, key)
        found: dict[str, Any] = {}
        for name in dict.fromkeys((*below, *above)):
            places = ((*at, name), (*over, name), (*key, name))
            if name not in above:
                found[name] = self._take(self.below, below[name], places[0], places[2])
            elif name not in below:
                found[name] = self._take(self.above, above[name], places[1], places[2])
            else:
                found[name] = self._both(below[name], above[name], *places)
        return found

    def _both(self, below: Any, above: Any, at: Key, over: Key, key: Key) -> Any:
        if isinstance(below, dict) and isinstance(above, dict):
            self._mark(self.above, over, key)
            return self._table(below, above, at, over, key)
        if key == ("variants",) and isinstance(below, list) and isinstance(above, list):
            self._mark(self.above, over, key)
            return self._variants(below, above)
        return self._take(self.above, above, over, key)

    def _variants(self, below: list[Any], above: list[Any]) -> list[Any]:
        """Those below, each under the one above of its name; then the others above."""
        names = [_name(item) for item in above]
        found, used = [], set()
        for index, item in enumerate(below):
            place = names.index(_name(item)) if _name(item) and _name(item) in names else -1
            at, key = ("variants", index), ("variants", index)
            used.add(place)
            if place < 0:
                found.append(self._take(self.below, item, at, key))
            else:
                found.append(self._both(item, above[place], at, ("variants", place), key))
        for place, item in enumerate(above):
            if place not in used:
                found.append(self._take(self.above, item, ("variants", place), ("variants", len(found))))
        return found

    def _kept(self, below: dict[str, Any], above: dict[str, Any], key: Key) -> dict[str, Any]:
        """What of the table below still has a meaning: of another kind of dataset, say, the parameters have none."""
        if key not in DATASETS:
            return {} if "use" in above and above["use"] != below.get("use") else below
        before, now = _kind(below, self.below, key), _kind(above, self.above, key)
        other = before is not None and now is not None and before != now
        return {name: value for name, value in below.items() if name in DATASETS[key]} if other else below

    def _take(self, document: Document, value: Any, at: Key, key: Key) -> Any:
        """A value as it stands in one of the two, with the lines of everything in it."""
        self._mark(document, at, key)
        if isinstance(value, dict):
            return {name: self._take(document, item, (*at, name), (*key, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [self._take(document, item, (*at, i), (*key, i)) for i, item in enumerate(value)]
        return value

    def _mark(self, document: Document, at: Key, key: Key) -> None:
        if at in document.lines:
            self.lines[key] = document.lines[at]
            self.origins[key] = document.origins.get(at, document.name)


def _name(item: Any) -> str:
    """What a variant is called; "" where it is none."""
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else ""


def _kind(data: dict[str, Any], document: Document, key: Key) -> str | None:
    """The kind of dataset that the table at `key` means, as far as it says."""
    use, path = data.get("use"), data.get("path")
    if isinstance(use, str):
        return use
    if not isinstance(path, str):
        return None
    found = dataset_kind(document.folder((*key, "path")) / Path(path).expanduser())
    return LOOSE if key[-1] == "unlabelled" and found in ("folder", None) else found
