"""Small files with one fault planted, in both formats, as rules on speed are to find it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from toolkit.exporters import tflite_file

SIDE, CHANNELS = 8, 8
OPTIONS = {"CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions"}


class Lite:
    """A chain of operators over images of SIDE x SIDE; each is named by the tensor it makes."""

    def __init__(self, dtype: str = "int8", channels: int = CHANNELS) -> None:
        self.schema = tflite_file.generated()
        self.model = self.schema.ModelT(version=3, buffers=[self.schema.BufferT()], operatorCodes=[])
        self.graph = self.schema.SubGraphT(tensors=[], operators=[], inputs=[0], outputs=[])
        self.model.subgraphs = [self.graph]
        self.rng = np.random.default_rng(0)
        self.channels = channels
        self.last = self.tensor("image", (1, SIDE, SIDE, channels), dtype)

    def tensor(self, name: str, shape: tuple[int, ...], dtype: str, data: Any = None, scale: float = 0.05) -> int:
        made = self.schema.TensorT(shape=list(shape), name=name.encode(), buffer=0)
        made.type = getattr(self.schema.TensorType, dtype.upper())
        if dtype in ("int8", "int16", "int32"):
            made.quantization = self.schema.QuantizationParametersT(scale=[scale], zeroPoint=[0])
        if data is not None:
            self.model.buffers.append(self.schema.BufferT(data=np.frombuffer(data.tobytes(), np.uint8)))
            made.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def op(self, kind: str, name: str, dtype: str, *more: int, scale: float = 0.05) -> Lite:
        """An operator behind the last one; kind: "CUSTOM:name" for one that is not built in."""
        kind, _, custom = kind.partition(":")
        code = self.schema.OperatorCodeT(builtinCode=getattr(self.schema.BuiltinOperator, kind), version=2)
        code.customCode = custom.encode() or None
        self.model.operatorCodes.append(code)
        made = self.tensor(name, (1, SIDE, SIDE, self.channels), dtype, scale=scale)
        operator = self.schema.OperatorT(opcodeIndex=len(self.model.operatorCodes) - 1)
        operator.inputs, operator.outputs = [self.last, *more], [made]
        if options := OPTIONS.get(kind):
            how = getattr(self.schema, f"{options}T")()
            how.padding, how.strideH, how.strideW = self.schema.Padding.SAME, 1, 1
            operator.builtinOptions = how
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
        self.graph.operators.append(operator)
        self.last = made
        return self

    def conv(self, name: str, dtype: str = "int8", *, weights: str = "", channels: int = 0, kernel: int = 3) -> Lite:
        """A convolution; weights: their type, where it is another."""
        into, self.channels = self.channels, channels or self.channels
        stored, shape = weights or dtype, (self.channels, kernel, kernel, into)
        return self._weighted("CONV_2D", name, dtype, stored, shape)

    def depthwise(self, name: str, dtype: str = "int8", *, weights: str = "") -> Lite:
        return self._weighted("DEPTHWISE_CONV_2D", name, dtype, weights or dtype, (1, 3, 3, self.channels))

    def _weighted(self, kind: str, name: str, dtype: str, stored: str, shape: tuple[int, ...]) -> Lite:
        values = self.rng.integers(1, 127, shape)
        array = values.astype(np.float32) / 500 if stored.startswith("float") else values.astype(stored)
        bias = "float32" if dtype.startswith("float") else "int32"
        zeros = np.zeros(self.channels, bias)
        weight = self.tensor(f"{name}/kernel", shape, stored, array, scale=0.01)
        return self.op(kind, name, dtype, weight, self.tensor(f"{name}/bias", zeros.shape, bias, zeros, scale=0.0005))

    def write(self, path: Path) -> Path:
        self.graph.outputs = [self.last]
        path.write_bytes(tflite_file.sign(tflite_file.pack(self.model), ["image"], ["result"]))
        return path


class Onnx:
    """A chain of nodes over (1, 8, 8, 8)."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.last = "image"

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, name: str, *more: str, **how: Any) -> Onnx:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, [self.last, *more], [name], f"{name}_node", **how))
        self.last = name
        return self

    def turned(self, name: str, *, zero: Any = None, scale: float = 0.05) -> Onnx:
        """To integers and back."""
        return self.quantized(name, zero=zero, scale=scale).dequantized(name, zero=zero, scale=scale)

    def quantized(self, name: str, *, zero: Any = None, scale: float = 0.05) -> Onnx:
        return self.node("QuantizeLinear", f"{name}_q", *self._how(f"{name}_q", zero, scale))

    def dequantized(self, name: str, *, zero: Any = None, scale: float = 0.05) -> Onnx:
        return self.node("DequantizeLinear", f"{name}_dq", *self._how(f"{name}_dq", zero, scale))

    def _how(self, name: str, zero: Any, scale: float) -> tuple[str, str]:
        value = np.uint8(0) if zero is None else zero
        return self.constant(f"{name}_scale", np.float32(scale)), self.constant(f"{name}_zero", value)

    def conv(self, name: str, *, channels: int = CHANNELS, into: int = CHANNELS, integer: bool = True) -> Onnx:
        from onnx import helper

        values = np.random.default_rng(0).integers(-127, 127, (channels, into, 1, 1))
        if not integer:
            return self.node("Conv", name, self.constant(f"{name}_w", values.astype(np.float32) / 99))
        stored = self.constant(f"{name}_w", values.astype(np.int8))
        more = [self.constant(f"{name}_ws", np.float32(0.01)), self.constant(f"{name}_wz", np.int8(0))]
        self.nodes.append(helper.make_node("DequantizeLinear", [stored, *more], [f"{name}_wd"], f"{name}_wd_node"))
        return self.node("Conv", name, f"{name}_wd")

    def write(self, path: Path, channels: int = CHANNELS) -> Path:
        import onnx
        from onnx import TensorProto, helper

        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])
        result = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, [1, channels, SIDE, SIDE])
        graph = helper.make_graph(self.nodes, "g", [image], [result], self.constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
        return path
