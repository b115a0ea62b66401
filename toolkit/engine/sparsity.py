"""Zeros in weights: which of them, in which pattern, and at which step of a training. Magnitude pruning.

The smallest magnitudes go (Han et al. 2015, arXiv:1506.02626), more and more of them (Zhu and Gupta 2017,
arXiv:1710.01878). Counts, steps and the axis of N:M are those of tensorflow-model-optimization 0.8.1 (pruning_impl.py,
pruning_schedule.py, pruning_utils.py): round(size x (1 - sparsity)) weights stay, halves to the even number, in
float32, and never none; batches count from 1; 2:4 lies along input channels, chosen once, before the first batch. Two
things it does otherwise: of equal magnitudes it keeps all, here as many stay as were asked for, the first ones; and
where a block does not divide a weight its masks are not where it pooled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.engine.eligible import kernel_of, sorted_out, with_kernels
from toolkit.errors import InputError

Array = NDArray[Any]
Mask = NDArray[np.bool_]  # of a weight's shape, True where it stays
Kind = Literal["unstructured", "n:m", "block"]
Scope = Literal["layer", "global"]
Curve = Literal["polynomial", "constant"]

EXACT = 2**24  # beyond, float32 does not count one by one
USUAL = 100  # steps between two masks: the default of tensorflow-model-optimization
LEAST_UPDATES = 10  # ... of a training that is too short for that


@dataclass(frozen=True)
class Pattern:
    """Where zeros may lie in a weight of shape (..., inputs, outputs).

    "unstructured": anywhere. "n:m": in every m input channels that follow each other, at one place and output, n stay
    (TensorRT's 2:4). "block": n inputs x m outputs at one place go together. TFMOT's m_by_n counts the zeros: its
    (1, 4) is 3:4 here.
    """

    kind: Kind = "unstructured"
    n: int = 1
    m: int = 1

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Of "unstructured", "2:4" or "4x1"; InputError for anything else."""
        found = re.fullmatch(r"(\d{1,4})([:x])(\d{1,4})", text)
        if text == "unstructured":
            return cls()
        if found:
            n, m = int(found[1]), int(found[3])
            if found[2] == ":" and 0 < n < m:
                return cls("n:m", n, m)
            if found[2] == "x" and n * m > 1:
                return cls("block", n, m)
        fix = 'use "unstructured", "2:4" (2 of every 4 stay) or "4x1" (blocks of 4 inputs x 1 output)'
        raise InputError("pattern", f"no such pattern of zeros, got {text!r}", fix)

    def __str__(self) -> str:
        return self.kind if self.kind == "unstructured" else f"{self.n}{':' if self.kind == 'n:m' else 'x'}{self.m}"

    @property
    def sparsity(self) -> float | None:
        """What the pattern itself fixes: the share of zeros of N:M."""
        return 1 - self.n / self.m if self.kind == "n:m" else None

    def holds(self, weight: Array) -> bool:
        """Whether the zeros of a weight are of this pattern. Of blocks: whether any is all zeros."""
        if self.kind == "n:m":
            return bool(((_in_groups(weight != 0, self.m, False)).sum(axis=-1) <= self.n).all())
        return bool((_pooled(np.abs(weight), self.n, self.m) == 0).any())


@dataclass(frozen=True)
class Schedule:
    """Sparsity by step, a step being a batch counted from 1: masks are chosen before it, where they are due.

    polynomial: sparsity + (initial - sparsity) x (1 - (step - begin) / (end - begin)) ** power; constant: `sparsity`
    throughout. due at begin, and every `frequency` steps from there to `end`, that included.
    """

    sparsity: float
    initial: float = 0.0
    begin: int = 1
    end: int = 1
    frequency: int = USUAL
    power: float = 3.0
    curve: Curve = "polynomial"

    def is_due(self, step: int) -> bool:
        """Whether masks are chosen anew before this batch."""
        return self.begin <= step <= self.end and (step - self.begin) % self.frequency == 0

    def at(self, step: int) -> float:
        """The share of zeros that is due."""
        if self.curve == "constant" or step >= self.end:
            return float(np.float32(self.sparsity))
        done = np.float32(max(0, step - self.begin)) / np.float32(self.end - self.begin)
        rest = np.float32(self.initial - self.sparsity) * np.power(np.float32(1) - done, np.float32(self.power))
        return float(rest + np.float32(self.sparsity))

    @property
    def last(self) -> int:
        """The last step that is due: from then on masks stay."""
        return self.begin + (self.end - self.begin) // self.frequency * self.frequency


def over(
    steps: int,
    sparsity: float,
    *,
    curve: Curve = "polynomial",
    initial: float = 0.0,
    begin: float = 0.0,
    end: float = 0.5,
    frequency: int | None = None,
    power: float = 3.0,
) -> Schedule:
    """The schedule of a training of so many steps; begin, end: shares of it.

    It ends on a step that is due, so that what was asked for is reached. frequency: 100 steps where left out, or a
    tenth of what lies between begin and end.
    """
    first = 1 + int(begin * (steps - 1))
    span = max(0, round(end * steps) - first)
    every = min(frequency or min(USUAL, span // LEAST_UPDATES), span)
    every = max(1, every)
    return Schedule(sparsity, initial, first, first + span // every * every, every, power, curve)


ONCE = Schedule(0.0, curve="constant", frequency=1)  # N:M: the pattern fixes the share


@dataclass(frozen=True)
class Sparsity:
    """The zeros of a training. layers: by name; their zeros are chosen by the schedule, or, without one, those that
    the weights come with stay zero. held: layers of which that holds whatever is chosen in the others."""

    layers: tuple[str, ...]
    pattern: Pattern = Pattern()
    schedule: Schedule | None = None
    scope: Scope = "layer"
    held: tuple[str, ...] = ()


# ---------------------------------------------------------------- masks


def kept(size: int, sparsity: float) -> int:
    """How many of so many weights (or blocks) stay; at least one."""
    kind = np.float32 if size < EXACT else np.float64
    return max(1, int(np.round(kind(size) * kind(np.float32(1) - np.float32(sparsity)))))


def masks_for(
    weights: Mapping[str, Array], sparsity: float, pattern: Pattern = Pattern(), scope: Scope = "layer"
) -> dict[str, Mask]:
    """Which weights stay, by name; weights: of shape (..., inputs, outputs).

    sparsity: share of the weights that go, of the blocks with a block pattern; of no account for N:M. scope: "layer"
    takes it of each weight, "global" of all together, by one threshold, and leaves each weight its largest.
    """
    if pattern.kind == "n:m":
        return {name: _n_of_m(weight, pattern.n, pattern.m) for name, weight in weights.items()}
    sizes = {name: _pooled(np.abs(weight), pattern.n, pattern.m) for name, weight in weights.items()}
    if scope == "layer":
        chosen = {name: _largest(size, kept(size.size, sparsity)) for name, size in sizes.items()}
    else:
        chosen = _largest_of_all(sizes, sparsity)
    return {name: _expanded(mask, weights[name].shape, pattern) for name, mask in chosen.items()}


def _largest(values: Array, count: int) -> Mask:
    """The `count` largest, of equal ones the first."""
    flat = values.ravel()
    threshold = np.partition(flat, flat.size - count)[flat.size - count]
    mask: Mask = flat > threshold
    mask[np.flatnonzero(flat == threshold)[: count - int(mask.sum())]] = True
    return mask.reshape(values.shape)


def _largest_of_all(sizes: Mapping[str, Array], sparsity: float) -> dict[str, Mask]:
    """By one threshold; the largest of each stays, so that no layer is cut off."""
    flat = [size.ravel().astype(np.float64) for size in sizes.values()]
    for values in flat:
        values[values.argmax()] = np.inf
    total = sum(values.size for values in flat)
    mask = _largest(np.concatenate(flat), max(len(flat), kept(total, sparsity)))
    parts = np.split(mask, np.cumsum([values.size for values in flat])[:-1])
    return {name: part.reshape(size.shape) for (name, size), part in zip(sizes.items(), parts, strict=True)}


def _in_groups(weight: Array, m: int, filler: Any) -> Array:
    """(..., outputs, groups, m): input channels in groups of m, the last one filled up."""
    turned = np.moveaxis(weight, -2, -1)
    widths = [(0, 0)] * (turned.ndim - 1) + [(0, -turned.shape[-1] % m)]
    return np.pad(turned, widths, constant_values=filler).reshape(*turned.shape[:-1], -1, m)


def _n_of_m(weight: Array, n: int, m: int) -> Mask:
    """The n largest of each group; in a group that is not full, as many."""
    groups = _in_groups(np.abs(weight), m, -1.0)
    order = np.argsort(-groups, axis=-1, kind="stable")[..., :n]
    mask = np.zeros(groups.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    inputs = weight.shape[-2]
    return np.moveaxis(mask.reshape(*mask.shape[:-2], -1)[..., :inputs], -1, -2)


def _pooled(magnitudes: Array, rows: int, columns: int) -> Array:
    """Mean of each block of rows x columns; blocks at the end may be smaller."""
    if rows * columns == 1:
        return magnitudes
    return _summed(magnitudes, rows, columns) / _summed(np.ones_like(magnitudes), rows, columns)


def _summed(values: Array, rows: int, columns: int) -> Array:
    *_, inputs, outputs = values.shape
    by_row = np.add.reduceat(values, np.arange(0, inputs, rows), axis=-2)
    total: Array = np.add.reduceat(by_row, np.arange(0, outputs, columns), axis=-1)
    return total


def _expanded(mask: Mask, shape: tuple[int, ...], pattern: Pattern) -> Mask:
    """A mask of blocks as one of weights."""
    if pattern.kind != "block":
        return mask
    inputs, outputs = shape[-2:]
    return mask.repeat(pattern.n, axis=-2)[..., :inputs, :].repeat(pattern.m, axis=-1)[..., :outputs]


# ---------------------------------------------------------------- layers


@dataclass(frozen=True)
class Zeros:
    """Zeros of one layer's weight, of so many values."""

    layer: str
    zeros: int
    size: int


def sparsified(graph: Any, how: Sparsity, sparsity: float) -> Any:
    """A copy of a flat model with these zeros, nothing trained."""
    weights = {name: np.asarray(kernel_of(graph.get_layer(name))) for name in how.layers}
    masks = masks_for(weights, sparsity, how.pattern, how.scope)
    return with_kernels(graph, {name: np.where(mask, weights[name], 0) for name, mask in masks.items()})


def zeros(graph: Any, layers: Sequence[str]) -> list[Zeros]:
    """What these layers' weights hold by now."""
    found = ((name, np.asarray(kernel_of(graph.get_layer(name)))) for name in layers)
    return [Zeros(name, weight.size - int(np.count_nonzero(weight)), weight.size) for name, weight in found]


def eligible(graph: Any, pattern: Pattern, protect: Sequence[str] = ()) -> tuple[tuple[str, ...], dict[str, str]]:
    """(layers that get zeros, the others that have weights to multiply with -> why they stay whole).

    InputError for a pattern of `protect` (`*` and `?`) that no layer's name matches.
    """

    def reason(layer: Any, kernel: Any) -> str:
        if pattern.kind != "unstructured" and "Transpose" in type(layer).__name__:
            return f"pattern {pattern} is not defined for a transposed convolution"
        inputs, outputs = kernel.shape[-2:]
        if pattern.kind == "n:m" and inputs < pattern.m:
            return f"{inputs} input channels, fewer than the {pattern.m} of {pattern}"
        if pattern.kind == "block" and (inputs < pattern.n or outputs < pattern.m):
            return f"{inputs} x {outputs} channels, smaller than a block of {pattern}"
        return "" if prod(kernel.shape) > 1 else "one weight"

    return sorted_out(graph, protect, reason, idle="no zeros are put into a")


def still(graph: Any, sparse: Mapping[str, str]) -> dict[str, str]:
    """What holds of the patterns a model's layers had, now that their weights may be others."""
    found: dict[str, str] = {}
    layers = {str(layer.name): layer for layer in graph.layers}
    for name, text in sparse.items():
        kernel = kernel_of(layers[name]) if name in layers else None
        if kernel is None or not (weight := np.asarray(kernel)).size > np.count_nonzero(weight):
            continue
        found[name] = text if Pattern.parse(text).holds(weight) else str(Pattern())
    return found
