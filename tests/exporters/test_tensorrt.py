"""Files for TensorRT: what they compute, where they are quantized, what stays float32, and NVIDIA's own verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from tests import tensorrt_rtx_build as rtx
from toolkit import registry
from toolkit.core import ExportContext, Model, QuantSpec, Statistics
from toolkit.engine.calibrate import calibrate
from toolkit.engine.prepare import prepare
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import onnx_file, tensorrt_float16
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.onnx_encodings import Encoding
from toolkit.exporters.onnx_file import File
from toolkit.exporters.tensorrt import TensorRT

from .conftest import Images, as_model, scatter

L = keras.layers
SIZE = (16, 16)
INT8 = QuantSpec("int8", flavour="symmetric")
FORMS: dict[str, tuple[QuantSpec, dict[str, Any]]] = {
    "float32": (QuantSpec(), {}),
    "float16": (QuantSpec("float16"), {}),
    "int8 beside float32": (INT8, {"rest": "float32"}),
    "int8 beside float16": (INT8, {"rest": "float16"}),
}


def network() -> keras.Model:
    """Two residual blocks, one with a convolution on its shortcut, depthwise, concatenation, pools, dense, softmax."""
    keras.utils.set_random_seed(6)
    image = keras.Input((*SIZE, 3), name="image")
    x = L.Rescaling(2.0, offset=-1.0, name="scaled")(image)
    first = x = L.Conv2D(16, 3, padding="same", activation="relu", name="first")(x)
    x = L.BatchNormalization(name="norm")(L.Conv2D(16, 3, padding="same", use_bias=False, name="branch")(x))
    x = L.ReLU(name="after")(L.Add(name="sum")([x, first]))
    y = L.DepthwiseConv2D(3, padding="same", activation="relu6", name="wise")(x)
    x = L.Concatenate(name="both")([x, L.Conv2D(16, 1, name="point")(y)])
    x = L.MaxPooling2D(2, name="largest")(x)
    y = L.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="one")(x)
    y = L.Conv2D(32, 3, padding="same", name="two")(y)
    x = L.ReLU(name="end")(L.Add(name="sum2")([L.Conv2D(32, 1, strides=2, padding="same", name="short")(x), y]))
    x = L.Conv2D(32, 1, activation="relu", name="last")(L.AveragePooling2D(2, name="mean")(x))
    x = L.Conv2D(4, (1, 2), padding="same", name="narrow")(x)
    x = L.GlobalAveragePooling2D(name="gap")(x)
    return scatter(keras.Model(image, L.Dense(5, activation="softmax", name="classes")(x), name="net"))


@pytest.fixture(scope="module")
def model() -> Model:
    plain = as_model(network())
    data = Images(plain.signature.inputs, count=16)
    graph = prepare(plain.graph, scalings=False).graph
    ranges = calibrate(graph, (batch.inputs for batch in data.batches(8))).ranges("minmax")
    return replace(plain, statistics=Statistics(ranges, data.count))


@pytest.fixture(scope="module")
def data(model: Model) -> Images:
    return Images(model.signature.inputs, count=16)


@pytest.fixture(scope="module")
def files(model: Model, data: Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Form -> artifact."""
    folder = tmp_path_factory.mktemp("forms")
    made = {}
    for form, (quant, how) in FORMS.items():
        exporter = TensorRT(**how)
        path = folder / f"{form.replace(' ', '-')}{exporter.suffix}"
        made[form] = exporter.export(replace(model, quant=quant), path, ExportContext(data))
    return made


def run(content: bytes, image: Any, *, optimized: bool = True) -> Any:
    level = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.transpose(0, 3, 1, 2)})[0]


def of_kind(file: File, kind: str) -> list[Any]:
    return [node for node in file.nodes if node.op_type == kind]


def integers(file: File) -> dict[str, tuple[Any, Any]]:
    """Weighted node -> (the integers its weights become, their scales)."""
    found = {}
    for node in of_kind(file, "Conv"):
        dequantize = file.producers.get(node.input[1])
        if dequantize is not None and dequantize.op_type == "DequantizeLinear":
            quantize = file.producers[dequantize.input[0]]
            values, scale = file.values(quantize.input[0]), file.values(quantize.input[1])
            assert values is not None
            assert scale is not None
            steps = values.astype(np.float64) / scale.astype(np.float64).reshape(-1, 1, 1, 1)
            found[node.name] = np.rint(steps), scale.astype(np.float64)
    return found


# ---------------------------------------------------------------- what it computes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("optimized", [True, False])
def test_file_agrees_with_the_float_model(model: Model, files: dict[str, Any], form: str, optimized: bool) -> None:
    content = files[form].path.read_bytes()
    for example in Images(model.signature.inputs, count=4).arrays():
        wanted = np.asarray(model.graph(example["image"]))
        tolerance = {"float32": 1e-5, "float16": 1e-3}.get(form, 5e-3)
        np.testing.assert_allclose(run(content, example["image"], optimized=optimized), wanted, atol=tolerance)


def test_forms_say_their_types_and_operator_sets(files: dict[str, Any]) -> None:
    real = {}
    for form, artifact in files.items():
        file = onnx_file.read(artifact.path)
        kinds = {kind for name, (kind, _) in file.inferred.items() if kind in (1, 10) and name in file.producers}
        real[form] = (tensorrt_float16.version_of(file.proto), sorted(kinds), artifact.path.name.split(".", 1)[1])
        assert {spec.dtype for spec in (*file.inputs, *file.outputs)} == {"float32"}
    assert real == {
        "float32": (17, [1], "trt.onnx"),
        "float16": (17, [1, 10], "trt.onnx"),  # float32 is what the last Cast gives
        "int8 beside float32": (17, [1], "int8-fp32.onnx"),
        "int8 beside float16": (19, [1, 10], "int8-fp16.onnx"),
    }


def test_both_int8_forms_hold_the_same_integers_and_scales(files: dict[str, Any]) -> None:
    wide, narrow = (onnx_file.read(files[f"int8 beside {rest}"].path) for rest in ("float32", "float16"))
    one, other = integers(wide), integers(narrow)
    assert len(one) == 8
    assert one.keys() == other.keys()
    for name, (steps, scales) in one.items():
        np.testing.assert_array_equal(steps, other[name][0])
        np.testing.assert_array_equal(scales, other[name][1])
    scales = [
        sorted(float(np.max(file.values(node.input[1]))) for node in of_kind(file, "QuantizeLinear"))
        for file in (wide, narrow)
    ]
    assert scales[0] == scales[1]
    assert {file.values(node.input[1]).dtype for file in (narrow,) for node in of_kind(file, "DequantizeLinear")} == {
        np.dtype("float16")
    }


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(0.5, 0.5), (0.1, 0.10003662109375), (1e-7, 1.1920928955078125e-07), (1e-9, 5.960464477539063e-08), (7e4, 7e4)],
)
def test_scales_are_the_next_float16_numbers_up(scale: float, expected: float) -> None:
    """By hand: 0.1 lies between 1638/16384 and 1639/16384; below 6.1e-5 float16 counts in steps of 2**-24."""
    found = Encoding(np.array(scale, np.float32), 0, "int8").in_float16()
    assert float(found.scale) == pytest.approx(expected, rel=1e-7)


def test_weights_pruned_two_of_four_stay_so(model: Model, data: Images, tmp_path: Path) -> None:
    """Of each four input channels in a row two are 0, in the float weights and in what every form stores."""
    graph = keras.models.clone_model(model.graph)
    graph.set_weights(model.graph.get_weights())
    kernel, bias = graph.get_layer("one").get_weights()
    zeros = np.tile([True, False, False, True], kernel.shape[2] // 4)
    kernel[:, :, zeros, :] = 0
    graph.get_layer("one").set_weights([kernel, bias])
    for quant, how in FORMS.values():
        pruned = replace(model, graph=graph, quant=quant, statistics=None)
        path = tmp_path / "pruned.onnx"
        TensorRT(**how).export(pruned, path, ExportContext(data))
        file = onnx_file.read(path)
        node = next(each for each in of_kind(file, "Conv") if "one" in each.name)
        if quant.scheme == "int8":
            stored = integers(file)[node.name][0]
        else:
            values = file.values(node.input[1])
            assert values is not None
            stored = values
        assert not stored[:, zeros].any()
        assert (np.count_nonzero(stored.reshape(32, -1, 4, 9), axis=2) <= 2).all()
        assert np.count_nonzero(stored[:, ~zeros]) > 0.9 * stored[:, ~zeros].size


# ---------------------------------------------------------------- placement


def test_only_what_gains_is_quantized_and_the_rest_is_named(files: dict[str, Any]) -> None:
    file = onnx_file.read(files["int8 beside float32"].path)
    quantized = {
        node.name for node in file.nodes if node.input and _dequantized(file, node.input[0]) and node.op_type == "Conv"
    }
    assert len(quantized) == 8
    left = [note.split(": ", 1) for note in files["int8 beside float32"].notes]
    assert [layer for layer, _ in left] == ["narrow", "classes"]
    assert "32 input and 4 output channels, kernel 1x2" in left[0][1]
    assert "matrix and a vector" in left[1][1]
    assert not of_kind(file, "QuantizeLinear")[0].input[0].startswith("scores")
    (mean,) = of_kind(file, "AveragePool")
    assert _dequantized(file, mean.input[0])
    (gap,) = of_kind(file, "GlobalAveragePool")
    assert not _dequantized(file, gap.input[0])


def _dequantized(file: File, name: str) -> bool:
    maker = file.producers.get(name)
    return maker is not None and maker.op_type == "DequantizeLinear"


@pytest.mark.parametrize("exporter", [TensorRT(rest="float32"), ONNX(layout="NCHW")])
def test_sum_of_two_convolutions_is_fused_into_the_longer_branch(
    exporter: ONNX, model: Model, data: Images, tmp_path: Path
) -> None:
    exporter.export(replace(model, quant=INT8), tmp_path / "m.onnx", ExportContext(data))
    file = onnx_file.read(tmp_path / "m.onnx")
    sums = [node for node in of_kind(file, "Add") if not any(name in file.constants for name in node.input)]
    assert len(sums) == 2
    direct = [next(name for name in node.input if not _dequantized(file, name)) for node in sums]
    makers = [file.producers[name].name for name in direct]
    assert "branch" in makers[0]
    assert "two" in makers[1]  # and not "short"


def test_layer_asked_for_by_name_is_quantized_all_the_same(model: Model, data: Images, tmp_path: Path) -> None:
    asked = replace(model, quant=replace(INT8, layers=(("narrow", "int8"),)))
    artifact = TensorRT().export(asked, tmp_path / "m.onnx", ExportContext(data))
    assert [note.split(":")[0] for note in artifact.notes] == ["classes"]
    assert len(integers(onnx_file.read(artifact.path))) == 9


# ---------------------------------------------------------------- float16


def test_layers_beyond_float16_stay_float32_and_are_named(model: Model, data: Images, tmp_path: Path) -> None:
    """A branch whose values reach far above 65504 between two convolutions; what is around it is float16."""
    graph = keras.models.clone_model(model.graph)
    graph.set_weights(model.graph.get_weights())
    for name, factor in (("one", 1e6), ("two", 1e-6)):
        layer = graph.get_layer(name)
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel * np.float32(factor), bias * np.float32(1e6 if name == "one" else 1)])
    loud = replace(model, graph=graph, statistics=None)
    image = data.arrays()[0]["image"]
    wanted = np.asarray(graph(image))
    for quant, how in (FORMS["float16"], FORMS["int8 beside float16"]):
        artifact = TensorRT(**how).export(replace(loud, quant=quant), tmp_path / "m.onnx", ExportContext(data))
        told = {note.split(":")[0] for note in artifact.notes if "stays in float32: " in note}
        assert told == {"one", "two"}
        content = artifact.path.read_bytes()
        for optimized in (True, False):
            np.testing.assert_allclose(run(content, image, optimized=optimized), wanted, atol=5e-3)
        file = onnx_file.read(artifact.path)
        kinds = {node.name: file.inferred[node.output[0]][0] for node in of_kind(file, "Conv")}
        assert sorted(kinds.values()) == [1, 1, *[10] * 7]


def test_what_was_not_checked_for_overflow_is_said(model: Model, tmp_path: Path) -> None:
    artifact = TensorRT().export(replace(model, quant=FORMS["float16"][0]), tmp_path / "m.onnx", ExportContext())
    assert artifact.notes == ("activations were not checked for overflow of float16: there are no calibration images",)


def test_changed_constant_is_named(files: dict[str, Any]) -> None:
    twin = onnx_file.read(files["float32"].path)
    narrow = tensorrt_float16.narrowed(twin.proto, ())
    tensorrt_float16.verify(File(narrow), twin, lambda name: None)
    tensor = next(each for each in narrow.graph.initializer if "Conv" in each.name or len(each.dims) == 4)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[0] *= 2
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(UnsupportedError, match=f"tensor {tensor.name} of the written file"):
        tensorrt_float16.verify(File(narrow), twin, lambda name: None)


# ---------------------------------------------------------------- what is asked


@pytest.mark.parametrize(
    ("exporter", "quant", "words"),
    [
        (TensorRT(), QuantSpec("int8"), 'set flavour = "symmetric"'),
        (TensorRT(), QuantSpec("weight_int8"), "gains nothing by weight_int8"),
        (TensorRT(), QuantSpec("dynamic"), "gains nothing by dynamic"),
        (TensorRT(rest="float16"), QuantSpec("float16"), "leave rest out"),
        (TensorRT(rest="float32"), QuantSpec(), "leave rest out"),
    ],
)
def test_requests_that_tensorrt_has_no_form_for_are_refused(exporter: TensorRT, quant: QuantSpec, words: str) -> None:
    assert words in (exporter.refusal(quant) or "")


def test_learned_ranges_and_weights_go_out_without_calibration(digits_model: Path, tmp_path: Path) -> None:
    """Weights trained in the symmetric flavour lie on a grid: both forms hold those integers."""
    from toolkit.core import PassContext
    from toolkit.datasets.digits import Digits
    from toolkit.datasets.preprocess import PreprocessSpec
    from toolkit.datasets.splits import SplitSpec, make_splits
    from toolkit.passes.qat import Qat
    from toolkit.sources.keras import Keras

    source = Keras().load(digits_model)
    contract = PreprocessSpec(scale=0.0625).resolve(source.signature.inputs[0].shape)
    splits = make_splits(Digits().load(), None, SplitSpec(train=600, test="rest"), contract, 0)
    context = PassContext(original=source, train=splits.train)
    trained = Qat(epochs=1, flavour="symmetric").run(source, context).model
    kernel = trained.graph.get_layer("conv2").get_weights()[0]
    steps = np.rint(kernel / (np.abs(kernel).max(axis=(0, 1, 2)) / 127)).transpose(3, 2, 0, 1)
    ranges = trained.statistics.ranges  # type: ignore[union-attr]
    for rest in ("float32", "float16"):
        path = tmp_path / f"{rest}.onnx"
        named = replace(trained, quant=replace(trained.quant, layers=(("conv2", "int8"),)))  # 12 channels gain little
        TensorRT(rest=rest).export(named, path, ExportContext())
        file = onnx_file.read(path)
        node = next(each for each in of_kind(file, "Conv") if "conv2" in each.name)
        np.testing.assert_array_equal(integers(file)[node.name][0], steps)
        scale = float(file.values(file.producers[node.input[0]].input[1]))  # type: ignore[arg-type]
        assert scale == pytest.approx(ranges["relu1"].high / 127, rel=1e-3)


def test_asymmetric_source_is_refused(plain_model: Model, tmp_path: Path) -> None:
    """A quantized file goes out as it came only where TensorRT takes it."""
    source_of = registry.load("sources", "onnx")

    images = Images(plain_model.signature.inputs)
    for flavour, how in (("asymmetric", {}), ("symmetric", {"layout": "NCHW"})):
        path = tmp_path / f"{flavour}.onnx"
        quant = QuantSpec("int8", flavour=flavour)  # type: ignore[arg-type]
        ONNX(**how).export(replace(plain_model, quant=quant), path, ExportContext(images))
        source = replace(source_of().load(path), quant=INT8)
        if flavour == "symmetric":
            artifact = TensorRT().export(source, tmp_path / "out.onnx", ExportContext(images))
            assert artifact.path.read_bytes() == path.read_bytes()
            continue
        with pytest.raises(InputError, match="is not int8 with zero point 0"):
            TensorRT().export(source, tmp_path / "out.onnx", ExportContext(images))


# ---------------------------------------------------------------- NVIDIA's parser and builder, on the CPU

# What tensorrt_rtx 1.7 has int8 convolutions for; elsewhere it builds the same file in floating point.
IN_INT8 = {
    *(("int8 beside float32", capability) for capability in ("SM86", "SM89", "SM120")),
    *(("int8 beside float16", capability) for capability in ("SM80", "SM86", "SM89", "SM120")),
}


@pytest.mark.parametrize("capability", rtx.CAPABILITIES)
@pytest.mark.parametrize("form", FORMS)
def test_nvidias_builder_takes_every_form(files: dict[str, Any], form: str, capability: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    built = rtx.build(files[form].path.read_bytes(), capability)
    if capability == "SM75" and form in ("float32", "int8 beside float32"):  # of this edition, not of TensorRT
        assert "FP32 GEMM is not supported" in built.problems[0]
        return
    assert built.problems == ()
    assert built.size > 0
    assert built.int8_convolutions == (8 if (form, capability) in IN_INT8 else 0)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "has type Int32 but must have type"),  # int32 biases: ONNX Runtime's own defaults
        ({"QuantizeBias": False}, "Non-zero zero point is not supported"),
        ({"QuantizeBias": False, "type": "QInt8"}, "Non-zero zero point is not supported"),
        ({"QuantizeBias": False, "ActivationSymmetric": True}, "Non-zero zero point is not supported"),  # uint8, 128
        ({"format": "QOperator"}, ""),
    ],
)
def test_nvidias_parser_refuses_what_it_is_said_to(
    files: dict[str, Any], data: Images, tmp_path: Path, how: dict[str, Any], words: str
) -> None:
    """Files that onnxruntime's quantizer makes of the float32 form; what the exporter avoids."""
    pytest.importorskip("tensorrt_rtx")
    from onnxruntime import quantization as ort

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        examples = iter(data.arrays()[:2])

        def get_next(self) -> Any:
            example = next(self.examples, None)
            return example and {"image": example["image"].transpose(0, 3, 1, 2)}

    options = {name: value for name, value in how.items() if name not in ("type", "format")}
    ort.quantize_static(
        str(files["float32"].path),
        str(tmp_path / "q.onnx"),
        Reader(),
        quant_format=ort.QuantFormat[how.get("format", "QDQ")],
        activation_type=ort.QuantType[how.get("type", "QUInt8")],
        weight_type=ort.QuantType.QInt8,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        extra_options=options,
    )
    built = rtx.build((tmp_path / "q.onnx").read_bytes())
    assert built.problems
    assert words in " ".join(built.problems)
