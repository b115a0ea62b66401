"""How many channels each group keeps: a share of them, or what brings the whole model to a share of its MACs.

Widths are rounded to a multiple (8 suits the int8 kernels of Arm, x86 and TensorRT, which work on blocks of 8 or 16
channels: with odd counts fewer MACs can run slower). A group no larger than the multiple keeps all its channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.engine.cost import total_macs
from toolkit.engine.graph import Graph
from toolkit.engine.groups import Group

Widths = dict[str, int]  # id of a group -> channels it keeps
_STEPS = 30  # halvings of the ratio: 2**-30 is finer than one channel of any group


@dataclass(frozen=True)
class Rounding:
    """multiple: kept channels are a multiple of it, or all there are. least: never fewer than this."""

    multiple: int = 8
    least: int = 1


@dataclass(frozen=True)
class Found:
    """Widths, the share of the model's MACs that remains with them, and the smallest share any widths leave."""

    widths: Widths
    share: float
    smallest: float


def width(size: int, sparsity: float, rounding: Rounding) -> int:
    """Channels to keep of `size` if the share `sparsity` should go: the nearest width allowed, on a tie the larger."""
    target = round(size * (1 - sparsity), 6)  # floats: 1 - 0.9 is not 0.1
    allowed = [n for n in range(rounding.multiple, size, rounding.multiple) if n >= rounding.least]
    return min([*allowed, size], key=lambda n: (abs(n - target), -n))


def uniform(groups: Iterable[Group], sparsity: float, rounding: Rounding) -> Widths:
    """The same sparsity for each group."""
    return {group.id: width(group.size, sparsity, rounding) for group in groups}


def share_of_macs(graph: Graph, groups: Sequence[Group], widths: Widths) -> float:
    """MACs with these widths over MACs of the whole model, 0..1."""
    return total_macs(graph, _sizes(graph, groups, widths)) / total_macs(graph, {})


def for_macs(graph: Graph, groups: Sequence[Group], share: float, rounding: Rounding) -> Found:
    """Widths that leave about `share` of the MACs: one sparsity for all groups, found by bisection.

    Where rounding makes the MACs jump over the target, some groups take the narrower step and others do not, if that
    comes nearer.
    """

    def remaining(sparsity: float) -> float:
        return share_of_macs(graph, groups, uniform(groups, sparsity, rounding))

    low, high, smallest = 0.0, 1.0, remaining(1.0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if remaining(middle) >= share else (low, middle)
    wide, narrow = uniform(groups, low, rounding), uniform(groups, high, rounding)
    widths = min(narrow, _mixed(graph, groups, wide, narrow, share), key=lambda w: _miss(graph, groups, w, share))
    return Found(widths, share_of_macs(graph, groups, widths), smallest)


def _mixed(graph: Graph, groups: Sequence[Group], wide: Widths, narrow: Widths, share: float) -> Widths:
    """From `wide`, take the narrow step group by group, those with the greatest effect first, while it comes nearer."""
    steps = [name for name in wide if wide[name] != narrow[name]]
    steps.sort(key=lambda name: share_of_macs(graph, groups, {**wide, name: narrow[name]}))
    best = wide
    for name in steps:
        tried = {**best, name: narrow[name]}
        if _miss(graph, groups, tried, share) < _miss(graph, groups, best, share):
            best = tried
    return best


def _miss(graph: Graph, groups: Sequence[Group], widths: Widths, share: float) -> float:
    return abs(share_of_macs(graph, groups, widths) - share)


def _sizes(graph: Graph, groups: Sequence[Group], widths: Widths) -> dict[str, list[list[int]]]:
    """Shapes of the weights of each layer that would lose channels."""
    layers: dict[str, Any] = {call.name: call.layer for call in graph.calls}
    sizes: dict[str, list[list[int]]] = {}
    for group in groups:
        gone = group.size - widths.get(group.id, group.size)
        for slot in group.slots if gone else ():
            if slot.index >= 0:
                shapes = sizes.setdefault(slot.layer, [list(w.shape) for w in layers[slot.layer].weights])
                shapes[slot.index][slot.axis] -= gone * slot.positions.shape[1]
    return sizes
