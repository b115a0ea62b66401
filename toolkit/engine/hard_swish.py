"""Hard-swish of int8 integers as LiteRT computes it: x * relu6(x + 3) / 6 in fixed point of 16 bits.

Both factors are fractions of 2^15; the steps and their roundings are those of the kernel's own description
(github.com/google-ai-edge/LiteRT, `hard_swish.h`), the arithmetic that of gemmlowp (github.com/google/gemmlowp).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FINER = 128  # steps of the input as it is computed with, to one of the file's: 8 bits in the upper part of 16
GATE = 3 / 2**15  # scale of the gate before it is halved: from -3 to 3


def hard_swish_table(taken: tuple[float, int], given: tuple[float, int]) -> Array:
    """What each int8 integer from -128 to 127 becomes. taken, given: (scale, zero point) of input and output."""
    x = (np.arange(-128, 128, dtype=np.int64) - taken[1]) * FINER
    fine = np.float32(np.float32(1 / FINER) * np.float32(taken[0]))
    factor, exponent = _fixed(fine / np.float32(given[0]))
    gate_factor, gate_exponent = _fixed(fine / np.float32(GATE))
    gate = _saturated(x << gate_exponent - 1) if gate_exponent > 0 else x
    gate = _rounded_product(gate, gate_factor)
    gate = _saturated(gate << 1) if gate_exponent > 0 else _divided(gate, -gate_exponent)
    product = _towards_zero((gate + 2**15 >> 1) * _rounded_product(x, factor))
    result: Array = np.clip(_divided(product, -exponent) + given[1], -128, 127)
    return result


def _fixed(real: Any) -> tuple[int, int]:
    """(factor, exponent): real = factor / 2^15 * 2^exponent, by way of 32 bits."""
    fraction, exponent = np.frexp(float(real))
    wide = round(float(fraction) * 2**31)
    if wide == 2**31:
        wide, exponent = wide // 2, exponent + 1
    return min(wide + 2**15 >> 16, 2**15 - 1), int(exponent)


def _saturated(x: Array) -> Array:
    found: Array = np.clip(x, -(2**15), 2**15 - 1)
    return found


def _towards_zero(x: Array) -> Array:
    """x / 2^15 without what is behind the point."""
    found: Array = np.sign(x) * (np.abs(x) >> 15)
    return found


def _rounded_product(x: Array, factor: int) -> Array:
    """x times factor / 2^15, halves up."""
    product = x * factor
    return _saturated(_towards_zero(product + np.where(product >= 0, 2**14, 1 - 2**14)))


def _divided(x: Array, exponent: int) -> Array:
    """x / 2^exponent, halves away from zero."""
    rest = x & (1 << exponent) - 1
    return (x >> exponent) + (rest > ((1 << exponent) - 1 >> 1) + (x < 0))
