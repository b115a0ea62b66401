"""Manifests of earlier schemas are read as if written today; those of later ones are refused.

A field that is added with a default needs nothing here: what an old manifest lacks has its default, and what a reader
does not know it passes over. A field that is renamed, moved or means something else raises the schema's number by one:
one more function in `UPGRADES`, and a manifest of before in tests/manifests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from toolkit.errors import InputError

# [n] makes of a manifest of schema n + 1 one of schema n + 2
UPGRADES: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = ()
SCHEMA = 1 + len(UPGRADES)


def upgraded(content: bytes, where: str) -> bytes:
    """A manifest's JSON as of today's schema; InputError where it is none, or a newer Edgekit's."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(where, f"is not a manifest: {error}", "make the run again") from None
    number = found.get("schema") if isinstance(found, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InputError(where, "is not a manifest: it says no `schema`", "name a directory that `edgekit run` made")
    latest = 1 + len(UPGRADES)
    if number > latest:
        problem = f"was written by a newer Edgekit: schema {number}, this one reads up to {latest}"
        raise InputError(where, problem, "pip install --upgrade edgekit")
    for upgrade in UPGRADES[number - 1 :]:
        found = upgrade(found)
    return content if number == latest else json.dumps(found).encode()
