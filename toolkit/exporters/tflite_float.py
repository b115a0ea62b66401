"""TensorFlow's converter: a frozen graph as a .tflite file of float32, or quantized with a calibration of its own.

Page: ai.google.dev/edge/litert, "Post-training quantization". SELECT_TF_OPS and custom operators are never on.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from toolkit.core import STATIC, ExportContext, Model, Progress, QuantSpec, TensorSpec
from toolkit.errors import UnsupportedError
from toolkit.exporters import feeds, tflite_file, written
from toolkit.exporters.quiet import quiet

FORMAT = "tflite"


def convert(model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext, *, pixels: bool) -> bytes:
    """The model as its specification asks, signed; pixels: an int8 one takes int8, for an intake to come in front."""
    import tensorflow as tf

    context.emit(Progress("freezing the graph"))
    frozen = written.frozen(model, [spec.shape for spec in inputs])
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    _configure(converter, model.quant)
    if model.quant.scheme in STATIC:
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
    elif quant.scheme in STATIC:
        sets = tf.lite.OpsSet
        wide = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS_INT8 if quant.scheme == "int8" else wide]
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
