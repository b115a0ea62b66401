"""Biases that take back the mean shift of quantized layers (Nagel et al. 2019, arXiv:1906.04721, section 4.2).

Measured: the mean over images and places of what a quantized layer gives minus what the float layer gives, layer by
layer in the order they run, so that each is measured behind corrected ones. Analytic, without images: the weights'
rounding error times the mean of the layer's input (engine.expected).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.channel_values import Batches, channel_means
from toolkit.engine.frontier import Frontier
from toolkit.engine.graph import walk
from toolkit.engine.prepare import WEIGHTED, split_weights
from toolkit.engine.surgery import rebuild

Array = NDArray[Any]


@dataclass(frozen=True)
class Shift:
    """Mean of |output shift| over a layer's channels, in its output's unit, before and after; or why it stayed."""

    layer: str
    before: float
    after: float
    reason: str = ""


def with_biases(model: Any) -> Any:
    """The graph with a bias, 0 where there was none, in every layer of prepare.WEIGHTED."""
    bare = [layer for layer in model.layers if isinstance(layer, WEIGHTED) and not layer.use_bias]
    if not bare:
        return model
    weights = {}
    for layer in bare:
        (kernel,) = layer.get_weights()
        weights[layer.name] = [kernel, np.zeros(int(layer.output.shape[-1]), np.float32)]
    return rebuild(model, weights, lambda layer: {"use_bias": True} if layer.name in weights else {})


def called_once(model: Any) -> tuple[str, ...]:
    """Names of the layers with weights, in the order they run, without those called more than once."""
    names = [call.name for call in walk(model).calls if isinstance(call.layer, WEIGHTED)]
    return tuple(name for name in names if names.count(name) == 1)


def correct_measured(
    model: Any, simulated: Any, batches: Batches, *, names: Sequence[str] | None = None
) -> tuple[dict[str, Array], tuple[Shift, ...]]:
    """New biases by layer, and a row for each; `simulated` (of the same layers, all with biases) is given them too.

    names: layers to correct; all with weights, without. Runs over the images once for the float graph, and about
    twice for the simulated one.
    """
    names = called_once(model) if names is None else names
    expected = channel_means(model, names)(batches)
    frontier = Frontier(simulated, names, batches)
    biases, rows = {}, []
    for name in names:
        layer = simulated.get_layer(name)
        shift = _mean(layer, frontier.inputs(name)) - expected[name]
        kernel, bias = split_weights(layer)
        if bias is None:
            rows.append(Shift(name, float(np.abs(shift).mean()), float(np.abs(shift).mean()), "it has no bias"))
            continue
        biases[name] = (bias - shift).astype(np.float32)
        layer.set_weights([kernel, biases[name]])
        rows.append(Shift(name, float(np.abs(shift).mean()), 0.0))
    return biases, tuple(rows)


def _mean(layer: Any, inputs: Iterable[Any]) -> Array:
    """Of each channel of what a layer gives for these batches."""
    images, total = 0, np.zeros(())
    for batch in inputs:
        values = layer(batch)
        found = tf.reduce_mean(tf.cast(values, tf.float64), list(range(len(values.shape) - 1)))
        images, total = images + int(batch.shape[0]), total + int(batch.shape[0]) * found.numpy()
    return np.asarray(total / images)


def correct_analytic(
    model: Any, rounded: Mapping[str, Array], inputs: Mapping[str, Array]
) -> tuple[dict[str, Array], tuple[Shift, ...]]:
    """New biases by layer, and a row for each layer of `rounded`.

    rounded: layer -> its kernel as quantized. inputs: layer -> mean of each input channel (engine.expected). Padding
    counts as if it held the mean too.
    """
    biases, rows = {}, []
    for name in rounded:
        layer = model.get_layer(name)
        kernel, bias = split_weights(layer)
        reason = "it has no bias" if bias is None else _unknown(layer, name, inputs)
        if reason:
            rows.append(Shift(name, 0.0, 0.0, reason))
            continue
        shift = _response(layer, rounded[name] - kernel, inputs[name])
        biases[name] = (bias - shift).astype(np.float32)
        rows.append(Shift(name, float(np.abs(shift).mean()), 0.0))
    return biases, tuple(rows)


def _unknown(layer: Any, name: str, inputs: Mapping[str, Array]) -> str:
    if name not in inputs:
        return "no BatchNormalization tells the mean of its input"
    return "it has groups" if getattr(layer, "groups", 1) != 1 else ""


def _response(layer: Any, kernel: Array, inputs: Array) -> Array:
    """What a kernel gives for an input that is constant in each channel, away from the edges."""
    if isinstance(layer, layers.Dense):
        return np.asarray(inputs @ kernel)
    taps = kernel.sum(axis=(0, 1))
    if isinstance(layer, layers.DepthwiseConv2D):
        return np.asarray((taps * inputs[:, None]).reshape(-1))
    if isinstance(layer, layers.Conv2DTranspose):  # each place gets one in strides of the taps, on average
        return np.asarray(taps @ inputs) / float(np.prod(layer.strides))
    return np.asarray(inputs @ taps)
