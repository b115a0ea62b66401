"""Writes a .tflite file with TensorFlow's converter, from a frozen graph, at a fixed batch of 1.

Page: ai.google.dev/edge/litert, "Post-training quantization". SELECT_TF_OPS and custom operators are never on.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from toolkit.core import Artifact, ExportContext, Kind, Model, Progress, QuantSpec, Scheme, TensorSpec
from toolkit.errors import UnsupportedError
from toolkit.exporters import (
    feeds,
    intake,
    metadata,
    tflite_file,
    tflite_given,
    tflite_intake,
    tflite_metadata,
    tflite_scan,
    written,
)
from toolkit.exporters.quiet import quiet
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array

FORMAT = "tflite"
NO_ONNX = (
    "an .onnx file is not converted to TFLite here: the converter that is kept, onnx2tf, needs another TensorFlow than "
    "Edgekit's; convert it in an environment of its own and give Edgekit the .tflite file"
)


class TFLite(Component):
    """A .tflite file (LiteRT, TensorFlow Lite): one image at a time, of one size; inputs and outputs bound by name."""

    format: ClassVar[str] = FORMAT
    suffix: ClassVar[str] = ".tflite"
    takes: ClassVar[tuple[str, ...]] = ("keras", "savedmodel", "tflite")
    schemes: ClassVar[tuple[Scheme, ...]] = ("float32", "float16", "dynamic", "int8")

    input_shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """Height and width in pixels, for a model that leaves them open."""
    embed_preprocessing: bool = False
    """Take uint8 pixels, RGB or gray, of the input's size: colour order, scale and offset are inside the file."""
    metadata: bool = False
    """Write class names, preprocessing and provenance into the file, as TFLite Metadata."""

    def refusal(self, quant: QuantSpec, kind: Kind = "keras") -> str | None:
        """Why this request cannot be written, or None."""
        if kind not in self.takes:
            return NO_ONNX
        if self.embed_preprocessing and (reason := intake.refusal(kind)):
            return reason
        if self.embed_preprocessing and quant.io == "int8":
            return "embed_preprocessing takes uint8 pixels, and io asks for int8 inputs: set io to uint8 or float32"
        if quant.io != "float32" and quant.scheme != "int8":
            return f"{quant.io} inputs and outputs need scheme int8, got {quant.scheme}"
        return None

    def packages(self, quant: QuantSpec, kind: Kind) -> tuple[tuple[str, str], ...]:
        """(package, what to install) that this request needs beyond every install's."""
        given = kind == "tflite" and quant.scheme != "float32"
        return ((tflite_given.PACKAGE, tflite_given.EXTRA),) if given else ()

    def export(self, model: Model, path: Path, context: ExportContext) -> Artifact:
        """Write, read back, run once; raises UnsupportedError naming the layer that cannot be written as asked."""
        if reason := self.refusal(model.quant, model.kind):
            raise UnsupportedError(FORMAT, reason)
        if model.quant.scheme == "int8":
            feeds.calibration_set(context)
        written.require_sound(model)
        inputs = feeds.fixed_inputs(model, self.input_shape, FORMAT)
        front = intake.of(model, inputs, FORMAT) if self.embed_preprocessing else None
        with written.draft(path) as temporary:
            temporary.write_bytes(self._content(model, inputs, context, front))
            context.emit(Progress("reading the file back"))
            file = tflite_file.read(temporary)
            notes = tflite_scan.scan(file, _to_check(model), written.locator(model), pixels=front is not None)
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

    def _content(
        self, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext, front: intake.Intake | None
    ) -> bytes:
        """The file's bytes."""
        if model.kind == FORMAT:
            content = _given(model, context)
        else:
            content = _convert(model, inputs, context, pixels=front is not None)
        if front:
            content = tflite_intake.embed(content, front, per_tensor=model.quant.granularity == "per_tensor")
        if self.metadata:
            found = metadata.of(model, context, pixels=front is not None)
            content = tflite_metadata.embed(content, found)
        return content


def _given(model: Model, context: ExportContext) -> bytes:
    """A .tflite source as it came, or quantized; in either case with a signature."""
    source = Path(model.graph)
    content = source.read_bytes()
    file = tflite_file.read(source)
    if tflite_scan.scheme_of(file) != model.quant.scheme:
        content = tflite_given.quantize(model, context)
    elif tflite_file.is_signed(content):
        return content
    names = [[spec.name for spec in specs] for specs in (model.signature.inputs, model.signature.outputs)]
    return tflite_file.sign(content, *names)


def _to_check(model: Model) -> QuantSpec:
    """What the written file is held to: nothing, where it is a quantized source as it came."""
    if model.kind == FORMAT and tflite_scan.scheme_of(tflite_file.read(Path(model.graph))) == model.quant.scheme:
        return QuantSpec()
    return model.quant


def _convert(model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext, *, pixels: bool) -> bytes:
    """The converted file; pixels: an int8 one takes int8, for an intake to come in front."""
    import tensorflow as tf

    context.emit(Progress("freezing the graph"))
    frozen = written.frozen(model, [spec.shape for spec in inputs])
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    _configure(converter, model.quant)
    if model.quant.scheme == "int8":
        feed = partial(feeds.calibration, context, inputs)
        converter.representative_dataset = lambda: (list(example.values()) for example in feed())
        if pixels:
            converter.inference_input_type = tf.int8
    context.emit(Progress(f"converting to {model.quant.scheme}"))
    content = _checked(converter, model)
    names = [[spec.name for spec in specs] for specs in (model.signature.inputs, model.signature.outputs)]
    return tflite_file.sign(content, *names)


def _configure(converter: Any, quant: QuantSpec) -> None:
    import tensorflow as tf

    converter.allow_custom_ops = False
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if quant.scheme == "float32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter._experimental_disable_per_channel = quant.granularity == "per_tensor"  # no public switch (TF 2.21)
    if quant.scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif quant.scheme == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(quant.io)


def _checked(converter: Any, model: Model) -> bytes:
    from tensorflow.lite.python.convert import ConverterError

    try:
        with quiet():
            return bytes(converter.convert())
    except ConverterError as error:
        raise _refused(error, model) from error


def _refused(error: Any, model: Model) -> UnsupportedError:
    """The converter's error as one line with the layer's name, from the locations it reports."""
    locate = written.locator(model)
    fix = "replace the layer by one that TFLite's built-in operators cover; TensorFlow's own are never switched on"
    for item in error.errors:
        layers = [locate(call.name) for call in item.location.call if call.name]
        if item.operator.name and (layer := next(filter(None, layers), None)):
            problem = f"its operator {item.operator.name.removeprefix('tf.')} is not built into TFLite"
            return UnsupportedError(layer, problem, fix)
    text = str(error).strip().splitlines() or ["no reason given"]
    return UnsupportedError(FORMAT, f"the converter refused the model: {text[0]}", fix)


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
