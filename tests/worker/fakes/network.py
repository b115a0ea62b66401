"""A file for the builder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def network(
    path: Path, *, quantized: bool = False, half: bool = False, batch: Any = 1, takes: int = 0, sparse: bool = False
) -> str:
    """One convolution of 16 to 16 channels and a ReLU: float32, float16, or with Q/DQ around it.

    sparse: of every four input channels two are zero.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kind, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    x = helper.make_tensor_value_info("x", takes or kind, [batch, 16, 8, 8])
    y = helper.make_tensor_value_info("y", kind, [batch, 16, 8, 8])
    values = np.full((16, 16, 3, 3), 0.5, dtype)
    if sparse:
        values[:, 1::4] = values[:, 2::4] = 0
    weights = [numpy_helper.from_array(values, "w")]
    nodes, source, kernel = [], "x", "w"
    if takes:
        nodes, source = [helper.make_node("Cast", ["x"], ["xf"], name="cast", to=kind)], "xf"
    if quantized:
        constants = {"s": np.full((), 0.02, dtype), "z": np.zeros((), np.int8)}
        constants |= {"ws": np.full(16, 0.03, dtype), "wz": np.zeros(16, np.int8)}
        weights += [numpy_helper.from_array(array, name) for name, array in constants.items()]
        nodes += [
            helper.make_node("QuantizeLinear", [source, "s", "z"], ["q"], name="quantize"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"], name="dequantize"),
            helper.make_node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], name="weights", axis=0),
            helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wdq"], name="weights_back", axis=0),
        ]
        source, kernel = "dq", "wdq"
    nodes += [
        helper.make_node("Conv", [source, kernel], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19 if half else 17)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)
    return str(path)
