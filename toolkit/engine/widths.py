"""How many channels each group keeps: a share of them, or what brings the whole model to a share of what it costs.

Widths are rounded to a multiple (8 suits the int8 kernels of Arm, x86 and TensorRT, which work on blocks of 8 or 16
channels: with odd counts fewer MACs can run slower). A group no larger than the multiple keeps all its channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import gcd

from toolkit.engine.groups import Group
from toolkit.engine.prices import Widths

_STEPS = 30  # halvings of the ratio: 2**-30 is finer than one channel of any group
_FAR = 0.03  # of the whole cost: what prune lets a result miss its target by


@dataclass(frozen=True)
class Rounding:
    """multiple: kept channels are a multiple of it, or all there are. least: never fewer than this.

    share: never a smaller part of a group's channels than this, 0..1.
    """

    multiple: int = 8
    least: int = 1
    share: float = 0.0

    def of(self, group: Group) -> Rounding:
        """The same for a group whose channels stand for several of a layer's each (normalized together, shuffled)."""
        each = max((slot.positions.shape[1] for slot in group.slots if slot.side == "out"), default=1)
        return replace(self, multiple=self.multiple // gcd(self.multiple, each), least=-(-self.least // each))


@dataclass(frozen=True)
class Found:
    """Widths, and the share of the model's cost that remains with them."""

    widths: Widths
    share: float


def allowed(size: int, rounding: Rounding) -> list[int]:
    """The widths a group of this size may have, rising; the last is all its channels."""
    least = max(rounding.least, round(rounding.share * size, 6))  # floats: 0.1 * 30 is not 3
    return [*(n for n in range(rounding.multiple, size, rounding.multiple) if n >= least), size]


def width(size: int, sparsity: float, rounding: Rounding) -> int:
    """Channels to keep of `size` if the share `sparsity` should go: the nearest width allowed, on a tie the larger."""
    target = round(size * (1 - sparsity), 6)  # floats: 1 - 0.9 is not 0.1
    return min(allowed(size, rounding), key=lambda n: (abs(n - target), -n))


def uniform(groups: Iterable[Group], sparsity: float, rounding: Rounding) -> Widths:
    """The same sparsity for each group."""
    return {group.id: width(group.size, sparsity, rounding.of(group)) for group in groups}


def for_share(cost: Callable[[Widths], float], groups: Sequence[Group], share: float, rounding: Rounding) -> Found:
    """Widths that leave about `share` of the cost: one sparsity for all groups, found by bisection.

    Where rounding makes the cost jump over the target, some groups take the narrower step and others do not, if that
    comes nearer; where that is still far off, single groups go one step more or less.
    """
    whole = cost({})

    def remaining(widths: Widths) -> float:
        return cost(widths) / whole

    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if remaining(uniform(groups, middle, rounding)) >= share else (low, middle)
    wide, narrow = uniform(groups, low, rounding), uniform(groups, high, rounding)
    widths = min(narrow, _mixed(remaining, wide, narrow, share), key=lambda w: abs(remaining(w) - share))
    if abs(remaining(widths) - share) > _FAR:
        ladders = {group.id: allowed(group.size, rounding.of(group)) for group in groups}
        widths = _one_off(remaining, widths, ladders, share)
    return Found(widths, remaining(widths))


def _mixed(remaining: Callable[[Widths], float], wide: Widths, narrow: Widths, share: float) -> Widths:
    """From `wide`, take the narrow step group by group, those with the greatest effect first, while it comes nearer."""
    steps = [name for name in wide if wide[name] != narrow[name]]
    steps.sort(key=lambda name: remaining({**wide, name: narrow[name]}))
    best = wide
    for name in steps:
        tried = {**best, name: narrow[name]}
        if abs(remaining(tried) - share) < abs(remaining(best) - share):
            best = tried
    return best


def _one_off(
    remaining: Callable[[Widths], float], start: Widths, ladders: dict[str, list[int]], share: float
) -> Widths:
    """From `start`, one group at a time a step wider or narrower than there, whichever comes nearest, while it does."""
    near = {name: _beside(ladders[name], width) for name, width in start.items()}
    best = start
    while True:
        tried = ({**best, name: width} for name, widths in near.items() for width in widths)
        nearest = min(tried, key=lambda w: abs(remaining(w) - share), default=best)
        if abs(remaining(nearest) - share) >= abs(remaining(best) - share):
            return best
        best = nearest


def _beside(ladder: list[int], width: int) -> list[int]:
    """A width with the next smaller and larger ones."""
    place = ladder.index(width)
    return ladder[max(0, place - 1) : place + 2]
