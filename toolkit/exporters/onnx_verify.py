"""Holds a written .onnx file to the encodings it was asked for, tensor by tensor.

Read from the file: integers, scales, zero points, types, axes. The encodings are those of the request, which the writer
had too: what is found is a file that differs from them, by damage or by what onnxruntime did otherwise; that they are
right is onnx_encodings' to be tested for. What stayed in float is onnx_scan's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import UnsupportedError
from toolkit.exporters.intake import PREFIX
from toolkit.exporters.onnx_encodings import Encoding
from toolkit.exporters.onnx_file import File
from toolkit.exporters.onnx_qdq import Request
from toolkit.exporters.onnx_scan import WEIGHTED, Locate, layer_of

if TYPE_CHECKING:
    from toolkit.core import Array

HALF = 0.5 + 1e-4  # a step: what lies in the middle of two may be rounded to either in float32
SAME = 1e-6  # relative: float32 scales, computed in another order


@dataclass(frozen=True)
class _Check:
    """What is compared, for one tensor of one node."""

    file: File
    asked: Request
    locate: Locate

    def node(self, node: Any, twin: Any) -> None:
        """A node that is quantized, beside the one of the float graph it came from."""
        where = layer_of(self.asked.float_file, twin, self.locate)
        full = node.name in self.asked.placement.full
        if twin.op_type in WEIGHTED and twin.input[1] in self.asked.weights:
            self._weight(where, node.input[1], twin.input[1])
            if full and self.asked.quant.flavour == "asymmetric" and len(twin.input) > 2:
                self._bias(where, node, twin)
        for own, name in zip(node.input, twin.input, strict=False) if full else ():
            maker = self.file.producers.get(own)
            fused = maker is not None and maker.op_type in ("Conv", "ConvTranspose") and node.op_type == "Add"
            if name in self.asked.activations and not (fused and self.asked.quant.flavour == "symmetric"):
                self._activation(where, own, name)

    def _activation(self, where: str, own: str, name: str) -> None:
        wanted, dequantize = self.asked.activations[name], self.file.producers.get(own)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            raise _wrong(where, name, "is not read as integers")
        self._encoding(where, name, dequantize, wanted)
        stored = self.file.values(dequantize.input[0])
        if stored is not None:
            self._integers(where, name, stored, wanted)
            return
        quantize = self.file.producers.get(dequantize.input[0])
        if quantize is None or quantize.op_type != "QuantizeLinear":
            raise _wrong(where, name, "has a DequantizeLinear without a QuantizeLinear")
        self._encoding(where, name, quantize, wanted)

    def _weight(self, where: str, own: str, name: str) -> None:
        wanted, dequantize = self.asked.weights[name], self.file.producers.get(own)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            raise _wrong(where, name, "stays in floating point")
        self._encoding(where, name, dequantize, wanted)
        stored = self.file.values(dequantize.input[0])
        quantize = self.file.producers.get(dequantize.input[0])
        if stored is None and quantize is not None:  # a pair: the file holds the float weights
            self._encoding(where, name, quantize, wanted)
            kept, given = self.file.values(quantize.input[0]), self.asked.float_file.values(name)
            if kept is None or given is None or not (kept.shape == given.shape and (kept == given).all()):
                raise _wrong(where, name, "is not the float graph's")
            return
        self._integers(where, name, stored, wanted)

    def _integers(self, where: str, name: str, stored: Array | None, wanted: Encoding) -> None:
        import numpy as np

        given = self.asked.float_file.values(name)
        if stored is None or given is None or str(stored.dtype) != wanted.dtype:
            found = None if stored is None else stored.dtype
            raise _wrong(where, name, f"is stored as {found}, {wanted.dtype} was asked for")
        if stored.shape != given.shape:
            raise _wrong(where, name, f"has the shape {list(stored.shape)}, not {list(given.shape)}")
        differ = int((np.abs(stored - wanted.steps(given)) > HALF).sum())
        if differ:
            raise _wrong(where, name, f"has {differ} integers that are not the rounded values")

    def _encoding(self, where: str, name: str, node: Any, wanted: Encoding) -> None:
        """Scale, zero point, type and axis of a QuantizeLinear or DequantizeLinear."""
        import numpy as np

        scale = self.file.values(node.input[1])
        zero = self.file.values(node.input[2]) if len(node.input) > 2 else None
        if scale is None or scale.shape != wanted.scale.shape or not np.allclose(scale, wanted.scale, SAME, 0):
            raise _wrong(where, name, f"has the scale {_few(scale)}, {_few(wanted.scale)} was asked for")
        if zero is None or str(zero.dtype) != wanted.dtype:
            found = None if zero is None else zero.dtype
            raise _wrong(where, name, f"is {found}, {wanted.dtype} was asked for")
        if (zero != wanted.zero_point).any():
            raise _wrong(where, name, f"has the zero point {_few(zero)}, {wanted.zero_point} was asked for")
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        if wanted.axis is not None and axis != wanted.axis:
            raise _wrong(where, name, f"has its scales along axis {axis}, {wanted.axis} was asked for")

    def _bias(self, where: str, node: Any, twin: Any) -> None:
        """int32, of scale input * weight, zero point 0."""
        import numpy as np

        name, dequantize = twin.input[2], self.file.producers.get(node.input[2])
        given = self.asked.float_file.values(name)
        weight = self.asked.weights[twin.input[1]]
        source = self.asked.activations.get(twin.input[0])
        if given is None or source is None:
            return  # a computed bias, or an input that is no real tensor: nothing to be held to
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            raise _wrong(where, name, "stays in floating point")
        stored, scale = self.file.values(dequantize.input[0]), self.file.values(dequantize.input[1])
        wanted = (source.scale.astype(np.float64) * weight.scale.astype(np.float64)).reshape(-1)
        if stored is None or stored.dtype != np.int32:
            found = None if stored is None else stored.dtype
            raise _wrong(where, name, f"is stored as {found}, a bias is int32")
        if scale is None or scale.size != wanted.size or not np.allclose(scale.reshape(-1), wanted, SAME, 0):
            raise _wrong(where, name, f"has the scale {_few(scale)}, that of input * weight is {_few(wanted)}")
        zero = self.file.values(dequantize.input[2]) if len(dequantize.input) > 2 else np.zeros(1, np.int32)
        if zero is None or zero.any():
            raise _wrong(where, name, "has a zero point that is not 0")
        exact = given.astype(np.float64) / np.broadcast_to(wanted, given.shape)
        if (np.abs(stored - exact) > HALF + SAME * np.abs(exact)).any():  # float32 scales, large integers
            raise _wrong(where, name, "has integers that are not the rounded values")


def verify(file: File, asked: Request, locate: Locate) -> None:
    """Raise UnsupportedError naming the layer and the tensor that is not as asked."""
    twins = {node.name: node for node in asked.float_file.nodes}
    check = _Check(file, asked, locate)
    for node in file.nodes:
        if node.name in twins:
            check.node(node, twins[node.name])
    there = {node.name for node in file.nodes}
    for name in (*asked.placement.full, *asked.placement.weights):
        if name not in there and twins[name].op_type in WEIGHTED:
            raise _wrong(layer_of(asked.float_file, twins[name], locate), name, "is not in the file")
    _stored(file, asked)


def _stored(file: File, asked: Request) -> None:
    """Each QuantizeLinear of an activation, by the tensor it reads."""
    check = _Check(file, asked, lambda name: None)
    ends = {name: node for node in file.nodes if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    outputs = {spec.name for spec in file.outputs}
    for name, wanted in asked.activations.items():
        if name in asked.float_file.constants:
            continue
        known = (name, f"{PREFIX}/input", f"{name}_QuantizeLinear_Input")
        found = [ends[each] for each in known if each in ends and (each != known[1] or name not in ends)]
        removed = name not in file.producers and name not in {spec.name for spec in file.inputs}
        fused = asked.quant.flavour == "symmetric"  # what a convolution gives an Add; its other readers were checked
        if not found and not removed and not fused and name not in outputs:
            raise _wrong(name, name, "is not quantized")
        for node in found[:1]:
            check._encoding(name, name, node, wanted)


def _wrong(where: str, tensor: str, problem: str) -> UnsupportedError:
    return UnsupportedError(where, f"tensor {tensor} of the written file {problem}")


def _few(values: Array | None) -> str:
    if values is None:
        return "none"
    flat = values.reshape(-1)
    return ", ".join(f"{float(value):.6g}" for value in flat[:3]) + (f", ... ({flat.size})" if flat.size > 3 else "")
