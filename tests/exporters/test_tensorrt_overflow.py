"""What float16 cannot compute, on graphs of one operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from toolkit.exporters import onnx_file, tensorrt_float16, tensorrt_overflow
from toolkit.exporters.onnx_file import File


@pytest.mark.parametrize(
    ("kind", "constant", "largest", "shape", "words"),
    [
        ("Mul", 7e4, 1.0, (1, 4), "a constant of 7e"),
        ("Add", 1e-12, 1.0, (1, 4), "is 0 in float16"),
        ("Mul", 1.0, 4e4, (1, 4), "it reaches 4e"),
        ("Mul", 1.0, 3e4, (1, 4), ""),
        ("GlobalAveragePool", None, 255.0, (1, 4, 16, 16), ""),  # 255 * 256 = 65280
        ("GlobalAveragePool", None, 256.0, (1, 4, 16, 16), "sums over 256 values"),
        ("LayerNormalization", None, 100.0, (1, 4, 8), "sums over 8 values may reach 8e+04"),
        ("LayerNormalization", None, 90.0, (1, 4, 8), ""),  # 8100 * 8 = 64800
        ("Softmax", None, 600.0, (1, 4), "exponents of values up to 600"),
        ("Softmax", None, 500.0, (1, 4), ""),
    ],
)
def test_nodes_that_overflow_are_found(
    kind: str, constant: float | None, largest: float, shape: tuple[int, ...], words: str
) -> None:
    info, weights = onnx.helper.make_tensor_value_info, []
    inputs = ["x"]
    if constant is not None:
        weights.append(onnx.numpy_helper.from_array(np.array(constant, np.float32), "c"))
        inputs.append("c")
    if kind == "LayerNormalization":
        weights.append(onnx.numpy_helper.from_array(np.ones(shape[-1], np.float32), "s"))
        inputs.append("s")
    node = onnx.helper.make_node(kind, inputs, ["y"], "node")
    graph = onnx.helper.make_graph([node], "g", [info("x", 1, shape)], [info("y", 1, None)], weights)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    found = tensorrt_overflow.wide(File(made), {"x": largest})
    assert words in found.get("node", "")
    assert bool(words) == ("node" in found)


def test_bias_that_float16_would_lose_is_added_in_float32_between_int8() -> None:
    """A step of 0.01 * 0.0001 is 17 units in the last place of float16; 0.5 is 500,000 steps, beyond its end."""
    scales = {"xs": 0.01, "ws": 1e-4, "ys": 0.01}
    arrays = {name: np.array(value, np.float32) for name, value in scales.items()}
    arrays |= {"z": np.array(0, np.int8), "w": np.full((1, 1, 1, 1), 0.01, np.float32)}
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("QuantizeLinear", ["x", "xs", "z"], ["xq"], "xq"),
        make("DequantizeLinear", ["xq", "xs", "z"], ["xd"], "xd"),
        make("QuantizeLinear", ["w", "ws", "z"], ["wq"], "wq"),
        make("DequantizeLinear", ["wq", "ws", "z"], ["wd"], "wd"),
        make("Conv", ["xd", "wd", "b"], ["c"], "conv"),
        make("Relu", ["c"], ["r"], "relu"),
        make("QuantizeLinear", ["r", "ys", "z"], ["yq"], "yq"),
        make("DequantizeLinear", ["yq", "ys", "z"], ["y"], "yd"),
    ]
    for bias, expected in ((0.5, {"conv", "relu", "yq"}), (0.001, set())):
        constants = [
            onnx.numpy_helper.from_array(array, name)
            for name, array in {**arrays, "b": np.array([bias], np.float32)}.items()
        ]
        ends = [info("x", 1, [1, 1, 4, 4])], [info("y", 1, [1, 1, 4, 4])]
        graph = onnx.helper.make_graph(nodes, "g", *ends, constants)
        made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
        found = tensorrt_overflow.wide(File(made), {})
        assert set(found) == expected
        narrow = tensorrt_float16.narrowed(made, found)
        onnx.checker.check_model(narrow, full_check=True)
        image = np.full((1, 1, 4, 4), 0.3, np.float32)
        for optimized in (True, False):
            np.testing.assert_allclose(_ran(narrow, image, optimized=optimized), bias + 0.003, atol=0.0051)


def _ran(proto: Any, image: Any, *, optimized: bool) -> Any:
    level = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    content = proto.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, {"x": image})[0]


def test_nodes_without_names_keep_apart() -> None:
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [make("Relu", ["x"], ["a"]), make("Sigmoid", ["a"], ["b"]), make("Relu", ["b"], ["y"], "Relu_0")]
    graph = onnx.helper.make_graph(nodes, "g", [info("x", 1, [1])], [info("y", 1, [1])])
    made = onnx.helper.make_model(graph)
    onnx_file.name_nodes(made)
    assert len({node.name for node in made.graph.node}) == 3
