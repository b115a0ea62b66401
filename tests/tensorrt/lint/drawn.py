"""Small ONNX graphs drawn by hand, with Q/DQ pairs where a test wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
NUMPY = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64}


class Drawing:
    """Nodes in the order they are drawn; every method that computes returns the name of its output."""

    def __init__(
        self, *, shape: tuple[Any, ...] = (1, 16, 8, 8), kind: int = TensorProto.FLOAT, opset: int = 17
    ) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.kind, self.opset = kind, opset
        self.inputs = [helper.make_tensor_value_info("x", kind, shape)]
        self.random = np.random.default_rng(0)

    def constant(self, values: Any, name: str = "") -> str:
        name = name or f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind: str, *inputs: str, name: str = "", outputs: int = 1, **attributes: Any) -> Any:
        name = name or f"{kind.lower()}{len(self.nodes)}"
        made = [f"{name}:{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    def real(self, values: Any) -> Array:
        """As numbers of the graph's own type."""
        return np.asarray(values, NUMPY[self.kind])

    def pair(self, tensor: str, scale: Any = 0.05, zero: Any = None, *, kind: Any = np.int8, **axis: int) -> str:
        """A QuantizeLinear and its DequantizeLinear."""
        scale = self.real(scale)
        zero = np.full(scale.shape, 0 if zero is None else zero, kind)
        ends = self.constant(scale), self.constant(zero)
        quantized = self.node("QuantizeLinear", tensor, *ends, **axis)
        return str(self.node("DequantizeLinear", quantized, *ends, **axis))

    def weights(self, *shape: int, name: str = "") -> str:
        return self.constant(self.real(self.random.normal(size=shape)), name)

    def conv(
        self,
        x: str,
        channels: tuple[int, int] = (16, 16),
        *,
        kernel: int = 3,
        name: str = "conv",
        qdq: bool = True,
        **more: Any,
    ) -> str:
        """A convolution; qdq: with a pair on its weights (per channel)."""
        shape = (channels[1], channels[0] // more.get("group", 1), kernel, kernel)
        weight = self.weights(*shape, name=f"{name}.w")
        if qdq:
            weight = self.pair(weight, np.full(channels[1], 0.02), axis=0)
        bias = self.constant(self.real(np.zeros(channels[1])), f"{name}.b")
        return str(self.node("Conv", x, weight, bias, name=name, pads=[kernel // 2] * 4, **more))

    def dense(self, x: str, sizes: tuple[int, int], *, name: str = "dense", qdq: bool = True, axis: int = 0) -> str:
        weight = self.weights(sizes[1], sizes[0], name=f"{name}.w")
        if qdq:
            weight = self.pair(weight, np.full(sizes[1] if axis == 0 else sizes[0], 0.02), axis=axis)
        bias = self.constant(self.real(np.zeros(sizes[1])), f"{name}.b")
        return str(self.node("Gemm", x, weight, bias, name=name, transB=1))

    def model(self, *outputs: str, kind: int | None = None) -> Any:
        ends = [helper.make_tensor_value_info(name, self.kind if kind is None else kind, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "drawn", self.inputs, ends, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)


def good(*, opset: int = 17, kind: int = TensorProto.FLOAT, batch: Any = 1) -> Any:
    """A residual block, a pooled end and a dense head, placed as NVIDIA recommends: four int8 layers of five.

    The stem stays in float: three channels.
    """
    draw = Drawing(shape=(batch, 3, 8, 8), opset=opset, kind=kind)
    stem = draw.node("Relu", draw.conv("x", (3, 16), name="stem", qdq=False))
    shortcut = draw.pair(stem)
    inner = draw.node("Relu", draw.conv(shortcut, name="first"))
    branch = draw.conv(draw.pair(inner), name="second")
    added = draw.node("Relu", draw.node("Add", branch, shortcut, name="add"))
    last = draw.conv(draw.pair(added), (16, 32), name="third")
    pooled = draw.node("Flatten", draw.node("GlobalAveragePool", last, name="pool"))
    return draw.model(draw.dense(draw.pair(pooled), (32, 16)))
