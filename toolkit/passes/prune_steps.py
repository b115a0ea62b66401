"""What each step of pruning has chosen, kept beside the trainings' states, so that a run that stopped goes on.

Training goes on from its own checkpoint (engine/checkpoint.py), which fits only the network that was cut the same way:
a choice that was timed may come out otherwise a second time, so it is kept and not made again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from toolkit.core import PassContext
from toolkit.errors import UnavailableError
from toolkit.passes.prune_target import Cut


@dataclass(frozen=True)
class Kept:
    """Where a step's choice is kept; key: of the pass it belongs to."""

    path: Path
    key: str

    @classmethod
    def of(cls, context: PassContext, number: int) -> Kept | None:
        """The place for step `number`, where the run keeps anything."""
        if context.checkpoint is None:
            return None
        return cls(context.checkpoint.with_name(f"step-{number}.json"), context.key)

    def read(self) -> Cut | None:
        """The choice; None where there is none, or a damaged one, or another pass's."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found.pop("key") != self.key:
                return None
            return Cut(**found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, cut: Cut) -> None:
        """Replace the file as a whole; raises UnavailableError where it cannot be written."""
        partial = self.path.with_suffix(".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({"key": self.key, **asdict(cut)}), encoding="utf-8")
            partial.replace(self.path)
        except OSError as error:
            raise UnavailableError(str(self.path), f"cannot be written: {error.strerror}", "free some space") from error


def training(context: PassContext, number: int) -> PassContext:
    """The context of step `number`'s training, with a state of its own."""
    if context.checkpoint is None:
        return context
    path = context.checkpoint.with_name(f"step-{number}-{context.checkpoint.name}")
    return replace(context, checkpoint=path, key=f"{context.key}-step-{number}")
