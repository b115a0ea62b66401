"""Ranges of a float .tflite file's tensors resolved to what its quantized form can hold.

Operators of one scale agree on a range, prescribed outputs get theirs, ranges hold 0 and are no narrower than a
kernel's multiplier allows, and weights' scales are no finer than the bias's 32 bits.
Rules: LiteRT 8-bit quantization specification (ai.google.dev/edge/litert, quantization_spec).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit.core import ACTIVATION_BITS, STATIC, Scheme
from toolkit.errors import UnsupportedError
from toolkit.exporters.tflite_file import File, Operator, Tensor
from toolkit.exporters.tflite_operators import FIXED, JOINING, PASSED, PASSING, POWER_OF_TWO, WEIGHTED, Bits

if TYPE_CHECKING:
    from toolkit.core import Array

Bounds = tuple[float, float]
LEAST_RANGE = 1e-6  # width: a tensor that is always 0 has none, and its scale would divide by it
LEAST_WEIGHT = 1e-9  # largest |w| of a channel that is taken for 0: as ai-edge-quantizer (uniform_quantize_tensor)
LARGEST_BIAS = 2.0**30  # steps: half of int32, so that sums fit beside it; the 64-bit bias is rounded to 32 bits too
LARGEST_RATIO = 128.0  # input scale * weight scale / output scale; XNNPACK's 8-bit kernels want it below 256
LEAST_RATIO = 2.0**-31  # the same from below: XNNPACK wants 2^-32; a whole accumulator moves the output by one step
NEAR_POWER = 0.002  # of log2(scale): twice what LiteRT takes for a power of two (kernel_util, CheckedLog2)


@dataclass(frozen=True)
class Encodings:
    """What a static file is to hold.

    bits: of each operator's activations, None where it stays in float. bounds: of each computed float tensor that a
    static operator touches. weight_scales: of weights that cannot have max|w| / 127, by tensor. notes: on those.
    """

    bits: tuple[Bits | None, ...]
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    weight_scales: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[tuple[str, str], ...] = ()  # (operator's output tensor, words)


def scale_of(bounds: Bounds, bits: Bits) -> tuple[float, int]:
    """(scale, zero point) of a range: asymmetric int8, symmetric int16."""
    low, high = bounds
    if bits == 16:
        return max(-low, high) / 32767, 0
    scale = (high - low) / 255
    return scale, round(-128 - low / scale)


def resolve(file: File, ranges: Mapping[str, Bounds], schemes: tuple[Scheme, ...], granularity: str) -> Encodings:
    """Encodings of a float file. schemes: of its operators in order; ranges: of every tensor that is computed."""
    bits: tuple[Bits | None, ...] = tuple(ACTIVATION_BITS.get(scheme) for scheme in schemes)  # type: ignore[misc]
    bounds = {name: holding_zero(name, *found) for name, found in ranges.items()}
    groups = _Groups(file, bits)
    for members, source in groups.found():
        shared = groups.fixed.get(source) or _union([bounds[name] for name in groups.joins(members) or (source,)])
        bounds |= dict.fromkeys(members, shared)
    for operator, width in zip(file.operators, bits, strict=True):
        if width == 16 and operator.kind in POWER_OF_TWO:
            bounds |= dict.fromkeys(
                groups.members(operator.outputs[0].name), _off_power(bounds[operator.outputs[0].name])
            )
    scales: dict[str, Array] = {}
    notes: list[tuple[str, str]] = []
    for operator, width in zip(file.operators, bits, strict=True):
        if width is None or operator.kind not in WEIGHTED:
            continue
        output = operator.outputs[0].name
        wider = _wide_enough(operator, bounds, width)
        if wider != bounds[output]:
            bounds |= dict.fromkeys(groups.members(output), wider)
            notes.append(
                (output, f"its range was widened to {wider[0]:.3g}..{wider[1]:.3g}, the least its kernel can hold")
            )
        if (raised := _raised(operator, bounds, width, granularity)) is not None:
            weights, values, count = raised
            scales[weights.name] = values
            notes.append((output, f"{count} channels next to 0 have a coarser weight scale, which the kernel can hold"))
    return Encodings(bits, bounds, scales, tuple(notes))


def holding_zero(name: str, low: float, high: float) -> Bounds:
    """A range that holds 0 and is wider than nothing; raises UnsupportedError where it is not finite."""
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise UnsupportedError(name, "has no finite range on the calibration data", "look for a division by zero")
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if high - low >= LEAST_RANGE else (low, low + LEAST_RANGE)


def weight_scales(operator: Operator, granularity: str, largest: int = 127) -> Array:
    """Scales that weights have by themselves: max|w| / largest of each output channel, or of all.

    granularity: "per_channel", "per_tensor", or "dense_per_tensor" for one scale in dense layers alone.
    """
    import numpy as np

    place = WEIGHTED[operator.kind]
    tensor = operator.inputs[place.weights]
    if tensor is None or tensor.data is None:
        raise UnsupportedError(operator.kind, "its weights are computed, not constant", "quantize with scheme dynamic")
    data = np.abs(tensor.data.astype(np.float64))
    axes = tuple(axis for axis in range(data.ndim) if axis != place.axis)
    whole = granularity == "per_tensor" or (granularity == "dense_per_tensor" and operator.kind == "FULLY_CONNECTED")
    each = data.max(keepdims=True).ravel() if whole else data.max(axis=axes)
    scales: Array = np.maximum(each, LEAST_WEIGHT) / largest
    return scales


def _union(bounds: list[Bounds]) -> Bounds:
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def _off_power(bounds: Bounds) -> Bounds:
    import math

    power = math.log2(scale_of(bounds, 16)[0])
    near = abs(power - round(power)) < NEAR_POWER
    factor = 2.0 ** (2 * NEAR_POWER) if near else 1.0
    return bounds[0] * factor, bounds[1] * factor


def _operand_scale(operator: Operator, bounds: Mapping[str, Bounds], bits: Bits) -> float:
    data = operator.inputs[WEIGHTED[operator.kind].data]
    return scale_of(bounds[data.name], bits)[0] if data is not None else 1.0


def _wide_enough(operator: Operator, bounds: Mapping[str, Bounds], bits: Bits) -> Bounds:
    """The output's range, widened where one product of two integers would be over LARGEST_RATIO of its steps."""
    low, high = bounds[operator.outputs[0].name]
    product = _operand_scale(operator, bounds, bits) * float(weight_scales(operator, "per_tensor")[0])
    steps = 255 if bits == 8 else 32767
    return low, max(high, low + product / LARGEST_RATIO * steps)


def _raised(
    operator: Operator, bounds: Mapping[str, Bounds], bits: Bits, granularity: str
) -> tuple[Tensor, Array, int] | None:
    """(weights, scales, how many are coarser) where max|w| / 127 would be too fine for the bias or the kernel."""
    import numpy as np

    place = WEIGHTED[operator.kind]
    own = weight_scales(operator, granularity)
    step = _operand_scale(operator, bounds, bits)
    floor = np.full_like(own, scale_of(bounds[operator.outputs[0].name], bits)[0] * LEAST_RATIO / step)
    bias = operator.inputs[place.bias] if len(operator.inputs) > place.bias else None
    if bias is not None and bias.data is not None:
        needed = np.abs(bias.data.astype(np.float64)) / (step * LARGEST_BIAS)
        floor = np.maximum(floor, needed if own.size > 1 else needed.max())
    weights = operator.inputs[place.weights]
    if weights is None or not (own < floor).any():
        return None
    return weights, np.maximum(own, floor), int((own < floor).sum())


class _Groups:
    """Tensors of one encoding: those that static operators of one scale hold together, by way of each other too.

    fixed: a source whose kernel prescribes its range. A fixed tensor that is joined to others is requantized there.
    """

    def __init__(self, file: File, bits: tuple[Bits | None, ...]) -> None:
        self.fixed: dict[str, Bounds] = {}
        self._source: dict[str, str] = {}
        self._joins: list[tuple[set[str], list[str]]] = []
        for operator, width in zip(file.operators, bits, strict=True):
            if width is not None:
                self._add(operator, width)

    def _add(self, operator: Operator, bits: Bits) -> None:
        outputs = [tensor.name for tensor in operator.outputs if tensor.dtype == "float32"]
        if operator.kind in FIXED and bits in FIXED[operator.kind]:
            scale, zero = FIXED[operator.kind][bits]
            least = -128 if bits == 8 else -32767
            greatest = 127 if bits == 8 else 32767
            self.fixed |= dict.fromkeys(outputs, ((least - zero) * scale, (greatest - zero) * scale))
        elif operator.kind in PASSING:
            passed = operator.inputs[PASSED.get(operator.kind, 0)]
            if passed is not None:
                self._source |= dict.fromkeys(outputs, self.source(passed.name))
        elif operator.kind in JOINING:
            self._join(outputs, [tensor.name for tensor in _computed(operator)])

    def source(self, name: str) -> str:
        """The tensor whose encoding this one has, by way of operators that pass it on."""
        return self._source.get(name, name)

    def members(self, name: str) -> list[str]:
        """All tensors that have this one's encoding, itself among them."""
        source = self.source(name)
        joined = next((group for group, _ in self._joins if source in group), {source})
        return [name, *joined, *(passed for passed, own in self._source.items() if own in joined)]

    def joins(self, members: list[str]) -> tuple[str, ...]:
        """Outputs of the operators that join these tensors."""
        return next((tuple(outputs) for group, outputs in self._joins if group & set(members)), ())

    def found(self) -> Iterator[tuple[list[str], str]]:
        """(members, source) of every group of more than one tensor, and of every prescribed tensor."""
        seen: set[str] = set()
        for name in (*self._source.values(), *(name for group, _ in self._joins for name in group), *self.fixed):
            if name not in seen:
                members = self.members(name)
                seen |= set(members)
                yield members, self.source(name)

    def _join(self, outputs: list[str], inputs: list[str]) -> None:
        members = {self.source(name) for name in (*outputs, *inputs)} - set(self.fixed)
        joined = [group for group in self._joins if group[0] & members]
        self._joins = [group for group in self._joins if not group[0] & members]
        before = [name for _, others in joined for name in others]
        self._joins.append((members.union(*(group for group, _ in joined)), [*before, *outputs]))


def _computed(operator: Operator) -> list[Tensor]:
    return [tensor for tensor in operator.inputs if tensor and tensor.data is None and tensor.dtype == "float32"]


def static(schemes: tuple[Scheme, ...]) -> bool:
    """Whether any operator needs ranges."""
    return any(scheme in STATIC for scheme in schemes)
