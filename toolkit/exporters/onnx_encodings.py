"""How ranges and weights become scales and zero points in an .onnx file, in both flavours.

asymmetric: uint8 activations from low to high. symmetric: int8 activations of zero point 0, from -127 to 127, as
TensorRT wants them. Weights are symmetric int8 in both; biases int32 of scale input * weight (asymmetric only).
Pages: onnxruntime.ai, "Quantize ONNX models"; docs.nvidia.com, TensorRT, "Working with Quantized Types".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.core import Array

WEIGHT_STEPS = 127  # narrow range: -127..127 (LiteRT 8-bit quantization specification; ONNX Runtime's symmetric int8)
REDUCED_STEPS = 64  # two products of 255 * 64 still fit the int16 sums of vpmaddubsw ("Quantize ONNX models")
BIAS_LIMIT = 2.0**30  # half of int32: the sum of products has the other half
TINY = 1.1754944e-38  # smallest normal float32: below it a scale is no number to divide by


@dataclass(frozen=True)
class Encoding:
    """real = (integer - zero_point) * scale. dtype: numpy name. axis: of the scales, None where there is one."""

    scale: Array
    zero_point: int
    dtype: str
    axis: int | None = None

    def in_float16(self) -> Encoding:
        """The same with the next scales up that are float16 numbers: nothing is clipped that was not."""
        import numpy as np

        largest = np.float32(np.finfo(np.float16).max)  # what is larger stays: such a layer is computed in float32
        near = np.minimum(self.scale, largest).astype(np.float16)
        with np.errstate(over="ignore"):  # what comes after the largest is not taken
            up = np.where(near.astype(np.float32) < self.scale, np.nextafter(near, np.float16(np.inf)), near)
        return replace(self, scale=np.where(self.scale > largest, self.scale, up.astype(np.float32)))

    def integers(self, values: Array) -> Array:
        """The integers for real values: rounded half to even, clipped to the type."""
        import numpy as np

        return np.asarray(np.rint(self.steps(values)).astype(self.dtype))

    def steps(self, values: Array) -> Array:
        """The same before rounding."""
        import numpy as np

        scale, limits = self.scale.astype(np.float64), np.iinfo(self.dtype)
        if self.axis is not None:
            scale = scale.reshape([-1 if axis == self.axis % values.ndim else 1 for axis in range(values.ndim)])
        return np.asarray(np.clip(np.asarray(values, np.float64) / scale + self.zero_point, limits.min, limits.max))


def activation(low: float, high: float, flavour: str) -> Encoding:
    """Of a tensor with these values; zero always has an integer of its own."""
    import numpy as np

    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if flavour == "symmetric":
        scale = max(-low, high) / WEIGHT_STEPS
        return Encoding(np.array(scale if scale >= TINY else 1.0, np.float32), 0, "int8")
    scale = (high - low) / 255
    if scale < TINY:
        return Encoding(np.array(1.0, np.float32), 0, "uint8")
    return Encoding(np.array(scale, np.float32), int(np.rint(-low / scale)), "uint8")


def weight(
    values: Array, *, axis: int | None, reduced: bool = False, bias: Array | None = None, of_input: float = 1.0
) -> Encoding:
    """Symmetric int8 by the largest weight, of each output channel along `axis` or of all; reduced: in 7 bits.

    A scale is larger where the int32 bias (of scale of_input * scale) would not fit otherwise, as in channels that
    pruning left with a bias and no weights.
    """
    import numpy as np

    size = np.abs(np.asarray(values, np.float64))
    own = None if axis is None else axis % size.ndim
    largest = size.max(initial=0.0, axis=None if own is None else tuple(i for i in range(size.ndim) if i != own))
    scale = largest / (REDUCED_STEPS if reduced else WEIGHT_STEPS)
    if bias is not None:
        least = np.abs(np.asarray(bias, np.float64)).reshape(-1) / (of_input * BIAS_LIMIT)
        scale = np.maximum(scale, least.max(initial=0.0) if own is None else least)
    return Encoding(np.asarray(np.where(scale >= TINY, scale, 1.0), np.float32), 0, "int8", own)
