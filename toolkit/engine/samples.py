"""Images that a method looks at: inputs and, where there are any, labels; read again at each call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """A batch. inputs: the model's own, in its order, (n, ...) float32. labels: as the head has them, or None."""

    inputs: tuple[Array, ...]
    labels: Array | None = None


Samples = Callable[[], Iterable[Sample]]
