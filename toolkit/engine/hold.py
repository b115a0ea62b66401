"""All rows of a stream as one array: in memory while it is small, else in a temporary file that is mapped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
IN_MEMORY = 2**30  # bytes


@dataclass(frozen=True)
class Held:
    """rows: (n, ...) float32. where: for people, "in memory (12 MiB)"."""

    rows: Array
    where: str


def hold(parts: Iterable[Array], count: int, limit: int = IN_MEMORY) -> Held:
    """The rows of all parts, `count` together, as one float32 array.

    The file lies in the system's temporary folder (TMPDIR), has no name and is gone with the array, also when the
    process is killed. It is written as a stream: a full disk raises OSError here, where a map would end the process.
    """
    held: Array | None = None
    row = 0
    with tempfile.TemporaryFile(prefix="edgekit-") as file:
        shape: tuple[int, ...] = (count,)
        for part in parts:
            if not row:
                shape = (count, *part.shape[1:])
                held = np.empty(shape, np.float32) if 4 * int(np.prod(shape)) <= limit else None
            values = np.ascontiguousarray(part, np.float32)
            if held is not None:
                held[row : row + len(values)] = values
            else:
                file.write(values.data)
            row += len(values)
        if row != count:
            raise ValueError(f"{count} rows were announced, {row} came")
        size = f"{4 * int(np.prod(shape)) / 2**20:,.1f} MiB"
        if held is not None:
            return Held(held, f"in memory ({size})")
        file.flush()
        return Held(np.memmap(file, np.float32, "r", shape=shape), f"in a temporary file ({size})")
