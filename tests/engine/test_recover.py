"""Corrections go in one order, each with its rows, and bring a quantized network nearer to the float one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.adaround import Settings
from toolkit.engine.expected import norm_statistics
from toolkit.engine.prepare import prepare
from toolkit.engine.recover import ORDER, Data, Target, recover
from toolkit.engine.simulate import on_grid, simulate, weight_scales
from toolkit.errors import InputError
from toolkit.quantization import Statistics, TensorRange

IMAGES = np.random.default_rng(0).normal(0.3, 1, (96, 8, 8, 3)).astype(np.float32)
QUICK = Settings(iterations=150, places=512, batch=64)


def batches() -> Any:
    return iter([{"image": IMAGES[:40]}, {"image": IMAGES[40:64]}])


def calibrate(graph: Any) -> Statistics:
    """The least and greatest value of every layer."""
    names = [layer.name for layer in graph.layers]
    found = keras.Model(graph.input, [layer.output for layer in graph.layers])(IMAGES[:64])
    ends = {n: TensorRange(float(np.min(v)), float(np.max(v)), "minmax") for n, v in zip(names, found, strict=True)}
    return Statistics(ends, images=64)


DATA = Data(batches, calibrate)


@pytest.fixture(scope="module")
def flat() -> Any:
    """A depthwise network with BatchNormalization of very uneven scales, as MobileNets have."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization(name="n1")(layers.Conv2D(8, 3, use_bias=False, name="conv")(x))
    x = layers.DepthwiseConv2D(3, use_bias=False, name="deep")(layers.ReLU(6.0, name="r1")(x))
    x = layers.ReLU(name="r2")(layers.BatchNormalization(name="n2")(x))
    x = layers.ReLU(name="r3")(layers.Conv2D(12, 1, name="point")(x))
    model = keras.Model(inputs, layers.Dense(5, use_bias=False, name="head")(layers.GlobalAveragePooling2D()(x)))
    generator = np.random.default_rng(1)
    for name in ("n1", "n2"):
        gamma, beta = np.exp(generator.uniform(-2, 1, 8)), generator.normal(0, 0.5, 8)
        spread = keras.Model(model.input, model.get_layer(name).input)(IMAGES)
        mean, variance = np.mean(spread, axis=(0, 1, 2)), np.var(spread, axis=(0, 1, 2))
        model.get_layer(name).set_weights([gamma, beta, mean, variance])
    return model


@pytest.fixture(scope="module")
def graph(flat: Any) -> Any:
    return prepare(flat).graph


def error(model: Any, graph: Any, statistics: Statistics | None, target: Target) -> float:
    """Mean squared error of the simulated file on images that nothing was calibrated on."""
    ranges = {name: (r.low, r.high) for name, r in statistics.ranges.items()} if statistics else {}
    simulated = simulate(
        model,
        ranges,
        weight_bits=target.weight_bits,
        activation_bits=target.activation_bits,
        granularity=target.granularity,
    )
    return float(np.mean((np.asarray(simulated(IMAGES[64:])) - np.asarray(graph(IMAGES[64:]))) ** 2))


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_all_corrections_together_bring_the_outputs_nearer(graph: Any, granularity: Any) -> None:
    target = Target(weight_bits=4, granularity=granularity)
    every = [name for name in ORDER[::-1] if name != "gptq"]  # which rounds instead of adaround
    found = recover(graph, every, target=target, data=DATA, settings=QUICK)
    assert found.statistics is not None
    plain = error(graph, graph, calibrate(graph), target)
    assert error(found.graph, graph, found.statistics, target) < 0.4 * plain
    words = [step.before.split()[0] for step in found.steps if step.before]
    order = [words.index(word) for word in ("weight", "output", "mean")]  # whatever the order they were asked for in
    assert order == sorted(order)


@pytest.mark.parametrize("rounding", ["adaround", "gptq"])
def test_corrected_weights_lie_on_their_grid(graph: Any, rounding: Any) -> None:
    found = recover(graph, [rounding, "bias"], data=DATA, settings=QUICK)
    assert any(step.before.startswith("output error") for step in found.steps)
    for name in ("conv", "deep", "point", "head"):
        layer = found.graph.get_layer(name)
        kernel = layer.get_weights()[0]
        np.testing.assert_allclose(on_grid(kernel, weight_scales(layer, kernel)), kernel, rtol=1e-5, atol=1e-8)
    assert found.graph.get_layer("head").use_bias
    assert not graph.get_layer("head").use_bias  # the graph given is as it was


def test_equalization_alone_keeps_what_the_graph_computes_and_finds_new_ranges(graph: Any) -> None:
    found = recover(graph, ["equalize"], data=DATA)
    np.testing.assert_allclose(found.graph(IMAGES[:64]), graph(IMAGES[:64]), rtol=1e-3, atol=1e-5)
    assert found.statistics is not None
    assert found.statistics.ranges["deep"] != calibrate(graph).ranges["deep"]
    assert {step.layer: step.reason for step in found.steps}["head"] == "head is an output of the model"


def test_only_the_named_layers_change(graph: Any) -> None:
    found = recover(graph, ["adaround", "bias"], target=Target(layers=["point"]), data=DATA, settings=QUICK)
    for layer in graph.layers:
        same = all(
            np.array_equal(a, b)
            for a, b in zip(layer.get_weights(), found.graph.get_layer(layer.name).get_weights(), strict=False)
        )
        assert same == (layer.name != "point"), layer.name


def test_without_images_biases_follow_from_batch_normalization(flat: Any, graph: Any) -> None:
    target = Target(weight_bits=3, activation_bits=None, granularity="per_tensor")
    found = recover(graph, ["equalize", "bias"], target=target, norms=norm_statistics(flat))
    assert found.statistics is None
    evened = recover(graph, ["equalize"], target=target)
    measured = recover(graph, ["equalize", "bias"], target=target, data=Data(batches, calibrate))
    assert error(found.graph, graph, None, target) < 0.7 * error(evened.graph, graph, None, target)
    reasons = {step.layer: step.reason for step in found.steps if step.before.startswith("mean") or step.reason}
    assert reasons["conv"] == "no BatchNormalization tells the mean of its input"
    assert any(step.before.startswith("mean shift") for step in measured.steps)


@pytest.mark.parametrize(
    ("corrections", "how", "problem"),
    [
        (["biass"], {"data": DATA}, "there is no 'biass'"),
        (["bias"], {}, "quantized activations need images"),
        (["adaround"], {"target": Target(activation_bits=None)}, "needs images"),
        (["gptq"], {"target": Target(activation_bits=None)}, "needs images"),
        (["gptq", "adaround"], {"data": DATA}, "both round the weights"),
        (["bias"], {"target": Target(activation_bits=None)}, "needs images or BatchNormalization"),
    ],
)
def test_what_cannot_be_done_is_refused(graph: Any, corrections: Any, how: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        recover(graph, corrections, **how)
