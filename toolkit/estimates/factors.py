"""Shares of the ceiling that kernels reach, for devices of which nothing else is known.

Fitted by benchmarks/estimates.py to the latencies that the shipped profiles quote: (share, width of its log).
"""

from __future__ import annotations

SHARES: dict[str, tuple[float, float]] = {
    "cpu/convolution/float32": (0.161, 0.39),
    "cpu/convolution/int8": (0.174, 0.33),
    "helium/convolution/int8": (0.414, 0.54),
    "helium/depthwise/int8": (0.049, 0.59),
    "mcu/convolution/int8": (0.367, 0.39),
    "mcu/depthwise/int8": (0.165, 0.65),
    "npu/convolution/float16": (0.442, 0.6),
    "npu/memory": (0.527, 0.35),
}
