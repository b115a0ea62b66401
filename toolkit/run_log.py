"""A run's log.txt: every line that was shown, with its time, errors with their traceback, and what ran where.

Libraries and converters of the stages' process write into the same file, without a time.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit.core import Progress
from toolkit.parts import WARNING, Emit, warns


class RunLog:
    """Appends to a file. A log that cannot be written stops nothing: the manifest, which must be written, says why."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned: set[str] = set()

    def line(self, text: str) -> None:
        """One entry, with the time in UTC; further lines of it are set in."""
        entry = text.rstrip("\n").replace("\n", "\n    ")
        with suppress(OSError), self.path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {entry}\n")

    def begin(self, *, host: Mapping[str, Any], versions: Mapping[str, str], invocation: Mapping[str, Any]) -> None:
        """What is run, where, by which packages."""
        given = {key: value for key, value in invocation.items() if value}
        self.line(f"edgekit {versions.get('edgekit', '')} run: {_words(given)}")
        self.line(f"host: {_words(host)}")
        self.line(f"packages: {_words(versions)}")

    def keeping(self, emit: Emit) -> Emit:
        """`emit`, with every line that is to be kept written here, too."""

        def told(progress: Progress) -> None:
            if progress.keep:
                self.line(progress.text)
            if warns(progress):
                self._warned.add(progress.text.strip())
            emit(progress)

        return told

    def untold(self, warnings: Iterable[str]) -> list[str]:
        """Those of a manifest's warnings that were not told, as they would be."""
        return [text for text in (f"{WARNING}{each}" for each in warnings) if text not in self._warned]

    def error(self, error: BaseException) -> None:
        """An error with the whole way to it."""
        self.line("".join(traceback.format_exception(error)))


def _words(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
