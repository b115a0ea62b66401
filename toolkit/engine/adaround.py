"""Weights rounded up or down so that each layer's output comes nearest to the float one's (Nagel et al. 2020).

AdaRound, arXiv:2004.10568. Layer by layer in the order they run: of the layer's inputs in the quantized network so far
and its outputs in the float network, places are sampled; a rectified sigmoid h in [0, 1] for each weight, added to the
floor of w / step, is trained with Adam to bring the first to the second behind the layer's ReLU, while an annealed
regularizer drives h to 0 or 1. A layer keeps plain rounding where that was better on places held back. The largest
weight of each channel stays the grid's largest integer, so that any exporter finds the same grid again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.bias_correction import called_once
from toolkit.engine.graph import walk
from toolkit.engine.prepare import split_weights
from toolkit.engine.simulate import on_grid, weight_scales

Array = NDArray[Any]
Batches = Callable[[], Iterable[Mapping[str, Array]]]  # the calibration images, again at each call
STRETCH = (-0.1, 1.1)  # of the rectified sigmoid: gamma and zeta of the paper, section 3.2
BETA = (20.0, 2.0)  # exponent of the regularizer, annealed from the first to the second
WARM_UP = 0.2  # share of the iterations without the regularizer, as the authors' experiments have it
RATE = 1e-2  # of Adam: with 1,000 iterations, h can cross its whole range several times
PULL = 0.1  # weight of the regularizer beside the error, which is 1 for plain rounding
SAMPLE_BYTES = 128 * 2**20  # of one layer's sampled inputs, whatever the number of images
HELD_BACK = 0.25  # share of the places that choose between plain and adaptive rounding


@dataclass(frozen=True)
class Settings:
    """bits: of the weights. places: sampled output places a layer. batch: of them in one iteration."""

    bits: int = 8
    iterations: int = 1000
    places: int = 4096
    batch: int = 256
    seed: int = 0


@dataclass(frozen=True)
class Rounding:
    """One layer: mean squared error of its output on the places held back, rounded plainly and as it now is.

    turned: share of the weights that go the other way than plain rounding. reason: why it kept plain rounding, or "".
    """

    layer: str
    nearest: float
    adaptive: float
    turned: float
    reason: str = ""


def adaround(
    model: Any, simulated: Any, batches: Batches, settings: Settings = Settings()
) -> tuple[dict[str, Array], tuple[Rounding, ...]]:
    """New kernels on their grid by layer, and a row for each layer; `simulated` is given them too.

    simulated: the model of engine.simulate for the same graph, per-channel weights of the same bits.
    """
    names = [name for name in called_once(model) if not isinstance(model.get_layer(name), layers.Conv2DTranspose)]
    sampler = _Sampler(model, simulated, tuple(names), settings)
    kernels: dict[str, Array] = {}
    rows = []
    for place, name in enumerate(names):
        taken, wanted = sampler.sample(name, batches, seed=settings.seed + place)
        problem = _Problem.of(model.get_layer(name), simulated.get_layer(name), settings.bits)
        kernel, row = _solve(name, problem, taken, wanted, _activation(model, name), settings)
        kernels[name] = kernel
        _, bias = split_weights(simulated.get_layer(name))
        simulated.get_layer(name).set_weights([kernel] if bias is None else [kernel, bias])
        rows.append(row)
    rows += [
        Rounding(name, 0.0, 0.0, 0.0, "transposed convolutions keep plain rounding")
        for name in called_once(model)
        if name not in names
    ]
    return kernels, tuple(rows)
