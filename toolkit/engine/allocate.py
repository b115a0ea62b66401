"""Which channels go so that a share of the model's cost remains: one sparsity for all, or where it harms least.

Global ranking takes, again and again, the step (of `rounding.multiple` channels of one group) that loses the least
score for what it saves: the greedy rule of the knapsack that pruning to a budget is (Shen et al., "Structural Pruning
via Latency-Saliency Knapsack", NeurIPS 2022, arXiv:2210.06659). What a step saves is reckoned anew after each one,
since neighbours share weights.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
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


def allocate(
    graph: Graph | None,
    groups: Sequence[Group],
    scores: Mapping[str, Scores],
    share: float,
    *,
    ranking: Ranking = "local",
    cost: Cost | None = None,
    rounding: Rounding = EIGHT,
) -> dict[str, Indexes]:
    """Channels that go, by group, so that about `share` of the cost (MACs by default) remains.

    scores: one a channel for each group that is not frozen, the least important lowest; for the global ranking
    comparable between groups. Groups that lose nothing are not named. Comes as near as the widths allowed let it.
    """
    free = [group for group in groups if not group.frozen]
    if cost is None:
        if graph is None:
            raise ValueError("give the graph whose MACs count, or a cost")
        cost = prices.macs(graph, free)
    if ranking == "local":
        widths = for_share(cost, free, share, rounding).widths
    else:
        widths = _greedy(free, scores, share * cost({}), cost, rounding)
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


def _greedy(
    groups: Sequence[Group], scores: Mapping[str, Scores], target: float, cost: Cost, rounding: Rounding
) -> Widths:
    """Widths after taking the cheapest steps until the cost is at the target, or as near as it comes.

    Where the last step goes far past the target, the end is tried without it too: small steps may come nearer.
    """
    ladders = {group.id: allowed(group.size, rounding.of(group)) for group in groups}
    lost = {group.id: np.concatenate([[0.0], np.cumsum(np.sort(scores[group.id]))]) for group in groups}
    barred: set[str] = set()
    nearest, last = _stepped(ladders, lost, target, cost, barred)
    while last and abs(cost(nearest) - target) > FAR * cost({}):
        barred.add(last)
        widths, last = _stepped(ladders, lost, target, cost, barred)
        nearest = min(nearest, widths, key=lambda found: abs(cost(found) - target))
    return nearest


def _stepped(
    ladders: Mapping[str, Sequence[int]],
    lost: Mapping[str, Scores],
    target: float,
    cost: Cost,
    barred: Container[str],
) -> tuple[Widths, str]:
    """The widths, and the group whose step has passed the target ("": none); no step of a barred one passes it.

    ladders: the widths each may have, the whole last. lost: the scores of its k weakest channels, for k from 0.
    """
    left = {name: list(ladder) for name, ladder in ladders.items()}
    widths = {name: ladder[-1] for name, ladder in left.items()}
    whole = cost({})
    while (over := cost(widths) - target) > 0:
        steps = {name: ladder[-1] - ladder[-2] for name, ladder in left.items() if len(ladder) > 1}
        saved = {name: amount for name, amount in cost.saved(widths, steps).items() if amount > 0}
        saved = {name: amount for name, amount in saved.items() if amount <= over or name not in barred}
        worth = {name: _lost(lost[name], widths[name], steps[name]) / amount for name, amount in saved.items()}
        if not saved:
            break
        best = min(worth, key=worth.__getitem__)
        if saved[best] > over:  # it would pass the target: rather what lands near it, or nothing
            misses = {name: abs(amount - over) for name, amount in saved.items()}
            enough = max(min(misses.values()), NEAR * whole)
            best = min((name for name in saved if misses[name] <= enough), key=worth.__getitem__)
            if misses[best] >= over:
                break
        widths[best] -= steps[best]
        left[best].pop()
        if saved[best] > over:
            return widths, best
    return widths, ""


def _lost(losses: Scores, width: int, step: int) -> float:
    """The score that goes with the next `step` weakest channels; losses: of the k weakest, for k from 0."""
    gone = len(losses) - 1 - width
    return float(losses[gone + step] - losses[gone])
