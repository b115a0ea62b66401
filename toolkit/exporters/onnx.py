"""Writes an .onnx file with tf2onnx, from a frozen graph; quantized in Q/DQ form, as ONNX Runtime or TensorRT want it.

Pages: github.com/onnx/tensorflow-onnx; onnxruntime.ai, "Quantize ONNX models".
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from toolkit.core import STATIC, Artifact, ExportContext, Kind, Model, Progress, QuantSpec, Scheme, TensorSpec
from toolkit.errors import UnsupportedError
from toolkit.exporters import (
    feeds,
    intake,
    metadata,
    onnx_file,
    onnx_given,
    onnx_intake,
    onnx_metadata,
    onnx_quantize,
    onnx_scan,
    onnx_verify,
    written,
)
from toolkit.exporters.onnx_session import FORMAT, runnable, session
from toolkit.exporters.quiet import quiet
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.exporters.onnx_qdq import Request

BY_ENCODINGS: tuple[Scheme, ...] = ("int8", "weight_int8")


@dataclass(frozen=True)
class Written:
    """A graph in the types asked for: the ModelProto, what its tensors must be, what is worth saying of it.

    twin: the same graph in float32, where the types are others' to check.
    """

    proto: Any
    asked: Request | None = None
    notes: tuple[str, ...] = ()
    twin: Any = None


@dataclass(frozen=True)
class _Content:
    """A file's bytes, what its tensors must be, and what is worth saying of it."""

    data: bytes
    made: Written = field(default_factory=lambda: Written(None))


class ONNX(Component):
    """An .onnx file for ONNX Runtime, TensorRT and others; inputs and outputs bound by name."""

    format: ClassVar[str] = FORMAT
    suffix: ClassVar[str] = ".onnx"
    takes: ClassVar[tuple[str, ...]] = ("keras", "savedmodel", "onnx")
    schemes: ClassVar[tuple[Scheme, ...]] = ("float32", "float16", "int8", "weight_int8")

    layout: Literal["NHWC", "NCHW"] = "NHWC"
    """How the file takes images: as Keras does (NHWC), or channels first (NCHW, what most ONNX tools expect)."""
    opset: Annotated[int, Field(ge=13, le=18)] = 18
    """Version of the ONNX operator set; per-channel scales came with 13, tf2onnx 1.17 ends at 18."""
    dynamic_batch: bool = False
    """Leave the batch dimension open; otherwise it is 1."""
    input_shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """Height and width in pixels, for a model that leaves them open."""
    embed_preprocessing: bool = False
    """Take uint8 pixels, RGB or gray, of the input's size: colour order, scale and offset are inside the file."""
    metadata: bool = False
    """Write class names, preprocessing and provenance into the file's metadata_props."""

    def refusal(self, quant: QuantSpec, kind: Kind = "keras") -> str | None:
        """Why this request cannot be written, or None."""
        if kind not in self.takes:
            return "there is no converter from .tflite to ONNX that is kept; export the model from where it was trained"
        if self.embed_preprocessing and (reason := intake.refusal(kind)):
            return reason
        if reason := onnx_quantize.refusal(quant):
            return reason
        if quant.io != "float32":
            return f"the inputs and outputs of a Q/DQ file are float32, {quant.io} was asked for"
        return None

    def export(self, model: Model, path: Path, context: ExportContext) -> Artifact:
        """Write, read back, run once; raises UnsupportedError naming the layer that cannot be written as asked."""
        if reason := self.refusal(model.quant, model.kind):
            raise UnsupportedError(FORMAT, reason)
        if model.quant.scheme in STATIC and model.statistics is None:
            feeds.calibration_set(context)
        written.require_sound(model)
        model = _prepared(model)
        inputs = onnx_given.inputs(model, self) if model.kind == FORMAT else self._inputs(model)
        front = intake.of(model, inputs, FORMAT) if self.embed_preprocessing else None
        with written.draft(path) as temporary:
            content = self._content(model, inputs, context, front)
            temporary.write_bytes(content.data)
            context.emit(Progress("reading the file back"))
            file = onnx_file.read(temporary)
            notes = self._verified(file, content.made, model)
            _check(temporary)
            example = feeds.probe(context, inputs)
            names = [spec.name for spec in model.signature.outputs]
            axis = 1 if inputs[0].layout == "NCHW" else -1
            outputs = _run_once(temporary, names, front.pixels(example, axis=axis) if front else example)
            written.require_finite(outputs, model, feeds.as_keras(example, inputs))
        layouts = {spec.name: spec.layout for spec in (*inputs, *model.signature.outputs)}
        ends = (_laid_out(file.inputs, layouts), _laid_out(file.outputs, layouts))
        signature = feeds.signature_of(model, *ends)
        return written.artifact(
            path,
            format=FORMAT,
            scheme=model.quant.scheme,
            signature=signature,
            notes=(*content.made.notes, *notes),
            pixels=front is not None,
        )

    def _inputs(self, model: Model) -> tuple[TensorSpec, ...]:
        """The file's inputs for one image, in the layout asked for."""
        specs = feeds.fixed_inputs(model, self.input_shape, FORMAT)
        if "layout" in self.model_fields_set and self.layout == "NHWC" and any(s.layout == "NCHW" for s in specs):
            problem = "NHWC was asked for, and the SavedModel takes its images as NCHW"
            raise UnsupportedError(f"{FORMAT}.layout", problem, 'leave layout out, or set it to "NCHW"')
        inputs = tuple(feeds.in_layout(spec, self.layout) for spec in specs)
        wanted = self.layout == "NCHW" and "layout" in self.model_fields_set
        if wanted and not any(spec.layout == "NCHW" for spec in inputs):
            raise UnsupportedError(f"{FORMAT}.layout", "NCHW was asked for, but the model takes no 4-D image")
        return inputs

    def _content(
        self, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext, front: intake.Intake | None
    ) -> _Content:
        """The file's bytes: a source that is already what it should be goes out as it came."""
        if model.kind == FORMAT and onnx_given.is_as_asked(model):
            content = Path(model.graph).read_bytes()
            return _Content(onnx_metadata.embed(content, metadata.of(model, context)) if self.metadata else content)
        proto = onnx_given.convert(model, self) if model.kind == FORMAT else self._convert(model, context)
        if model.kind == FORMAT and model.quant.scheme != "float32":
            onnx_scan.standard_only(onnx_file.File(proto), written.locator(model))
            proto = _folded(proto)
        made = self._typed(proto, model, inputs, context)
        if front:
            onnx_intake.embed(made.proto, front, inputs[0].layout)
        content = bytes(made.proto.SerializeToString(deterministic=True))
        if self.metadata:
            content = onnx_metadata.embed(content, metadata.of(model, context, pixels=front is not None))
        return _Content(content, made)

    def _typed(self, proto: Any, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext) -> Written:
        """The float32 graph in the scheme asked for."""
        if model.quant.scheme in BY_ENCODINGS:
            with quiet():
                return Written(*onnx_quantize.quantize(proto, model, inputs, context))
        return Written(_in_float16(proto, model) if model.quant.scheme == "float16" else proto)

    def _verified(self, file: onnx_file.File, made: Written, model: Model) -> tuple[str, ...]:
        """Notes on the written file; raises UnsupportedError where it is not what was asked for."""
        locate = written.locator(model)
        notes = onnx_scan.scan(file, onnx_given.to_check(model), locate)
        if made.asked is not None:
            onnx_verify.verify(file, made.asked, locate)
        return notes

    def _convert(self, model: Model, context: ExportContext) -> Any:
        """The float32 ModelProto, its ends named as the model's, BatchNormalization folded."""
        specs = feeds.fixed_inputs(model, self.input_shape, FORMAT)
        context.emit(Progress("freezing the graph"))
        frozen = written.frozen(model, [(None if self.dynamic_batch else 1, *spec.shape[1:]) for spec in specs])
        ends = [tensor.name for tensor in frozen.inputs], [tensor.name for tensor in frozen.outputs]
        moved = [
            name for name, spec in zip(ends[0], specs, strict=True) if feeds.in_layout(spec, self.layout) is not spec
        ]
        names = [spec.name for spec in (*model.signature.inputs, *model.signature.outputs)]
        context.emit(Progress("converting to ONNX"))
        proto = _to_onnx(frozen, ends, dict(zip((*ends[0], *ends[1]), names, strict=True)), moved, self.opset)
        if self.dynamic_batch:
            _name_batch(proto)
        onnx_scan.standard_only(onnx_file.File(proto), written.locator(model))
        return _folded(proto)


def _prepared(model: Model) -> Model:
    """The model with its graph in the form that quantized files compute, for schemes that have such a form."""
    if model.kind != "keras" or model.quant.scheme not in BY_ENCODINGS:
        return model
    from toolkit.engine.prepare import prepare

    return replace(model, graph=prepare(model.graph, scalings=model.quant.folds_scalings).graph)


def _to_onnx(
    frozen: Any, ends: tuple[list[str], list[str]], names: dict[str, str], channels_first: Sequence[str], opset: int
) -> Any:
    import tf2onnx

    with quiet():
        proto, _ = tf2onnx.convert.from_graph_def(
            frozen.graph.as_graph_def(),
            name="edgekit",
            input_names=ends[0],
            output_names=ends[1],
            opset=opset,
            inputs_as_nchw=list(channels_first) or None,
            tensors_to_rename=names,
            custom_op_handlers={"Erfc": (_complementary_error, [])},
        )
    onnx_file.split_sums(proto)
    return proto


def _complementary_error(ctx: Any, node: Any, name: str, args: Any) -> None:
    """erfc(x) = 1 - erf(x): how Keras computes GELU, and the one operator of common CNNs that tf2onnx 1.17 lacks."""
    import numpy as np

    shapes, dtypes, ends = node.output_shapes, node.output_dtypes, list(node.output)
    one = ctx.make_const(f"{name}/one", np.array(1, np.float32)).output[0]
    error = ctx.make_node("Erf", [node.input[0]], name=f"{name}/erf").output[0]
    ctx.remove_node(name)
    ctx.make_node("Sub", [one, error], outputs=ends, name=name, shapes=shapes, dtypes=dtypes)


def _name_batch(proto: Any) -> None:
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del proto.graph.value_info[:]


def _folded(proto: Any) -> Any:
    """The graph after ONNX Runtime's basic rewrites (standard operators only): BatchNormalization goes into weights."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder, runnable():
        target = str(Path(folder) / "folded.onnx")
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        session(proto.SerializeToString(), graph_optimization_level=level, optimized_model_filepath=target)
        folded = onnx.load(target)
    used = {node.domain for node in folded.graph.node} | {""}
    kept = [entry for entry in folded.opset_import if entry.domain in used]
    del folded.opset_import[:]
    folded.opset_import.extend(kept)
    onnx_file.settle(folded)
    return folded


def _in_float16(proto: Any, model: Model) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx_scan.fits_float16(onnx_file.File(proto), written.locator(model))
    with quiet():
        narrow = convert_float_to_float16(proto, keep_io_types=True)
    onnx_file.sort_nodes(narrow)
    return narrow


def _check(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsupportedError(FORMAT, f"the written file is not valid ONNX: {text[0]}") from error


def _run_once(path: Path, names: list[str], example: dict[str, Array]) -> dict[str, Array]:
    with runnable():
        outputs = session(path.read_bytes()).run(names, example)
    return dict(zip(names, outputs, strict=True))


def _laid_out(specs: tuple[TensorSpec, ...], layouts: dict[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(spec.name, spec.shape, spec.dtype, layout=layouts[spec.name]) for spec in specs)
