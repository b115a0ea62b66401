"""TOML files as they were read: their values, and on which line each key stands.

tomllib gives values without lines; `key_lines` gives lines without values. It follows the grammar of TOML 1.0
(https://toml.io/en/v1.0.0), reads only what tomllib has accepted and checks nothing.
"""

from __future__ import annotations

import copy
import re
import tomllib
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolkit.errors import InputError

MAX_BYTES = 1 << 20  # a longer file is a model or a data set given by mistake

Key = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACES = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?""""{0,2}' + r"|'''.*?''''{0,2}" + r'|"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'", re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


@dataclass(frozen=True)
class Document:
    """A TOML file as read, and where each of its keys stands.

    name: the file as messages name it. lines: key path -> line. options: key path -> the command-line option that
    set it, which messages then name instead of the file. bases: the files that it extends, the nearest first;
    origins: key path -> the file that its line is of.
    """

    name: str
    data: dict[str, Any]
    text: bytes = b""
    lines: Mapping[Key, int] = field(default_factory=dict)
    options: Mapping[Key, str] = field(default_factory=dict)
    origins: Mapping[Key, str] = field(default_factory=dict)
    bases: tuple[Document, ...] = ()

    def where(self, key: Key) -> str:
        """`file:line: key`, the line being that of the nearest key above which the file has."""
        if option := self.given(key):
            rest = dotted(key[len(_nearest(key, self.options)) :])
            return f"{option}: {rest}" if rest else option
        return f"{self.origin(key)}:{self.line(key)}: {dotted(key)}".removesuffix(": ")

    def line(self, key: Key) -> int:
        """Line of `key` or of the nearest table above it; 1 for a missing key at the top."""
        return self.lines.get(_nearest(key, self.lines), 1)

    def origin(self, key: Key) -> str:
        """The file that this line is of."""
        return self.origins.get(_nearest(key, self.lines), self.name)

    def place(self, key: Key) -> tuple[int, int]:
        """What orders mistakes: this file's before those of the ones it extends, each in the file's order."""
        names = [self.name, *(base.name for base in self.bases)]
        return names.index(self.origin(key)), self.line(key)

    def given(self, key: Key) -> str:
        """The option that set `key` or a table around it, "" where the file has it."""
        known = _nearest(key, self.options)
        return self.options[known] if known and len(known) >= len(_nearest(key, self.lines)) else ""

    def folder(self, key: Key) -> Path:
        """Where a relative path at `key` starts from: the folder of the file that has it, or here for an option."""
        return Path.cwd() if self.given(key) else Path(self.origin(key)).absolute().parent

    def with_option(self, key: Key, value: Any, option: str) -> Document:
        """A copy with `key` set to `value`, as the command line asks. Missing tables on the way are made."""
        data = copy.deepcopy(self.data)
        options, node = dict(self.options), data
        for depth, name in enumerate(key[:-1], start=1):
            if isinstance(node, dict) and name not in node:
                node[str(name)] = {}
                options[key[:depth]] = option
            node = _step_into(node, name, option)
        if isinstance(node, list):
            _step_into(node, key[-1], option)
        elif not isinstance(node, dict):
            raise InputError(option, f"{dotted(key[:-1])} is a value, not a table", "set that key itself")
        node[key[-1]] = value  # type: ignore[index]
        stale = {known: text for known, text in options.items() if known[: len(key)] != key}
        lines = {known: line for known, line in self.lines.items() if known[: len(key)] != key}
        return replace(self, data=data, lines=lines, options={**stale, key: option})


def _step_into(node: Any, name: str | int, option: str) -> Any:
    if isinstance(node, list):
        if not isinstance(name, int) or not 0 <= name < len(node):
            raise InputError(option, f"no item {name!r} in a list of {len(node)}", f"use 0 to {len(node) - 1}")
        if isinstance(node[name], str):  # "tflite" is short for {use = "tflite"}
            node[name] = {"use": node[name]}
        return node[name]
    if not isinstance(node, dict):
        raise InputError(option, f"there is no table that could hold {name!r}", "set the key above it")
    return node[name]


def _nearest(key: Key, known: Mapping[Key, Any]) -> Key:
    return next((key[:end] for end in range(len(key), 0, -1) if key[:end] in known), ())


def dotted(key: Key) -> str:
    """A key path as `--set` takes it: `passes.0.sparsity`."""
    return ".".join(map(str, key))


def read_toml(path: str | Path) -> Document:
    """The file at `path`; raises InputError for one that is missing, not a file, not UTF-8 or not TOML."""
    name, path = str(path), Path(path)
    if path.is_dir():
        raise InputError(name, "is a folder, not a TOML file", "name the file in it")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(name, f"is too large for a TOML file ({path.stat().st_size / 2**20:.1f} MiB)")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)  # a pipe or a device says no size
        if len(raw) > MAX_BYTES:
            raise InputError(name, "is too large for a TOML file (more than 1 MiB)")
        text = raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(name, "no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(name, f"is not UTF-8 text (byte {error.start})", "name a TOML file") from None
    except OSError as error:
        raise InputError(name, f"cannot be read: {error.strerror}") from None
    try:
        return Document(name, tomllib.loads(text), raw, key_lines(text))
    except tomllib.TOMLDecodeError as error:
        where, problem = _syntax(name, str(error), text)
        raise InputError(where, f"not valid TOML: {problem}", "correct this line") from None
    except RecursionError:
        raise InputError(name, "not valid TOML: nested too deeply") from None


def _syntax(name: str, message: str, text: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if found is None:
        return name, message
    problem, line, column = found.groups()
    problem = problem[:1].lower() + problem[1:]
    if line is None:
        return f"{name}:{len(text.splitlines()) or 1}", f"{problem} (the file ends here)"
    return f"{name}:{line}", f"{problem} (column {column})"


# ---------------------------------------------------------------- lines


def key_lines(text: str) -> dict[Key, int]:
    """Key path -> line, from 1. Tables, arrays, their items and every value have one; `text` must be valid TOML."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Key, int] = {}
        self._newlines = [i for i, letter in enumerate(text) if letter == "\n"]
        self._counts: dict[Key, int] = {}  # tables seen so far under a [[header]]

    def scan(self) -> dict[Key, int]:
        table: Key = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self.lines

    def _header(self) -> Key:
        line, width = self._line(), 2 if self.text.startswith("[[", self.at) else 1
        self.at += width
        *parents, name = self._key()
        self.at += width
        table: Key = ()
        for parent in parents:
            table = (*table, parent)
            self.lines.setdefault(table, line)
            if table in self._counts:
                table = (*table, self._counts[table] - 1)
        table = (*table, name)
        if width == 1:
            self.lines[table] = line
            return table
        self.lines.setdefault(table, line)
        index = self._counts.get(table, 0)
        self._counts[table] = index + 1
        table = (*table, index)
        self.lines[table] = line
        return table

    def _pair(self, table: Key) -> None:
        line = self._line()
        for name in self._key():
            table = (*table, name)
            self.lines.setdefault(table, line)
        self.at += 1  # the equals sign
        self._value(table)

    def _value(self, key: Key) -> None:
        self._skip(_SPACES)
        opening = self.text[self.at]
        if opening in "[{":
            self.at += 1
            self._items(key, "]" if opening == "[" else "}")
        else:
            self._skip(_STRING if opening in "\"'" else _SCALAR)

    def _items(self, key: Key, closing: str) -> None:
        index = 0
        self._skip(_BLANK)
        while self.text[self.at] != closing:
            if closing == "}":
                self._pair(key)
            else:
                self.lines[*key, index] = self._line()
                self._value((*key, index))
                index += 1
            self._skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
                self._skip(_BLANK)
        self.at += 1

    def _key(self) -> list[str]:
        names = []
        while True:
            self._skip(_SPACES)
            if self.text[self.at] in "\"'":
                names.append(str(tomllib.loads("name = " + self._skip(_STRING))["name"]))
            else:
                names.append(self._skip(_BARE_KEY))
            self._skip(_SPACES)
            if self.text[self.at] != ".":
                return names
            self.at += 1

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise ValueError(f"not the TOML that tomllib accepted, at character {self.at}")
        self.at = found.end()
        return found.group()

    def _line(self) -> int:
        return bisect_left(self._newlines, self.at) + 1
