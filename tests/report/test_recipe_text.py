"""TOML out, read back by tomllib."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.report.recipe_text import toml, value
from toolkit.runs import Manifest


def _without_none(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _without_none(part) for key, part in item.items() if part is not None}
    if isinstance(item, list):
        return [_without_none(part) for part in item if part is not None]
    return item


def test_recipe_reads_back_as_it_was(sample: Manifest) -> None:
    assert tomllib.loads(toml(sample.recipe)) == _without_none(sample.recipe)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
leaf = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | text
tree = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))


@settings(suppress_health_check=[HealthCheck.too_slow])  # how long drawing takes is the machine's affair
@given(st.dictionaries(text, tree, max_size=4))
def test_any_table_reads_back_as_it_was(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml(table)) == _without_none(table)


def test_value_is_one_line() -> None:
    assert value({"scheme": "int8", "sizes": [1, 2.0], "none": None}) == '{ scheme = "int8", sizes = [1, 2.0] }'
