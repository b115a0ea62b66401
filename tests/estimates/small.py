"""A small .tflite network written by hand: convolution, depthwise, pooling, dense, softmax; float32 or int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from toolkit.exporters import tflite_file

SIZE, CHANNELS, FILTERS, CLASSES = 8, 3, 4, 3


class Network:
    """Tensors and operators, as they are added."""

    def __init__(self, *, int8: bool, seed: int = 0) -> None:
        self.schema, self.int8 = tflite_file.generated(), int8
        self.rng = np.random.default_rng(seed)
        self.buffers = [self.schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[Any] = []

    def tensor(
        self, name: str, shape: tuple[int, ...], *, scale: float = 0.05, zero: int = 0, values: Any = None
    ) -> int:
        schema, found = self.schema, self.schema.TensorT()
        found.name, found.shape = name.encode(), list(shape)
        wide = values is not None and values.dtype == np.int32
        kind = ("INT32" if wide else "INT8") if self.int8 else "FLOAT32"
        found.type = getattr(schema.TensorType, kind)
        if self.int8:
            found.quantization = schema.QuantizationParametersT()
            found.quantization.scale, found.quantization.zeroPoint = [scale], [zero]
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            self.buffers.append(buffer)
            found.buffer = len(self.buffers) - 1
        self.tensors.append(found)
        return len(self.tensors) - 1

    def weights(self, name: str, shape: tuple[int, ...]) -> int:
        values = self.rng.integers(-127, 128, shape).astype(np.int8)
        return self.tensor(name, shape, scale=0.01, values=values if self.int8 else values.astype(np.float32) / 100)

    def bias(self, name: str, size: int) -> int:
        values = self.rng.integers(-200, 200, size).astype(np.int32)
        return self.tensor(
            name, (size,), scale=0.0005, values=values if self.int8 else values.astype(np.float32) / 2000
        )

    def op(self, kind: str, inputs: list[int], outputs: list[int], options: Any = None) -> None:
        schema = self.schema
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(127, code.builtinCode), 3 if self.int8 else 1
        self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.codes) - 1, inputs, outputs
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.operators.append(operator)

    def pack(self, inputs: list[int], outputs: list[int]) -> bytes:
        schema = self.schema
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, inputs, outputs
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, self.codes
        return tflite_file.pack(model)


def network(path: Path, *, int8: bool, softmax_scale: float = 0.05, named: bool = True) -> Path:
    """conv 3x3 to 4 channels, depthwise 3x3 of stride 2, mean over 4x4, dense to 3, softmax; on 8x8x3."""
    net = Network(int8=int8)
    schema, half = net.schema, SIZE // 2
    image = net.tensor("image", (1, SIZE, SIZE, CHANNELS))
    first = net.tensor("first", (1, SIZE, SIZE, FILTERS))
    kernel, bias = net.weights("kernel", (FILTERS, 3, 3, CHANNELS)), net.bias("bias", FILTERS)
    conv = schema.Conv2DOptionsT()
    conv.padding, conv.strideW, conv.strideH, conv.fusedActivationFunction = schema.Padding.SAME, 1, 1, 1
    net.op("CONV_2D", [image, kernel, bias], [first], conv)
    second = net.tensor("second", (1, half, half, FILTERS))
    depthwise = schema.DepthwiseConv2DOptionsT()
    depthwise.padding, depthwise.strideW, depthwise.strideH, depthwise.depthMultiplier = schema.Padding.SAME, 2, 2, 1
    kernel = net.weights("depthwise", (1, 3, 3, FILTERS))
    net.op("DEPTHWISE_CONV_2D", [first, kernel, net.bias("bias2", FILTERS)], [second], depthwise)
    pooled = net.tensor("pooled", (1, 1, 1, FILTERS))
    pool = schema.Pool2DOptionsT()
    pool.padding, pool.strideW, pool.strideH = schema.Padding.VALID, half, half
    pool.filterWidth = pool.filterHeight = half
    net.op("AVERAGE_POOL_2D", [second], [pooled], pool)
    scores = net.tensor("scores", (1, CLASSES), scale=softmax_scale)
    dense = schema.FullyConnectedOptionsT()
    net.op(
        "FULLY_CONNECTED",
        [pooled, net.weights("dense", (CLASSES, FILTERS)), net.bias("bias3", CLASSES)],
        [scores],
        dense,
    )
    chances = net.tensor("chances", (1, CLASSES), scale=1 / 256, zero=-128)
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    net.op("SOFTMAX", [scores], [chances], softmax)
    content = net.pack([image], [chances])
    path.write_bytes(tflite_file.sign(content, ["image"], ["chances"]) if named else content)
    return path
