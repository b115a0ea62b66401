"""What there is to choose from: every registry family, the shipped recipes and devices, and each one's fields."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from toolkit import registry
from toolkit.devices import shipped
from toolkit.errors import InputError
from toolkit.schema import describe, summary

FILES = ("recipes", "devices")


def list_names(what: str | None = None) -> dict[str, dict[str, str]]:
    """Family -> name -> one line about it; one family, or all with the shipped recipes and devices."""
    known = (*registry.FAMILIES, *FILES)
    if what is not None and what not in known:
        raise InputError(what, "no such list", registry.suggest(what, known))
    return {family: _lines(family) for family in ([what] if what else known)}


def show_name(name: str) -> dict[str, Any]:
    """Everything known of `name`, wherever it is registered. A name in two families is written family.name."""
    family, _, rest = name.partition(".")
    places = [(family, rest)] if rest and family in (*registry.FAMILIES, *FILES) else []
    places = places or [(f, name) for f in (*registry.FAMILIES, *FILES) if name in _known(f)]
    if len(places) > 1:
        spelled = " or ".join(f"{family}.{name}" for family, name in places)
        raise InputError(name, "is the name of several things", f"write {spelled}")
    if not places or places[0][1] not in _known(places[0][0]):
        everything = {name for family in (*registry.FAMILIES, *FILES) for name in _known(family)}
        raise InputError(name, "nothing is called that", registry.suggest(name, everything))
    return _shown(*places[0])


def show_lines(found: dict[str, Any]) -> Iterator[str]:
    """What `edgekit show` prints."""
    yield f"{found['name']} ({found['family']})"
    yield f"  {found['summary']}"
    for key, value in found.get("declares", {}).items():
        yield f"  {key}: {value}"
    if "text" in found:
        yield f"  {found['path']}"
        yield ""
        yield from found["text"].rstrip().splitlines()
        return
    yield ""
    if not found["fields"]:
        yield "  no parameters"
    for field in found["fields"]:
        default = "required" if field["required"] else f"default {field['default']}"
        yield f"  {field['name']}: {', '.join(filter(None, (field['type'], field['bounds'], default)))}"
        if field["description"]:
            yield f"      {field['description']}"


def _shown(family: str, name: str) -> dict[str, Any]:
    if family in FILES:
        path = shipped(family)[name]
        text = path.read_text()
        return {"family": family, "name": name, "summary": _title(text), "path": str(path), "text": text}
    cls = registry.load(family, name)
    declares = ("formats", "format", "schemes", "takes", "needs", "delegates", "suffixes", "package")
    found = {key: getattr(cls, key, None) for key in declares}
    fields = [asdict(field) for field in describe(cls)]
    return {
        "family": family,
        "name": name,
        "summary": summary(cls),
        "declares": {k: ", ".join(v) if isinstance(v, tuple) else v for k, v in found.items() if v and _plain(v)},
        "fields": fields,
    }


def _plain(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, tuple) and all(isinstance(item, str) for item in value))


def _known(family: str) -> dict[str, Any]:
    return dict(shipped(family)) if family in FILES else dict(registry.names(family))


def _lines(family: str) -> dict[str, str]:
    if family in FILES:
        return {name: _title(path.read_text()) for name, path in shipped(family).items()}
    return {name: summary(registry.load(family, name)) for name in registry.names(family)}


def _title(text: str) -> str:
    data = tomllib.loads(text)
    return str(data.get("description") or data.get("title") or "")
