"""Small files that NVIDIA's parser takes or refuses, by name; which of the two is for the parser to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import drawn
import numpy as np
from drawn import Drawing
from onnx import TensorProto, helper, numpy_helper

FLOAT, UINT8, INT8, INT16, INT32, INT64 = 1, 2, 3, 5, 6, 7
FLOAT16, DOUBLE = 10, 11
CASES: dict[str, Callable[[], Any]] = {
    "good placement": drawn.good,
    "good placement in float16": lambda: drawn.good(opset=19, kind=FLOAT16),
    "float16 scales before operator set 19": lambda: drawn.good(kind=FLOAT16),
    "free batch": lambda: drawn.good(batch="n"),
}


def case(function: Callable[[Drawing], Any]) -> Callable[[Drawing], Any]:
    """What the function draws: its result is the output, or the whole model."""

    def build() -> Any:
        draw = Drawing()
        made = function(draw)
        return draw.model(made) if isinstance(made, str) else made

    CASES[function.__name__.replace("_", " ")] = build
    return function


def given(name: str, build: Callable[[Drawing], Any], **options: Any) -> None:
    def whole() -> Any:
        draw = Drawing(**options)
        made = build(draw)
        return draw.model(made) if isinstance(made, str) else made

    CASES[name] = whole


def pair(draw: Drawing, **options: Any) -> str:
    return draw.conv(draw.pair("x", **options))


def take(draw: Drawing, kind: int, shape: tuple[int, ...] = (1, 16, 8, 8)) -> None:
    """The drawing's input is of this type."""
    draw.inputs[:] = [helper.make_tensor_value_info("x", kind, shape)]


given("zero point 5", lambda d: pair(d, zero=5))
given("uint8, zero point 0", lambda d: pair(d, kind=np.uint8))
given("uint8, zero point 128", lambda d: pair(d, zero=128, kind=np.uint8))
given("scale 0", lambda d: pair(d, scale=0.0))
given("scale below 0", lambda d: pair(d, scale=-0.1))
given("scale not a number", lambda d: pair(d, scale=np.nan))
given("scale infinite", lambda d: pair(d, scale=np.inf))
given("scale too small for float16", lambda d: pair(d, scale=1e-9), kind=FLOAT16, opset=19)
given("scale without a dimension less", lambda d: pair(d, scale=np.full(1, 0.05)))
given("activation with a scale for each channel", lambda d: pair(d, scale=np.full(16, 0.05), axis=1))
given("negative axis", lambda d: pair(d, scale=np.full(16, 0.05), axis=-3))
given("five scales for 16 channels", lambda d: pair(d, scale=np.full(5, 0.05), axis=1))
for unit in (np.int16, np.uint16):
    given(f"{unit.__name__} activations", lambda d, unit=unit: d.conv(d.pair("x", kind=unit), qdq=False), opset=21)
for element in ("INT4", "UINT4", "FLOAT8E5M2", "FLOAT8E4M3FN"):

    def narrow(draw: Drawing, element: str = element) -> str:
        draw.constants.append(helper.make_tensor("zero", getattr(TensorProto, element), [], [0]))
        scale = draw.constant(np.float32(0.1))
        quantized = draw.node("QuantizeLinear", "x", scale, "zero")
        return draw.conv(draw.node("DequantizeLinear", quantized, scale, "zero"), qdq=False)

    given(f"{element} activations", narrow, opset=21)


@case
def scale_from_a_Constant_node(draw: Drawing) -> str:
    scale = draw.node("Constant", value=numpy_helper.from_array(np.float32(0.1)))
    zero = draw.constant(np.int8(0))
    quantized = draw.node("QuantizeLinear", "x", scale, zero)
    return draw.conv(draw.node("DequantizeLinear", quantized, scale, zero))


@case
def scale_folded_from_constants(draw: Drawing) -> str:
    scale, zero = draw.node("Abs", draw.constant(np.float32(0.1))), draw.constant(np.int8(0))
    quantized = draw.node("QuantizeLinear", "x", scale, zero)
    return draw.conv(draw.node("DequantizeLinear", quantized, scale, zero))


@case
def no_zero_point(draw: Drawing) -> str:
    scale = draw.constant(np.float32(0.1))
    return draw.conv(draw.node("DequantizeLinear", draw.node("QuantizeLinear", "x", scale), scale))


def stored(draw: Drawing, kind: Any) -> str:
    integers = draw.constant(np.ones((16, 16, 3, 3), kind))
    ends = draw.constant(np.full(16, 0.02, np.float32)), draw.constant(np.zeros(16, kind))
    return str(draw.node("Conv", draw.pair("x"), draw.node("DequantizeLinear", integers, *ends, axis=0)))


given("stored int8 weights", lambda d: stored(d, np.int8))
given("stored uint8 weights", lambda d: stored(d, np.uint8))


@case
def int32_bias(draw: Drawing) -> str:
    weight = draw.pair(draw.weights(16, 16, 3, 3), np.full(16, 0.02), axis=0)
    ends = draw.constant(np.full(16, 0.001, np.float32)), draw.constant(np.zeros(16, np.int32))
    bias = draw.node("DequantizeLinear", draw.constant(np.zeros(16, np.int32)), *ends, axis=0)
    return str(draw.node("Conv", draw.pair("x"), weight, bias))


@case
def blocks_along_the_first_axis(draw: Drawing) -> Any:
    draw.opset = 21
    ends = draw.constant(np.full((2, 16, 3, 3), 0.1, np.float32)), draw.constant(np.zeros((2, 16, 3, 3), np.int8))
    quantized = draw.node("QuantizeLinear", draw.weights(16, 16, 3, 3), *ends, axis=0, block_size=8)
    weight = draw.node("DequantizeLinear", quantized, *ends, axis=0, block_size=8)
    return str(draw.node("Conv", draw.pair("x"), weight))


@case
def pooling_of_integers(draw: Drawing) -> str:
    ends = draw.constant(np.float32(0.1)), draw.constant(np.int8(0))
    pooled = draw.node("MaxPool", draw.node("QuantizeLinear", "x", *ends), kernel_shape=[2, 2])
    return draw.conv(draw.node("DequantizeLinear", pooled, *ends))


@case
def operator_form(draw: Drawing) -> str:
    ends = draw.constant(np.float32(0.1)), draw.constant(np.int8(0))
    weights = draw.constant(np.ones((16, 16, 3, 3), np.int8))
    made = draw.node("QLinearConv", draw.node("QuantizeLinear", "x", *ends), *ends, weights, *ends, *ends)
    return str(draw.node("DequantizeLinear", made, *ends))


@case
def dynamic_quantization(draw: Drawing) -> str:
    return str(draw.node("DequantizeLinear", *draw.node("DynamicQuantizeLinear", "x", outputs=3)))


@case
def operator_of_nobody(draw: Drawing) -> Any:
    draw.nodes.append(helper.make_node("Foo", ["x"], ["y"], domain="my.ops", name="foo"))
    model = draw.model("y")
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    return model


# ---------------------------------------------------------------- operators and their forms

given("pooling with indices", lambda d: d.node("MaxPool", "x", outputs=2, kernel_shape=[2, 2])[0])
given("dilated pooling", lambda d: d.node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2]))
given("average pooling, ceil mode", lambda d: d.node("AveragePool", "x", kernel_shape=[2, 2], ceil_mode=1))
given("unique", lambda d: d.node("Unique", "x", outputs=1))
given("where something is not zero", lambda d: d.node("Cast", d.node("NonZero", "x"), to=FLOAT))
given("random numbers", lambda d: d.node("RandomNormalLike", "x"))
for mode in ("half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"):

    def resize(draw: Drawing, mode: str = mode) -> str:
        region = draw.constant(np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32))
        scales = draw.constant(np.array([1, 1, 2, 2], np.float32))
        return str(draw.node("Resize", "x", region, scales, mode="linear", coordinate_transformation_mode=mode))

    given(f"resize {mode}", resize)
given("training dropout", lambda d: d.node("Dropout", "x", d.constant(np.float32(0.5)), d.constant(np.bool_(1))))
for training in (0, 1):

    def normalized(draw: Drawing, training: int = training) -> str:
        ones = [draw.constant(np.ones(16, np.float32)) for _ in range(4)]
        made = draw.node("BatchNormalization", "x", *ones, outputs=1 + 2 * training, training_mode=training)
        return str(made[0] if training else made)

    given(f"normalization, training {training}", normalized)
for axis in (0, 1):
    given(
        f"dense with scales along axis {axis}",
        lambda d, axis=axis: d.dense(d.pair("x"), (16, 16), axis=axis),
        shape=(4, 16),
    )


# ---------------------------------------------------------------- types

for kind in ("FLOAT16", "BFLOAT16", "DOUBLE", "UINT8", "INT32", "INT64", "BOOL", "INT16", "UINT16", "UINT32", "STRING"):

    def cast(draw: Drawing, kind: str = kind) -> str:
        take(draw, getattr(TensorProto, kind))
        return draw.conv(draw.node("Cast", "x", to=FLOAT), qdq=False)

    given(f"{kind} input, cast", cast)
for kind in ("UINT8", "INT16", "DOUBLE", "INT64", "BOOL"):
    given(
        f"cast to {kind} and back",
        lambda d, kind=kind: d.node("Cast", d.node("Cast", "x", to=getattr(TensorProto, kind)), to=FLOAT),
    )
for constant in (np.int16, np.uint8, np.float64, np.uint16):
    given(
        f"{constant.__name__} constant, cast",
        lambda d, constant=constant: d.node("Add", "x", d.node("Cast", d.constant(np.ones(8, constant)), to=FLOAT)),
    )
given("float64 throughout", lambda d: d.conv("x", qdq=False), kind=DOUBLE)
for kind in ("Add", "Mul", "Max", "PRelu", "Concat", "Pow"):

    def mixed(draw: Drawing, kind: str = kind) -> Any:
        options = {"axis": 1} if kind == "Concat" else {}
        return str(draw.node(kind, "x", draw.node("Cast", "x", to=FLOAT16), **options))

    given(f"{kind} of float32 and float16", mixed)
given(
    "float16 weights of a float32 convolution",
    lambda d: d.node("Conv", "x", d.constant(np.ones((16, 16, 3, 3), np.float16))),
)
given(
    "float16 bias of a float32 convolution",
    lambda d: d.node("Conv", "x", d.weights(16, 16, 3, 3), d.constant(np.ones(16, np.float16))),
)
given("float32 plus an integer", lambda d: d.node("Add", "x", d.constant(np.int64(1))))


@case
def float16_weights_behind_float32_integers(draw: Drawing) -> str:
    zero = draw.constant(np.int8(0))
    quantized = draw.node("QuantizeLinear", "x", draw.constant(np.float32(0.1)), zero)
    return draw.conv(draw.node("DequantizeLinear", quantized, draw.constant(np.float16(0.1)), zero), qdq=False)


@case
def uint8_input_turned_round(draw: Drawing) -> str:
    take(draw, UINT8)
    return str(draw.node("Cast", draw.node("Transpose", "x", perm=[0, 2, 3, 1]), to=FLOAT))


@case
def uint8_input_dequantized(draw: Drawing) -> str:
    take(draw, UINT8)
    return str(draw.node("DequantizeLinear", "x", draw.constant(np.float32(0.1)), draw.constant(np.uint8(0))))


@case
def int8_input(draw: Drawing) -> str:
    take(draw, INT8)
    return draw.conv(draw.node("DequantizeLinear", "x", draw.constant(np.float32(0.1)), draw.constant(np.int8(0))))


@case
def uint8_output(draw: Drawing) -> Any:
    return draw.model(draw.node("Cast", draw.node("Relu", "x"), to=UINT8), kind=UINT8)


@case
def undefined_input(draw: Drawing) -> Any:
    draw.nodes.append(helper.make_node("Relu", ["nothing"], ["y"], name="relu"))
    return draw.model("y")
