"""A CSV file with a header line, its lines kept with their numbers for messages."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import InputError

Lines = list[tuple[int, dict[str, str]]]


def read_table(path: Path) -> tuple[list[str], Lines]:
    """Column names, and (line number, column -> value) of each line that is not blank."""
    if not path.is_file():
        raise InputError(str(path), "no such file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, restkey="", restval=None, strict=True)
            lines = [(reader.line_num, line) for line in reader]
            columns = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(str(path), f"cannot be read as CSV: {error}") from error
    for number, line in lines:
        if None in line.values() or "" in line:
            raise InputError(f"{path}:{number}", f"does not have the header's {len(columns)} values")
    if not lines:
        raise InputError(str(path), "lists no images")
    return columns, lines


def column(path: Path, columns: Sequence[str], name: str) -> str:
    """`name`, or InputError where the table has no such column."""
    if name not in columns:
        raise InputError(str(path), f"has no column {name!r}", f"name one of {', '.join(columns)}")
    return name


def first(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """The first of `names` that is a column."""
    return next((name for name in names if name in columns), None)


def is_index(value: str) -> bool:
    """Whether a cell is a whole number from 0."""
    return value.strip().isascii() and value.strip().isdigit()
