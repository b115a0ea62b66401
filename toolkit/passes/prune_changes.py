"""What pruning did, line by line: the whole model, its layers, what stayed whole and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.core import LayerChange
from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.engine.groups import Group
    from toolkit.engine.reconstruct import Row
    from toolkit.engine.widths import Rounding

MOST = 4  # reasons that are named
NARROW = 0.2  # of a group's channels: one cut that left less, by importance over all groups, lost more than others did


def layers(
    groups: Sequence[Group], widths: Mapping[str, int], rounding: Rounding, *, even: bool
) -> Iterator[LayerChange]:
    """One line for each layer that makes channels; a layer may make those of several groups.

    even: one sparsity was wanted for all groups, not the least loss.
    """
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
                    reasons.setdefault(slot.layer, []).append(_reason(group, rounding, even))
    for layer, count in before.items():
        yield LayerChange(layer, _channels(count), _channels(after[layer]), "; ".join(reasons.get(layer, ())))


def _reason(group: Group, rounding: Rounding, even: bool) -> str:
    """Why a group keeps all its channels."""
    if group.frozen:
        return group.frozen
    if _is_small(group, rounding):
        return f"no narrower width is allowed (multiples of {rounding.multiple}, at least {rounding.least})"
    if even:
        return "of the widths allowed all channels come nearest to the share asked for"
    return "fewer would lose more, for what they save, than those that went elsewhere"


def _is_small(group: Group, rounding: Rounding) -> bool:
    from toolkit.engine.widths import allowed

    return len(allowed(group.size, rounding.of(group))) == 1


def kept_whole(groups: Sequence[Group], rounding: Rounding) -> str:
    """What stays whole whatever is asked, in words."""
    small = [group for group in groups if not group.frozen and _is_small(group, rounding)]
    parts = [f"{group.id} ({group.frozen})" for group in groups if group.frozen]
    parts += [f"{group.id} (only {group.size} channels)" for group in small]
    return f"kept whole: {', '.join(parts)}" if parts else "no group must be kept whole"


def frozen(groups: Sequence[Group]) -> Iterator[LayerChange]:
    """The share of all channels that no cut may touch, and why, the commonest reason first."""
    from toolkit.engine.groups import frozen_channels

    found = frozen_channels(groups)
    if found.frozen:
        words = "; ".join(f"{reason} ({count:,})" for reason, count in found.reasons[:MOST])
        more = f"; {len(found.reasons) - MOST} more reasons" if len(found.reasons) > MOST else ""
        said = f"{found.frozen:,} of {found.channels:,} channels ({found.share:.1%})"
        yield LayerChange("channels that must stay", said, said, words + more)


def narrow(groups: Sequence[Group], widths: Mapping[str, int]) -> str:
    """A warning about groups that one cut has left very narrow, "" where it has left none so.

    What a channel is worth is found before the cut, and is no longer true of a group of which little is left.
    """
    some = [group for group in groups if widths.get(group.id, group.size) < NARROW * group.size]
    named = ", ".join(f"{group.id} keeps {widths[group.id]} of {group.size} channels" for group in some[:MOST])
    more = f" and {len(some) - MOST} more" if len(some) > MOST else ""
    advice = "that much in one cut often loses more than a more even one: set steps = 2 or more, or min_share"
    return f"warning: prune: {named}{more}; {advice}" if some else ""


def refitted(rows: Sequence[Row], images: int) -> Iterator[LayerChange]:
    """What refitting brought, over all layers it was tried on, and which were left alone and why."""
    from statistics import fmean

    done = [row for row in rows if not row.reason]
    if done:
        before, after = (fmean(getattr(row, end) for row in done) for end in ("before", "after"))
        old, new = (f"error {value:.3g} of the variance, mean of {len(done)} layers" for value in (before, after))
        yield LayerChange("feature maps", old, new, f"refitted by least squares on {images:,} images")
    for reason in dict.fromkeys(row.reason for row in rows if row.reason):
        names = [row.layer for row in rows if row.reason == reason]
        some = ", ".join(names[:MOST]) + (", ..." if len(names) > MOST else "")
        count = "1 layer" if len(names) == 1 else f"{len(names)} layers"
        yield LayerChange(f"{count} ({some})", "as they were", "as they were", f"not refitted: {reason}")


def totals(before: Any, after: Any, asked: str) -> LayerChange:
    """The line about the whole model, with the target that was asked for."""
    from toolkit.engine.cost import cost
    from toolkit.engine.graph import parameters

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


def _channels(count: int) -> str:
    return f"{count} channel" if count == 1 else f"{count} channels"
