"""Weights rounded up or down so that each layer's output comes nearest to the float one's (Nagel et al. 2020).

AdaRound, arXiv:2004.10568. Layer by layer in the order they run: of the layer's inputs in the quantized network so far
and its outputs in the float network, places are sampled; a rectified sigmoid h in [0, 1] for each weight, added to the
floor of w / step, is trained with Adam to bring the first to the second behind the layer's ReLU, while an annealed
regularizer drives h to 0 or 1. A layer keeps plain rounding where that was better on places held back. The largest
weight of each channel stays the grid's largest integer, so that any exporter finds the same grid again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.bias_correction import called_once
from toolkit.engine.channel_values import Batches
from toolkit.engine.frontier import Frontier
from toolkit.engine.graph import walk
from toolkit.engine.places import from_grouped, grouped, sample
from toolkit.engine.prepare import split_weights
from toolkit.engine.simulate import Granularity, weight_scales

Array = NDArray[Any]
ON_GRID = 1e-3  # steps from an integer: what float32 leaves of an exact multiple at 127 steps, and room
STRETCH = (-0.1, 1.1)  # of the rectified sigmoid: gamma and zeta of the paper, section 3.2
BETA = (20.0, 2.0)  # exponent of the regularizer, annealed from the first to the second
WARM_UP = 0.2  # share of the iterations without the regularizer, as the authors' experiments have it
RATE = 1e-2  # of Adam: with 1,000 iterations, h can cross its whole range several times
PULL = 1.0  # of the regularizer beside the error over that of plain rounding; 0.01 and 0.1 left 10 to 25% more error
SAMPLE_BYTES = 128 * 2**20  # of one layer's sampled inputs, whatever the number of images
HELD_BACK = 0.25  # share of the places that choose between plain and adaptive rounding


@dataclass(frozen=True)
class Settings:
    """bits, granularity: of the weights. places: sampled output places a layer. batch: of them in one iteration."""

    bits: int = 8
    granularity: Granularity = "per_channel"
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
    model: Any,
    simulated: Any,
    batches: Batches,
    settings: Settings = Settings(),
    *,
    names: Sequence[str] | None = None,
    reference: Any = None,
    watch: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Array], tuple[Rounding, ...]]:
    """New kernels on their grid by layer, and a row for each layer; `simulated` is given them too.

    simulated: the model of engine.simulate for the same graph, with weights of the same bits and granularity.
    names: layers to round; all with weights, without. reference: the graph whose outputs are aimed at, where its
    weights are not those that are rounded. watch: told which one is being rounded.
    """
    images = sum(len(next(iter(batch.values()))) for batch in batches())
    kernels: dict[str, Array] = {}
    rows = []
    names = called_once(model) if names is None else names
    aimed = reference or model
    floats, quantized = (Frontier(graph, names, batches) for graph in (aimed, simulated))
    for number, name in enumerate(names):
        watch(f"adaptive rounding of {name} ({number + 1} of {len(names)})")
        layer, twin = model.get_layer(name), simulated.get_layer(name)
        if isinstance(layer, layers.Conv2DTranspose):
            rows.append(Rounding(name, 0.0, 0.0, 0.0, "transposed convolutions keep plain rounding"))
            continue
        _, bias = split_weights(twin)
        offset = np.zeros(1, np.float32) if bias is None else bias
        problem = _Problem(layer, offset, relu_behind(model, name), settings)
        count = max(1, min(settings.places, SAMPLE_BYTES // problem.row_bytes) // images)
        wanted = map(aimed.get_layer(name), floats.inputs(name))
        pairs = zip(quantized.inputs(name), wanted, strict=True)
        places = _Places(*sample(layer, pairs, places=count, seed=settings.seed + number))
        kernels[name], row = problem.solve(places, settings)
        twin.set_weights([kernels[name]] if bias is None else [kernels[name], bias])
        rows.append(row)
    return kernels, tuple(rows)


def relu_behind(model: Any, name: str) -> Any:
    """The ReLU that alone reads a layer's output, else the identity."""
    graph = walk(model)
    call = next(call for call in graph.calls if call.name == name)
    behind = [graph.calls[index].layer for index in call.consumers]
    is_output = call.index in {edge.call for edge in graph.outputs}
    if len(behind) == 1 and not is_output and isinstance(behind[0], layers.ReLU | layers.Activation):
        function = getattr(behind[0], "activation", None)
        if function is None or getattr(function, "__name__", "") in ("relu", "relu6"):
            return behind[0]
    return tf.identity


@dataclass(frozen=True)
class _Places:
    """Sampled rows of a layer's inputs and what the float layer gives there."""

    taken: Array
    wanted: Array

    def part(self, rows: Array) -> _Places:
        return _Places(self.taken[rows], self.wanted[rows])


class _Problem:
    """One layer's weights as floor + h steps, h in [0, 1], and how far the layer's output is from the float one's."""

    def __init__(self, layer: Any, bias: Array, activation: Callable[[Any], Any], settings: Settings) -> None:
        self._layer, self._bias, self._activation = layer, bias, activation
        kernel, _ = split_weights(layer)
        self._shape = kernel.shape
        scales = weight_scales(layer, kernel, bits=settings.bits, granularity=settings.granularity)
        self.steps = grouped(layer, np.ascontiguousarray(np.broadcast_to(scales, kernel.shape)))
        scaled = grouped(layer, kernel) / self.steps
        self.nearest = np.rint(scaled).astype(np.float32)
        self.floor = np.floor(scaled).astype(np.float32)
        self.part = (scaled - self.floor).astype(np.float32)
        # what lies on the grid already stays, and so the largest of each channel, which keep the grid what it is
        self.held = np.abs(scaled - self.nearest) < ON_GRID
        self.row_bytes = 4 * int(np.prod(scaled.shape[:-1]))

    def kernel(self, integers: Array) -> Array:
        """The layer's kernel of these integers."""
        return from_grouped(self._layer, (integers * self.steps).astype(np.float32), self._shape)

    def error(self, integers: Any, places: _Places) -> Any:
        """Mean over places of the squared error, summed over channels."""
        product = tf.einsum("nkgi,kgio->ngo", places.taken, integers * self.steps)
        given = tf.reshape(product, tf.shape(places.wanted)) + self._bias
        difference = self._activation(given) - self._activation(places.wanted)
        return tf.reduce_mean(tf.reduce_sum(difference**2, axis=1))

    def solve(self, places: _Places, settings: Settings) -> tuple[Array, Rounding]:
        """The kernel, adaptively rounded where that is better on the places held back."""
        order = np.random.default_rng(settings.seed).permutation(len(places.taken))
        split = max(1, int(len(order) * HELD_BACK))
        check, fit = places.part(order[:split]), places.part(order[split:] if len(order) > 1 else order)
        name, plain, base = self._layer.name, float(self.error(self.nearest, check)), self.error(self.nearest, fit)
        if self.held.all() or base == 0:
            return self.kernel(self.nearest), Rounding(name, plain, plain, 0.0, "plain rounding is exact")
        up = np.asarray(_descend(self, fit, base, settings)) >= 0.5
        integers = np.where(self.held, self.nearest, self.floor + up)
        adaptive = float(self.error(integers, check))
        if adaptive >= plain:
            row = Rounding(name, plain, plain, 0.0, "plain rounding was better on places held back")
            return self.kernel(self.nearest), row
        return self.kernel(integers), Rounding(name, plain, adaptive, float((integers != self.nearest).mean()))


def _descend(problem: _Problem, places: _Places, base: Any, settings: Settings) -> Any:
    """h of each weight after all iterations."""
    low, high = STRETCH
    total, size = settings.iterations, min(settings.batch, len(places.taken))
    taken, wanted = tf.constant(places.taken), tf.constant(places.wanted)

    def rectified(v: Any) -> Any:
        h = tf.clip_by_value(tf.sigmoid(v) * (high - low) + low, 0.0, 1.0)
        return tf.where(problem.held, problem.nearest - problem.floor, h)

    def step(i: Any, v: Any, first: Any, second: Any) -> tuple[Any, ...]:
        done = tf.cast(i, tf.float32) / total
        rows = tf.random.stateless_uniform([size], [settings.seed, i], maxval=len(places.taken), dtype=tf.int32)
        batch = _Places(tf.gather(taken, rows), tf.gather(wanted, rows))
        with tf.GradientTape() as tape:
            tape.watch(v)
            h = rectified(v)
            share = tf.maximum(0.0, (done - WARM_UP) / (1 - WARM_UP))
            beta = BETA[1] + (BETA[0] - BETA[1]) * 0.5 * (1 + tf.cos(np.pi * share))
            pull = tf.reduce_mean(1 - tf.abs(2 * h - 1) ** beta) * tf.where(done < WARM_UP, 0.0, PULL)
            loss = problem.error(problem.floor + h, batch) / base + pull
        gradient = tape.gradient(loss, v)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2  # Adam's own decays
        count = tf.cast(i + 1, tf.float32)
        change = first / (1 - 0.9**count) / (tf.sqrt(second / (1 - 0.999**count)) + 1e-12)
        return i + 1, v - RATE * change, first, second

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def run() -> Any:
        ratio = (problem.part - low) / (high - low)
        start = tf.constant(np.log(ratio / (1 - ratio)), tf.float32)  # h is what plain floor leaves over
        still = tf.zeros_like(start)
        _, v, _, _ = tf.while_loop(lambda i, *_: i < total, step, (tf.constant(0), start, still, still))
        return rectified(v)

    return run()
