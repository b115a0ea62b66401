"""A stand-in for onnxruntime-gpu: providers, options and profile as a test says; it computes zeros.

FAKE_ORT is JSON: available (providers), loads (whether a GPU provider can be loaded), nodes ([operator, provider] of
the profile). The sessions that were made are written to FAKE_CALLS. The profile is synthetic, in ONNX Runtime's form.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__version__ = "1.31.1"
WORLD = json.loads(os.environ["FAKE_ORT"])
CALLS: list[Any] = []


class SessionOptions(SimpleNamespace):
    pass


def get_available_providers() -> list[str]:
    return list(WORLD["available"])


def preload_dlls() -> None:
    _note("preload_dlls")


class InferenceSession:
    def __init__(self, path: str, options: Any, providers: Any, enable_fallback: int) -> None:
        self._options, self._asked = options, [item if isinstance(item, str) else item[0] for item in providers]
        _note("session", providers, enable_fallback, getattr(options, "enable_profiling", False))

    def get_providers(self) -> list[str]:
        asked = self._asked if WORLD.get("loads", True) else []
        return [*asked, *([] if "CPUExecutionProvider" in asked else ["CPUExecutionProvider"])]

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="x", shape=[1, 3], type="tensor(float)")]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="y", shape=[1, 2], type="tensor(float)")]

    def run(self, names: Any, feed: Any) -> list[Any]:
        import numpy as np

        return [np.zeros((1, 2), np.float32)]

    def end_profiling(self) -> str:
        path = Path(f"{self._options.profile_file_prefix}_synthetic.json")
        events = [{"cat": "Session", "name": "session_initialization", "args": {}}]
        for index, (operator, provider) in enumerate(WORLD["nodes"]):
            arguments = {"op_name": operator, "provider": provider, "node_index": str(index)}
            events += [
                {"cat": "Node", "name": f"node{index}_fence_before", "args": {"op_name": operator}},
                {"cat": "Node", "name": f"node{index}_kernel_time", "dur": 3, "args": arguments},
            ]
        path.write_text(json.dumps(events))
        return str(path)


def _note(*call: Any) -> None:
    CALLS.append(call)
    Path(os.environ["FAKE_CALLS"]).write_text(json.dumps(CALLS))
