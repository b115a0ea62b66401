"""Quantized ONNX files: against the simulation, in both flavours, layer by layer, and held to their request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from toolkit.core import ExportContext, Model, QuantSpec, Statistics
from toolkit.engine.calibrate import calibrate
from toolkit.engine.prepare import prepare
from toolkit.engine.simulate import simulate
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import onnx_encodings, onnx_file, onnx_quantize, onnx_verify
from toolkit.exporters.onnx import ONNX
from toolkit.quantization import TensorRange

from .conftest import SIZE, Images, as_model, scatter

L = keras.layers
INT8 = QuantSpec("int8")
SYMMETRIC = QuantSpec("int8", flavour="symmetric")


def residual() -> keras.Model:
    """Rescaling, a residual sum, a depthwise convolution, a concatenation, mean, dense: logits."""
    keras.utils.set_random_seed(6)
    image = keras.Input((*SIZE, 3), name="image")
    x = L.Rescaling(2.0, offset=-1.0, name="scaled")(image)
    first = x = L.Conv2D(8, 3, padding="same", activation="relu", name="first")(x)
    x = L.BatchNormalization(name="norm")(L.Conv2D(8, 3, padding="same", use_bias=False, name="branch")(x))
    x = L.ReLU(name="after")(L.Add(name="sum")([x, first]))
    y = L.DepthwiseConv2D(3, padding="same", activation="relu6", name="wise")(x)
    x = L.Concatenate(name="both")([x, L.Conv2D(4, 1, name="point")(y)])
    x = L.Conv2D(8, 1, activation="relu", name="last")(x)
    return scatter(keras.Model(image, L.Dense(5, name="classes")(L.GlobalAveragePooling2D(name="gap")(x)), name="net"))


def calibrated(model: Model, data: Images) -> Model:
    graph = prepare(model.graph).graph
    ranges = calibrate(graph, (batch.inputs for batch in data.batches(12))).ranges("minmax")
    return replace(model, statistics=Statistics(ranges, data.count))


@pytest.fixture(scope="module")
def model() -> Model:
    plain = as_model(residual())
    return calibrated(plain, Images(plain.signature.inputs, count=24))


def written(model: Model, folder: Path, quant: QuantSpec, data: Any = None, **how: Any) -> onnx_file.File:
    path = folder / "model.onnx"
    ONNX(**{"layout": "NCHW", **how}).export(replace(model, quant=quant), path, ExportContext(data))
    return onnx_file.read(path)


def run(file: onnx_file.File, image: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = file.proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.transpose(0, 3, 1, 2)})[0]


def scale_before(file: onnx_file.File, node: Any, index: int = 0) -> float:
    return float(file.values(file.producers[node.input[index]].input[1]))


def nodes(file: onnx_file.File, kind: str) -> list[Any]:
    return [node for node in file.nodes if node.op_type == kind]


# ---------------------------------------------------------------- what it computes


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_file_is_the_simulation_to_one_step(model: Model, tmp_path: Path, layout: str) -> None:
    file = written(model, tmp_path, INT8, layout=layout)
    ranges = {name: (found.low, found.high) for name, found in model.statistics.ranges.items()}  # type: ignore[union-attr]
    expected = simulate(prepare(model.graph).graph, ranges)
    low, high = ranges["classes"]
    images = np.concatenate([e["image"] for e in Images(model.signature.inputs, count=60).arrays()])
    feed = images if layout == "NHWC" else images.transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(file.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    got = np.concatenate([session.run(None, {"image": feed[i : i + 1]})[0] for i in range(len(feed))])
    steps = np.abs(got - np.asarray(expected(images))) / ((high - low) / 255)
    assert (steps < 1.01).mean() >= 0.99
    assert (steps < 2.01).all()
    assert np.abs(got - model.graph(images)).max() > (high - low) / 2550  # and not the float model


def test_symmetric_file_is_near_the_model_and_wholly_symmetric(model: Model, tmp_path: Path) -> None:
    file = written(model, tmp_path, SYMMETRIC)
    zeros = [file.values(node.input[2]) for node in (*nodes(file, "QuantizeLinear"), *nodes(file, "DequantizeLinear"))]
    assert {zero.dtype for zero in zeros if zero is not None} == {np.dtype("int8")}
    assert not any(zero.any() for zero in zeros if zero is not None)
    for kind in ("Conv", "Gemm"):
        for node in nodes(file, kind):
            assert [file.producers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
            assert len(node.input) == 2 or node.input[2] in file.constants  # float bias
            quantize = file.producers[file.producers[node.input[1]].input[0]]
            assert quantize.op_type == "QuantizeLinear"  # the pair on the weights
            assert all(reader.op_type != "QuantizeLinear" for reader in file.consumers.get(node.output[0], []))
    (add,) = [node for node in nodes(file, "Add") if not any(name in file.constants for name in node.input)]
    assert sorted(file.producers[name].op_type for name in add.input) == ["Conv", "DequantizeLinear"]
    ranges = model.statistics.ranges  # type: ignore[union-attr]
    first = nodes(file, "Conv")[0]
    assert scale_before(file, first) == pytest.approx(max(-ranges["scaled"].low, ranges["scaled"].high) / 127)
    step = max(abs(ranges["classes"].low), ranges["classes"].high) / 127
    for example in Images(model.signature.inputs, count=10).arrays():
        assert np.abs(run(file, example["image"]) - model.graph(example["image"])).max() < 4 * step


def test_ranges_are_the_models_and_no_images_are_needed(model: Model, tmp_path: Path) -> None:
    """Each range decides one scale, that of the tensors with its layer's values; nothing is calibrated again."""
    file = written(model, tmp_path, INT8)
    ranges = dict(model.statistics.ranges)  # type: ignore[union-attr]
    image = scale_before(file, nodes(file, "Mul")[0])  # of the Rescaling
    assert image == pytest.approx((ranges["image"].high - min(0, ranges["image"].low)) / 255)
    (gemm,) = nodes(file, "Gemm")
    assert scale_before(file, gemm) == pytest.approx(ranges["gap"].high / 255)
    ranges["gap"] = TensorRange(0.0, 2 * ranges["gap"].high, "learned")
    other = written(replace(model, statistics=Statistics(ranges)), tmp_path, INT8)
    assert scale_before(other, nodes(other, "Gemm")[0]) == pytest.approx(2 * scale_before(file, gemm))
    one, two = ({n.input[1]: f.values(n.input[1]).item() for n in nodes(f, "QuantizeLinear")} for f in (file, other))
    assert sum(one[name] != two[name] for name in one) == 1


def test_what_a_concatenation_reads_and_gives_has_one_symmetric_scale(model: Model, tmp_path: Path) -> None:
    """TensorRT then moves the QuantizeLinear behind it to what it reads, which the depthwise convolution reads too."""
    file = written(model, tmp_path, SYMMETRIC)
    *_, wise, _, last = nodes(file, "Conv")
    assert scale_before(file, wise) == scale_before(file, last)


def test_mean_over_an_image_is_computed_in_integers(model: Model, tmp_path: Path) -> None:
    file = written(model, tmp_path, INT8, layout="NHWC")
    assert not nodes(file, "ReduceMean")
    (pool,) = nodes(file, "GlobalAveragePool")
    assert file.producers[pool.input[0]].op_type == "DequantizeLinear"
    assert {reader.op_type for reader in file.consumers[pool.output[0]]} == {"QuantizeLinear"}


@pytest.mark.parametrize(("quant", "steps"), [(INT8, 255), (SYMMETRIC, 127)])
def test_average_of_a_whole_image_has_a_scale_of_its_own(tmp_path: Path, quant: QuantSpec, steps: int) -> None:
    image = keras.Input((*SIZE, 3), name="image")
    x = L.ReLU(name="relu")(L.Conv2D(4, 1, name="conv")(image))
    x = L.Flatten(name="flat")(L.AveragePooling2D(SIZE, name="pool")(x))
    plain = as_model(scatter(keras.Model(image, L.Dense(2, name="head")(x), name="net")))
    ends = {"image": (0.0, 1.0), "relu": (0.0, 2.0), "pool": (0.0, 0.3), "head": (-1.0, 1.0)}
    found = {name: TensorRange(*own, "learned") for name, own in ends.items()}
    file = written(replace(plain, statistics=Statistics(found, 1)), tmp_path, quant)
    assert not nodes(file, "AveragePool")
    (mean,), (gemm,) = nodes(file, "GlobalAveragePool"), nodes(file, "Gemm")
    assert scale_before(file, gemm) == pytest.approx(0.3 / steps)
    if quant is INT8:
        assert scale_before(file, mean) == pytest.approx(2 / steps)


def test_range_that_no_layer_has_is_found_on_the_file_and_told(model: Model, tmp_path: Path) -> None:
    ranges = {name: found for name, found in model.statistics.ranges.items() if name != "gap"}  # type: ignore[union-attr]
    poorer = replace(model, statistics=Statistics(ranges))
    with pytest.raises(InputError, match="no images to find it on"):
        written(poorer, tmp_path, INT8)
    data = Images(model.signature.inputs, count=24)
    artifact = ONNX(layout="NCHW").export(
        replace(poorer, quant=INT8),
        tmp_path / "told.onnx",
        ExportContext(data),  # type: ignore[arg-type]
    )
    assert artifact.notes[0].startswith("ranges of 1 tensors were found on the file itself")
    file = onnx_file.read(artifact.path)
    found = scale_before(file, nodes(file, "Gemm")[0])
    assert found == pytest.approx(model.statistics.ranges["gap"].high / 255, rel=1e-4)  # type: ignore[union-attr]


# ---------------------------------------------------------------- schemes


def test_weights_alone_are_int8_and_the_rest_is_float(model: Model, tmp_path: Path) -> None:
    file = written(model, tmp_path, QuantSpec("weight_int8"))
    assert not nodes(file, "QuantizeLinear")
    stored = [file.values(node.input[0]) for node in nodes(file, "DequantizeLinear")]
    assert len(stored) == 6
    assert {values.dtype for values in stored if values is not None} == {np.dtype("int8")}
    graph = keras.models.clone_model(prepare(model.graph).graph)
    graph.set_weights(prepare(model.graph).graph.get_weights())
    for layer in graph.layers:
        if layer.weights:
            kernel, *rest = layer.get_weights()
            axes = (0, 1) if "wise" in layer.name else tuple(range(kernel.ndim - 1))
            scale = np.abs(kernel).max(axis=axes, keepdims=True) / 127
            layer.set_weights([np.rint(kernel / scale) * scale, *rest])
    image = Images(model.signature.inputs).arrays()[0]["image"]
    np.testing.assert_allclose(run(file, image), graph(image), atol=1e-4)


def test_layer_keeps_the_scheme_it_is_given(model: Model, tmp_path: Path) -> None:
    file = written(model, tmp_path, replace(INT8, layers=(("branch", "float32"),)))
    kinds = [
        file.producers[node.input[1]].op_type if node.input[1] in file.producers else "float"
        for node in nodes(file, "Conv")
    ]
    assert kinds == [
        "DequantizeLinear",
        "float",
        "DequantizeLinear",
        "DequantizeLinear",
        "DequantizeLinear",
    ]
    file = written(model, tmp_path, replace(INT8, layers=(("branch", "weight_int8"),)))
    branch = nodes(file, "Conv")[2]
    assert file.values(file.producers[branch.input[1]].input[0]).dtype == np.int8  # type: ignore[union-attr]
    with pytest.raises(UnsupportedError, match=r"^nothing: is no layer"):
        written(model, tmp_path, replace(INT8, layers=(("nothing", "float32"),)))


def test_softmax_is_quantized_when_its_layer_is_named(classifier_model: Model, tmp_path: Path) -> None:
    model = calibrated(classifier_model, Images(classifier_model.signature.inputs))
    plain = written(model, tmp_path, INT8)
    assert plain.proto.graph.output[0].name == nodes(plain, "Softmax")[0].output[0]
    asked = written(model, tmp_path, replace(INT8, layers=(("classes_softmax", "int8"),)))
    (last,) = [node for node in asked.nodes if asked.proto.graph.output[0].name in node.output]
    assert float(asked.values(last.input[1])) == pytest.approx(1 / 256)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("quant", "words"),
    [
        (QuantSpec("int16x8"), "no 16-bit kernels"),
        (QuantSpec("weight_int4"), "operator set 21"),
        (replace(INT8, layers=(("a", "int16x8"),)), "layer a: .*no 16-bit kernels"),
        (replace(INT8, layers=(("a", "float16"),)), "layer a: float16 of single layers"),
        (QuantSpec("float16", layers=(("a", "float32"),)), "need scheme int8 or weight_int8"),
    ],
)
def test_what_onnx_has_no_form_for_is_refused_with_the_reason(quant: QuantSpec, words: str) -> None:
    import re

    assert re.search(words, ONNX().refusal(quant) or "")


def test_kernels_that_need_it_get_seven_bits_or_one_scale_for_dense_layers(model: Model, tmp_path: Path) -> None:
    file = written(model, tmp_path, replace(INT8, reduce_range=True, dense_per_tensor=True))
    stored = {node.op_type: file.producers[node.input[1]] for node in file.nodes if node.op_type in ("Conv", "Gemm")}
    for dequantize in stored.values():
        assert np.abs(file.values(dequantize.input[0]).astype(int)).max() == 64  # type: ignore[union-attr]
    assert [file.values(stored[kind].input[1]).size for kind in ("Conv", "Gemm")] == [8, 1]  # type: ignore[union-attr]


# ---------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    ("low", "high", "flavour", "scale", "zero", "dtype"),
    [
        (0.0, 2.55, "asymmetric", 0.01, 0, "uint8"),
        (-1.0, 1.55, "asymmetric", 0.01, 100, "uint8"),
        (1.0, 2.55, "asymmetric", 0.01, 0, "uint8"),
        (-2.55, -1.0, "asymmetric", 0.01, 255, "uint8"),
        (0.0, 0.0, "asymmetric", 1.0, 0, "uint8"),
        (-1.27, 0.5, "symmetric", 0.01, 0, "int8"),
    ],
)
def test_activation_encodings_are_those_worked_out_by_hand(
    low: float, high: float, flavour: str, scale: float, zero: int, dtype: str
) -> None:
    found = onnx_encodings.activation(low, high, flavour)
    assert (float(found.scale), found.zero_point, found.dtype) == (pytest.approx(scale), zero, dtype)


def test_channel_without_weights_keeps_its_bias(model: Model, tmp_path: Path) -> None:
    """Pruning leaves such channels; the scale 1 that other tools give them rounds the bias to whole input steps."""
    graph = keras.models.clone_model(model.graph)
    graph.set_weights(model.graph.get_weights())
    kernel, bias = graph.get_layer("classes").get_weights()
    kernel[:, 2], bias[2] = 0, 0.3333
    graph.get_layer("classes").set_weights([kernel, bias])
    changed = calibrated(as_model(graph), Images(model.signature.inputs))
    file = written(changed, tmp_path, INT8)
    (gemm,) = nodes(file, "Gemm")
    dequantize = file.producers[gemm.input[2]]
    stored, scales = file.values(dequantize.input[0]), file.values(dequantize.input[1])
    assert stored is not None and scales is not None
    assert float(stored[2] * np.float64(scales[2])) == pytest.approx(0.3333, rel=1e-6)


# ---------------------------------------------------------------- the check


def pieces(model: Model, quant: QuantSpec) -> tuple[Any, Any]:
    """(written proto, request), without the exporter's own check."""
    exporter, prepared = ONNX(layout="NCHW"), replace(model, graph=prepare(model.graph).graph, quant=quant)
    proto = exporter._convert(prepared, ExportContext())
    made, asked, _ = onnx_quantize.quantize(proto, prepared, exporter._inputs(prepared), ExportContext())
    return made, asked


def edit(proto: Any, name: str, change: Callable[[Any], Any]) -> None:
    (tensor,) = [tensor for tensor in proto.graph.initializer if tensor.name == name]
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor).copy()), name))


def nudged(values: Any) -> Any:
    values.reshape(-1)[0] += 1
    return values


@pytest.mark.parametrize(
    ("quant", "kind", "position", "part", "change", "words"),
    [
        (INT8, "Conv", 1, 1, lambda scale: scale * np.float32(1.01), "has the scale"),
        (INT8, "Conv", 1, 0, nudged, "has 1 integers that are not the rounded values"),
        (INT8, "Conv", 1, 0, lambda values: values.astype(np.uint8), "is stored as uint8, int8 was asked for"),
        (INT8, "Conv", 0, 1, lambda scale: scale * np.float32(2), "has the scale"),
        (INT8, "Conv", 0, 2, nudged, "has the zero point"),
        (INT8, "Conv", 2, 0, nudged, "has integers that are not the rounded values"),
        (INT8, "Conv", 2, 1, lambda scale: scale * np.float32(1.01), "that of input \\* weight is"),
        (INT8, "Conv", 2, 0, lambda values: values.astype(np.int16), "is stored as int16, a bias is int32"),
        (INT8, "Gemm", 1, 1, lambda scale: scale * np.float32(0.99), "has the scale"),
        (SYMMETRIC, "Conv", 1, 1, lambda scale: scale * np.float32(1.01), "has the scale"),
        (SYMMETRIC, "Conv", 0, 2, nudged, "has the zero point 1, 0 was asked for"),
        (QuantSpec("weight_int8"), "Conv", 1, 0, nudged, "integers that are not the rounded values"),
    ],
)
def test_one_corrupt_tensor_is_named(
    model: Model, quant: QuantSpec, kind: str, position: int, part: int, change: Callable[[Any], Any], words: str
) -> None:
    proto, asked = pieces(model, quant)
    file = onnx_file.File(proto)
    onnx_verify.verify(file, asked, lambda name: None)
    node = nodes(file, kind)[-1]
    (twin,) = [each for each in asked.float_file.nodes if each.name == node.name]
    edit(proto, file.producers[node.input[position]].input[part], change)
    with pytest.raises(UnsupportedError, match=words) as error:
        onnx_verify.verify(onnx_file.File(proto), asked, lambda name: None)
    assert f"tensor {twin.input[position]} of the written file" in str(error.value)


def test_operator_left_in_float_is_named(model: Model) -> None:
    proto, asked = pieces(model, INT8)
    file = onnx_file.File(proto)
    node = nodes(file, "Conv")[-1]
    node.input[0] = file.producers[file.producers[node.input[0]].input[0]].input[0]
    with pytest.raises(UnsupportedError, match="is not read as integers"):
        onnx_verify.verify(onnx_file.File(proto), asked, lambda name: None)


def test_one_bias_of_two_convolutions_is_written_for_each(tmp_path: Path) -> None:
    keras.utils.set_random_seed(7)
    image = keras.Input((*SIZE, 3), name="image")
    threes = keras.initializers.Constant(3.0)  # equal constants become one, and the quantizer copies it for each scale
    x = L.Conv2D(4, 3, activation="relu", bias_initializer=threes, name="one")(image)
    x = L.Conv2D(4, 3, activation="relu", bias_initializer=threes, name="two")(x)
    plain = as_model(keras.Model(image, L.Flatten(name="out")(x)))
    data = Images(plain.signature.inputs, count=24)
    model = calibrated(plain, data)
    file = written(model, tmp_path, INT8)
    read = [file.values(node.input[0]) for node in file.nodes if node.op_type == "DequantizeLinear"]
    biases = [values for values in read if values is not None and values.dtype == np.int32]
    scales = [
        file.values(node.input[1])
        for node in file.nodes
        if node.op_type == "DequantizeLinear" and (held := file.values(node.input[0])) is not None
        if held.dtype == np.int32
    ]
    assert len(biases) == 2
    for values, scale in zip(biases, scales, strict=True):
        np.testing.assert_allclose(values * scale, 3.0, rtol=1e-3)
