"""What raw outputs decide, with what probability, and how those of two models on the same images differ.

Arrays are (n, columns). `head` says what they are: one class of several ("logits", "softmax", "sigmoid"; one column
tells two classes apart), labels that hold side by side ("sigmoids"), or no decision ("embedding", "regression").
SQNR is 10 log10(sum reference**2 / sum (reference - other)**2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError

Array = NDArray[Any]
HEADS = ("logits", "softmax", "sigmoid")  # one class an image
LABELS = "sigmoids"  # any number of labels an image
LABEL_THRESHOLD = 0.5  # a label holds above it
# Step of an 8-bit softmax or sigmoid output (LiteRT 8-bit quantization specification: SOFTMAX, LOGISTIC scale 1/256)
PROBABILITY_STEP = 1 / 256


@dataclass(frozen=True)
class Difference:
    """largest and mean: absolute difference of raw outputs. sqnr_db, logits_sqnr_db: of raw outputs and of logits
    (see `as_logits`); inf for equal outputs. unusable: images left out because an output was NaN or infinite."""

    largest: float
    mean: float
    sqnr_db: float
    logits_sqnr_db: float
    unusable: int


def decisions(outputs: Array, head: str) -> NDArray[np.int64]:
    """Class index for each image, (n,): the largest output, the lowest index of equals; -1 where an output is NaN.

    One column decides between classes 0 and 1: 1 where a probability is above 0.5, or a logit above 0.
    """
    table = rows(outputs, head)
    single = table.shape[1] == 1
    chosen: NDArray[np.int64] = np.asarray(table[:, 0] > threshold(head) if single else table.argmax(axis=1), np.int64)
    chosen[np.isnan(table).any(axis=1)] = -1
    return chosen


def label_decisions(outputs: Array) -> NDArray[np.int64]:
    """Which labels hold, (n, labels): 1 where a probability is above 0.5, else 0; -1 in a row with a NaN."""
    table = _table(outputs)
    held: NDArray[np.int64] = np.asarray(table > LABEL_THRESHOLD, np.int64)
    held[np.isnan(table).any(axis=1)] = -1
    return held


def probabilities(outputs: Array, head: str) -> NDArray[np.float64]:
    """Probability of each class, (n, classes), two for one column; logits by softmax, and one logit by the sigmoid.

    A row with a NaN has NaN everywhere.
    """
    table = rows(outputs, head).astype(np.float64)
    if table.shape[1] == 1:
        positive = 0.5 * (1 + np.tanh(table / 2)) if head == "logits" else table  # the sigmoid, without overflow
        return np.concatenate([1 - positive, positive], axis=1)
    if head == "logits":
        table = np.exp(table - table.max(axis=1, keepdims=True))
        table = table / table.sum(axis=1, keepdims=True)
    table[np.isnan(table).any(axis=1)] = np.nan
    return table


def rankable(scores: Array) -> NDArray[np.float64]:
    """Scores as finite numbers, fit to be ordered: NaN comes after all others, infinities stay outermost."""
    most = float(np.finfo(np.float32).max)
    return np.nan_to_num(np.asarray(scores, np.float64), nan=-2 * most, posinf=most, neginf=-most)


def label_ranks(outputs: Array, labels: Array) -> NDArray[np.int64]:
    """How many classes come before the label's own, (n,): 0 is the decision itself. NaN rows: number of classes."""
    own = np.take_along_axis(outputs, np.asarray(labels)[:, None], axis=1)
    earlier = np.arange(outputs.shape[1])[None, :] < np.asarray(labels)[:, None]
    before = (outputs > own) | ((outputs == own) & earlier)
    ranks: NDArray[np.int64] = before.sum(axis=1, dtype=np.int64)
    ranks[np.isnan(outputs).any(axis=1)] = outputs.shape[1]
    return ranks


def count_ties(outputs: Array, head: str) -> int:
    """Images whose decision was a tie, settled by the rule (frequent in 8-bit outputs).

    The rule: the lowest class index of equals; one column, or a label, exactly at its threshold does not hold.
    """
    if head == LABELS:
        return int(np.count_nonzero((_table(outputs) == LABEL_THRESHOLD).any(axis=1)))
    table = rows(outputs, head)
    if table.shape[1] == 1:
        return int(np.count_nonzero(table == threshold(head)))
    return int(np.count_nonzero(np.count_nonzero(table == table.max(axis=1, keepdims=True), axis=1) > 1))


def count_rank_ties(outputs: Array, labels: Array, k: int) -> int:
    """Images whose label is among the first `k`, or is not, only because equals go by class index."""
    own = np.take_along_axis(outputs, np.asarray(labels)[:, None], axis=1)
    above, equal = (outputs > own).sum(axis=1), (outputs == own).sum(axis=1) - 1
    return int(np.count_nonzero((above < k) & (above + equal >= k)))


def as_logits(outputs: Array, head: str) -> NDArray[np.float64]:
    """Outputs before their activation, as far as they can be known.

    softmax: log p minus the mean of its row (logits are known up to a constant); sigmoid: log(p / (1 - p)).
    Probabilities are held within one 8-bit step of 0 and 1, below which an 8-bit file has no number. Logits are given
    back as they are.
    """
    table = (_table(outputs) if head == LABELS else rows(outputs, head)).astype(np.float64)
    if head == "logits":
        return table
    held = np.clip(table, PROBABILITY_STEP, 1 - PROBABILITY_STEP)
    if head == "softmax":
        logs = np.log(np.maximum(table, PROBABILITY_STEP))
        centred: NDArray[np.float64] = logs - logs.mean(axis=1, keepdims=True)
        return centred
    logits: NDArray[np.float64] = np.log(held / (1 - held))
    return logits


def difference(reference: Array, other: Array, head: str) -> Difference:
    """Numeric difference of two outputs of one shape. NaN everywhere it cannot be told (no usable image)."""
    first, second = (np.asarray(each, dtype=np.float64).reshape(len(each), -1) for each in (reference, other))
    usable = np.flatnonzero(np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1))
    unusable = len(first) - len(usable)
    first, second = first[usable], second[usable]
    if not len(first):
        return Difference(math.nan, math.nan, math.nan, math.nan, unusable)
    gap = np.abs(first - second)
    raw = sqnr_db(first, second)
    logits = sqnr_db(as_logits(first, head), as_logits(second, head)) if head in (*HEADS, LABELS) else raw
    return Difference(float(gap.max()), float(gap.mean()), raw, logits, unusable)


def sqnr_db(reference: Array, other: Array) -> float:
    """Signal to noise of `other` against `reference`, in decibels; inf when equal, -inf for a reference of zeros."""
    signal, noise = float(np.sum(np.square(reference))), float(np.sum(np.square(reference - other)))
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def threshold(head: str) -> float:
    """Where one output column changes its decision."""
    return 0.0 if head == "logits" else 0.5


def rows(outputs: Array, head: str) -> Array:
    """Outputs as (n, columns); raises UnsupportedError for outputs that hold no decision."""
    if head not in HEADS:
        raise UnsupportedError("output", f"outputs of kind {head!r} hold no class", "use a model that classifies")
    table = _table(outputs)
    if head == "softmax" and table.shape[1] == 1:
        raise UnsupportedError("output", "a softmax over one class is always 1", "use a sigmoid for two classes")
    return table


def _table(outputs: Array) -> Array:
    table = np.asarray(outputs)
    return table[:, None] if table.ndim == 1 else table.reshape(len(table), -1)
