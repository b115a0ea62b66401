"""Structured pruning: whole channels leave the network, so that it is smaller and faster on every runtime.

Channels that depend on each other go together (DepGraph, Fang et al., CVPR 2023, arXiv:2301.12900), the least important
of each group first. In one shot and without training: follow it with `distill` to recover accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from toolkit.core import LayerChange, Model, PassContext, PassResult, Progress
from toolkit.errors import InputError, UnsupportedError
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array, Dataset
    from toolkit.engine.groups import Group
    from toolkit.engine.widths import Rounding

_TOLERANCE = 0.03  # share of the MACs a result may miss its target by: about what rounding to 8 costs a small network
_IMAGES = 2048  # for new statistics: 1,000 to 10,000 are enough (Wu and Johnson 2021, arXiv:2105.07576, section 3)
_BATCH = 64  # images; large enough for a batch's own statistics to normalize well (same source)


class Prune(Component):
    """Removes the least important channels of a Keras model. Give either `sparsity` or `macs`."""

    takes: ClassVar[tuple[str, ...]] = ("keras",)
    needs: ClassVar[tuple[str, ...]] = ()

    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the channels to remove from each group that can lose any."""
    macs: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the model's multiply-accumulates that should remain; one sparsity for all groups is found for it."""
    importance: Literal["l2", "l1", "random"] = "l2"
    """How channels are ranked: by the norm of all weights that go with them, or at random (a baseline)."""
    round_to: Annotated[int, Field(ge=1, le=256)] = 8
    """Kept channels are a multiple of this; a group that has no more than this keeps all."""
    min_channels: Annotated[int, Field(ge=1)] = 1
    """No group is left with fewer channels."""
    protect: tuple[str, ...] = ()
    """Name patterns (`*` and `?`) of layers whose output channels stay whole, with all that is tied to them."""
    reestimate_batchnorm: bool = True
    """Renew BatchNormalization statistics afterwards, on images of the train (else the calibration) split."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.sparsity is None) == (self.macs is None):
            raise ValueError("give exactly one of sparsity and macs")
        return self

    def run(self, model: Model, context: PassContext) -> PassResult:
        """Cut, then renew statistics.

        UnsupportedError: no channel can go, or the MACs asked for cannot be reached within 3 points.
        InputError: a pattern of `protect` matches no layer.
        """
        from toolkit.engine.groups import find_groups
        from toolkit.engine.importance import scores, weakest
        from toolkit.engine.surgery import remove

        context.emit(Progress("finding channel groups"))
        groups = self._protected(find_groups(model.graph), [layer.name for layer in model.graph.layers])
        free = [group for group in groups if not group.frozen]
        widths = self._widths(model.graph, groups)
        cut = [group for group in free if widths[group.id] < group.size]
        if not cut:
            fix = "lower round_to" if free else "leave prune out"
            raise UnsupportedError("prune", f"no channel can be removed; {self._kept(groups)}", fix)
        context.emit(Progress(f"removing channels from {len(cut)} groups"))
        found = scores(model.graph, cut, self.importance, seed=context.seed)
        removals = {group.id: weakest(found[group.id], group.size - widths[group.id]) for group in cut}
        pruned = remove(model.graph, removals)
        changes = (self._totals(model.graph, pruned), *self._changes(groups, widths))
        pruned, notes = self._renew(pruned, model, context)
        return PassResult(replace(model, graph=pruned), (*changes, *notes))

    def _protected(self, groups: Sequence[Group], names: Sequence[str]) -> list[Group]:
        """The groups, frozen where a layer that makes or carries their channels matches a pattern."""
        unmatched = [p for p in self.protect if not any(fnmatchcase(name, p) for name in names)]
        if unmatched:
            problem = f"no layer is named like {', '.join(map(repr, unmatched))}"
            raise InputError("prune.protect", problem, "see `edgekit inspect` for the names of the model's layers")
        return [self._protect(group) for group in groups]

    def _protect(self, group: Group) -> Group:
        layers = [slot.layer for slot in group.slots if slot.side != "in"]
        hits = [(name, pattern) for pattern in self.protect for name in layers if fnmatchcase(name, pattern)]
        if not hits or group.frozen:
            return group
        return replace(group, frozen=f"{hits[0][0]!r} is protected by {hits[0][1]!r}")

    def _widths(self, graph: Any, groups: Sequence[Group]) -> Mapping[str, int]:
        """Channels to keep in each group that is free."""
        from toolkit.engine import widths
        from toolkit.engine.graph import walk

        free = [group for group in groups if not group.frozen]
        rounding: Rounding = widths.Rounding(self.round_to, self.min_channels)
        if self.macs is None:
            return widths.uniform(free, self.sparsity or 0.0, rounding)
        found = widths.for_macs(walk(graph), free, self.macs, rounding)
        if abs(found.share - self.macs) > _TOLERANCE:
            problem = (
                f"{self.macs:.1%} of the MACs cannot be reached: the nearest is {found.share:.1%}, "
                f"the smallest {found.smallest:.1%}; {self._kept(groups)}"
            )
            raise UnsupportedError("prune.macs", problem, "ask for what can be reached, or lower round_to")
        return found.widths

    def _changes(self, groups: Sequence[Group], widths: Mapping[str, int]) -> list[LayerChange]:
        """One line for each layer that makes channels; a layer may make those of several groups."""
        before: dict[str, int] = {}
        after: dict[str, int] = {}
        reasons: dict[str, list[str]] = {}
        for group in groups:
            kept = widths.get(group.id, group.size)
            for slot in group.slots:
                if slot.side == "out" and slot.weight != "bias":
                    each = slot.positions.shape[1]
                    before[slot.layer] = before.get(slot.layer, 0) + group.size * each
                    after[slot.layer] = after.get(slot.layer, 0) + kept * each
                    if kept == group.size:
                        reasons.setdefault(slot.layer, []).append(self._reason(group))
        return [
            LayerChange(layer, _channels(before[layer]), _channels(after[layer]), "; ".join(reasons.get(layer, ())))
            for layer in before
        ]

    def _reason(self, group: Group) -> str:
        """Why a group keeps all its channels."""
        if group.frozen:
            return group.frozen
        if self._is_small(group):
            return f"no narrower width is allowed (multiples of {self.round_to}, at least {self.min_channels})"
        return "of the widths allowed this one comes nearest to the target"

    def _is_small(self, group: Group) -> bool:
        least = -(-self.min_channels // self.round_to) * self.round_to  # the smallest multiple that is enough
        return group.size <= least

    def _kept(self, groups: Sequence[Group]) -> str:
        """What stays whole whatever is asked, in words."""
        small = [group for group in groups if not group.frozen and self._is_small(group)]
        parts = [f"{group.id} ({group.frozen})" for group in groups if group.frozen]
        parts += [f"{group.id} (only {group.size} channels)" for group in small]
        return f"kept whole: {', '.join(parts)}" if parts else "no group must be kept whole"

    def _totals(self, before: Any, after: Any) -> LayerChange:
        """The line about the whole model, with the target that was asked for."""
        from toolkit.engine.cost import cost
        from toolkit.engine.graph import parameters

        asked = f"asked for {self.macs:.1%} of the MACs" if self.macs else f"asked for {self.sparsity:.1%} sparsity"
        try:
            old, new = cost(before), cost(after)
        except InputError as error:
            sizes = [f"{sum(map(parameters, graph.layers)):,} parameters" for graph in (before, after)]
            return LayerChange(before.name, sizes[0], sizes[1], f"{asked}; {error}")
        return LayerChange(
            before.name,
            f"{old.macs:,} MACs, {old.parameters:,} parameters",
            f"{new.macs:,} MACs ({new.macs / old.macs:.1%}), {new.parameters:,} parameters",
            asked,
        )

    def _renew(self, pruned: Any, model: Model, context: PassContext) -> tuple[Any, tuple[LayerChange, ...]]:
        """New BatchNormalization statistics, and the line that says on what, or why not."""
        from toolkit.engine.batchnorm import has_batchnorm, reestimate_batchnorm

        if not has_batchnorm(pruned):
            return pruned, ()
        split = "train" if context.train is not None else "calibration"
        data = context.train if context.train is not None else context.calibration
        skipped = "reestimate_batchnorm = false" if not self.reestimate_batchnorm else "no train or calibration split"
        if data is None or not self.reestimate_batchnorm:
            old = "statistics of the uncut model"
            return pruned, (LayerChange("BatchNormalization", old, old, f"not re-estimated: {skipped}"),)
        context.emit(Progress("re-estimating BatchNormalization statistics"))
        names = [spec.name for spec in model.signature.inputs]
        renewed = reestimate_batchnorm(pruned, _inputs(data, names))
        used = f"re-estimated on {min(len(data), _IMAGES):,} images of {split}"
        return renewed, (LayerChange("BatchNormalization", "statistics of the uncut model", used),)


def _inputs(data: Dataset, names: Sequence[str]) -> Iterator[list[Array]]:
    """The model's inputs in its own order, for the first batches of a split."""
    for batch in islice(data.batches(_BATCH), _IMAGES // _BATCH):
        yield [batch.inputs[name] for name in names]


def _channels(count: int) -> str:
    return f"{count} channel" if count == 1 else f"{count} channels"
