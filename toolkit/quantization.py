"""What is asked of quantized files, and what was found out for them: statistics in common, encodings per target.

Calibration or quantization-aware training gives target-neutral `Statistics`. Each exporter resolves them, under its own
rules (operators of one scale, fixed outputs, symmetric or not), to scales and zero points.
Page: ai.google.dev/edge/litert, "LiteRT 8-bit quantization specification".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# float16: 16-bit weights. dynamic: int8 weights, activations quantized at run time. int8, int16x8: int8 weights, static
# activations of 8 or 16 bits. weight_int8, weight_int4: weights alone, computed in float.
Scheme = Literal["float32", "float16", "dynamic", "int8", "int16x8", "weight_int8", "weight_int4"]
Flavour = Literal["asymmetric", "symmetric"]
RangeMethod = Literal["minmax", "moving_average", "percentile", "entropy", "mse"]
ACTIVATION_BITS: Mapping[Scheme, int] = {"int8": 8, "int16x8": 16}  # of static activations; the others have none
STATIC: tuple[Scheme, ...] = ("int8", "int16x8")  # need ranges of activations


@dataclass(frozen=True)
class QuantSpec:
    """What a `quantize` or `qat` pass asks of the exporters. They honour all of it or refuse.

    flavour: of static int8 activations: asymmetric as LiteRT and ONNX Runtime want them, symmetric (zero point 0) as
    TensorRT does. layers: (layer name, scheme) of layers that get another scheme than the rest. ranges, percentile: how
    a range is found for tensors that only the file has. allow_float: operators that the scheme has no kernel for may
    stay in float32; they are named. backend: what writes a .tflite file; auto is whichever honours the request.
    reduce_range, dense_per_tensor: what the kernels of a device need (DeviceRuntime.kernels): weights in 7 bits, dense
    layers with one weight scale each.
    """

    scheme: Scheme = "float32"
    granularity: Literal["per_channel", "per_tensor"] = "per_channel"  # of the weights' scales
    io: Literal["float32", "int8", "uint8", "int16"] = "float32"  # type of the file's inputs and outputs
    flavour: Flavour = "asymmetric"
    layers: tuple[tuple[str, Scheme], ...] = ()
    ranges: RangeMethod = "minmax"
    percentile: float = 99.99  # of all values, for ranges = "percentile"
    allow_float: bool = False
    backend: Literal["auto", "tensorflow", "ai-edge-quantizer"] = "auto"
    reduce_range: bool = False
    dense_per_tensor: bool = False

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """That of the file, and those that some of its layers have beside it."""
        return (self.scheme, *sorted({own for _, own in self.layers} - {self.scheme}))

    @property
    def folds_scalings(self) -> bool:
        """Whether a Rescaling is computed in integers: not by weight-only files, and not with symmetric activations."""
        return self.scheme in STATIC and self.flavour == "asymmetric"


@dataclass(frozen=True)
class TensorRange:
    """The values a tensor has integers for, both ends finite, low <= high. how: a RangeMethod, or "learned"."""

    low: float
    high: float
    how: str


@dataclass(frozen=True)
class Statistics:
    """Ranges of what the layers of a prepared Keras graph (engine.prepare) give, by layer name.

    A layer with several outputs or calls has entries "name:1", "name:2", ... beside "name". The model's inputs are
    there by the names of their input layers. Weights need no entry: quantized ones lie on the grid of
    max|w| / 127 of their output channel already, or are rounded to it by the exporter. sample: fingerprint of the
    images, of which there are `images`. notes: worth a warning.
    """

    ranges: Mapping[str, TensorRange] = field(default_factory=dict)
    images: int = 0
    sample: str = ""
    notes: tuple[str, ...] = ()
