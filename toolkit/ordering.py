"""Whether the passes stand in an order that keeps what each of them makes; worked out from what they declare alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

from toolkit.traits import SHAPE, Trait

if TYPE_CHECKING:
    from toolkit.plan import Stage

# what is wrong where a pass comes after one whose work it does not keep; the first that holds is said
REASONS: Mapping[Trait, str] = MappingProxyType(
    {
        "quantized": "which sets the rounding and must be the last pass of its variant",
        "fresh": "whose weights nothing has trained yet",
        "patterned": "whose groups or blocks of zeros it would break up",
        "sparse": "whose zeros it would fill",
        "clustered": "whose shared values it would move apart",
        "narrow": "whose cut would be lost",
        "trained": "whose training would be lost",
    }
)
AT_ONCE = 'a pass that trains, such as use = "distill"'


def made(component: Any) -> frozenset[Trait]:
    """What a pass makes of any model; nothing where it does not say."""
    return frozenset(getattr(component, "makes", ()))


def kept(component: Any) -> frozenset[Trait]:
    """What a pass leaves as earlier ones made it."""
    return frozenset(getattr(component, "keeps", SHAPE))


def problems(stages: Sequence[Stage]) -> Iterator[str]:
    """A line for each pass that undoes what one before it made, and for files of weights that nothing trained."""
    history: dict[str, dict[Trait, Stage]] = {}  # stage -> what its model is, and which pass made it so
    for stage in stages:
        before = history.get(stage.parent, {})
        history[stage.name] = after(before, stage) if stage.kind == "pass" else before
        lost = [trait for trait in get_args(Trait) if trait in before and trait not in _passed_on(stage)]
        if lost:
            yield f"{stage.where}: {_said(stage, before[lost[0]], lost[0])}"


def after(before: Mapping[Trait, Stage], stage: Stage) -> dict[Trait, Stage]:
    """What the model is after a pass, each with the pass that made it so."""
    makes = made(stage.component)
    ended: set[Trait] = {"fresh"} if "trained" in makes else set()
    return {trait: maker for trait, maker in before.items() if trait not in ended} | dict.fromkeys(makes, stage)


def _passed_on(stage: Stage) -> frozenset[Trait]:
    """A file takes a model as it is, but for weights that nothing trained."""
    return kept(stage.component) if stage.kind == "pass" else frozenset(get_args(Trait)) - {"fresh"}


def _said(stage: Stage, maker: Stage, trait: Trait) -> str:
    if stage.kind != "pass":
        problem = f"variant {stage.variant}: nothing trains the weights of {maker.use} ({maker.where})"
        return f"{problem}. Fix: put {AT_ONCE}, behind {maker.use}"
    line = f"{stage.use} comes after {maker.use} ({maker.where}), {REASONS[trait]}"
    if trait == "fresh":
        return f"{line}. Fix: put {AT_ONCE}, between them"
    if stage.use == maker.use or (trait == "quantized" and "quantized" in made(stage.component)):
        return f"{line}. Fix: leave one of them out"
    if "quantized" in made(stage.component):  # it comes last whatever it keeps
        return f"{line}. Fix: set {stage.use} to what keeps them (docs/recipes.md), or leave {maker.use} out"
    return f"{line}. Fix: put {stage.use} before {maker.use}"
