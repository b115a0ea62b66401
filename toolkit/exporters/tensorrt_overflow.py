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
MEANS = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceL1", "GlobalLpPool", "LpPool")
SQUARES = ("ReduceL2", "ReduceSumSquare", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
           "MeanVarianceNormalization")  # fmt: skip
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
