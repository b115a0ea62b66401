"""Which channels go in one step of pruning, so that the last step comes to the target.

Every step leaves the same share of what the one before left; what a step may take is reckoned from what is really left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from toolkit.core import Model, PassContext
from toolkit.errors import UnsupportedError
from toolkit.passes.prune_changes import kept_whole
from toolkit.passes.prune_target import TOLERANCE, WORDS, Cut, Target, search

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine import allocate
    from toolkit.engine.groups import Group
    from toolkit.engine.prices import Price
    from toolkit.engine.widths import Rounding


@dataclass(frozen=True)
class Choice:
    """What a step chooses from. groups, scores: of `current`. whole: the original's groups. number: from 1.

    goal: share of the original's amount (see `_guide`) that meets a target of the file, once it is known.
    tile: channels that the device's kernels make at once, by which steps of the global ranking are weighed.
    """

    original: Model
    current: Model
    groups: Sequence[Group]
    scores: Mapping[str, Array]
    whole: Sequence[Group]
    target: Target
    ranking: Literal["local", "global"]
    rounding: Rounding
    number: int
    steps: int
    goal: float | None = None
    tile: int = 1

    @property
    def free(self) -> list[Group]:
        return [group for group in self.groups if not group.frozen]

    @property
    def first(self) -> bool:
        return self.number == 1

    @property
    def last(self) -> bool:
        return self.number == self.steps

    def part(self, share: float) -> float:
        """What this step leaves of the original where the last one leaves `share`."""
        return float(share ** (self.number / self.steps))


def choose(choice: Choice, context: PassContext) -> Cut:
    """The channels that go.

    UnsupportedError, before any training: none can go, or the target is out of reach.
    """
    if choice.target.delivered:
        _check_some(choice)
        return _for_file(choice, context)
    share = choice.target.share or 0.0
    if (choice.first or choice.last) and choice.target.what != "sparsity":
        _check_reached(choice, _to(choice, choice.target, share))
    cut = _to(choice, choice.target, choice.part(share), end=share)
    if choice.first and not _to(choice, choice.target, share).removals:
        raise _nothing(choice)
    return cut


def _for_file(choice: Choice, context: PassContext) -> Cut:
    """For a target that only a written file tells: the first step finds the share of its guide, the last one anew."""
    guide = _guide(choice.target)

    def make(share: float) -> tuple[Cut, Model]:
        from toolkit.engine.surgery import remove

        cut = _to(choice, guide, share)
        return cut, replace(choice.current, graph=remove(choice.current.graph, cut.removals))

    goal = choice.goal
    if choice.last or goal is None:
        left = _price(guide, choice.current.graph, ())({}) / _whole(choice, guide)
        found = search(choice.target, choice.original, (choice.current, left), make, context, guide=guide)
        if choice.last:
            return found
        goal = found.share
    return replace(_to(choice, guide, choice.part(goal), end=goal), goal=goal)


def _guide(target: Target) -> Target:
    """What is brought down so that the file meets its target: its weights are its size, its MACs nearly its latency."""
    return Target("parameters" if target.what == "size" else "macs")


def _to(choice: Choice, target: Target, share: float, end: float | None = None) -> Cut:
    """The cut of the current model that leaves about `share` of the original's amount; end: what the last step leaves.

    With the global ranking of the channels that are left, else evenly.
    """
    from toolkit.engine import allocate

    price, whole = _price(target, choice.current.graph, choice.free), _whole(choice, target)
    if choice.ranking == "local":
        removals = allocate.chosen(choice.free, choice.scores, _even(choice, target, share, end))
        return Cut(_plain(removals), price(allocate.widths_after(choice.free, removals)) / whole)
    left = price({})
    removals = allocate.allocate(
        None,
        choice.free,
        choice.scores,
        min(1.0, share * whole / left),
        ranking=choice.ranking,
        cost=price,
        rounding=choice.rounding,
        tiled=_tiled(choice, target),
    )
    return Cut(_plain(removals), price(allocate.widths_after(choice.free, removals)) / whole)


def _tiled(choice: Choice, target: Target) -> allocate.Tiled | None:
    """What steps are weighed by where that is not the target's own amount."""
    from toolkit.engine import allocate, prices
    from toolkit.engine.graph import walk

    if choice.tile == 1 or target.what != "macs":
        return None
    return allocate.Tiled(prices.macs(walk(choice.current.graph), choice.free, choice.tile), choice.tile)


def _even(choice: Choice, target: Target, share: float, end: float | None) -> dict[str, int]:
    """One sparsity of the original's widths for all groups, so that steps come to what one cut comes to.

    A step narrows no group beyond what the last one leaves of it, nor below its smallest width allowed.
    """
    from toolkit.engine.widths import allowed

    now = _widths(choice, target, share, choice.number)
    then = _widths(choice, target, share if end is None else end, choice.steps)
    found = {}
    for group in choice.free:
        wanted = max(now.get(group.id, group.size), then.get(group.id, 0))
        found[group.id] = min(group.size, max(wanted, allowed(group.size, choice.rounding.of(group))[0]))
    return found


def _widths(choice: Choice, target: Target, share: float, number: int) -> dict[str, int]:
    """The original's groups after so many steps: min_share is one of each step."""
    from toolkit.engine.widths import for_share, uniform

    rounding = replace(choice.rounding, share=choice.rounding.share**number)
    free = [group for group in choice.whole if not group.frozen]
    if target.what == "sparsity":
        return uniform(free, 1 - share, rounding)
    return for_share(_price(target, choice.original.graph, free), free, share, rounding).widths


def _price(target: Target, graph: Any, groups: Sequence[Group]) -> Price:
    """What an allocation brings down: the target's own amount, or MACs."""
    from toolkit.engine import prices
    from toolkit.engine.graph import walk

    if target.what == "sparsity":
        return prices.channels(groups)
    count = prices.parameters if target.what == "parameters" else prices.macs
    return count(walk(graph), groups)


def _whole(choice: Choice, target: Target) -> float:
    """The original's amount."""
    if target.what == "sparsity":
        return float(sum(group.size for group in choice.whole if not group.frozen))
    return _price(target, choice.original.graph, ())({})


def _check_some(choice: Choice) -> None:
    if choice.first and not _some(choice):
        raise _nothing(choice)


def _some(choice: Choice) -> bool:
    """Whether any group may be narrower."""
    from toolkit.engine.widths import allowed

    return any(len(allowed(group.size, choice.rounding.of(group))) > 1 for group in choice.free)


def _nothing(choice: Choice) -> UnsupportedError:
    if _some(choice):
        problem = f"{choice.target.words} is nearer to the whole network than to any that is narrower"
        return UnsupportedError(f"prune.{choice.target.what}", problem, "ask for less to remain, or lower round_to")
    fix = "lower round_to or min_channels" if choice.free else "leave prune out"
    problem = f"no channel can be removed; {kept_whole(choice.groups, choice.rounding)}"
    return UnsupportedError("prune", problem, fix)


def _check_reached(choice: Choice, cut: Cut) -> None:
    """Raise where the nearest there is misses the target by more than the tolerance."""
    from toolkit.engine.allocate import smallest

    target, share = choice.target, choice.target.share or 0.0
    if abs(cut.share - share) <= TOLERANCE:
        return
    price = _price(target, choice.current.graph, choice.free)
    least = smallest(choice.free, price, choice.rounding) * price({}) / _whole(choice, target)
    problem = (
        f"{share:.1%} of {WORDS[target.what]} cannot be reached: the nearest is {cut.share:.1%}, "
        f"the smallest {least:.1%}; {kept_whole(choice.groups, choice.rounding)}"
    )
    raise UnsupportedError(f"prune.{target.what}", problem, "ask for what can be reached, or lower round_to")


def _plain(removals: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: [int(channel) for channel in channels] for name, channels in removals.items()}
