"""Each TensorFlow function of the table against TensorFlow itself, called in a tf_keras graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from toolkit.engine.carry import carry
from toolkit.engine.carry_ops import FUNCTIONS
from toolkit.errors import UnsupportedError

tf = pytest.importorskip("tensorflow")
tfk = pytest.importorskip("tf_keras", reason="the extra `legacy`")

VECTOR = np.array([1.0, -2.0, 3.0, 0.5], np.float32)
ROWS = np.arange(5, dtype=np.float32).reshape(5, 1)
# ruff: noqa: PLW0108 - each line shows the call as users write it
# symbol of TensorFlow -> calls on x: (n, 6, 5, 4), in -2..2
CALLS: list[tuple[str, Callable[[Any], Any]]] = [
    ("__operators__.add", lambda x: x + 3.0),
    ("__operators__.add", lambda x: 3.0 + x),
    ("__operators__.add", lambda x: x + x),
    ("__operators__.add", lambda x: x + VECTOR),
    ("__operators__.add", lambda x: x + ROWS),
    ("math.add", lambda x: tf.math.add(x, tf.reduce_mean(x, [1, 2])[:, None, None])),
    ("math.subtract", lambda x: x - 1.5),
    ("math.subtract", lambda x: 1.5 - x),
    ("math.subtract", lambda x: VECTOR - x),
    ("math.subtract", lambda x: x - tf.reduce_mean(x, [1, 2], keepdims=True)),
    ("math.multiply", lambda x: x * 0.5),
    ("math.multiply", lambda x: x * VECTOR),
    ("math.multiply", lambda x: x * x),
    ("math.truediv", lambda x: x / 127.5),
    ("math.truediv", lambda x: x / VECTOR),
    ("math.truediv", lambda x: 2.0 / (x + 5.0)),
    ("nn.bias_add", lambda x: tf.nn.bias_add(x, VECTOR)),
    ("math.add_n", lambda x: tf.math.add_n([x, x, x])),
    ("math.maximum", lambda x: tf.maximum(x, 0.3)),
    ("math.minimum", lambda x: tf.minimum(x, x * 2.0)),
    ("math.pow", lambda x: x**2),
    ("linalg.matmul", lambda x: tf.matmul(x, x[:, :, :4, :])),
    ("math.square", lambda x: tf.square(x)),
    ("math.sqrt", lambda x: tf.sqrt(x + 3.0)),
    ("math.rsqrt", lambda x: tf.math.rsqrt(x + 3.0)),
    ("math.exp", lambda x: tf.exp(x)),
    ("math.log", lambda x: tf.math.log(x + 3.0)),
    ("math.abs", lambda x: tf.abs(x)),
    ("math.negative", lambda x: -x),
    ("math.squared_difference", lambda x: tf.math.squared_difference(x, 1.0)),
    ("identity", lambda x: tf.identity(x)),
    ("stop_gradient", lambda x: tf.stop_gradient(x)),
    ("cast", lambda x: tf.cast(tf.cast(x * 10.0, tf.int32), tf.float32)),
    ("nn.relu", lambda x: tf.nn.relu(x)),
    ("nn.relu6", lambda x: tf.nn.relu6(x * 9.0)),
    ("nn.leaky_relu", lambda x: tf.nn.leaky_relu(x)),
    ("nn.leaky_relu", lambda x: tf.nn.leaky_relu(x, alpha=0.05)),
    ("nn.elu", lambda x: tf.nn.elu(x)),
    ("nn.selu", lambda x: tf.nn.selu(x)),
    ("nn.gelu", lambda x: tf.nn.gelu(x)),
    ("nn.gelu", lambda x: tf.nn.gelu(x, approximate=True)),
    ("nn.silu", lambda x: tf.nn.silu(x)),
    ("math.sigmoid", lambda x: tf.sigmoid(x)),
    ("math.tanh", lambda x: tf.tanh(x)),
    ("math.softplus", lambda x: tf.math.softplus(x)),
    ("nn.softmax", lambda x: tf.nn.softmax(x)),
    ("clip_by_value", lambda x: tf.clip_by_value(x, 0.0, 1.0)),
    ("clip_by_value", lambda x: tf.clip_by_value(x, -1.0, 1.0)),
    ("reshape", lambda x: tf.reshape(x, [-1, 10, 12])),
    ("concat", lambda x: tf.concat([x, x * 2.0], axis=2)),
    ("math.reduce_mean", lambda x: tf.reduce_mean(x, axis=[1, 2])),
    ("math.reduce_mean", lambda x: tf.reduce_mean(x, axis=-1, keepdims=True)),
    ("math.reduce_max", lambda x: tf.reduce_max(x, axis=[2, 1], keepdims=True)),
    ("math.reduce_sum", lambda x: tf.reduce_sum(x, axis=3)),
    ("math.reduce_min", lambda x: tf.reduce_min(x, axis=1)),
    ("expand_dims", lambda x: tf.expand_dims(x, 1)),
    ("squeeze", lambda x: tf.squeeze(x[:, :1], axis=1)),
    ("stack", lambda x: tf.stack([x, x], axis=1)),
    ("split", lambda x: tf.split(x, 2, axis=-1)[1]),
    ("split", lambda x: tf.split(x, [1, 3], axis=-1)[1]),
    ("transpose", lambda x: tf.transpose(x, [0, 3, 1, 2])),
    ("reverse", lambda x: tf.reverse(x, axis=[-1])),
    ("pad", lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]])),
    ("pad", lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="REFLECT")),
    ("pad", lambda x: tf.pad(x, [[0, 0], [0, 0], [0, 0], [1, 0]], constant_values=2.0)),
    ("image.resize", lambda x: tf.image.resize(x, (9, 7))),
    ("image.resize", lambda x: tf.image.resize(x, [3, 3], method="nearest")),
    ("math.l2_normalize", lambda x: tf.math.l2_normalize(x, axis=-1)),
    ("math.l2_normalize", lambda x: tf.nn.l2_normalize(x, axis=-1, epsilon=0.1)),
    ("__operators__.getitem", lambda x: x[..., ::-1]),
    ("__operators__.getitem", lambda x: x[:, 1:4, 2, None]),
]


def graph(call: Callable[[Any], Any]) -> Any:
    image = tfk.Input((6, 5, 4))
    return tfk.Model(image, call(image))


@pytest.mark.parametrize(("symbol", "call"), CALLS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(CALLS)])
def test_function_computes_what_tensorflow_does(symbol: str, call: Callable[[Any], Any]) -> None:
    model = graph(call)
    used = [str(layer.symbol).removeprefix("compat.v1.") for layer in model.layers if hasattr(layer, "symbol")]
    assert symbol in used or f"nn.{symbol.partition('.')[2]}" in used or symbol.partition(".")[2] in used, used
    x = np.random.default_rng(0).uniform(-2, 2, (3, 6, 5, 4)).astype("float32")
    found, expected = np.asarray(carry(model).model(x)), np.asarray(call(tf.constant(x)))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_every_function_of_the_table_is_compared() -> None:
    aliases = {"add", "subtract", "multiply", "divide", "realdiv", "sigmoid", "tanh", "convert_to_tensor", "nn.swish"}
    aliases |= {"math.divide", "nn.l2_normalize", "nn.sigmoid", "nn.tanh", "nn.softplus", "linalg.l2_normalize"}
    aliases |= {"__operators__.sub", "__operators__.mul", "__operators__.truediv"}
    assert set(FUNCTIONS) - {symbol for symbol, _ in CALLS} == aliases


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda x: tf.reshape(x, [-1, 8]), "reshapes|Reshape|total size|reshape"),
        (lambda x: tf.image.resize(x, (3, 3), antialias=True), "antialias"),
        (lambda x: tf.nn.l2_normalize(x), "over the whole batch"),
        (lambda x: tf.sort(x), "not among the functions"),
    ],
)
def test_call_without_equal_is_refused_by_layer(call: Callable[[Any], Any], problem: str) -> None:
    with pytest.raises(UnsupportedError, match=f"(?s)layer 'tf.*({problem})"):
        carry(graph(call))
