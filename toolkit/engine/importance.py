"""How much each channel of a group matters, by the size of all weights that would go with it.

The group norm of DepGraph (Fang et al., CVPR 2023, arXiv:2301.12900): a channel's score sums over every layer that
makes, carries or reads it, not over the one filter that makes it. Each layer is first divided by its own mean, so that
a layer with large or many weights does not decide alone. Scoring knows nothing of how many channels will go.
"""

from __future__ import annotations

from typing import Any, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from toolkit.engine.groups import Group, Slot

Kind = Literal["l1", "l2", "random"]
Scores = NDArray[np.float64]

# Weights that scale a channel. Biases and moving statistics shift it, and say nothing of what it carries on.
_SCALING = ("kernel", "depthwise_kernel", "pointwise_kernel", "gamma", "alpha")


def score(model: Any, group: Group, *, kind: Kind = "l2", seed: int = 0) -> Scores:
    """One score a channel, the least important lowest; for "l1" and "l2" the mean over the channels is 1.

    l1, l2: sum of |w| or w**2 over the channel's slices of a weight, divided by that sum's mean over the channels,
    then the mean over the group's weights. random: uniform in [0, 1), from the seed and the group's id.
    """
    if kind == "random":
        return np.random.default_rng([seed, crc32(group.id.encode())]).random(group.size)
    parts = [
        _slices(model.get_layer(slot.layer).weights[slot.index], slot, kind) for slot in group.slots if _scales(slot)
    ]
    sized = [part / part.mean() for part in parts if part.mean() > 0]
    return np.mean(sized, axis=0) if sized else np.ones(group.size)


def weakest(scores: Scores, count: int) -> NDArray[np.intp]:
    """The `count` channels of lowest score, in rising order; among equals the first go."""
    return np.sort(np.argsort(scores, kind="stable")[:count])


def _scales(slot: Slot) -> bool:
    return slot.index >= 0 and slot.weight in _SCALING


def _slices(weight: Any, slot: Slot, kind: Kind) -> Scores:
    """Sum of |w| or w**2 over all that a channel has in one weight."""
    values = np.moveaxis(np.asarray(weight, np.float64), slot.axis, 0)
    values = np.abs(values) if kind == "l1" else np.square(values)
    scores: Scores = values.reshape(len(values), -1).sum(axis=1)[slot.positions].sum(axis=1)
    return scores
