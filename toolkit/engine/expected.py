"""What the inputs of layers with weights are on average, told by BatchNormalization before it was folded, and no image.

A BatchNormalization gives a normal distribution with its beta and |gamma|; a ReLU behind it clips that (Nagel et al.
2019, arXiv:1906.04721, appendix C). Sums of means are means of sums; average pooling keeps them. Zeros of a padding are
left out of account.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.chains import clip
from toolkit.engine.graph import Call, Edge, walk
from toolkit.engine.prepare import WEIGHTED

Array = NDArray[Any]
KEEPING = (layers.AveragePooling2D, layers.GlobalAveragePooling2D, layers.ZeroPadding2D, layers.Dropout)


@dataclass(frozen=True)
class Normal:
    """Mean and standard deviation of each channel."""

    mean: Array
    deviation: Array


def norm_statistics(model: Any) -> dict[str, Normal]:
    """Layer with weights -> what the BatchNormalization right behind it gives, for a flat graph that is not folded."""
    graph, found = walk(model), {}
    for call in graph.calls:
        if not isinstance(call.layer, layers.BatchNormalization):
            continue
        before = graph.calls[call.inputs[0].call]
        if isinstance(before.layer, (*WEIGHTED, layers.SeparableConv2D)) and len(before.consumers) == 1:
            size = call.layer.moving_mean.shape
            beta = np.zeros(size) if call.layer.beta is None else np.asarray(call.layer.beta, np.float64)
            gamma = np.ones(size) if call.layer.gamma is None else np.asarray(call.layer.gamma, np.float64)
            found[before.name] = Normal(beta, np.abs(gamma))
    return found


def expected_inputs(prepared_graph: Any, norms: Mapping[str, Normal]) -> dict[str, Array]:
    """Layer with weights -> mean of each channel of its input, where it is known."""
    graph = walk(prepared_graph)
    known: dict[Edge, Normal | Array] = {}
    found: dict[str, Array] = {}
    for call in graph.calls:
        given = [known.get(edge) for edge in call.inputs]
        if isinstance(call.layer, WEIGHTED):
            if given and given[0] is not None:
                found[call.name] = _mean(given[0])
            result: Normal | Array | None = norms.get(call.name)
        else:
            result = _passed(call, given)
        if result is not None:
            known[Edge(call.index)] = result
    return found


def clipped_mean(normal: Normal, high: float = math.inf) -> Array:
    """E[min(max(x, 0), high)] of a normal x, by channel."""
    mean, deviation = normal.mean, np.maximum(normal.deviation, 1e-12)
    low, top = -mean / deviation, (high - mean) / deviation
    inside = _cumulative(top) - _cumulative(low)
    above = 0.0 if math.isinf(high) else high * (1 - _cumulative(top))
    return np.asarray(mean * inside + deviation * (_density(low) - _density(top)) + above)


def _passed(call: Call, given: list[Normal | Array | None]) -> Normal | Array | None:
    """What a layer without weights gives, of what it is given; None where that is not known."""
    if not given or any(value is None for value in given):
        return None
    values = [value for value in given if value is not None]
    layer = call.layer
    plain_relu = isinstance(layer, layers.ReLU) and not layer.threshold and not layer.negative_slope
    if plain_relu or getattr(getattr(layer, "activation", None), "__name__", "") in ("relu", "relu6"):
        bound = clip(layer)
        return clipped_mean(values[0], bound or math.inf) if isinstance(values[0], Normal) else None
    if isinstance(layer, layers.Add):
        return np.asarray(sum(_mean(value) for value in values))
    if isinstance(layer, KEEPING):
        return _mean(values[0])
    if isinstance(layer, layers.Flatten):
        mean = _mean(values[0])
        return np.tile(mean, int(call.output_shapes[0][-1] or 0) // len(mean))
    return None


def _mean(value: Normal | Array) -> Array:
    return value.mean if isinstance(value, Normal) else value


def _density(x: Array) -> Array:
    return np.asarray(np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))


def _cumulative(x: Array) -> Array:
    return np.asarray([(1 + math.erf(value / math.sqrt(2))) / 2 for value in x])
