"""Which nodes of an .onnx graph float16 cannot compute, and why: constants, activations, and sums inside reductions.

Largest number of float16: 65504 (IEEE 754). Rules as those by which NVIDIA's Model Optimizer (AutoCast) keeps nodes in
float32: constants and activations that overflow, and Softmax of values beyond 512.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from toolkit.exporters.onnx_file import File
from toolkit.exporters.onnx_scan import FLOAT16_MAX, MOVING, QUANTIZERS
from toolkit.exporters.tensorrt_float16 import takes_float16, version_of

HEADROOM = 2.0  # an image may reach further than those of calibration did
EXPONENTS_MAX = 512.0  # AutoCast's data_max
BIAS_LOST = 0.25  # of a step of the output: half of what rounding to it may take
MEANS = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceL1", "GlobalLpPool", "LpPool")
SQUARES = ("ReduceL2", "ReduceSumSquare", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
           "MeanVarianceNormalization")  # fmt: skip
BIAS = "where biases counted in steps of the scales would be lost in float16, and nothing is stored in it"
BIASED = ("Conv", "ConvTranspose", "Gemm")
EXPONENTS = ("Softmax", "LogSoftmax", "ReduceLogSumExp")


def wide(file: File, largest: Mapping[str, float]) -> dict[str, str]:
    """Node -> why it stays float32; largest: |value| of the tensors for which it is known."""
    version = version_of(file.proto)
    found: dict[str, str] = {}
    for node in file.nodes:
        if node.op_type == "Constant":
            continue
        reason = _constants(file, node)
        if not reason and node.op_type not in QUANTIZERS:
            reason = _activations(node, largest) or _inner(file, node, largest)
            if not reason and _is_real(file, node) and not takes_float16(node, version):
                reason = "it has no float16 form in ONNX"
        if reason:
            found[node.name] = reason
        elif node.op_type in BIASED and (reason := _bias(file, node)):
            found |= dict.fromkeys([node.name, *(each.name for each in _until_quantized(file, node))], reason)
    return found


def named(node: Any) -> bool:
    """Whether it is worth a line that a node stays float32: what only moves values follows its neighbours."""
    return node.op_type not in (*MOVING, *QUANTIZERS, "Relu", "Clip", "Cast")


def _is_real(file: File, node: Any) -> bool:
    return any(file.inferred.get(name, (0, None))[0] == 1 for name in node.output)


def _constants(file: File, node: Any) -> str:
    """Constants that become infinite; a lone one that would become 0, as what keeps a divisor off it."""
    import numpy as np

    for index, name in enumerate(node.input):
        values = file.values(name)
        if values is None or values.dtype != np.float32 or not values.size or (node.op_type == "Clip" and index):
            continue
        largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
        if largest > FLOAT16_MAX:
            return f"a constant of {largest:.4g} overflows float16"
        if values.size == 1 and largest and not float(np.float16(largest)):
            return f"a constant of {largest:.4g} is 0 in float16"
    return ""


def _activations(node: Any, largest: Mapping[str, float]) -> str:
    reached = max((largest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
    if reached * HEADROOM <= FLOAT16_MAX:
        return ""
    return f"it reaches {reached:.4g}, and float16 ends at {FLOAT16_MAX:.0f} (with {HEADROOM:g} times of headroom)"


def _bias(file: File, node: Any) -> str:
    """Whether a bias between int8 ends is lost where it is counted in steps of input scale * weight scale in float16.

    ONNX Runtime's optimizer (WeightBiasQuantization, 1.31) does so. In float32 nothing is lost, nor anything paid: what
    is int8 on both ends is stored in no other type.
    """
    import numpy as np

    pairs = [file.producers.get(name) for name in node.input[:2]]
    bias = file.values(node.input[2]) if len(node.input) > 2 else None
    ends = _until_quantized(file, node)
    if bias is None or not ends or any(pair is None or pair.op_type != "DequantizeLinear" for pair in pairs):
        return ""
    one, other = (file.values(pair.input[1]) for pair in pairs if pair is not None)
    step = file.values(ends[-1].input[1])
    if one is None or other is None or step is None:
        return ""
    exact = one.astype(np.float64) * other.astype(np.float64)
    with np.errstate(all="ignore"):
        counted = np.rint(bias.astype(np.float16) / exact.astype(np.float16)).astype(np.float64)
        lost = np.abs(counted * exact - bias)
    if np.isfinite(lost).all() and float(lost.max()) <= BIAS_LOST * float(step):
        return ""
    return (
        "its bias, counted in steps of input and weight scale, would be lost in float16; between int8 it costs nothing"
    )


def _until_quantized(file: File, node: Any) -> list[Any]:
    """The activations behind a node and the QuantizeLinear they end in, where nothing else reads any of them."""
    found: list[Any] = []
    while len(readers := file.consumers.get(node.output[0], [])) == 1:
        node = readers[0]
        if node.op_type not in ("Relu", "Clip", "QuantizeLinear"):
            return []
        found.append(node)
        if node.op_type == "QuantizeLinear":
            return found
    return []


def _inner(file: File, node: Any, largest: Mapping[str, float]) -> str:
    """Sums that a node makes inside, and exponents."""
    reached = largest.get(node.input[0], 0.0) if node.input else 0.0
    if node.op_type in EXPONENTS and reached > EXPONENTS_MAX:
        return f"exponents of values up to {reached:.4g}"
    if node.op_type in (*MEANS, *SQUARES):
        count = _summed(file, node)
        most = count * (reached**2 if node.op_type in SQUARES else reached)
        if most > FLOAT16_MAX:
            return f"its sums over {count} values may reach {most:.4g}, and float16 ends at {FLOAT16_MAX:.0f}"
    return ""


def _summed(file: File, node: Any) -> int:
    """How many values one result is made of, as far as shapes are known (free sizes count as 1)."""
    given, result = (file.inferred.get(name, (0, None))[1] for name in (node.input[0], node.output[0]))
    kernel = next((each.ints for each in node.attribute if each.name == "kernel_shape"), None)
    if kernel is not None:
        return prod(kernel)
    sizes = prod(size or 1 for size in given or ())
    if node.op_type in ("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization"):
        return prod(size or 1 for size in (given or ())[2:])
    if node.op_type == "LayerNormalization":
        axis = next((each.i for each in node.attribute if each.name == "axis"), -1)
        return prod(size or 1 for size in (given or ())[axis:])
    return max(1, sizes // max(1, prod(size or 1 for size in result or ())))
