"""What is known of TFLite's operators for quantization: weights, operators of one scale, fixed outputs.

LiteRT 8-bit quantization specification (ai.google.dev/edge/litert, quantization_spec); 16-bit outputs: the kernels'
own checks (tensorflow/lite/kernels/activations.cc).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bits = Literal[8, 16]


@dataclass(frozen=True)
class Weighted:
    """Places of an operator's operands, and the axis of the output channels in its weights."""

    weights: int
    axis: int
    data: int = 0
    bias: int = 2


# schema.fbs and the operators' specifications
WEIGHTED = {
    "CONV_2D": Weighted(1, 0),
    "DEPTHWISE_CONV_2D": Weighted(1, 3),
    "FULLY_CONNECTED": Weighted(1, 0),
    "TRANSPOSE_CONV": Weighted(1, 0, data=2, bias=3),
    "CONV_3D": Weighted(1, 4),
}
EDGES = frozenset({"QUANTIZE", "DEQUANTIZE"})
# the output has the first operand's scale
PASSING = frozenset(
    {
        *(
            "AVERAGE_POOL_2D",
            "MAX_POOL_2D",
            "RESHAPE",
            "RESIZE_BILINEAR",
            "RESIZE_NEAREST_NEIGHBOR",
            "PAD",
            "MIRROR_PAD",
        ),
        *("TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SLICE", "STRIDED_SLICE", "SPLIT", "UNPACK", "GATHER", "GATHER_ND"),
        *("SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "BROADCAST_TO", "REDUCE_MIN", "REDUCE_MAX"),
    }
)
# all operands have the output's scale
JOINING = frozenset(
    {"CONCATENATION", "PACK", "MAXIMUM", "MINIMUM", "PADV2", "SELECT", "SELECT_V2", "DYNAMIC_UPDATE_SLICE"}
)
# (scale, zero point) of an output that the kernel prescribes
FIXED: dict[str, dict[Bits, tuple[float, int]]] = {
    "SOFTMAX": {8: (1 / 256, -128), 16: (1 / 32768, 0)},
    "LOGISTIC": {8: (1 / 256, -128), 16: (1 / 32768, 0)},
    "TANH": {8: (1 / 128, 0), 16: (1 / 32768, 0)},
    "L2_NORMALIZATION": {8: (1 / 128, 0)},
    "LOG_SOFTMAX": {8: (16 / 256, 127)},
}
# operators whose 16-bit kernel takes scales that are near a power of two for exact ones (kernels/add.cc, CheckedLog2)
POWER_OF_TWO = frozenset({"ADD", "SUB"})
# weights alone: what has a kernel, or a DEQUANTIZE before it (ai-edge-quantizer 0.10, default_policy)
WEIGHT_ONLY: dict[str, frozenset[str]] = {
    "float16": frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}),
    "dynamic": frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}),
    "weight_int8": frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}),
    "weight_int4": frozenset({"CONV_2D", "FULLY_CONNECTED"}),
}
# as ai-edge-quantizer calls them, where it differs from the schema
AEQ_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
