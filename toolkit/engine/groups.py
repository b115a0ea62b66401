"""Channel groups: which slices of which weights must be cut together, found from the graph.

Each channel a layer makes is an atom. Layers that only carry channels on pass the atoms along; an addition joins the
atoms of its operands (union-find); a concatenation lists them one after another; a weight that has an axis for them
becomes a slot. Atoms that were joined are one channel of a group, and its slices in all slots go or stay together.
After DepGraph (Fang et al., CVPR 2023, arXiv:2301.12900), with a class of equal channels in place of layer pairs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.engine.channel_rules import Rule, rule_of, takes_several_axes
from toolkit.engine.channels import Channels, Opaque
from toolkit.engine.graph import Call, Shape, walk

Indexes = NDArray[np.intp]
Side = Literal["out", "in", "through"]


@dataclass(frozen=True, eq=False)
class Slot:
    """One axis of one weight that a group's channels run along.

    index: of the weight in layer.weights. -1: not a weight but a setting that counts channels (an entry of a
    Reshape's target shape, the groups of a GroupNormalization).
    side: "out" where the layer makes the channels, "in" where it reads them, "through" where it carries them on
    (depthwise kernels, normalization). positions: (channels of the group, k), where along the axis each channel sits;
    k > 1 after Flatten, depth multipliers, grouped convolutions or a concatenation with itself.
    """

    layer: str
    weight: str
    index: int
    axis: int
    side: Side
    positions: Indexes


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that can be removed one by one, each from all slots at once.

    id: name of the first producer (with #2, #3 where one layer makes several groups). Channel c comes before channel d
    if it does so in that layer. producers: the layers that make the channels. frozen: why none may be removed, or "".
    """

    id: str
    size: int
    slots: tuple[Slot, ...]
    producers: tuple[str, ...]
    frozen: str = ""


@dataclass(frozen=True)
class Frozen:
    """How many of a model's channels must stay. reasons: why, with the number of channels, the most first."""

    channels: int
    frozen: int
    reasons: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """0..1"""
        return self.frozen / self.channels if self.channels else 0.0


def frozen_channels(groups: Iterable[Group]) -> Frozen:
    """What of the channels in these groups cannot be removed, and why."""
    reasons: Counter[str] = Counter()
    total = 0
    for group in groups:
        total += group.size
        if group.frozen:
            reasons[group.frozen] += group.size
    return Frozen(total, reasons.total(), tuple(reasons.most_common()))


def find_groups(model: Any) -> tuple[Group, ...]:
    """All channel groups of a flat functional model, in the order of their first producers."""
    graph = walk(model)
    channels = Channels()
    edges: dict[tuple[int, int], Indexes] = {}
    for call in graph.calls:
        outputs = _outputs(channels, call, [edges[edge.call, edge.output] for edge in call.inputs])
        edges.update({(call.index, number): atoms for number, atoms in enumerate(outputs)})
    for edge in graph.outputs:
        name = graph.calls[edge.call].name
        channels.freeze(edges[edge.call, edge.output], f"{name!r} is an output of the model")
    for slot in channels.slots.values():
        if slot.layer in channels.opaque:
            channels.freeze(slot.atoms, channels.opaque[slot.layer])
    return _collect(channels)


def _outputs(channels: Channels, call: Call, inputs: list[Indexes]) -> list[Indexes]:
    """Atoms of the call's outputs. A layer that cannot be followed freezes all it reads and gives."""
    rule = rule_of(call.layer)
    try:
        if rule is None:
            raise Opaque("is not a layer whose channels can be followed")
        outputs = rule(channels, call, _readable(channels, call, rule, inputs))
        if [atoms.shape for atoms in outputs] != _ends(call.output_shapes, outputs):
            raise Opaque("gives a number of channels that was not foreseen")
    except Opaque as opaque:
        reason = f"{call.kind} {call.name!r} {opaque}"
        channels.opaque[call.name] = reason
        for atoms in inputs:
            channels.freeze(atoms, reason)
        return [channels.fresh(shape[-1] or 0 if len(shape) > 1 else 0, reason) for shape in call.output_shapes]
    return outputs


def _readable(channels: Channels, call: Call, rule: Rule, inputs: list[Indexes]) -> list[Indexes]:
    """The atoms of the inputs as the rule reads them; Opaque where no rule of this kind could follow the channels."""
    if getattr(call.layer, "data_format", None) == "channels_first":
        raise Opaque("has its channels first")
    if [atoms.shape for atoms in inputs] != _ends(call.input_shapes, inputs):
        raise Opaque("reads a tensor whose last dimension is open")
    return inputs if takes_several_axes(call, rule) else [channels.along_last(atoms) for atoms in inputs]


def _ends(shapes: tuple[Shape, ...], atoms: list[Indexes]) -> list[Shape]:
    """The last dimensions of each shape, as many as its atoms have."""
    return [shape[-each.ndim :] for shape, each in zip(shapes, atoms, strict=True)]


def _collect(channels: Channels) -> tuple[Group, ...]:
    """Atoms joined together are one channel; channels with the same slots (and the same freedom) are one group."""
    slots = list(channels.slots.values())
    roots = channels.roots(np.arange(len(channels.parent)))
    reasons = {roots[atom]: reason for atom, reason in reversed(channels.reasons.items())}  # the first reason wins
    members: dict[int, list[int]] = defaultdict(list)
    places: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, slot in enumerate(slots):
        for position, root in enumerate(roots[slot.atoms].tolist()):
            members[root].append(number)
            places[number, root].append(position)
    groups: dict[tuple[tuple[int, ...], str], list[int]] = defaultdict(list)
    for root in sorted(members):  # the smallest atom of a class is its root: the order of the first producer
        groups[tuple(members[root]), reasons.get(root, "")].append(root)
    taken: dict[str, int] = defaultdict(int)
    found = []
    for (numbers, reason), group in groups.items():
        parts = tuple(
            Slot(s.layer, s.weight, s.index, s.axis, s.side, np.array([places[n, root] for root in group], np.intp))
            for n, s in ((n, slots[n]) for n in dict.fromkeys(numbers))
        )
        producers = tuple(dict.fromkeys(slot.layer for slot in parts if slot.side == "out"))
        if producers:
            taken[producers[0]] += 1
            count = taken[producers[0]]
            name = producers[0] if count == 1 else f"{producers[0]}#{count}"
            found.append(Group(name, len(group), parts, producers, reason))
    return tuple(found)
