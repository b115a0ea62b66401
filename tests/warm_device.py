"""A stand-in for a session whose device was run without pause: it gives back the times that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np


class Warm:
    """times: (inferences, 2), start and length in nanoseconds. more: what else the worker says."""

    def __init__(self, times: Any, **more: Any) -> None:
        self.times, self.more, self.jobs = times, more, list[dict[str, Any]]()

    def push(self, path: Path) -> str:
        return str(path)

    def folder(self) -> str:
        return "/there"

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def pull(self, remote: str, path: Path) -> None:
        assert remote == self.jobs[-1]["samples"]
        np.save(path, self.times)

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        self.jobs.append(dict(job))
        assert timeout_s > job["seconds"]
        rows = [
            {"t_s": float(at), "values": {"temperature:cpu": 40.0 + at, "throttling:firmware": 4.0 * (at >= 5)}}
            for at in range(11)
        ]
        told = {"versions": {"litert": "2.3"}, "threads": 1, "delegate": "xnnpack", "kernel_path": "XNNPACK"}
        units = {"temperature:cpu": "C", "throttling:firmware": "bits"}
        return {**told, "series": rows, "units": units, "lost": {}, "energy": None, "idle": None, **self.more}
