"""Freezing Keras graphs, and finding the layer behind a name or a NaN."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from toolkit.engine import freeze

L = keras.layers


@pytest.fixture(scope="module")
def nested() -> keras.Model:
    """Names that number suffixes could confuse: conv2d, conv2d_1 and conv2d_1_2, one of them in a nested model."""
    keras.utils.set_random_seed(0)
    inner_in = keras.Input((6, 4, 2))
    inner = keras.Model(inner_in, L.Conv2D(3, 1, name="conv2d_1")(inner_in), name="back_bone")
    image = keras.Input((6, 4, 2), name="image")
    x = L.Conv2D(2, 3, padding="same", name="conv2d")(image)
    x = inner(x)
    x = L.Conv2D(2, 1, name="conv2d_1_2")(x)
    return keras.Model(image, [x, image * 2.0], name="outer")


def test_frozen_graph_has_no_variables_and_computes_the_same(nested: keras.Model) -> None:
    frozen = freeze.freeze(nested, [(1, 6, 4, 2)])
    assert "VarHandleOp" not in {node.op for node in frozen.graph.as_graph_def().node}
    assert not list(frozen.variables)
    image = np.random.default_rng(0).random((1, 6, 4, 2), dtype="float32")
    for got, expected in zip(frozen(keras.ops.convert_to_tensor(image)), nested(image), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_frozen_inputs_and_outputs_keep_order_and_fixed_shape(nested: keras.Model) -> None:
    frozen = freeze.freeze(nested, [(1, 6, 4, 2)])
    assert [tuple(tensor.shape) for tensor in frozen.inputs] == [(1, 6, 4, 2)]
    assert [tuple(tensor.shape) for tensor in frozen.outputs] == [(1, 6, 4, 2), (1, 6, 4, 2)]
    ones = np.ones((1, 6, 4, 2), "float32")
    np.testing.assert_array_equal(frozen(keras.ops.convert_to_tensor(ones))[1], 2 * ones)


def test_layer_of_finds_every_convolution_by_its_operations_name(nested: keras.Model) -> None:
    frozen = freeze.freeze(nested, [(1, 6, 4, 2)])
    names = [node.name for node in frozen.graph.as_graph_def().node if node.op == "Conv2D"]
    assert [freeze.layer_of(name, nested) for name in names] == ["conv2d", "conv2d_1", "conv2d_1_2"]


def test_layer_of_takes_the_first_layer_with_a_kernel_of_a_fused_name() -> None:
    value = keras.Input((3,), name="value")
    x = L.BatchNormalization(name="norm")(L.Dense(2, name="dense")(value))
    model = keras.Model(value, L.Dense(2, name="second")(x))
    fused = "arith.constant;model_1/norm_1/add_1;model_1/dense_1/MatMul;model_1/second_1/MatMul"
    assert freeze.layer_of(fused, model) == "dense"
    assert freeze.layer_of("model_1/norm_1/add_1", model) == "norm"


def test_layer_of_is_none_for_what_no_layer_made(nested: keras.Model) -> None:
    assert freeze.layer_of("StatefulPartitionedCall:0", nested) is None


def test_nonfinite_weight_is_named_by_its_path() -> None:
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, name="a"), L.Dense(2, name="b")], name="net")
    assert freeze.nonfinite_weight(model) is None
    model.get_layer("b").bias.assign([np.nan, 0])
    assert freeze.nonfinite_weight(model) == "net/b/bias"


def test_nonfinite_layer_is_the_first_to_leave_the_numbers() -> None:
    value = keras.Input((3,), name="value")
    x = L.Rescaling(1e30, name="large")(value)
    x = L.Rescaling(1e30, name="too_large")(x)
    model = keras.Model(value, L.ReLU(name="after")(x))
    assert freeze.nonfinite_layer(model, [np.ones((1, 3), "float32")]) == "too_large"
    assert freeze.nonfinite_layer(model, [np.zeros((1, 3), "float32")]) is None


def test_output_layer_is_the_one_that_computes_it(nested: keras.Model) -> None:
    assert freeze.output_layer(nested, 0) == "conv2d_1_2"


def test_reduced_precision_layer_is_found_in_a_nested_model() -> None:
    inner_in = keras.Input((4,))
    inner = keras.Model(inner_in, L.Dense(2, name="half", dtype="mixed_float16")(inner_in))
    outer_in = keras.Input((4,))
    outer = keras.Model(outer_in, inner(outer_in))
    assert freeze.reduced_precision_layer(outer) == "half"
    assert freeze.reduced_precision_layer(keras.Sequential([keras.Input((4,)), L.Dense(2)])) is None
