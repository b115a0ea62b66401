"""Lines of keys, files that cannot be read, and the command line's changes to a document."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.documents import Document, Key, key_lines, read_toml
from toolkit.errors import InputError

TRICKY = '''\
# a comment with [brackets] and "quotes"
title = "a # b ] , } = \\" still"   # after a value
plain.dotted . "quoted.key" = 1979-05-27 07:32:00
text = """
[not.a.table]
key = "no key" ""\\"""""
literal = \'\'\'
# no comment \'\'\'
numbers = [ 1, 2.5, [ 3,
    4 ], # comment, with ] and ,
  "five",
]
inline = { a = 1, b.c = "x", d = [ { e = 1 }, { e = 2 } ] }

[[passes]]
use = "prune"
  [passes.recover]
  epochs = 3
  [[passes.recover.steps]]
  at = 1

[[passes]]   # the second
'use' = 'quantize'
[ deep . table ]
x = true
'''


def paths(value: Any, key: Key = ()) -> set[Key]:
    """Every key path of what tomllib reads."""
    found = {key} if key else set()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        found |= paths(inner, (*key, name))
    return found


def test_key_lines_are_the_editors_lines() -> None:
    lines = key_lines(TRICKY)
    wanted: dict[Key, int] = {
        ("title",): 2,
        ("plain", "dotted", "quoted.key"): 3,
        ("text",): 4,
        ("literal",): 7,
        ("numbers", 0): 9,
        ("numbers", 2, 1): 10,
        ("numbers", 3): 11,
        ("inline", "b", "c"): 13,
        ("inline", "d", 1, "e"): 13,
        ("passes",): 15,
        ("passes", 0, "use"): 16,
        ("passes", 0, "recover", "epochs"): 18,
        ("passes", 0, "recover", "steps", 0): 19,
        ("passes", 1): 22,
        ("passes", 1, "use"): 23,
        ("deep", "table"): 24,
        ("deep", "table", "x"): 25,
    }
    assert {key: lines[key] for key in wanted} == wanted


def test_key_lines_cover_what_tomllib_reads() -> None:
    assert set(key_lines(TRICKY)) == paths(tomllib.loads(TRICKY))


def test_key_lines_are_the_same_with_windows_line_ends() -> None:
    assert key_lines(TRICKY.replace("\n", "\r\n")) == key_lines(TRICKY)


_NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=6)
_VALUES = st.recursive(
    st.integers(-9, 9) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False, width=16) | _NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=8,
)


def toml_of(value: Any) -> str:
    """TOML text of a value; strings in one of the four forms, arrays over several lines."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[ # ]\n" + ",\n".join(map(toml_of, value)) + "\n]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_of(name)} = {toml_of(inner)}" for name, inner in value.items()) + "}"
    return repr(value)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(_NAMES, _VALUES, max_size=4))
def test_key_lines_cover_any_document(data: dict[str, Any]) -> None:
    text = "\n".join(f"{toml_of(name)} = {toml_of(value)}" for name, value in data.items())
    assert set(key_lines(text)) == paths(tomllib.loads(text))


# ---------------------------------------------------------------- files


def test_read_toml_names_line_and_column_of_a_syntax_error(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("schema = 1\nname = \n")
    with pytest.raises(InputError) as error:
        read_toml(path)
    assert str(error.value) == f"{path}:2: not valid TOML: invalid value (column 8). Fix: correct this line."


def test_read_toml_names_the_last_line_when_the_file_ends_too_early(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("schema = 1\nname = [1,\n")
    with pytest.raises(InputError) as error:
        read_toml(path)
    assert str(error.value).startswith(f"{path}:2: not valid TOML: ")
    assert "the file ends here" in str(error.value)


def test_read_toml_refuses_a_key_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("a = 1\nb = 2\na = 3\n")
    with pytest.raises(InputError, match=r"r\.toml:3: not valid TOML: cannot overwrite a value"):
        read_toml(path)


def test_device_without_an_end_is_no_toml_file() -> None:
    with pytest.raises(InputError, match="is too large for a TOML file"):
        read_toml("/dev/zero")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x93NUMPY\x01\x00", "is not UTF-8 text (byte 0). Fix: name a TOML file."),
        (b"a = 1\n\x00\x01", None),
        (b"x" * (1 << 20) + b"x", "is too large for a TOML file (1.0 MiB)."),
        (b"a = " + b"[" * 5000, "not valid TOML: nested too deeply."),
    ],
)
def test_read_toml_refuses_what_is_no_toml(tmp_path: Path, content: bytes, problem: str | None) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_toml(path)
    assert "\n" not in str(error.value)
    if problem:
        assert str(error.value) == f"{path}: {problem}"


def test_read_toml_refuses_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError) as missing:
        read_toml(tmp_path / "no.toml")
    with pytest.raises(InputError) as folder:
        read_toml(tmp_path)
    assert str(missing.value) == f"{tmp_path / 'no.toml'}: no such file."
    assert str(folder.value) == f"{tmp_path}: is a folder, not a TOML file. Fix: name the file in it."


def test_read_toml_takes_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 2\r\n")
    document = read_toml(path)
    assert (document.data, document.lines["b",]) == ({"a": 1, "b": 2}, 2)


# ---------------------------------------------------------------- where, options


def document(text: str) -> Document:
    return Document("r.toml", tomllib.loads(text), text.encode(), key_lines(text))


def test_where_falls_back_to_the_nearest_table() -> None:
    doc = document("a = 1\n[b]\nc = 2\n")
    assert doc.where(("b", "c")) == "r.toml:3: b.c"
    assert doc.where(("b", "missing")) == "r.toml:2: b.missing"
    assert doc.where(("missing",)) == "r.toml:1: missing"


def test_with_option_names_the_option_from_then_on_and_keeps_its_argument() -> None:
    doc = document('[[passes]]\nuse = "prune"\nrecover = { epochs = 1 }\n')
    changed = doc.with_option(("passes", 0, "recover"), {"epochs": 5}, "--set passes.0.recover")
    assert doc.data["passes"][0]["recover"] == {"epochs": 1}
    assert changed.data["passes"][0] == {"use": "prune", "recover": {"epochs": 5}}
    assert changed.where(("passes", 0, "recover", "epochs")) == "--set passes.0.recover: epochs"
    assert changed.where(("passes", 0, "use")) == "r.toml:2: passes.0.use"


def test_with_option_makes_missing_tables_and_expands_short_steps() -> None:
    doc = document('export = ["tflite"]\n')
    changed = doc.with_option(("budget", "max_size_kib"), 5, "--set budget.max_size_kib")
    assert changed.data["budget"] == {"max_size_kib": 5}
    assert changed.where(("budget",)) == "--set budget.max_size_kib"
    changed = doc.with_option(("export", 0, "layout"), "NCHW", "--set x")
    assert changed.data["export"] == [{"use": "tflite", "layout": "NCHW"}]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("export", 3, "layout"), "--set x: no item 3 in a list of 1. Fix: use 0 to 0."),
        (("export", 3), "--set x: no item 3 in a list of 1. Fix: use 0 to 0."),
        (("name", "first"), "--set x: name is a value, not a table. Fix: set that key itself."),
        (("name", "a", "b"), "--set x: there is no table that could hold 'a'. Fix: set the key above it."),
    ],
)
def test_with_option_refuses_paths_that_lead_nowhere(key: Key, message: str) -> None:
    with pytest.raises(InputError) as error:
        document('name = "n"\nexport = ["tflite"]\n').with_option(key, 1, "--set x")
    assert str(error.value) == message
