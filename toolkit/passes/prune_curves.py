"""Sensitivity curves for pruning: found on the selection split, or taken from where an earlier run has kept them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit.core import LayerChange, Model, PassContext, Progress
from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.groups import Group
    from toolkit.engine.prune_sensitivity import Curve


def measured(
    model: Model, groups: Sequence[Group], scores: Mapping[str, Array], context: PassContext
) -> tuple[dict[str, Array], tuple[LayerChange, ...]]:
    """Scores that add up to measured losses, and a line for each group; InputError without a selection split."""
    from toolkit.engine import prune_sensitivity

    found = _curves(model, groups, scores, context)
    return prune_sensitivity.measured(scores, found), tuple(map(_line, found))


def _curves(
    model: Model, groups: Sequence[Group], scores: Mapping[str, Array], context: PassContext
) -> tuple[Curve, ...]:
    from toolkit.engine import prune_sensitivity

    if context.evaluate is None:
        problem = 'ranking = "sensitivity" scores networks on the selection split, and there is none'
        raise InputError("prune.ranking", problem, "set data.splits.selection")
    images = context.selection.fingerprint if context.selection is not None else ""
    key = prune_sensitivity.key_of(model.graph, scores, f"{images} {model.head}")  # the head says what is scored
    known = prune_sensitivity.load(context.cache, key) if context.cache and images else None
    if known is not None:
        context.emit(Progress("sensitivity curves: as an earlier run found them", keep=True))
        return known
    score = context.evaluate

    def evaluate(graph: Any) -> float:
        return score(replace(model, graph=graph))

    def told(done: int, total: int) -> None:
        context.emit(Progress(f"sensitivity of channel groups: {done} of {total} networks scored", done / total))

    found = prune_sensitivity.curves(model.graph, groups, scores, evaluate, told=told)
    if context.cache and images:
        try:
            prune_sensitivity.keep(context.cache, key, found)
        except OSError as error:
            context.emit(Progress(f"warning: sensitivity curves are not kept: {error}", keep=True))
    return found


def _line(curve: Curve) -> LayerChange:
    points = zip(curve.shut[1:], curve.scores[1:], strict=True)
    after = ", ".join(f"{score:.4g} without {count}" for count, score in points)
    return LayerChange(f"sensitivity of {curve.group}", f"{curve.scores[0]:.4g} with all {curve.size}", after)
