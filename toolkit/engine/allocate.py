"""Which channels go so that a share of the model's cost remains: one sparsity for all, or where it harms least.

Global ranking takes, again and again, the step (of `rounding.multiple` channels of one group) that loses the least
score for what it saves: the greedy rule of the knapsack that pruning to a budget is (Shen et al., "Structural Pruning
via Latency-Saliency Knapsack", NeurIPS 2022, arXiv:2210.06659). What a step saves is reckoned anew after each one,
since neighbours share weights. It may be reckoned as kernels compute it, which make a tile of channels at once: then a
step that empties no tile saves less than its MACs, and one to the next whole tile is weighed beside it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.engine import prices
from toolkit.engine.graph import Graph
from toolkit.engine.groups import Group
from toolkit.engine.prices import Widths
from toolkit.engine.widths import Rounding, allowed, for_share

Scores = NDArray[np.float64]
Indexes = NDArray[np.intp]
Ranking = Literal["local", "global"]
NEAR = 0.01  # of the whole cost: steps that land so near to the target are told apart by what they lose
FAR = 0.03  # of the whole cost, as far as `prune` lets a target be missed: beyond, other ends are tried
EIGHT = Rounding()  # multiples of 8 (widths.py says why)


class Cost(Protocol):
    """What is to be brought down, as a function of the groups' widths (prices.Price is one)."""

    def __call__(self, widths: Mapping[str, int], /) -> float: ...

    def saved(self, widths: Mapping[str, int], steps: Mapping[str, int], /) -> dict[str, float]:
        """For each group in `steps`, what is saved when it alone loses that many channels more."""
        ...


@dataclass(frozen=True)
class Tiled:
    """cost: of kernels that make `tile` channels at once."""

    cost: Cost
    tile: int = 1


@dataclass(frozen=True)
class _Aim:
    """cost is to come down to target, by the steps that lose the least score for what they save of `by`."""

    cost: Cost
    target: float
    by: Tiled


@dataclass(frozen=True)
class _Step:
    """`count` channels of a group; worth: the score they have, for what they save. saved: of the cost."""

    name: str
    count: int
    saved: float
    worth: float


def allocate(
    graph: Graph | None,
    groups: Sequence[Group],
    scores: Mapping[str, Scores],
    share: float,
    *,
    ranking: Ranking = "local",
    cost: Cost | None = None,
    rounding: Rounding = EIGHT,
    tiled: Tiled | None = None,
) -> dict[str, Indexes]:
    """Channels that go, by group, so that about `share` of the cost (MACs by default) remains.

    scores: one a channel for each group that is not frozen, the least important lowest; for the global ranking
    comparable between groups. tiled: of the global ranking, what steps are weighed by instead of `cost`. Groups that
    lose nothing are not named. Comes as near as the widths allowed let it.
    """
    free = [group for group in groups if not group.frozen]
    if cost is None:
        if graph is None:
            raise ValueError("give the graph whose MACs count, or a cost")
        cost = prices.macs(graph, free)
    if ranking == "local":
        widths = for_share(cost, free, share, rounding).widths
    else:
        widths = _greedy(free, scores, _Aim(cost, share * cost({}), tiled or Tiled(cost)), rounding)
    return chosen(free, scores, widths)


def chosen(groups: Sequence[Group], scores: Mapping[str, Scores], widths: Mapping[str, int]) -> dict[str, Indexes]:
    """The weakest channels of each group that is to be narrower than it is."""
    gone = {group.id: group.size - widths.get(group.id, group.size) for group in groups}
    return {name: weakest(scores[name], count) for name, count in gone.items() if count}


def weakest(scores: Scores, count: int) -> Indexes:
    """The `count` channels of lowest score, in rising order; among equals the first go."""
    return np.sort(np.argsort(scores, kind="stable")[:count])


def widths_after(groups: Sequence[Group], removals: Mapping[str, Sequence[int] | Indexes]) -> Widths:
    """The widths that are left."""
    return {group.id: group.size - len(removals.get(group.id, ())) for group in groups}


def smallest(groups: Sequence[Group], cost: Cost, rounding: Rounding) -> float:
    """The smallest share of the cost that any widths leave."""
    return cost({group.id: allowed(group.size, rounding.of(group))[0] for group in groups if not group.frozen}) / cost(
        {}
    )


def _greedy(groups: Sequence[Group], scores: Mapping[str, Scores], aim: _Aim, rounding: Rounding) -> Widths:
    """Widths after taking the cheapest steps until the cost is at the target, or as near as it comes.

    Where the last step goes far past the target, the end is tried without it too: small steps may come nearer.
    """
    ladders = {group.id: allowed(group.size, rounding.of(group)) for group in groups}
    lost = {group.id: np.concatenate([[0.0], np.cumsum(np.sort(scores[group.id]))]) for group in groups}
    barred: set[str] = set()
    nearest, last = _stepped(ladders, lost, aim, barred)
    while last and abs(aim.cost(nearest) - aim.target) > FAR * aim.cost({}):
        barred.add(last)
        widths, last = _stepped(ladders, lost, aim, barred)
        nearest = min(nearest, widths, key=lambda found: abs(aim.cost(found) - aim.target))
    return nearest


def _stepped(
    ladders: Mapping[str, Sequence[int]], lost: Mapping[str, Scores], aim: _Aim, barred: Container[str]
) -> tuple[Widths, str]:
    """The widths, and the group whose step has passed the target ("": none); no step of a barred one passes it.

    ladders: the widths each may have, the whole last. lost: the scores of its k weakest channels, for k from 0.
    """
    left = {name: list(ladder) for name, ladder in ladders.items()}
    widths = {name: ladder[-1] for name, ladder in left.items()}
    whole = aim.cost({})
    while (over := aim.cost(widths) - aim.target) > 0:
        steps = [step for step in _offered(left, lost, aim) if step.saved <= over or step.name not in barred]
        if not steps:
            break
        best = min(steps, key=lambda step: step.worth)
        if best.saved > over:  # it would pass the target: rather what lands near it, or nothing
            enough = max(min(abs(step.saved - over) for step in steps), NEAR * whole)
            best = min((step for step in steps if abs(step.saved - over) <= enough), key=lambda step: step.worth)
            if abs(best.saved - over) >= over:
                break
        widths[best.name] -= best.count
        while left[best.name][-1] > widths[best.name]:
            left[best.name].pop()
        if best.saved > over:
            return widths, best.name
    return widths, ""


def _offered(left: Mapping[str, Sequence[int]], lost: Mapping[str, Scores], aim: _Aim) -> Iterator[_Step]:
    """Steps that save anything: of each group to its next width, and to the next that leaves a whole tile empty."""
    now = {name: ladder[-1] for name, ladder in left.items()}
    for ahead in filter(None, (_next(left), _emptying(left, aim.by.tile))):
        saved = aim.cost.saved(now, ahead)
        by = saved if aim.by.cost is aim.cost else aim.by.cost.saved(now, ahead)
        for name, count in ahead.items():
            if saved[name] > 0:
                score = _lost(lost[name], now[name], count)
                yield _Step(name, count, saved[name], score / by[name] if by[name] > 0 else np.inf)


def _next(left: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Channels to the next narrower width."""
    return {name: ladder[-1] - ladder[-2] for name, ladder in left.items() if len(ladder) > 1}


def _emptying(left: Mapping[str, Sequence[int]], tile: int) -> dict[str, int]:
    """Channels to the group's widest that fills a tile less, where that is further than its next width.

    Where its channels stand for several of a layer's each, another step may be better; none is weighed wrongly.
    """
    found = {}
    for name, ladder in left.items():
        place = bisect_right(ladder, -(-ladder[-1] // tile) * tile - tile) - 1
        if 0 <= place < len(ladder) - 2:
            found[name] = ladder[-1] - ladder[place]
    return found


def _lost(losses: Scores, width: int, step: int) -> float:
    """The score that goes with the next `step` weakest channels; losses: of the k weakest, for k from 0."""
    gone = len(losses) - 1 - width
    return float(losses[gone + step] - losses[gone])
