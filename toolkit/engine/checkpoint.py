"""A training as it stands after an epoch: everything that the epochs after it depend on, in one file.

Weights, optimizer, the states of the random layers, the best weights so far and the curves. A file is replaced as a
whole, so that a kill leaves the last one. It is read as data: pickled objects are refused.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import UnavailableError

Array = NDArray[Any]
_FACTS = "facts"  # name of the array that holds JSON


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps its state, and which training it is: another key means another training."""

    path: Path
    key: str


@dataclass(frozen=True)
class State:
    """arrays: group -> arrays in order. facts: anything JSON can hold."""

    arrays: Mapping[str, Sequence[Array]]
    facts: Mapping[str, Any]


def write(checkpoint: Checkpoint, state: State) -> None:
    """Replace the file; raises UnavailableError where it cannot be written."""
    flat = {f"{group}/{i}": array for group, arrays in state.arrays.items() for i, array in enumerate(arrays)}
    counts = {group: len(arrays) for group, arrays in state.arrays.items()}
    text = json.dumps({"key": checkpoint.key, "counts": counts, **state.facts})
    partial = checkpoint.path.with_name(f".{checkpoint.path.name}.{os.getpid()}.part")
    try:
        checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_FACTS: np.frombuffer(text.encode(), np.uint8), **flat})
            file.flush()
            os.fsync(file.fileno())
        partial.replace(checkpoint.path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UnavailableError(
            str(checkpoint.path), f"cannot be written: {error.strerror}", "free some space"
        ) from error


def read(checkpoint: Checkpoint) -> State | None:
    """The state of this training; None where there is no file, or a damaged one, or another training's."""
    try:
        with np.load(checkpoint.path, allow_pickle=False) as stored:
            facts = json.loads(stored[_FACTS].tobytes())
            if facts.pop("key") != checkpoint.key:
                return None
            counts: dict[str, int] = facts.pop("counts")
            arrays = {group: [stored[f"{group}/{i}"] for i in range(count)] for group, count in counts.items()}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return State(arrays, facts)
