"""A quantized .tflite file held against the float file it was made of and the request, tensor by tensor.

Every operator is found again, in order; every tensor has the type, scale and zero point asked for; every stored integer
is the rounded one; QUANTIZE and DEQUANTIZE stand where types change, and nowhere else. Rules: LiteRT 8-bit
quantization specification (ai.google.dev/edge/litert, quantization_spec).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.core import Scheme
from toolkit.errors import UnsupportedError
from toolkit.exporters.tflite_aeq import Request
from toolkit.exporters.tflite_encodings import Encodings, scale_of, weight_scales
from toolkit.exporters.tflite_file import File, Operator, Tensor
from toolkit.exporters.tflite_operators import EDGES, FIXED, JOINING, PASSED, PASSING, WEIGHTED, Bits
from toolkit.exporters.tflite_scan import FLOAT16_MAX, Locate, layer_of

if TYPE_CHECKING:
    from toolkit.core import Array

RELATIVE = 1e-5  # of scales: a few roundings to float32 (6e-8 each) on the way
FLOAT32 = 4e-7  # of a bias in steps: it was divided in float32 by a product of float32 (6e-8 each)
HALF = 0.5 + 1e-3  # steps: a value at the middle may go either way
STORED: dict[Scheme, str] = {"float16": "float16", "weight_int4": "int4"}  # of weights; int8 for the others
LARGEST: dict[Scheme, int] = {"weight_int4": 7}  # integer of a weight; 127 for the others


@dataclass(frozen=True)
class Held:
    """A request with all that a file can be held against: the float file it was made of, and encodings if any."""

    reference: File
    request: Request
    encodings: Encodings | None = None


def hold(file: File, held: Held, locate: Locate) -> None:
    """Raise UnsupportedError naming the first tensor that is not as asked, and its layer."""
    _Walk(file, held, locate).run()


class _Walk:
    """One pass over both files. _origin: a tensor of the quantized file -> the float file's that it stands for."""

    def __init__(self, file: File, held: Held, locate: Locate) -> None:
        self.file, self.held, self.locate = file, held, locate
        self._origin: dict[int, Tensor] = {}
        self._stored: dict[int, Tensor] = {}  # what a DEQUANTIZE of a constant gives -> the constant
        self._edges: dict[int, tuple[Operator, Tensor]] = {}  # what a QUANTIZE or DEQUANTIZE gives -> it, what it reads
        self._operator: Operator | None = None

    def run(self) -> None:
        reference, request = self.held.reference, self.held.request
        for (_, ours), (_, theirs) in zip(self.file.inputs, reference.inputs, strict=True):
            self._origin[id(ours)] = theirs
            self._end(ours, theirs, request.ends[0])
        left = list(enumerate(reference.operators))
        for operator in self.file.operators:
            self._operator = operator
            if operator.kind in EDGES and not (left and left[0][1].kind == operator.kind):
                self._edge(operator)
                continue
            if not left or left[0][1].kind != operator.kind:
                wanted = left[0][1].kind if left else "the end"
                raise self._wrong(
                    operator.outputs[0], f"is computed by {operator.kind}, the float file has {wanted} there"
                )
            index, expected = left.pop(0)
            self._one(index, operator, expected)
        if left:
            raise UnsupportedError(layer_of(left[0][1], self.locate), f"its {left[0][1].kind} is missing from the file")
        self._operator = None
        for (_, ours), (_, theirs) in zip(self.file.outputs, reference.outputs, strict=True):
            if self._origin.get(id(ours)) is not theirs:
                raise self._wrong(ours, f"is not what the float file gives there, `{theirs.name}`")
            self._end(ours, theirs, request.ends[1])
        self._edges_needed()

    # ------------------------------------------------------------ operators

    def _one(self, index: int, operator: Operator, expected: Operator) -> None:
        if operator.options != expected.options:
            raise self._wrong(operator.outputs[0], f"is computed with other options: {operator.options}")
        bits = self.held.encodings.bits[index] if self.held.encodings else None
        scheme = self.held.request.schemes[index]
        place = WEIGHTED.get(expected.kind)
        for ours, theirs in zip(operator.outputs, expected.outputs, strict=True):
            self._origin[id(ours)] = theirs
            self._activation(ours, theirs, bits)
            if bits is not None and expected.kind in FIXED:
                self._fixed(ours, expected.kind, bits)
        for number, (own, other) in enumerate(zip(operator.inputs, expected.inputs, strict=True)):
            if own is None or other is None:
                continue
            if other.data is None:
                self._activation(own, other, bits, joined=operator if expected.kind in JOINING else None)
            elif place and number == place.weights:
                self._weights(own, expected, scheme if bits is None else "int8")
            elif place and number == place.bias:
                self._bias(own, other, operator, bits)
            else:
                self._constant(own, other, bits)
        if bits is not None and expected.kind in PASSING:
            same = operator.inputs[PASSED.get(expected.kind, 0)]
            for ours in operator.outputs:
                if same is not None and (ours.scales, ours.zero_points) != (same.scales, same.zero_points):
                    raise self._wrong(ours, f"has another scale than what it passes on, `{same.name}`")

    def _activation(self, ours: Tensor, theirs: Tensor, bits: Bits | None, joined: Operator | None = None) -> None:
        """A computed tensor: it stands for the float file's, in the type and encoding its operator is asked for."""
        if self._origin.get(id(ours)) is not theirs:
            raise self._wrong(ours, f"is read where the float file has `{theirs.name}`")
        if theirs.dtype != "float32" or bits is None:
            if ours.dtype != theirs.dtype or ours.scales:
                raise self._wrong(ours, f"is {ours.dtype}, {theirs.dtype} was asked for")
        elif joined is not None:
            output = joined.outputs[0]
            if (ours.dtype, ours.scales, ours.zero_points) != (output.dtype, output.scales, output.zero_points):
                raise self._wrong(ours, f"has another scale than `{output.name}`, which it is joined into")
        else:
            self._encoded(ours, theirs, bits)

    def _encoded(self, ours: Tensor, theirs: Tensor, bits: Bits, *, unsigned: bool = False) -> None:
        asked = "uint8" if unsigned else f"int{bits}"
        if ours.dtype != asked:
            raise self._wrong(ours, f"is {ours.dtype}, {asked} was asked for")
        encodings = self.held.encodings
        if encodings is None or theirs.name not in encodings.bounds:
            raise self._wrong(ours, "has an encoding that nothing was asked of")
        bounds = encodings.bounds[theirs.name]
        scale, zero = scale_of(bounds, bits)
        self._one_scale(ours)
        if abs(ours.scales[0] - scale) > RELATIVE * scale:
            raise self._wrong(ours, f"has the scale {ours.scales[0]:.7g}, its range asks for {scale:.7g}")
        exact = (-128 - bounds[0] / scale if bits == 8 else 0) + (128 if unsigned else 0)
        if abs(ours.zero_points[0] - exact) > (HALF if bits == 8 else 0):
            raise self._wrong(ours, f"has the zero point {ours.zero_points[0]}, its range asks for {zero}")

    def _fixed(self, ours: Tensor, kind: str, bits: Bits) -> None:
        """A prescribed output; where the kernel prescribes none for 16 bits, its range has been checked."""
        if bits not in FIXED[kind]:
            return
        scale, zero = FIXED[kind][bits]
        if abs(ours.scales[0] - scale) > RELATIVE * scale or ours.zero_points[0] != zero:
            found = f"{ours.scales[0]:.7g} and {ours.zero_points[0]}"
            raise self._wrong(ours, f"has scale and zero point {found}, {kind} prescribes {scale:.7g} and {zero}")

    # ------------------------------------------------------------ constants

    def _weights(self, ours: Tensor, expected: Operator, scheme: Scheme) -> None:
        import numpy as np

        stored = self._stored.get(id(ours))
        explicit = scheme in ("float16", "weight_int8", "weight_int4")
        if explicit != (stored is not None) and scheme != "float32":
            raise self._wrong(ours, "is stored in float" if explicit else "is not read as it is stored")
        tensor = stored or ours
        place = WEIGHTED[expected.kind]
        theirs = expected.inputs[place.weights]
        if theirs is None or theirs.data is None or tensor.data is None:
            raise self._wrong(ours, "is no constant")
        if scheme == "float32":
            self._same(tensor, theirs, theirs.data)
            return
        if scheme == "float16":
            if np.abs(theirs.data).max(initial=0.0) >= FLOAT16_MAX:
                raise self._wrong(tensor, "overflows float16")
            self._same(tensor, theirs, theirs.data.astype(np.float16))
            return
        if tensor.dtype != STORED.get(scheme, "int8"):
            raise self._wrong(tensor, f"is {tensor.dtype}, {STORED.get(scheme, 'int8')} weights were asked for")
        scales = self._weight_scales(theirs, expected, LARGEST.get(scheme, 127))
        self._granular(tensor, scales, place.axis)
        shape = [-1 if axis == place.axis and scales.size > 1 else 1 for axis in range(tensor.data.ndim)]
        steps = theirs.data / np.asarray(tensor.scales, np.float32).reshape(shape)
        self._rounded(tensor, steps)

    def _weight_scales(self, theirs: Tensor, expected: Operator, largest: int) -> Array:
        encodings = self.held.encodings
        if encodings and theirs.name in encodings.weight_scales:
            return encodings.weight_scales[theirs.name]
        return weight_scales(expected, self.held.request.granularity, largest)

    def _granular(self, tensor: Tensor, scales: Array, axis: int) -> None:
        import numpy as np

        if len(tensor.scales) != scales.size or (scales.size > 1 and tensor.axis != axis):
            found = f"{len(tensor.scales)} scales along axis {tensor.axis}"
            raise self._wrong(
                tensor, f"has {found}, {self.held.request.granularity} asks for {scales.size} along {axis}"
            )
        if any(tensor.zero_points):
            raise self._wrong(tensor, "has a zero point other than 0")
        off = np.abs(np.asarray(tensor.scales) - scales) > RELATIVE * scales
        if off.any():
            channel = int(np.argmax(off))
            raise self._wrong(
                tensor,
                f"has the scale {tensor.scales[channel]:.7g} in channel {channel}, {scales[channel]:.7g} is right",
            )

    def _bias(self, ours: Tensor, theirs: Tensor, operator: Operator, bits: Bits | None) -> None:
        """int32 (int64 beside 16-bit activations) in steps of input scale * weight scale."""
        import numpy as np

        if theirs.data is None or ours.data is None:
            raise self._wrong(ours, "is no constant")
        if bits is None:
            self._same(ours, theirs, theirs.data)
            return
        asked = "int32" if bits == 8 else "int64"
        if ours.dtype != asked:
            raise self._wrong(ours, f"is {ours.dtype}, a bias beside {bits}-bit activations is {asked}")
        place = WEIGHTED[operator.kind]
        data, weights = operator.inputs[place.data], operator.inputs[place.weights]
        if data is None or weights is None:
            raise self._wrong(ours, "belongs to no weights")
        scales = data.scales[0] * np.asarray(weights.scales, np.float64)
        stored = np.asarray(ours.scales, np.float64)
        if stored.shape != scales.shape or (np.abs(stored - scales) > RELATIVE * scales).any() or any(ours.zero_points):
            raise self._wrong(ours, "has other scales than input scale * weight scale, or a zero point")
        steps = np.round(theirs.data.astype(np.float64) / scales)
        if (np.abs(ours.data.astype(np.float64) - steps) > 1 + FLOAT32 * np.abs(steps)).any():
            channel = int(np.argmax(np.abs(ours.data - steps)))
            raise self._wrong(ours, f"is {ours.data[channel]} in channel {channel}, {int(steps[channel])} is right")

    def _constant(self, ours: Tensor, theirs: Tensor, bits: Bits | None) -> None:
        """Any other constant: as it is, or, where a static operator reads numbers, rounded to one scale."""
        import numpy as np

        if theirs.data is None or ours.data is None:
            raise self._wrong(ours, "is no constant")
        if theirs.dtype != "float32" or bits is None:
            self._same(ours, theirs, theirs.data)
            return
        if ours.dtype != f"int{bits}":
            raise self._wrong(ours, f"is {ours.dtype}, int{bits} was asked for")
        self._one_scale(ours)
        error = np.abs((ours.data.astype(np.float64) - ours.zero_points[0]) * ours.scales[0] - theirs.data)
        if (error > ours.scales[0] * HALF).any():
            raise self._wrong(ours, f"is off its float value by {error.max() / ours.scales[0]:.3g} steps")

    def _same(self, ours: Tensor, theirs: Tensor, values: Array) -> None:
        import numpy as np

        if (
            ours.data is None
            or ours.dtype != values.dtype.name
            or not np.array_equal(ours.data, values, equal_nan=True)
        ):
            raise self._wrong(ours, f"is not the {values.dtype.name} constant of the float file, `{theirs.name}`")

    def _rounded(self, tensor: Tensor, steps: Array) -> None:
        import numpy as np

        if tensor.data is None:
            return
        off = np.abs(tensor.data.astype(np.float64) - steps)
        if (off > HALF).any():
            at = int(np.argmax(off))
            raise self._wrong(tensor, f"holds {tensor.data.flat[at]} at {at}, {np.round(steps.flat[at]):.0f} is right")

    # ------------------------------------------------------------ ends, changes of type

    def _end(self, ours: Tensor, theirs: Tensor, asked: str) -> None:
        """An input or output of the file, in the type asked of them all."""
        if theirs.dtype != "float32":
            return
        if ours.dtype != asked:
            raise self._wrong(ours, f"is {ours.dtype}, {asked} was asked for")
        if asked != "float32":
            self._encoded(ours, theirs, 16 if asked == "int16" else 8, unsigned=asked == "uint8")

    def _edge(self, operator: Operator) -> None:
        source, output = operator.inputs[0], operator.outputs[0]
        if source is None:
            raise self._wrong(output, "is quantized from nothing")
        if source.data is not None:
            self._stored[id(output)] = source
            return
        if id(source) not in self._origin:
            raise self._wrong(output, "is made of a tensor that nothing computes")
        self._origin[id(output)] = self._origin[id(source)]
        self._edges[id(output)] = (operator, source)

    def _edges_needed(self) -> None:
        """No change of type that nothing reads, that changes nothing, or that another undoes."""
        read = {id(t) for op in self.file.operators for t in op.inputs if t} | {id(t) for _, t in self.file.outputs}
        for operator, source in self._edges.values():
            output = operator.outputs[0]
            self._operator = operator
            if id(output) not in read:
                raise self._wrong(output, f"is a {operator.kind} that nothing reads")
            if _encoding(source) == _encoding(output):
                raise self._wrong(output, f"is a {operator.kind} that changes nothing")
            before = self._edges.get(id(source))
            if before is not None and {operator.kind, before[0].kind} == EDGES:
                raise self._wrong(output, f"is a {operator.kind} of what a {before[0].kind} gives")

    def _one_scale(self, tensor: Tensor) -> None:
        if len(tensor.scales) != 1 or len(tensor.zero_points) != 1:
            raise self._wrong(tensor, f"has {len(tensor.scales)} scales, one was asked for")

    def _wrong(self, tensor: Tensor, problem: str) -> UnsupportedError:
        layer = layer_of(self._operator, self.locate) if self._operator else self.locate(tensor.name) or tensor.name
        return UnsupportedError(layer, f"tensor `{tensor.name}` {problem}")


def _encoding(tensor: Tensor) -> tuple[str, tuple[float, ...], tuple[int, ...]]:
    return tensor.dtype, tensor.scales, tensor.zero_points
