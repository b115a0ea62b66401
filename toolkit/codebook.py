"""How many values the weights of a layer share: what `cluster` makes, later passes keep and files are counted for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Per = Literal["layer", "channel"]


@dataclass(frozen=True)
class Codebook:
    """At most so many different values: in a layer's whole weight, or in each of its output channels."""

    values: int
    per: Per = "layer"

    def __str__(self) -> str:
        return f"{self.values} values per {'output channel' if self.per == 'channel' else 'layer'}"
