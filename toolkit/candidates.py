"""Models in the making as files: how large they are, and how long they take on a device.

Timed interleaved where the device is within reach, so that a slow minute hits all alike; estimated elsewhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from toolkit import registry
from toolkit.core import Artifact, Delivered, ExportContext, Measurement, Model, Progress, QuantSpec
from toolkit.devices import DeviceProfile, open_session
from toolkit.errors import InputError
from toolkit.pruning import FORMATS, Needs, runtime_of, timed


class Candidates:
    """Writes float32 files in a folder of its own, each once, and times them."""

    def __init__(self, needs: Needs, emit: Callable[[Progress], None]) -> None:
        self._needs, self._emit = needs, emit
        self._folder = tempfile.TemporaryDirectory(prefix="edgekit-")
        self._files: WeakKeyDictionary[Any, dict[str, Artifact]] = WeakKeyDictionary()  # graph -> format -> file
        self._numbers = count()

    def __call__(self, models: Sequence[Model], device: str) -> tuple[Delivered, ...]:
        """What each model is as a file, and with `device` its latency there."""
        profile = self._needs.profile
        if not device:
            files = [self._file(model, FORMATS[0]) for model in models]
            return tuple(Delivered(file.size_bytes / 1024) for file in files)
        if profile is None:
            raise InputError("prune.device", f"no such device was prepared, got {device!r}")
        files = [self._file(model, runtime_of(profile)[0]) for model in models]
        unique = list({file.name: file for file in files}.values())
        found = self._timed(unique, profile) if timed(profile) else self._estimated(unique, profile)
        return tuple(_delivered(file, found[file.name]) for file in files)

    def _file(self, model: Model, form: str) -> Artifact:
        known = self._files.setdefault(model.graph, {})
        if form not in known:
            exporter = registry.load("exporters", form)()
            name = f"candidate-{next(self._numbers)}{exporter.suffix}"
            plain = replace(model, quant=QuantSpec(), statistics=None)
            path = Path(self._folder.name) / name
            written = exporter.export(plain, path, ExportContext(emit=self._emit))
            known[form] = replace(written, name=name, path=path)
        return known[form]

    def _timed(self, files: Sequence[Artifact], profile: DeviceProfile) -> dict[str, Measurement]:
        from toolkit.checks import latency

        _, use, delegate = runtime_of(profile)
        with closing(open_session(profile)) as session:
            rows = latency.measure(
                files,
                session,
                self._needs.measure,
                profile,
                runtimes={file.name: (use, delegate) for file in files},
                samples=Path(self._folder.name),
                emit=self._emit,
            )
        return {row.subject: row for row in rows if row.name == "latency_p50_ms"}

    def _estimated(self, files: Sequence[Artifact], profile: DeviceProfile) -> dict[str, Measurement]:
        from toolkit.estimates import estimated

        found = [
            row
            for file in files
            for row in estimated.measurements(file.path, profile, file.name, threads=self._needs.measure.threads)
        ]
        return {row.subject: row for row in found if row.name == "latency_p50_ms"}


def _delivered(file: Artifact, row: Measurement) -> Delivered:
    span = (row.interval.low, row.interval.high) if row.interval else None
    how = ", ".join(f"{key} {value}" for key, value in row.how.items())
    return Delivered(file.size_bytes / 1024, row.value, span, row.source, how)
