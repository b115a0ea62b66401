"""Which requests no .tflite file can honour, known before any work, and which backend writes the others."""

from __future__ import annotations

from toolkit.core import STATIC, Kind, Model, QuantSpec, Scheme

ENDS: dict[str, tuple[Scheme, ...]] = {"int8": ("int8",), "uint8": ("int8",), "int16": ("int16x8",)}
CONVERTER: tuple[Scheme, ...] = ("float32", "float16", "dynamic", "int8", "int16x8")  # what TensorFlow's writes
WHOLE: tuple[Scheme, ...] = ("float16", "dynamic")  # what it is asked for first: constants of every operator


def of(quant: QuantSpec, kind: Kind) -> str | None:
    """Why this request cannot be written of a model of this kind, or None."""
    if quant.scheme not in ENDS.get(quant.io, (quant.scheme,)):
        return f"{quant.io} inputs and outputs need scheme {ENDS[quant.io][0]}, got {quant.scheme}"
    if quant.flavour == "symmetric" and quant.scheme == "int8":
        return (
            "symmetric int8 activations are not written to TFLite, whose kernels take asymmetric ones: "
            "use flavour asymmetric, or scheme int16x8"
        )
    if quant.reduce_range:
        return "weights of .tflite files are 8-bit, and kernels on the device need 7: export to onnx, or use float16"
    if quant.dense_per_tensor and quant.backend == "tensorflow":
        return 'backend tensorflow cannot give dense layers alone one weight scale: set backend = "auto"'
    if quant.layers and (reason := _mix(quant, kind)):
        return reason
    return _backend(quant, kind)


def by_converter(model: Model) -> bool:
    """Whether TensorFlow's converter is asked first."""
    quant = model.quant
    if model.kind == "tflite" or quant.backend == "ai-edge-quantizer" or quant.layers or quant.dense_per_tensor:
        return False
    if quant.backend == "tensorflow" or quant.scheme in ("float32", *WHOLE):
        return True
    return quant.scheme == "int8" and model.statistics is None and quant.ranges == "minmax"


def may_convert(model: Model) -> bool:
    """Whether it can step in where ai-edge-quantizer lacks an operator: it calibrates by least and greatest values."""
    quant = model.quant
    ranges = model.statistics.ranges.values() if model.statistics is not None else ()
    free = quant.backend == "auto" and quant.scheme in STATIC and not quant.layers and model.kind != "tflite"
    free = free and not quant.dense_per_tensor
    return (
        free and not quant.allow_float and quant.ranges == "minmax" and all(found.how == "minmax" for found in ranges)
    )


def _mix(quant: QuantSpec, kind: Kind) -> str | None:
    if kind != "keras":
        return f"layers of a .{kind} model have no schemes of their own: read it as Keras, or leave `layers` out"
    if quant.scheme == "float32":
        return "layers have schemes of their own, the rest has none: give the scheme of the rest"
    asked = sorted({scheme for _, scheme in quant.layers if scheme in STATIC})
    if asked and quant.scheme not in STATIC:
        return (
            f"layers in {asked[0]} need ranges, which scheme {quant.scheme} has none of: "
            f"ask for {asked[0]}, and for {quant.scheme} in the other layers"
        )
    return None


def _backend(quant: QuantSpec, kind: Kind) -> str | None:
    if quant.backend != "tensorflow":
        return None
    fix = 'set backend = "auto"'
    if kind == "tflite":
        return f"backend tensorflow converts models, not .tflite files: {fix}"
    if quant.scheme not in CONVERTER:
        return f"backend tensorflow has no scheme {quant.scheme}: {fix}"
    if quant.layers:
        return f"backend tensorflow quantizes all layers alike: {fix}"
    if quant.scheme in STATIC and quant.ranges != "minmax":
        return f"backend tensorflow calibrates by least and greatest values, not by {quant.ranges}: {fix}"
    return None


def granularity(quant: QuantSpec) -> str:
    """Of the weights' scales, as tflite_encodings.weight_scales takes it."""
    alone = quant.dense_per_tensor and quant.granularity == "per_channel"
    return "dense_per_tensor" if alone else quant.granularity
