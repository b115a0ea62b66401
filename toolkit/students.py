"""Whether a student in a recipe is taught: a network that nothing trains answers by chance, in every file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.plan import Stage

FIX = "put a training behind it, such as { use = 'distill', epochs = 30 }"


def problems(stages: Sequence[Stage]) -> Iterator[str]:
    """A line for each student whose network leaves in a file without any training in between."""
    for stage, variants in _untaught(stages):
        if stage.component.untrained:
            yield f"{stage.where}: student: {variants}: nothing trains it before it is written. Fix: {FIX}"


def notes(stages: Sequence[Stage]) -> Iterator[str]:
    """The same of students that come trained from a file, which may be meant."""
    for stage, variants in _untaught(stages):
        if not stage.component.untrained:
            yield f"student: {variants}: written as its file has it, nothing here trains it"


def _untaught(stages: Sequence[Stage]) -> Iterator[tuple[Stage, str]]:
    """Students, and in words the variants that are written of them untaught."""
    by_name = {stage.name: stage for stage in stages}
    found: dict[str, list[str]] = {}
    for leaf in stages:
        if leaf.kind != "export":
            continue
        stage = by_name[leaf.parent]
        while stage.kind == "pass" and not _trains(stage):
            if stage.use == "student":
                found.setdefault(stage.name, []).append(leaf.variant)
                break
            stage = by_name[stage.parent]
    for name, variants in found.items():
        unique = list(dict.fromkeys(variants))
        yield by_name[name], f"variant{'s' if len(unique) > 1 else ''} {', '.join(unique)}"


def _trains(stage: Stage) -> bool:
    """Whether a pass trains: it has epochs, or a training of its own inside."""
    component = stage.component
    return bool(getattr(component, "epochs", 0) or getattr(component, "recover", None))
