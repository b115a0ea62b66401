"""TFLite files against Keras, hand-computed scales, and what must be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from toolkit.core import ExportContext, Model, QuantSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import tflite_file, tflite_scan
from toolkit.exporters.tflite import TFLite

Images = Callable[..., Any]


def export(model: Model, folder: Path, data: Any = None, **quant: str) -> Any:
    quantized = replace(model, quant=QuantSpec(**quant))  # type: ignore[arg-type]
    return TFLite().export(quantized, folder / "model.tflite", ExportContext(data))


def run(path: Path, **inputs: Any) -> dict[str, Any]:
    return dict(Interpreter(model_path=str(path)).get_signature_runner("serving_default")(**inputs))


def weights_of(path: Path, model: Model) -> dict[str, tflite_file.Tensor]:
    from toolkit.engine.freeze import layer_of

    found = tflite_scan.weights(tflite_file.read(path))
    return {tflite_scan.layer_of(op, lambda name: layer_of(name, model.graph)): tensor for op, tensor, _ in found}


def test_float32_file_agrees_with_keras(classifier_model: Model, images: Images, tmp_path: Path) -> None:
    artifact = export(classifier_model, tmp_path)
    for example in images(classifier_model).arrays()[:3]:
        got = run(artifact.path, **example)["scores"]
        np.testing.assert_allclose(got, classifier_model.graph(example["image"]), atol=1e-5)
    assert artifact.size_bytes == artifact.path.stat().st_size
    assert (artifact.format, artifact.scheme, artifact.notes) == ("tflite", "float32", ())


def test_two_inputs_and_outputs_of_one_shape_are_bound_by_name(
    pair_model: Model, images: Images, tmp_path: Path
) -> None:
    artifact = export(pair_model, tmp_path)
    example = images(pair_model).arrays()[0]
    expected = dict(zip(("second:0", "first one"), pair_model.graph([example["right"], example["left"]]), strict=True))
    got = run(artifact.path, **example)
    assert set(got) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, atol=1e-5)
    assert np.abs(got["second:0"] - got["first one"]).max() > 0.01


def test_names_and_order_of_the_model_stand_in_the_signature(pair_model: Model, images: Images, tmp_path: Path) -> None:
    for quant in ({"scheme": "float32"}, {"scheme": "int8", "io": "int8"}):
        artifact = export(pair_model, tmp_path, images(pair_model), **quant)
        assert [spec.name for spec in artifact.signature.inputs] == ["right", "left"]
        assert [spec.name for spec in artifact.signature.outputs] == ["second:0", "first one"]
        assert {spec.shape for spec in artifact.signature.inputs} == {(1, 12, 8, 3)}
        assert {spec.dtype for spec in artifact.signature.inputs} == {quant.get("io", "float32")}
        interpreter = Interpreter(model_path=str(artifact.path))
        assert [detail["name"] for detail in interpreter.get_input_details()] == ["right", "left"]


def test_file_holds_no_variables_and_aligned_buffers(classifier_model: Model, tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    path = export(classifier_model, tmp_path).path
    assert not {"READ_VARIABLE", "VAR_HANDLE"} & {operator.kind for operator in tflite_file.read(path).operators}
    root = schema.Model.GetRootAsModel(path.read_bytes(), 0)
    buffers = [root.Buffers(i) for i in range(root.BuffersLength())]
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()]
    assert len(starts) >= 8
    assert {start % 16 for start in starts} == {0}


@pytest.mark.parametrize("io", ["float32", "int8", "uint8"])
def test_int8_file_is_within_quantization_steps_of_keras(
    classifier_model: Model, images: Images, tmp_path: Path, io: str
) -> None:
    data = images(classifier_model)
    path = export(classifier_model, tmp_path, data, scheme="int8", io=io).path
    runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    (scale, zero), (out_scale, out_zero) = (
        detail["quantization"]
        for detail in (runner.get_input_details()["image"], runner.get_output_details()["scores"])
    )
    for example in data.arrays():
        image = example["image"]
        if io != "float32":
            bounds = np.iinfo(io)
            image = np.clip(np.round(image / scale) + zero, bounds.min, bounds.max).astype(io)
        got = runner(image=image)["scores"]
        assert got.dtype == io
        scores = got if io == "float32" else (got.astype("float32") - out_zero) * out_scale
        assert np.abs(scores - classifier_model.graph(example["image"])).max() <= 5 / 256


def test_int8_file_has_integers_alone_between_its_ends(classifier_model: Model, images: Images, tmp_path: Path) -> None:
    file = tflite_file.read(export(classifier_model, tmp_path, images(classifier_model), scheme="int8").path)
    inner = [op for op in file.operators if op.kind not in ("QUANTIZE", "DEQUANTIZE")]
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "SOFTMAX"} <= {op.kind for op in inner}
    assert {t.dtype for op in inner for t in (*op.inputs, *op.outputs) if t} == {"int8", "int32"}


def test_per_channel_scales_are_the_largest_weight_over_127(plain_model: Model, images: Images, tmp_path: Path) -> None:
    path = export(plain_model, tmp_path, images(plain_model), scheme="int8").path
    kernel = plain_model.graph.get_layer("conv").kernel.numpy()
    tensor = weights_of(path, plain_model)["conv"]
    expected = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    np.testing.assert_allclose(tensor.scales, expected, rtol=1e-6)
    np.testing.assert_array_equal(tensor.data, np.round(kernel / expected).astype("int8").transpose(3, 0, 1, 2))
    assert set(tensor.zero_points) == {0}


def test_per_tensor_has_one_scale_for_each_weight(plain_model: Model, images: Images, tmp_path: Path) -> None:
    path = export(plain_model, tmp_path, images(plain_model), scheme="int8", granularity="per_tensor").path
    found = weights_of(path, plain_model)
    assert set(found) == {"conv", "classes"}
    for layer, tensor in found.items():
        largest = np.abs(plain_model.graph.get_layer(layer).kernel.numpy()).max()
        np.testing.assert_allclose(tensor.scales, [largest / 127], rtol=1e-6)


def test_granularity_that_was_not_honoured_is_refused(plain_model: Model, images: Images, tmp_path: Path) -> None:
    path = export(plain_model, tmp_path, images(plain_model), scheme="int8", granularity="per_tensor").path
    with pytest.raises(UnsupportedError, match="1 weight scales, per_channel asks for 6"):
        tflite_scan.scan(tflite_file.read(path), QuantSpec("int8"), lambda name: None)


def test_float16_weights_are_the_rounded_ones(plain_model: Model, tmp_path: Path) -> None:
    artifact = export(plain_model, tmp_path, scheme="float16")
    found = weights_of(artifact.path, plain_model)
    assert artifact.notes == ("written by TensorFlow's converter",)
    kernel = plain_model.graph.get_layer("conv").kernel.numpy()
    np.testing.assert_array_equal(found["conv"].data, kernel.astype("float16").transpose(3, 0, 1, 2))
    np.testing.assert_array_equal(
        found["classes"].data, plain_model.graph.get_layer("classes").kernel.numpy().astype("float16").T
    )


def test_weight_that_overflows_float16_is_refused_by_layer(plain_with: Callable[..., Model], tmp_path: Path) -> None:
    import keras

    model = plain_with(keras.layers.Conv2D(2, 1, name="huge"))
    model.graph.get_layer("huge").kernel.assign(np.full((1, 1, 6, 2), 7e4))
    with pytest.raises(UnsupportedError, match=r"^huge: .*overflows float16"):
        export(model, tmp_path, scheme="float16")


def test_dynamic_file_says_which_weights_stayed_float(classifier_model: Model, tmp_path: Path) -> None:
    artifact = export(classifier_model, tmp_path, scheme="dynamic")
    found = weights_of(artifact.path, classifier_model)
    assert {layer for layer, tensor in found.items() if tensor.dtype == "int8"} == {"conv2d"}
    kernel = classifier_model.graph.get_layer("conv2d").kernel.numpy()
    np.testing.assert_allclose(found["conv2d"].scales, np.abs(kernel).max(axis=(0, 1, 2)) / 127, rtol=1e-6)
    assert [note.split(":")[0] for note in artifact.notes[1:]] == ["stem", "depthwise", "conv2d_1", "classes"]
    assert artifact.notes[0] == "written by TensorFlow's converter"
    assert "216 weights, fewer than the 1024" in artifact.notes[1]


def test_dynamic_is_refused_when_no_weight_is_large_enough(plain_model: Model, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="nothing would be quantized"):
        export(plain_model, tmp_path, scheme="dynamic")


def test_operator_that_is_not_built_in_is_refused_by_layer(
    plain_with: Callable[..., Model], apply: Any, tmp_path: Path
) -> None:
    import tensorflow as tf

    with pytest.raises(UnsupportedError, match=r"^odd_one: its operator BesselI0"):
        export(plain_with(apply(tf.math.bessel_i0, name="odd_one")), tmp_path)
    assert not list(tmp_path.iterdir())


def test_float_island_in_an_int8_file_is_refused_by_layer(
    plain_with: Callable[..., Model], apply: Any, images: Images, tmp_path: Path
) -> None:
    import tensorflow as tf

    model = plain_with(apply(tf.math.sin, name="odd_one"))
    with pytest.raises(UnsupportedError, match=r"^odd_one: SIN stays in floating point"):
        export(model, tmp_path, images(model), scheme="int8")
    assert not list(tmp_path.iterdir())


def test_file_that_computes_nan_is_refused_by_layer(
    plain_with: Callable[..., Model], apply: Any, tmp_path: Path
) -> None:
    import tensorflow as tf

    with pytest.raises(UnsupportedError, match=r"^odd_one: output `scores` .* NaN"):
        export(plain_with(apply(lambda x: tf.math.log(x - 100.0), name="odd_one")), tmp_path)
    assert not list(tmp_path.iterdir())


def test_nan_weights_are_refused_by_layer(plain_with: Callable[..., Model], tmp_path: Path) -> None:
    import keras

    model = plain_with(keras.layers.BatchNormalization(name="sick"))
    model.graph.get_layer("sick").gamma.assign(np.full(6, np.nan))
    with pytest.raises(InputError, match=r"^sick: its weight `gamma` holds NaN"):
        export(model, tmp_path)


def test_mixed_precision_layer_is_refused(plain_with: Callable[..., Model], tmp_path: Path) -> None:
    import keras

    model = plain_with(keras.layers.Conv2D(2, 1, name="half", dtype="mixed_float16"))
    with pytest.raises(UnsupportedError, match=r"^half: .*mixed-precision"):
        export(model, tmp_path)


def test_integer_ends_without_int8_are_refused_before_any_work(plain_model: Model, tmp_path: Path) -> None:
    assert "need scheme int8" in (TFLite().refusal(QuantSpec("float16", io="uint8")) or "")
    assert TFLite().refusal(QuantSpec("int8", io="uint8")) is None
    with pytest.raises(UnsupportedError, match="need scheme int8"):
        export(plain_model, tmp_path, scheme="dynamic", io="int8")


def test_int8_without_calibration_is_an_input_error(plain_model: Model, images: Images, tmp_path: Path) -> None:
    for data in (None, images(plain_model, count=0)):
        with pytest.raises(InputError, match="calibration"):
            export(plain_model, tmp_path, data, scheme="int8")


def test_calibration_error_comes_through_the_converter(plain_model: Model, images: Images, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image-0: .*NaN"):
        export(plain_model, tmp_path, images(plain_model, poison=np.nan), scheme="int8")


def test_custom_operator_in_a_file_is_refused() -> None:
    tensor = tflite_file.Tensor("x", (1,), "float32")
    file = tflite_file.File((tflite_file.Operator("CUSTOM:FlexErf", (tensor,), (tensor,)),), (), ())
    with pytest.raises(UnsupportedError, match=r"^somewhere: became the operator FlexErf"):
        tflite_scan.scan(file, QuantSpec(), lambda name: "somewhere")
