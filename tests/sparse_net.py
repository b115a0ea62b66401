"""A MobileNet-shaped .tflite file made by hand, in the forms that XNNPACK's sparse inference tells apart."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from toolkit.exporters import tflite_file

SIDE = 56
WIDTHS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1))  # of 1x1 convolutions, and the strides before them


class Net:
    """PAD and a 3x3 convolution of stride 2, depthwise and 1x1 ones, a mean.

    zeros: share of those of 1x1 convolutions. same: which depthwise ones have padding SAME, not a PAD before them.
    """

    def __init__(self, zeros: float, *, same: Literal["never", "stride 1", "always"]) -> None:
        self.schema = schema = tflite_file.generated()
        self.rng, self.zeros, self.same = np.random.default_rng(0), zeros, same
        self.codes = [getattr(schema.BuiltinOperator, name) for name in ("PAD", "CONV_2D", "DEPTHWISE_CONV_2D", "MEAN")]
        codes = [schema.OperatorCodeT(builtinCode=code, version=1) for code in self.codes]
        self.model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=codes)
        self.graph = schema.SubGraphT(tensors=[], operators=[], inputs=[0], outputs=[])
        self.model.subgraphs = [self.graph]
        self.shape = (1, SIDE, SIDE, 3)
        self.last = self.tensor(self.shape)

    def content(self) -> bytes:
        self.padded()
        self.convolved(32, 3, 2)
        for width, stride in WIDTHS:
            self.depthwise(stride)
            self.convolved(width, 1, 1)
        self.shape = (1, 1, 1, self.shape[3])
        axes = self.tensor((2,), np.array([1, 2], np.int32))
        self.add(3, [self.last, axes], "ReducerOptions", self.schema.ReducerOptionsT(keepDims=True))
        self.graph.outputs = [self.last]
        return tflite_file.sign(tflite_file.pack(self.model), ["image"], ["scores"])

    def tensor(self, shape: tuple[int, ...], data: Any = None) -> int:
        kind = 2 if data is not None and data.dtype == np.int32 else 0
        number = 0
        if data is not None:
            stored = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(self.schema.BufferT(data=stored))
            number = len(self.model.buffers) - 1
        name = f"t{len(self.graph.tensors)}".encode()
        self.graph.tensors.append(self.schema.TensorT(shape=list(shape), type=kind, buffer=number, name=name))
        return len(self.graph.tensors) - 1

    def add(self, code: int, inputs: list[int], kind: str, how: Any) -> None:
        """An operator behind the last one, which gives `self.shape`."""
        self.last = self.tensor(self.shape)
        made = self.schema.OperatorT(opcodeIndex=code, inputs=inputs, outputs=[self.last], builtinOptions=how)
        made.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
        self.graph.operators.append(made)

    def padded(self) -> None:
        _, height, width, channels = self.shape
        self.shape = (1, height + 2, width + 2, channels)
        amounts = self.tensor((4, 2), np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
        self.add(0, [self.last, amounts], "PadOptions", self.schema.PadOptionsT())

    def convolved(self, filters: int, side: int, stride: int) -> None:
        weights = self.rng.normal(size=(filters, side, side, self.shape[3])).astype(np.float32)
        weights *= (2 / (side * side * self.shape[3])) ** 0.5
        if side == 1:
            weights.flat[self.rng.permutation(weights.size)[: round(weights.size * self.zeros)]] = 0
        self.shape = (1, (self.shape[1] - side) // stride + 1, (self.shape[2] - side) // stride + 1, filters)
        ends = [self.last, self.tensor(weights.shape, weights), self.tensor((filters,), np.zeros(filters, np.float32))]
        self.add(1, ends, "Conv2DOptions", self.strided(self.schema.Conv2DOptionsT(padding=1), stride))

    def depthwise(self, stride: int) -> None:
        same = self.same == "always" or (self.same == "stride 1" and stride == 1)
        if not same:
            self.padded()
        _, height, width, channels = self.shape
        sides = [-(-side // stride) if same else (side - 3) // stride + 1 for side in (height, width)]
        self.shape = (1, *sides, channels)
        weights = self.rng.normal(size=(1, 3, 3, channels)).astype(np.float32) * 0.3
        ends = [
            self.last,
            self.tensor(weights.shape, weights),
            self.tensor((channels,), np.zeros(channels, np.float32)),
        ]
        how = self.schema.DepthwiseConv2DOptionsT(padding=0 if same else 1, depthMultiplier=1)
        self.add(2, ends, "DepthwiseConv2DOptions", self.strided(how, stride))

    def strided(self, how: Any, stride: int) -> Any:
        how.strideH = how.strideW = stride
        how.dilationHFactor = how.dilationWFactor = 1
        how.fusedActivationFunction = 1  # ReLU
        return how
