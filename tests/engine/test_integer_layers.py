"""Layers on integers: by hand, and bit for bit what LiteRT computes from the file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.core import ExportContext, Model, QuantSpec, Signature, Statistics, TensorSpec
from toolkit.engine.calibrate import calibrate
from toolkit.engine.integer_layers import (
    IntegerAdd,
    IntegerLayer,
    IntegerMean,
    IntegerMultiply,
    IntegerScaling,
    IntegerTable,
    fits_float32,
    of_weights,
)
from toolkit.engine.prepare import prepare
from toolkit.engine.simulate import simulate
from toolkit.exporters.tflite import TFLite

IMAGES = np.random.default_rng(3).normal(size=(40, 12, 12, 3)).astype(np.float32)


def test_integer_layer_rounds_the_sum_once_by_hand() -> None:
    """Input 0.5 a step, weights 0.25: sums count 0.125. Output in steps of 1: 3 * 2 + 1 = 7 sums are 0.875, so 1."""
    inner = of_weights(layers.Dense(1), (None, 1), (np.array([[2.0]], np.float32), np.array([1.0], np.float32)))
    layer = IntegerLayer(inner, 0.5, np.array([0.125]), 1.0)
    # 0: 0.125 -> 0; 3 steps: 0.875 -> 1; 7.5 steps... 1.75 -> 14 + 1 = 0.5 * 3.75: 12 sums are 1.5, to even: 2
    given = np.array([[0.0], [1.5], [2.75]], np.float32)  # 0, 3 and 5.5 steps, which is 6 (to even): 13 sums, 1.625
    np.testing.assert_array_equal(layer(given), [[0.0], [1.0], [2.0]])


def test_integer_add_sends_halves_up() -> None:
    """Steps of 1 and 1 into steps of 2: 1 + 2 is 1.5, which becomes 2; -1 - 2 is -1.5, which becomes -1."""
    layer = IntegerAdd((1.0, 1.0), 2.0)
    ends = [np.array([[1.0, -1.0]], np.float32), np.array([[2.0, -2.0]], np.float32)]
    np.testing.assert_array_equal(layer(ends), [[4.0, -2.0]])


def test_integer_product_sends_halves_to_even() -> None:
    """Steps of 0.5 and 1 into steps of 1: 1 * 0.5 and 3 * 0.5, as integers 0.5 and 1.5, become 0 and 2."""
    layer = IntegerMultiply((0.5, 1.0), 1.0)
    np.testing.assert_array_equal(layer([np.array([[0.5, 1.5]]), np.array([[1.0, 1.0]])]), [[0.0, 2.0]])


def test_integer_scaling_sends_halves_to_even() -> None:
    """Times one, stored as 255 steps of 1/255, from steps of 0.5 to steps of 1: 0.5, 1.5 and 2 become 0, 2 and 2."""
    np.testing.assert_array_equal(IntegerScaling(0.5, (255, 1 / 255), 1.0)(np.array([[0.5, 1.5, 2.0]])), [[0, 2, 2]])


def test_integer_mean_rounds_the_sum_once() -> None:
    """Four places of 0, 0, 1 and 1 steps have a mean of half a step, which becomes 0; three quarters become 1."""
    images = np.array([[0.0, 0.0, 2.0, 2.0], [0.0, 2.0, 2.0, 2.0]], np.float32).reshape(2, 2, 2, 1)
    np.testing.assert_array_equal(IntegerMean(2.0, 2.0)(images), [[0.0], [2.0]])
    assert IntegerMean(2.0, 2.0, keepdims=True)(images).shape == (2, 1, 1, 1)


def test_integer_table_gives_the_entry_of_each_integer() -> None:
    """The square of -128 .. 127 over 128, from a grid with zero point 2 to one with zero point -100."""
    table = np.clip((np.arange(-128, 128) - 2) ** 2 // 128 - 100, -128, 127)
    layer = IntegerTable(table, (0.5, 2), (0.25, -100))
    np.testing.assert_array_equal(layer(np.array([[0.0, 8.0, -8.0]], np.float32)), [[0.0, 0.5, 0.5]])


def test_sums_beyond_what_float32_has_are_exact() -> None:
    wide = np.full((1, 1, 1040, 1), 127.0, np.float32)
    assert not fits_float32(layers.Conv2D(1, 1), wide[:, :, :519], None)  # 519 * 127 * 255 is over 2^24
    assert fits_float32(layers.Conv2D(1, 1), wide[:, :, :518], None)
    assert not fits_float32(layers.Conv2D(1, 1), wide[:, :, :518], np.array([10_000.0]))
    assert fits_float32(layers.DepthwiseConv2D(1), wide, None)
    inner = of_weights(layers.Conv2D(1, 1, use_bias=False), (None, 1, 1, 1040), (wide, None))
    assert np.asarray(inner(np.full((1, 1, 1, 1040), 129.0))).item() == 1040 * 127 * 129  # 17,038,320
    assert np.asarray(inner(np.eye(1, 1040).reshape(1, 1, 1, 1040) + 128)).item() == 16_906_367  # odd: not in float32


def squeezed(front: str = "plain") -> Any:
    keras.utils.set_random_seed(5)
    x = image = keras.Input((12, 12, 3), name="image")
    if front == "enlarged":
        x = layers.Rescaling(0.5, offset=-0.25, name="scaling")(layers.Resizing(36, 36, name="larger")(image))
    if front == "scaled":
        x = layers.Rescaling(0.37, offset=1.3, name="scaling")(image)
    first = x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(x)
    x = layers.Conv2D(16, 1, name="project")(x)
    x = layers.ReLU(name="after")(layers.Add(name="sum")([x, first]))
    x = layers.Conv2D(24, 3, strides=2, name="down")(x)
    x = layers.Activation("hard_swish", name="swish")(x)
    gate = layers.Conv2D(24, 1, name="excite")(layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x))
    x = layers.Multiply(name="product")([x, layers.ReLU(6.0, name="gate")(gate + 3.0) * (1 / 6)])
    x = layers.Conv2D(24, 3, name="again")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="last")(x))
    return keras.Model(image, layers.Dense(7, name="classes")(x))


def pooled() -> Any:
    """Average pooling of parts, and of the whole: 6 x 6 places, so that a step of the mean is no power of two."""
    keras.utils.set_random_seed(6)
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(image)
    x = layers.Conv2D(24, 3, padding="same", activation="relu", name="last")(layers.AveragePooling2D(2, name="part")(x))
    x = layers.Flatten(name="flat")(layers.AveragePooling2D(6, name="whole")(x))
    return keras.Model(image, layers.Dense(7, name="classes")(x))


@pytest.mark.parametrize("build", [squeezed, partial(squeezed, "enlarged"), partial(squeezed, "scaled"), pooled])
def test_exact_simulation_gives_the_integers_of_the_file(build: Any, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    network = build()
    graph = prepare(network).graph
    ranges = calibrate(graph, [{"image": IMAGES}]).ranges("minmax")
    ends = [
        TensorSpec("image", (None, 12, 12, 3), "float32", "image"),
        TensorSpec("classes", (None, 7), "float32", "logits"),
    ]
    model = Model("keras", network, Signature((ends[0],), (ends[1],)), quant=QuantSpec("int8", io="int8"))
    path = tmp_path / "net.tflite"
    TFLite().export(replace(model, statistics=Statistics(ranges, len(IMAGES))), path, ExportContext())
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = given["quantization"]
    found = []
    for image in IMAGES:
        steps = np.clip(np.rint(image / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], steps[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(taken["index"])[0].astype(int))
    limits = {name: (own.low, own.high) for name, own in ranges.items()}
    scale, zero = taken["quantization"]
    wanted = np.rint(np.asarray(simulate(graph, limits, exact=True)(IMAGES)) / scale) + zero
    np.testing.assert_array_equal(np.stack(found), wanted)
