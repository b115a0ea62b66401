"""Puts an intake in front of a .tflite graph: its input becomes uint8 pixels, and nothing behind it changes.

In floating point CAST, GATHER (channel order), MUL and ADD: bit for bit the float32 arithmetic of the preprocessing
contract. In an int8 file, so that it stays in integers, QUANTIZE (uint8 to int8, both of scale 1) and a 1 x 1 CONV_2D
whose weights are the scales, in their channels' order, and whose bias is the offset: one rounding, to the input's own
8-bit steps (LiteRT 8-bit quantization specification).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import UnsupportedError
from toolkit.exporters import tflite_file
from toolkit.exporters.intake import PREFIX, Intake

if TYPE_CHECKING:
    from toolkit.core import Array

STEPS = 127  # of a weight: the largest symmetric int8 (LiteRT 8-bit quantization specification)
CONV_VERSION = 3  # first version of CONV_2D with int8 (tensorflow/compiler/mlir/lite/tools/versioning)


def embed(content: bytes, intake: Intake, *, per_tensor: bool = False) -> bytes:
    """The file with the intake; its input is uint8, of scale 1 and zero point 0 where it is quantized.

    per_tensor: weights may have one scale only; raises UnsupportedError where the intake needs several.
    """
    model = tflite_file.parse(content)
    front = _Front(model)
    end = front.take_input(intake.name)
    if model.subgraphs[0].tensors[end].type == front.schema.TensorType.FLOAT32:
        _in_float(front, intake, end)
    else:
        _in_int8(front, intake, end, per_tensor=per_tensor)
    front.finish()
    return tflite_file.pack(model)


def is_embedded(file: tflite_file.File) -> bool:
    """Whether a file takes pixels: uint8 that no quantization explains, or that goes into an intake."""
    _, first = file.inputs[0]
    ours = any(tensor.name.startswith(f"{PREFIX}/") for operator in file.operators for tensor in operator.outputs)
    return first.dtype == "uint8" and (ours or not first.scales)


def behind(file: tflite_file.File) -> tflite_file.File:
    """The file without its intake: its input is what the intake gives."""
    ours = [op for op in file.operators if all(tensor.name.startswith(f"{PREFIX}/") for tensor in op.outputs)]
    ((name, _),) = file.inputs
    rest = tuple(operator for operator in file.operators if operator not in ours)
    return tflite_file.File(rest, ((name, ours[-1].outputs[0]),), file.outputs)


def _in_float(front: _Front, intake: Intake, end: int) -> None:
    import numpy as np

    kinds = front.schema.TensorType
    steps: list[tuple[str, Any, Array | None]] = [
        ("CAST", front.schema.CastOptionsT(kinds.UINT8, kinds.FLOAT32), None),
    ]
    if intake.flip:
        steps.append(("GATHER", front.schema.GatherOptionsT(axis=3), np.array([2, 1, 0], np.int32)))
    if set(intake.scale) != {1.0}:
        steps.append(("MUL", front.schema.MulOptionsT(), np.array(intake.scale, np.float32)))
    if set(intake.offset) != {0.0}:
        steps.append(("ADD", front.schema.AddOptionsT(), np.array(intake.offset, np.float32)))
    at = front.pixels
    for kind, options, constant in steps:
        last = kind == steps[-1][0]
        result = end if last else front.tensor(kind.lower(), front.shape, kinds.FLOAT32)
        inputs = [at] if constant is None else [at, front.constant(f"{kind.lower()}_by", constant)]
        front.operator(kind, inputs, result, options)
        at = result


def _in_int8(front: _Front, intake: Intake, end: int, *, per_tensor: bool) -> None:
    import numpy as np

    kinds = front.schema.TensorType
    front.set_scale(front.pixels, [1.0], [0])
    if intake.identity:
        front.operator("QUANTIZE", [front.pixels], end, front.schema.QuantizeOptionsT())
        return
    if per_tensor and len(set(intake.scale)) > 1:
        problem = "the channels have scales of their own, and weights with one scale cannot hold them exactly"
        raise UnsupportedError("tflite.embed_preprocessing", problem, 'set granularity = "per_channel"')
    signed = front.tensor("quantize", front.shape, kinds.INT8)
    front.set_scale(signed, [1.0], [-128])
    front.operator("QUANTIZE", [front.pixels], signed, front.schema.QuantizeOptionsT())
    count = len(intake.scale)
    weights = np.zeros((count, 1, 1, count), np.int8)
    for channel in range(count):
        weights[channel, 0, 0, count - 1 - channel if intake.flip else channel] = STEPS
    scales = (np.array(intake.scale) / STEPS).astype(np.float32)
    bias = np.round(np.array(intake.offset) / scales.astype(np.float64)).astype(np.int32)
    kernel, shift = front.constant("weights", weights), front.constant("bias", bias)
    stored = [float(scale) for scale in (scales[:1] if per_tensor else scales)]
    front.set_scale(kernel, stored, [0] * len(stored))
    front.set_scale(shift, stored, [0] * len(stored))
    options = front.schema.Conv2DOptionsT(
        padding=front.schema.Padding.VALID, strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1
    )
    front.operator("CONV_2D", [signed, kernel, shift], end, options, version=CONV_VERSION)


class _Front:
    """Operators that are put before all others of a file's first graph. pixels: the number of its new input."""

    def __init__(self, model: Any) -> None:
        self.schema = tflite_file.generated()
        self._model, self._graph = model, model.subgraphs[0]
        self._operators: list[Any] = []
        self.pixels = -1
        self.shape: list[int] = []

    def take_input(self, name: str) -> int:
        """Give the input's name and place to a uint8 tensor; returns the number of the one that had them."""
        old = int(self._graph.inputs[0])
        self.shape = [int(size) for size in self._graph.tensors[old].shape]
        self._graph.tensors[old].name = f"{PREFIX}/input"
        self.pixels = self.tensor("pixels", self.shape, self.schema.TensorType.UINT8)
        self._graph.tensors[self.pixels].name = name
        self._graph.inputs = [self.pixels, *map(int, self._graph.inputs[1:])]
        for signature in self._model.signatureDefs or []:
            for pair in signature.inputs:
                if pair.tensorIndex == old:
                    pair.tensorIndex = self.pixels
        return old

    def tensor(self, name: str, shape: Sequence[int], kind: int, buffer: int = 0) -> int:
        """Number of a new tensor; buffer 0 is the empty one that every file begins with."""
        made = self.schema.TensorT(shape=list(shape), type=kind, buffer=buffer, name=f"{PREFIX}/{name}")
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def constant(self, name: str, values: Array) -> int:
        """Number of a new constant."""
        import numpy as np

        self._model.buffers.append(self.schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        kind = getattr(self.schema.TensorType, values.dtype.name.upper())
        return self.tensor(name, values.shape, kind, len(self._model.buffers) - 1)

    def set_scale(self, tensor: int, scales: Sequence[float], zero_points: Sequence[int]) -> None:
        """Quantize a tensor, along its first axis where there are several scales."""
        self._graph.tensors[tensor].quantization = self.schema.QuantizationParametersT(
            scale=list(scales), zeroPoint=list(zero_points), quantizedDimension=0
        )

    def operator(self, kind: str, inputs: Sequence[int], output: int, options: Any, *, version: int = 1) -> None:
        """Add an operator behind those that were added before."""
        options_kind = getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        code = self._code(getattr(self.schema.BuiltinOperator, kind), version)
        made = self.schema.OperatorT(
            opcodeIndex=code,
            inputs=list(inputs),
            outputs=[output],
            builtinOptionsType=options_kind,
            builtinOptions=options,
        )
        self._operators.append(made)

    def finish(self) -> None:
        """Put the operators in front."""
        self._graph.operators = [*self._operators, *self._graph.operators]

    def _code(self, number: int, version: int) -> int:
        codes = self._model.operatorCodes
        for index, code in enumerate(codes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number and code.version >= version:
                return index
        # the 8-bit field of files up to 2020 holds numbers up to 127; all that are used here are below
        codes.append(self.schema.OperatorCodeT(deprecatedBuiltinCode=number, builtinCode=number, version=version))
        return len(codes) - 1
