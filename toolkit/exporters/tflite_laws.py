"""What holds of every static .tflite file by itself, whoever wrote it: the rules its kernels rely on.

LiteRT 8-bit quantization specification (ai.google.dev/edge/litert, quantization_spec).
"""

from __future__ import annotations

from toolkit.errors import UnsupportedError
from toolkit.exporters.tflite_file import File, Operator, Tensor
from toolkit.exporters.tflite_operators import FIXED, JOINING, PASSED, PASSING, WEIGHTED, Bits
from toolkit.exporters.tflite_scan import Locate, layer_of

RELATIVE = 1e-5  # of scales: a few roundings to float32 (6e-8 each)
WIDTHS: dict[str, Bits] = {"int8": 8, "int16": 16}


def require(file: File, locate: Locate) -> None:
    """Raise UnsupportedError naming the first tensor that breaks a rule, and its layer."""
    for operator in file.operators:
        bits = WIDTHS.get(operator.outputs[0].dtype) if operator.outputs else None
        broken = _broken(operator, bits) if bits else None
        if broken:
            tensor, problem = broken
            raise UnsupportedError(layer_of(operator, locate), f"tensor `{tensor.name}` {problem}")


def _broken(operator: Operator, bits: Bits) -> tuple[Tensor, str] | None:
    output = operator.outputs[0]
    if operator.kind in WEIGHTED:
        return _bias(operator, bits)
    if bits in FIXED.get(operator.kind, {}):
        scale, zero = FIXED[operator.kind][bits]
        if not _close(output.scales, (scale,)) or output.zero_points != (zero,):
            return output, f"has not the scale and zero point that {operator.kind} prescribes"
    passed = operator.inputs[PASSED.get(operator.kind, 0)] if operator.kind in PASSING else None
    others = (*operator.inputs, *operator.outputs) if operator.kind in JOINING else (passed, *operator.outputs)
    for tensor in others if operator.kind in (*PASSING, *JOINING) else ():
        if tensor and tensor.dtype == output.dtype and (tensor.scales, tensor.zero_points) != _own(output):
            return tensor, f"has another scale than `{output.name}`, and {operator.kind} changes none"
    return None


def _bias(operator: Operator, bits: Bits) -> tuple[Tensor, str] | None:
    """A bias is int32 (int64 beside 16 bits), in steps of input scale * weight scale, without zero points."""
    place = WEIGHTED[operator.kind]
    data, weights = operator.inputs[place.data], operator.inputs[place.weights]
    bias = operator.inputs[place.bias] if len(operator.inputs) > place.bias else None
    if bias is None or data is None or weights is None or not data.scales:
        return None
    if bias.dtype not in (("int32",) if bits == 8 else ("int32", "int64")):
        return bias, f"is {bias.dtype}, beside {bits}-bit activations"
    if not _close(bias.scales, tuple(data.scales[0] * scale for scale in weights.scales)) or any(bias.zero_points):
        return bias, "has other scales than input scale * weight scale, or a zero point"
    return None


def _own(tensor: Tensor) -> tuple[tuple[float, ...], tuple[int, ...]]:
    return tensor.scales, tensor.zero_points


def _close(found: tuple[float, ...], right: tuple[float, ...]) -> bool:
    """Equal, each; one scale may stand for as many that are all the same."""
    if len(found) != len(right):
        found, right = (tuple(dict.fromkeys(each)) for each in (found, right))
    pairs = zip(found, right, strict=False)
    return len(found) == len(right) and all(abs(a - b) <= RELATIVE * b for a, b in pairs)
