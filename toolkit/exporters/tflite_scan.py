"""What a written .tflite file must hold for its scheme, read back from the file itself.

8-bit rules: LiteRT 8-bit quantization specification (ai.google.dev/edge/litert, quantization_spec).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from toolkit.core import QuantSpec, Scheme
from toolkit.errors import UnsupportedError
from toolkit.exporters.tflite_file import File, Operator, Tensor
from toolkit.exporters.tflite_operators import EDGES, WEIGHTED

Locate = Callable[[str], str | None]  # name of an operation or tensor -> Keras layer

FLOATS = ("float32", "float16", "bfloat16", "float64")
FLOAT16_MAX = 65504.0  # IEEE 754 binary16
DYNAMIC_MINIMUM = (
    1024  # elements; the converter's dynamic-range quantizer leaves smaller weights (tensorflow/lite, quantize)
)


def scan(file: File, quant: QuantSpec, locate: Locate, *, pixels: bool = False) -> tuple[str, ...]:
    """Notes on what a file of this scheme left as it was; raises UnsupportedError for what must not be.

    pixels: its input is uint8 whatever the specification says of inputs and outputs.
    """
    _builtin_only(file, locate)
    match quant.scheme:
        case "int8" | "int16x8":
            _ends_typed(file, quant, pixels=pixels)
            _no_float_island(file, locate)
            _granularity(file, quant, locate)
            return ()
        case "dynamic":
            _granularity(file, quant, locate)
            return _left_float(file, locate)
        case "float16":
            return _left_wide(file, locate)
        case _:
            return ()


def scheme_of(file: File) -> Scheme:
    """How a file is quantized, by the types its operators compute in and its constants are stored in."""
    computed = Counter(t.dtype for op in file.operators for t in op.outputs if op.kind not in EDGES)
    narrow = computed["int8"] + computed["uint8"]
    if narrow or computed["int16"]:
        return "int16x8" if computed["int16"] > narrow else "int8"
    constants = [(op.kind in EDGES, t.dtype) for op in file.operators for t in op.inputs if t and t.data is not None]
    if {(False, "int8"), (False, "int4")} & set(constants):
        return "dynamic"
    behind = Counter(dtype for _, dtype in constants)
    stored: tuple[tuple[str, Scheme], ...] = (
        ("float16", "float16"),
        ("int8", "weight_int8"),
        ("int4", "weight_int4"),
    )
    return max(stored, key=lambda each: behind[each[0]])[1] if any(behind[kind] for kind, _ in stored) else "float32"


def layer_of(operator: Operator, locate: Locate) -> str:
    """The Keras layer of an operator: by its weights, else by what it computes, else by what it reads."""
    constant = [tensor for tensor in operator.inputs if tensor and tensor.data is not None]
    own = operator.inputs[1:] if operator.kind in WEIGHTED else constant
    tensors = (*own, *operator.outputs, *operator.inputs)
    layers = (locate(tensor.name) for tensor in tensors if tensor)
    return next((layer for layer in layers if layer), operator.kind)


def weights(file: File) -> Iterator[tuple[Operator, Tensor, int]]:
    """(operator, its constant weights, axis of the output channels); a stored type behind DEQUANTIZE counts."""
    stored = {id(op.outputs[0]): op.inputs[0] for op in file.operators if op.kind == "DEQUANTIZE"}
    for operator in file.operators:
        place = WEIGHTED.get(operator.kind)
        tensor = operator.inputs[place.weights] if place else None
        tensor = stored.get(id(tensor), tensor)
        if place and tensor is not None and tensor.data is not None:
            yield operator, tensor, place.axis


def _builtin_only(file: File, locate: Locate) -> None:
    for operator in file.operators:
        if operator.kind.startswith("CUSTOM:"):
            problem = f"became the operator {operator.kind[7:]}, which is not built into TFLite"
            raise UnsupportedError(layer_of(operator, locate), problem, "replace the layer")


def _ends_typed(file: File, quant: QuantSpec, *, pixels: bool) -> None:
    ends = [(name, tensor, "uint8" if pixels else quant.io) for name, tensor in file.inputs]
    ends += [(name, tensor, quant.io) for name, tensor in file.outputs]
    for name, tensor, asked in ends:
        if tensor.dtype != asked and tensor.dtype in (*FLOATS, "int8", "uint8", "int16"):
            raise UnsupportedError(name, f"is {tensor.dtype} in the written file, {asked} was asked for")


def _no_float_island(file: File, locate: Locate) -> None:
    ends = {id(tensor) for _, tensor in (*file.inputs, *file.outputs)}
    for operator in sorted(file.operators, key=lambda operator: operator.kind in EDGES):  # name the cause first
        floats = [t for t in (*operator.inputs, *operator.outputs) if t and t.dtype in FLOATS]
        if not floats or (operator.kind in EDGES and all(id(t) in ends for t in floats)):
            continue
        problem = f"{operator.kind} stays in floating point inside an int8 file (tensor `{floats[0].name}`)"
        raise UnsupportedError(
            layer_of(operator, locate), problem, "replace the layer, or quantize with scheme dynamic"
        )


def _granularity(file: File, quant: QuantSpec, locate: Locate) -> None:
    for operator, tensor, axis in weights(file):
        if tensor.dtype != "int8":
            continue
        count = tensor.shape[axis] if quant.granularity == "per_channel" else 1
        if len(tensor.scales) != count or not all(0 < scale < float("inf") for scale in tensor.scales):
            problem = f"{operator.kind} has {len(tensor.scales)} weight scales, {quant.granularity} asks for {count}"
            raise UnsupportedError(layer_of(operator, locate), problem, "ask for the other granularity")
        if any(tensor.zero_points):
            raise UnsupportedError(layer_of(operator, locate), "its weights have a zero point other than 0")


def _left_float(file: File, locate: Locate) -> tuple[str, ...]:
    notes, quantized = [], 0
    for operator, tensor, _ in weights(file):
        if tensor.dtype == "int8":
            quantized += 1
            continue
        size = tensor.data.size if tensor.data is not None else 0
        reason = (
            f"{size} weights, fewer than the {DYNAMIC_MINIMUM} the converter quantizes"
            if size < DYNAMIC_MINIMUM
            else "no dynamic kernel"
        )
        notes.append(f"{layer_of(operator, locate)}: weights stay {tensor.dtype} ({operator.kind}: {reason})")
    if not quantized:
        problem = f"no layer has {DYNAMIC_MINIMUM} weights or more, so nothing would be quantized"
        raise UnsupportedError("dynamic", problem, "use scheme int8 or float16")
    return tuple(notes)


def _left_wide(file: File, locate: Locate) -> tuple[str, ...]:
    for operator in file.operators:
        if any(_saturated(tensor) for tensor in operator.inputs):
            problem = f"a weight overflows float16 (the converter would cut it to {FLOAT16_MAX:.0f})"
            raise UnsupportedError(layer_of(operator, locate), problem, "use scheme float32 or int8")
    return tuple(
        f"{layer_of(operator, locate)}: weights stay {tensor.dtype} ({operator.kind})"
        for operator, tensor, _ in weights(file)
        if tensor.dtype != "float16"
    )


def _saturated(tensor: Tensor | None) -> bool:
    """TensorFlow 2.21 writes +-65504 for whatever float16 cannot hold, infinity included, and says nothing."""
    import numpy as np

    if tensor is None or tensor.data is None or tensor.dtype != "float16":
        return False
    return bool((np.abs(tensor.data.astype(np.float32)) >= FLOAT16_MAX).any())
