"""Shares of the ceiling that kernels reach, for devices of which nothing else is known.

Fitted by benchmarks/estimates.py to the latencies that the shipped profiles quote: (share, width of its log).
"""

from __future__ import annotations

SHARES: dict[str, tuple[float, float]] = {
    "cpu/convolution/float32": (0.159, 0.38),
    "cpu/convolution/int8": (0.162, 0.31),
    "helium/convolution/int8": (0.393, 0.55),
    "helium/depthwise/int8": (0.126, 0.69),
    "mcu/convolution/int8": (0.375, 0.39),
    "mcu/depthwise/int8": (0.342, 0.74),
    "npu/convolution/float16": (0.442, 0.6),
    "npu/memory": (0.527, 0.35),
}
