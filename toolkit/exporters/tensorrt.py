"""Writes an .onnx file in the form TensorRT wants: its types say the precision, since builder flags are going away.

int8 is explicit Q/DQ: symmetric, a pair on activations and on weights, float bias, placed where TensorRT gains by it
(`tensorrt_placing`). What is not int8 is float32 (TensorRT 8.5 to 10 as builder flags say, and ONNX Runtime) or float16
(TensorRT 10 and 11, strongly typed). Both hold the same integers and scales.
Pages: docs.nvidia.com, TensorRT, "Working with Quantized Types", "Strongly Typed Networks".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from toolkit.core import ExportContext, Kind, Model, QuantSpec, Scheme, TensorSpec
from toolkit.errors import UnsupportedError
from toolkit.exporters import (
    feeds,
    observed,
    onnx_file,
    onnx_matching,
    onnx_quantize,
    onnx_scan,
    onnx_verify,
    tensorrt_float16,
    tensorrt_overflow,
    written,
)
from toolkit.exporters.onnx import ONNX, Written
from toolkit.exporters.onnx_file import File
from toolkit.exporters.quiet import quiet

WHERE = "tensorrt"
FLOAT16_SCALES = 19  # first operator set whose Q/DQ operators take float16 (onnx.ai, "QuantizeLinear")
FIRST = 17  # last operator set that TensorRT 8.5 and 8.6 read (onnx-tensorrt, operators.md)
INTEGER_OPERATORS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")


class TensorRT(ONNX):
    """An .onnx file in TensorRT's own form: its precision is in its types, int8 as symmetric Q/DQ."""

    schemes: ClassVar[tuple[Scheme, ...]] = ("float32", "float16", "int8")

    layout: Literal["NHWC", "NCHW"] = "NCHW"
    """How the file takes images: channels first (NCHW), as TensorRT's convolutions do, or as Keras (NHWC)."""
    opset: Annotated[int, Field(ge=13, le=17)] = 17
    """Version of the ONNX operator set; TensorRT 8.5 reads up to 17. A file with rest = "float16" is in 19."""
    rest: Literal["float16", "float32"] | None = None
    """Type of what is not int8 in an int8 file: float16 for TensorRT 10 and later, float32 for 8.5 to 10 and ONNX
    Runtime; float32 unless the target's TensorRT says otherwise."""

    @property
    def suffix(self) -> str:  # type: ignore[override]
        """Of the file: one variant may have both forms."""
        return ".trt.onnx" if self.rest is None else f".int8-{self.rest.replace('float', 'fp')}.onnx"

    def refusal(self, quant: QuantSpec, kind: Kind = "keras") -> str | None:
        """Why this request cannot be written, or None."""
        if quant.scheme not in self.schemes:
            return (
                f"TensorRT gains nothing by {quant.scheme}: it would compute such a model in floating point; "
                "use int8 or float16"
            )
        if quant.scheme == "int8" and quant.flavour != "symmetric":
            return 'TensorRT takes int8 with zero point 0 alone; set flavour = "symmetric" in the quantize or qat pass'
        if self.rest and quant.scheme != "int8":
            return f"rest is the type beside int8, and {quant.scheme} was asked for; leave rest out"
        return super().refusal(quant, kind)

    def _typed(self, proto: Any, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext) -> Written:
        scheme, locate = model.quant.scheme, written.locator(model)
        _require_float(File(proto))
        onnx_file.name_nodes(proto)
        version = tensorrt_float16.version_of(proto)
        if scheme == "int8" and self.rest != "float16" and version > FIRST:
            problem = f"the source file is in operator set {version}, TensorRT 8.5 reads up to {FIRST}"
            raise UnsupportedError(WHERE, problem, 'set rest = "float16", or export the source anew')
        if scheme == "float32":
            return Written(proto)
        if scheme == "float16":
            return self._narrow(Written(proto), File(proto), model, inputs, context)
        with quiet():
            made = Written(*onnx_quantize.quantize(proto, model, inputs, context, tensorrt=True))
        if self.rest != "float16":
            return made
        onnx_verify.verify(File(made.proto), made.asked, locate)  # type: ignore[arg-type]
        return self._narrow(made, made.asked.float_file, model, inputs, context)  # type: ignore[union-attr]

    def _narrow(
        self, made: Written, float_file: File, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext
    ) -> Written:
        """The graph in float16, but for what that cannot hold; its float32-typed form beside it."""
        import onnx

        proto, locate = made.proto, written.locator(model)
        if made.asked is not None and tensorrt_float16.version_of(proto) < FLOAT16_SCALES:
            with quiet():
                proto = onnx.version_converter.convert_version(proto, FLOAT16_SCALES)
            onnx_file.name_nodes(proto)
        largest, checked = _largest(float_file, model, inputs, context)
        twin = File(proto)
        reasons = tensorrt_overflow.wide(twin, {**largest, **_dequantized(twin)})
        notes = _told(twin, reasons, locate)
        narrow = tensorrt_float16.narrowed(proto, reasons)
        return Written(narrow, None, (*made.notes, *notes, *checked), twin)

    def _verified(self, file: File, made: Written, model: Model) -> tuple[str, ...]:
        locate = written.locator(model)
        onnx_scan.standard_only(file, locate)
        _require_symmetric(file, locate)
        if made.asked is not None:
            onnx_verify.verify(file, made.asked, locate)
        if made.twin is not None:
            tensorrt_float16.verify(file, made.twin, locate)
        version = tensorrt_float16.version_of(file.proto)
        words = f"the source file is in operator set {version}, of which TensorRT 8.5 and 8.6 read up to {FIRST}"
        return (words,) if version > FIRST and model.quant.scheme != "int8" else ()


def _told(file: File, reasons: Mapping[str, str], locate: onnx_scan.Locate) -> list[str]:
    """A note on each layer that stays float32; one on all those that do for their biases, and cost nothing."""
    found, biased = [], []
    for node in file.nodes:
        if node.name not in reasons or not tensorrt_overflow.named(node):
            continue
        layer = onnx_scan.layer_of(file, node, locate)
        if reasons[node.name] == tensorrt_overflow.BIAS:
            biased.append(layer)
        else:
            found.append(f"{layer}: {node.op_type} stays in float32: {reasons[node.name]}")
    if biased:
        few = ", ".join(biased[:5]) + (", ..." if len(biased) > 5 else "")
        found.append(f"{len(biased)} layers are float32 between int8 tensors, {tensorrt_overflow.BIAS}: {few}")
    return found


def _require_float(file: File) -> None:
    """Refuse to change the types of a source that is quantized already."""
    for node in file.nodes:
        if node.op_type in (*onnx_scan.QUANTIZERS, *INTEGER_OPERATORS):
            problem = f"the source file is quantized already (node {node.name}, {node.op_type})"
            raise UnsupportedError(WHERE, problem, "export its float32 form")


def _require_symmetric(file: File, locate: onnx_scan.Locate) -> None:
    """Raise for integers TensorRT's parser refuses; only a source that goes out as it came can have them."""
    for node in file.nodes:
        where = onnx_scan.layer_of(file, node, locate)
        if node.op_type in INTEGER_OPERATORS:
            raise UnsupportedError(where, f"TensorRT has no {node.op_type}", "give it a float32 file, or one with Q/DQ")
        if node.op_type not in onnx_scan.QUANTIZERS:
            continue
        zero = file.values(node.input[2]) if len(node.input) > 2 else None
        if zero is None or str(zero.dtype) != "int8" or zero.any():
            problem = f"node {node.name} ({node.op_type}) is not int8 with zero point 0, all that TensorRT takes"
            raise UnsupportedError(where, problem, 'quantize the float32 model with flavour = "symmetric"')


def _largest(
    file: File, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext
) -> tuple[Mapping[str, float], tuple[str, ...]]:
    """(|value| that the tensors reach, a note where it is not known of all).

    Measured on the calibration images where there are some; else as calibration or training found it.
    """
    if context.calibration is not None and len(context.calibration):
        ranges = dict(observed.observe_onnx(file.proto, feeds.calibration(context, inputs)))
        return _sizes(ranges), ()
    if model.quant.scheme == "int8" and model.statistics is not None:
        names = onnx_matching.floats(file)
        known = onnx_quantize.known(model, onnx_quantize.matches(file, model, inputs, context), names)
        missing = sum(name not in known for name in names)
        words = f"{missing} tensors were not checked for overflow of float16: no layer has their range"
        return _sizes(known), (words,) if missing else ()
    return {}, ("activations were not checked for overflow of float16: there are no calibration images",)


def _sizes(ranges: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {name: max(-low, high) for name, (low, high) in ranges.items()}


def _dequantized(file: File) -> dict[str, float]:
    """|value| that comes out of a DequantizeLinear, at most."""
    scales = {node.output[0]: file.values(node.input[1]) for node in file.nodes if node.op_type == "DequantizeLinear"}
    return {name: 127.0 * float(scale.max()) for name, scale in scales.items() if scale is not None}
