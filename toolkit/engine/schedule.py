"""Learning rates as one number for each step of a training, worked out before it begins.

Warm-up is linear from 0 (Goyal et al. 2017, arXiv:1706.02677, section 2.2); after it the rate follows a half cosine to
0 (Loshchilov and Hutter 2016, arXiv:1608.03983), falls exponentially, falls in steps, or stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Rates = NDArray[np.float32]

MILESTONES = (0.5, 0.75)  # of the steps after warm-up: 32k and 48k of 64k in He et al. 2015, section 4.2
LAST_SHARE = 0.01  # of the rate that an exponential fall ends at, where nothing else is said
STEP_SHARE = 0.1  # of the rate that stays after each milestone, as there


@dataclass(frozen=True)
class Schedule:
    """kind: constant, cosine, exponential or step. decay: share of the rate at the end (exponential), or that stays
    after each milestone (step); None for the usual."""

    kind: str = "cosine"
    warmup_epochs: float = 0.0
    decay: float | None = None


def rates(schedule: Schedule, peak: float, epochs: int, steps: int) -> Rates:
    """The rate of each step, shape (epochs * steps,). peak: the rate after warm-up; steps: of one epoch."""
    total = epochs * steps
    warm = min(round(schedule.warmup_epochs * steps), total)
    after: NDArray[Any]
    done = np.arange(total - warm) / max(total - warm, 1)  # share of the steps after warm-up
    if schedule.kind == "cosine":
        after = 0.5 * (1 + np.cos(np.pi * done))
    elif schedule.kind == "exponential":
        after = (LAST_SHARE if schedule.decay is None else schedule.decay) ** done
    elif schedule.kind == "step":
        share = STEP_SHARE if schedule.decay is None else schedule.decay
        passed = np.sum([done >= place for place in MILESTONES], axis=0)
        after = share**passed
    else:
        after = np.ones(total - warm)
    before = np.arange(1, warm + 1) / max(warm, 1)
    return (peak * np.concatenate([before, after])).astype(np.float32)


class Table(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Rates by step, for an optimizer; the last one stays."""

    def __init__(self, values: Rates) -> None:
        self._values = tf.constant(values)

    def __call__(self, step: Any) -> Any:
        return tf.gather(self._values, tf.minimum(tf.cast(step, tf.int32), len(self._values) - 1))
