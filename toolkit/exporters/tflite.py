"""Writes a .tflite file at a fixed batch of 1: by TensorFlow's converter, quantized by it or by ai-edge-quantizer.

The converter quantizes with a calibration of its own; ai-edge-quantizer with the ranges it is given, operator by
operator. Pages: ai.google.dev/edge/litert, "Post-training quantization"; github.com/google-ai-edge/ai-edge-quantizer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from toolkit.core import STATIC, Artifact, ExportContext, Kind, Model, Progress, QuantSpec, Scheme, TensorSpec
from toolkit.errors import UnsupportedError
from toolkit.exporters import (
    feeds,
    intake,
    metadata,
    tflite_aeq,
    tflite_file,
    tflite_float,
    tflite_held,
    tflite_intake,
    tflite_laws,
    tflite_metadata,
    tflite_packed,
    tflite_quantized,
    tflite_refusal,
    tflite_scan,
    written,
)
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array

FORMAT = "tflite"
BY_CONVERTER = "written by TensorFlow's converter"
NO_ONNX = (
    "an .onnx file is not converted to TFLite here: the converter that is kept, onnx2tf, needs another TensorFlow than "
    "Edgekit's; convert it in an environment of its own and give Edgekit the .tflite file"
)


class TFLite(Component):
    """A .tflite file (LiteRT, TensorFlow Lite): one image at a time, of one size; inputs and outputs bound by name."""

    format: ClassVar[str] = FORMAT
    suffix: ClassVar[str] = ".tflite"
    takes: ClassVar[tuple[str, ...]] = ("keras", "savedmodel", "tflite")
    schemes: ClassVar[tuple[Scheme, ...]] = (
        "float32",
        "float16",
        "dynamic",
        "int8",
        "int16x8",
        "weight_int8",
        "weight_int4",
    )

    input_shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """Height and width in pixels, for a model that leaves them open."""
    embed_preprocessing: bool = False
    """Take uint8 pixels, RGB or gray, of the input's size: colour order, scale and offset are inside the file."""
    pack_sparse: bool = False
    """Store weights with many zeros as their other values and where they belong: a smaller file, no faster and in no
    less memory; gzip makes a dense file as small."""
    metadata: bool = False
    """Write class names, preprocessing and provenance into the file, as TFLite Metadata."""

    def operator_versions(self, quant: QuantSpec) -> dict[str, int]:
        """Operators that files of such a request may have in versions that tflite-runtime 2.7 does not read."""
        dense = {"FULLY_CONNECTED": 12} if "dynamic" in quant.schemes and quant.granularity == "per_channel" else {}
        packed = {tflite_packed.OPERATOR: 1} if self.pack_sparse else {}
        return dense | packed | ({"DEQUANTIZE": 6} if "weight_int4" in quant.schemes else {})

    def refusal(self, quant: QuantSpec, kind: Kind = "keras") -> str | None:
        """Why this request cannot be written, or None."""
        if kind not in self.takes:
            return NO_ONNX
        if self.embed_preprocessing and (reason := intake.refusal(kind)):
            return reason
        if self.embed_preprocessing and quant.io == "int8":
            return "embed_preprocessing takes uint8 pixels, and io asks for int8 inputs: set io to uint8 or float32"
        if self.embed_preprocessing and quant.scheme == "int16x8":
            return "embed_preprocessing has no 16-bit form: use scheme int8, or prepare the images outside of the file"
        if self.pack_sparse and (reason := tflite_packed.refusal(quant)):
            return reason
        return tflite_refusal.of(quant, kind)

    def packages(self, quant: QuantSpec, kind: Kind) -> tuple[tuple[str, str], ...]:
        """(package, what to install) that this request needs beyond every install's."""
        ours = quant.scheme not in ("float32", *tflite_refusal.WHOLE) or quant.layers or kind == FORMAT
        return ((tflite_aeq.PACKAGE, "edgekit"),) if ours and quant.scheme != "float32" else ()

    def export(self, model: Model, path: Path, context: ExportContext) -> Artifact:
        """Write, read back, run once; raises UnsupportedError naming the layer that cannot be written as asked."""
        if reason := self.refusal(model.quant, model.kind):
            raise UnsupportedError(FORMAT, reason)
        if model.quant.scheme in STATIC and model.statistics is None:
            feeds.calibration_set(context)
        written.require_sound(model)
        inputs = feeds.fixed_inputs(model, self.input_shape, FORMAT)
        front = intake.of(model, inputs, FORMAT) if self.embed_preprocessing else None
        with written.draft(path) as temporary:
            made = _made(model, inputs, context, pixels=front is not None)
            content, told = self._completed(made.content, model, context, front)
            temporary.write_bytes(content)
            context.emit(Progress("reading the file back"))
            file = tflite_file.read(temporary)
            notes = (*made.notes, *told, *_checked(file, made, model, pixels=front is not None))
            example = feeds.probe(context, inputs)
            outputs = _run_once(temporary, front.pixels(example, axis=-1) if front else example)
            written.require_finite(outputs, model, list(example.values()))
        ends = (_specs(file.inputs, model), _specs(file.outputs, model))
        signature = feeds.signature_of(model, *ends)
        return written.artifact(
            path,
            format=FORMAT,
            scheme=model.quant.scheme,
            signature=signature,
            notes=notes,
            pixels=front is not None,
        )

    def _completed(
        self, content: bytes, model: Model, context: ExportContext, front: intake.Intake | None
    ) -> tuple[bytes, tuple[str, ...]]:
        """The file's bytes with the intake, packing and metadata that are asked for, and notes."""
        notes: tuple[str, ...] = ()
        if front:
            content = tflite_intake.embed(content, front, per_tensor=model.quant.granularity == "per_tensor")
        if self.pack_sparse:
            content, weights = tflite_packed.pack(tflite_packed.unpack(content))
            notes = (tflite_packed.told(weights),)
        if self.metadata:
            found = metadata.of(model, context, pixels=front is not None)
            content = tflite_metadata.embed(content, found)
        return content, notes


@dataclass(frozen=True)
class _Made:
    """A converted file. held: what ai-edge-quantizer's work is held against; model: the one its layers are named by."""

    content: bytes
    model: Model
    held: tflite_held.Held | None = None
    notes: tuple[str, ...] = ()


def _made(model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext, *, pixels: bool) -> _Made:
    """The file before its intake and metadata, by whichever backend honours the request."""
    if model.kind == FORMAT and _came_so(model):
        return _Made(_as_it_came(model), model)
    if tflite_refusal.by_converter(model):
        return _Made(tflite_float.convert(model, inputs, context, pixels=pixels), model, notes=_why(model))
    source = _prepared(model)
    plan = tflite_quantized.plan(_float_file(source, inputs, context), source, inputs, context)
    if (lack := tflite_quantized.lacks(plan, source)) and tflite_refusal.may_convert(model):
        notes = (f"{BY_CONVERTER} with a calibration of its own: ai-edge-quantizer lacks {lack}",)
        return _Made(tflite_float.convert(model, inputs, context, pixels=pixels), model, notes=notes)
    made = tflite_quantized.quantize(plan, source, inputs, context, pixels=pixels)
    return _Made(made.content, source, made.held, (_by_quantizer(model), *made.notes))


def _prepared(model: Model) -> Model:
    """A Keras model in the form that static files compute, which its statistics are of; any other as it is."""
    if model.kind != "keras" or (model.quant.scheme not in STATIC and not model.quant.layers):
        return model
    from toolkit.engine.prepare import prepare

    return replace(model, graph=prepare(model.graph, scalings=model.quant.folds_scalings).graph)


def _float_file(model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext) -> bytes:
    if model.kind == FORMAT:
        return tflite_packed.unpack(Path(model.graph).read_bytes())
    return tflite_float.convert(replace(model, quant=QuantSpec()), inputs, context, pixels=False)


def _why(model: Model) -> tuple[str, ...]:
    """That the converter wrote the file, and why, where there was a choice."""
    if model.quant.scheme not in STATIC:
        return () if model.quant.scheme == "float32" else (BY_CONVERTER,)
    asked = "as asked" if model.quant.backend == "tensorflow" else "the model brings no ranges"
    return (f"{BY_CONVERTER} with a calibration of its own: {asked}",)


def _by_quantizer(model: Model) -> str:
    if model.quant.scheme not in STATIC:
        return "written by ai-edge-quantizer"
    found = "the model's ranges" if model.statistics is not None else f"ranges found on the file ({model.quant.ranges})"
    return f"written by ai-edge-quantizer with {found}"


def _checked(file: tflite_file.File, made: _Made, model: Model, *, pixels: bool) -> tuple[str, ...]:
    """Notes on what the written file left as it was; raises for what must not be."""
    locate = written.locator(made.model)
    if made.held is None:
        if model.kind == FORMAT:
            return tflite_scan.scan(file, QuantSpec(), locate)
        if model.quant.scheme in STATIC:
            tflite_laws.require(file, locate)
        return tflite_scan.scan(file, model.quant, locate, pixels=pixels)
    tflite_scan.scan(file, QuantSpec(), locate)
    tflite_held.hold(tflite_intake.behind(file) if pixels else file, made.held, locate)
    return ()


def _came_so(model: Model) -> bool:
    """Whether a .tflite source is in the scheme asked for already."""
    return tflite_scan.scheme_of(tflite_file.read(Path(model.graph))) == model.quant.scheme


def _as_it_came(model: Model) -> bytes:
    """A .tflite source, with a signature if it had none."""
    content = Path(model.graph).read_bytes()
    if tflite_file.is_signed(content):
        return content
    names = [[spec.name for spec in specs] for specs in (model.signature.inputs, model.signature.outputs)]
    return tflite_file.sign(content, *names)


def _run_once(path: Path, example: dict[str, Array]) -> dict[str, Array]:
    """Allocate the file and run it on one example, as a device would: by name, quantized where the file is."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner(tflite_file.SIGNATURE_KEY)
        details = runner.get_input_details()
        outputs: dict[str, Array] = runner(**{name: _quantized(a, details[name]) for name, a in example.items()})
    except (RuntimeError, ValueError) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsupportedError(FORMAT, f"LiteRT cannot run the written file: {text[0]}") from error
    return outputs


def _quantized(array: Array, detail: dict[str, Any]) -> Array:
    import numpy as np

    dtype = np.dtype(detail["dtype"])
    scale, zero = detail["quantization"]
    if dtype == array.dtype or not scale:
        return array.astype(dtype)
    bounds = np.iinfo(dtype)
    steps: Array = np.round(array / scale) + zero
    return steps.clip(bounds.min, bounds.max).astype(dtype)


def _specs(ends: tuple[tuple[str, tflite_file.Tensor], ...], model: Model) -> tuple[TensorSpec, ...]:
    layouts = {spec.name: spec.layout for spec in (*model.signature.inputs, *model.signature.outputs)}
    return tuple(TensorSpec(name, tensor.shape, tensor.dtype, layout=layouts[name]) for name, tensor in ends)
