"""Weights that share values: which values, and which weight has which of them. Deep Compression's clustering.

Han, Mao, Dally 2016, arXiv:1510.00149, section 3. k-means is started by k-means++ (Arthur and Vassilvitskii 2007) and
goes on to where no weight changes its cluster (Lloyd 1982), which tensorflow-model-optimization 0.8.1 leaves to
training. Linear centroids, the place of zero among them and how many lie on each side of it are that package's
(clustering_centroids.py); so are the kinds of layers (clustering_registry.py): kernels of convolutions and dense
layers, of separable ones the pointwise kernel, and no depthwise kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.codebook import Codebook, Per
from toolkit.engine.eligible import kernel_of, sorted_out, with_kernels

Array = NDArray[Any]
Start = Literal["kmeans", "linear", "density"]
MOST_ROUNDS = 300  # of Lloyd's algorithm: scikit-learn's `max_iter` of KMeans


@dataclass(frozen=True)
class Sharing:
    """Which weights share values in a training.

    made: layers that get a codebook, started by `start`. held: layers that have one, and keep who shares with whom.
    renewed: a weight goes to whichever centroid is nearest after each step, as in tensorflow-model-optimization; else
    each stays with its first. zeros: layers whose zeros stay zero. like: layer -> kernel that shows who shares, where
    the graph's own is that with another factor for each output channel.
    """

    made: Mapping[str, Codebook] = field(default_factory=dict)
    held: Mapping[str, Codebook] = field(default_factory=dict)
    start: Start = "kmeans"
    renewed: bool = True
    zeros: tuple[str, ...] = ()
    like: Mapping[str, Array] = field(default_factory=dict)
    seed: int = 0


# ---------------------------------------------------------------- centroids


def codebooks(rows: Array, count: int, start: Start, *, zero: bool = False, seed: int = 0) -> Array:
    """(rows, count) centroids for each row of values, ascending but for what fills up where a row has fewer values.

    zero: one of them is 0, and each side of it has its share of the others, rounded half to even.
    """
    rng = np.random.default_rng(seed)
    found = [_with_zero(row, count, start, rng) if zero else _STARTS[start](row, count, rng) for row in rows]
    return np.stack([np.pad(each, (0, count - len(each)), mode="edge") for each in found]).astype(np.float32)


def nearest(rows: Array, centroids: Array) -> Array:
    """(rows, n) place of the centroid next to each value, of each row's own; halfway it is the lower one."""
    found = np.empty(rows.shape, np.int32)
    for index, (row, own) in enumerate(zip(rows, centroids, strict=True)):
        order = np.argsort(own, kind="stable").astype(np.int32)
        ascending = own[order]
        found[index] = order[np.searchsorted((ascending[1:] + ascending[:-1]) / np.float32(2), row)]
    return found


def _with_zero(values: Array, count: int, start: Start, rng: np.random.Generator) -> Array:
    negative, positive = values[values < 0], values[values > 0]
    if not len(negative) + len(positive):
        return np.zeros(1)
    below = round((count - 1) * len(negative) / (len(negative) + len(positive)))
    sides = ((negative, below), (positive, count - 1 - below))
    ends = [_STARTS[start](side, own, rng) if own and len(side) else np.zeros(0) for side, own in sides]
    return np.concatenate([ends[0], [0.0], ends[1]])


def _linear(values: Array, count: int, _: np.random.Generator) -> Array:
    return np.linspace(values.min(), values.max(), count)


def _density(values: Array, count: int, _: np.random.Generator) -> Array:
    """The middle of each of so many parts that hold as many weights each."""
    return np.unique(np.quantile(values, (np.arange(count) + 0.5) / count))


def _kmeans(values: Array, count: int, rng: np.random.Generator) -> Array:
    points, often = np.unique(np.asarray(values, np.float64), return_counts=True)
    if len(points) <= count:
        return points
    centroids = _spread(points, often, count, rng)
    sizes, sums = (np.concatenate([[0.0], np.cumsum(each)]) for each in (often, often * points))
    for _ in range(MOST_ROUNDS):
        inner = np.searchsorted(points, (centroids[1:] + centroids[:-1]) / 2, side="right")
        edges = np.concatenate([[0], inner, [len(points)]])
        own = np.diff(sizes[edges])
        means = np.where(own > 0, np.diff(sums[edges]) / np.maximum(own, 1), centroids)
        if np.array_equal(means, centroids):
            break
        centroids = means
    return centroids


def _spread(points: Array, often: Array, count: int, rng: np.random.Generator) -> Array:
    """k-means++: each further one by chance, in proportion to the squared distance from those there are."""
    chosen = [rng.choice(points, p=often / often.sum())]
    square = np.square(points - chosen[0])
    for _ in range(count - 1):
        chance = np.cumsum(often * square)
        chosen.append(points[min(np.searchsorted(chance, rng.random() * chance[-1], side="right"), len(points) - 1)])
        square = np.minimum(square, np.square(points - chosen[-1]))
    return np.sort(chosen)


_STARTS: Mapping[Start, Callable[[Array, int, np.random.Generator], Array]] = {
    "kmeans": _kmeans,
    "linear": _linear,
    "density": _density,
}


# ---------------------------------------------------------------- kernels


def channel_axis(layer: Any) -> int:
    """Axis of the output channels in the weight that is clustered."""
    return -2 if any("Transpose" in kind.__name__ for kind in type(layer).__mro__) else -1


def as_rows(kernel: Array, per: Per, axis: int) -> Array:
    """Values that have one codebook, a row for each: all, or those of each output channel."""
    if per == "layer":
        return kernel.reshape(1, -1)
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def as_kernel(rows: Array, shape: Sequence[int], per: Per, axis: int) -> Array:
    """`as_rows` undone."""
    if per == "layer":
        return rows.reshape(shape)
    rest = [size for place, size in enumerate(shape) if place != axis % len(shape)]
    return np.moveaxis(rows.reshape(shape[axis], *rest), 0, axis)


def most_values(kernel: Array, per: Per, axis: int = -1) -> int:
    """The largest number of different values that have one codebook."""
    return max(len(np.unique(row)) for row in as_rows(kernel, per, axis))


def kernels(graph: Any, names: Collection[str]) -> dict[str, Array]:
    """The weights of these layers that can be clustered."""
    return {name: np.array(kernel_of(graph.get_layer(name))) for name in names}


def clustered(graph: Any, how: Sharing) -> Any:
    """A copy of a flat model whose weights share values from the start, nothing trained."""
    kernels = {}
    for name, codebook in how.made.items():
        layer = graph.get_layer(name)
        kernels[name] = shared(np.asarray(kernel_of(layer)), codebook, channel_axis(layer), how, name)
    return with_kernels(graph, kernels)


def shared(kernel: Array, codebook: Codebook, axis: int, how: Sharing, name: str) -> Array:
    """A kernel with each weight at the centroid next to it."""
    rows = as_rows(kernel, codebook.per, axis)
    centroids = codebooks(rows, codebook.values, how.start, zero=name in how.zeros, seed=how.seed)
    return as_kernel(np.take_along_axis(centroids, nearest(rows, centroids), 1), kernel.shape, codebook.per, axis)


def eligible(graph: Any, codebook: Codebook, protect: Sequence[str] = ()) -> tuple[tuple[str, ...], dict[str, str]]:
    """(layers that get a codebook, the others that have weights to multiply with -> why they stay as they are).

    InputError for a pattern of `protect` (`*` and `?`) that no layer's name matches.
    """

    def reason(layer: Any, kernel: Any) -> str:
        size = prod(kernel.shape)
        size //= kernel.shape[channel_axis(layer)] if codebook.per == "channel" else 1
        where = "each output channel" if codebook.per == "channel" else "it"
        return "" if size > codebook.values else f"{where} has {size} weights, no more than a codebook's values"

    return sorted_out(graph, protect, reason, idle="no weights are shared in a")


def still(graph: Any, found: Mapping[str, Codebook]) -> dict[str, Codebook]:
    """What holds of the codebooks a model's layers had, now that their weights may be others.

    One of a layer may have become one of each output channel, where these were scaled apart.
    """
    layers = {str(layer.name): layer for layer in graph.layers}
    left: dict[str, Codebook] = {}
    for name, codebook in found.items():
        kernel = kernel_of(layers[name]) if name in layers else None
        if kernel is None:
            continue
        weight, axis = np.asarray(kernel), channel_axis(layers[name])
        for claim in (codebook, Codebook(codebook.values, "channel")):
            if most_values(weight, claim.per, axis) <= claim.values:
                left[name] = claim
                break
    return left
