"""ONNX files against Keras, hand-computed scales, layouts, and what must be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from toolkit.core import ExportContext, Model, QuantSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import onnx_file, onnx_scan
from toolkit.exporters.onnx import ONNX

from .conftest import as_model

Images = Callable[..., Any]


def export(model: Model, folder: Path, data: Any = None, exporter: ONNX | None = None, **quant: Any) -> Any:
    quantized = replace(model, quant=QuantSpec(**quant))
    return (exporter or ONNX()).export(quantized, folder / "model.onnx", ExportContext(data))


def run(path: Path, **inputs: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def weights_of(path: Path, kind: str) -> list[tuple[Any, Any]]:
    """(integers, scales) of each node of a kind."""
    file = onnx_file.read(path)
    sources = [file.producers[node.input[1]] for node in file.nodes if node.op_type == kind]
    return [(file.values(source.input[0]), file.values(source.input[1])) for source in sources]


def test_both_layouts_agree_with_keras_on_an_image_of_three_different_lengths(
    classifier_model: Model, images: Images, tmp_path: Path
) -> None:
    last = export(classifier_model, tmp_path / "last")
    first = export(classifier_model, tmp_path / "first", exporter=ONNX(layout="NCHW"))
    (end,) = last.signature.inputs
    assert (end.name, end.shape, end.layout, end.meaning) == ("image", (1, 12, 8, 3), "NHWC", "image")
    (end,) = first.signature.inputs
    assert (end.name, end.shape, end.layout, end.meaning) == ("image", (1, 3, 12, 8), "NCHW", "image")
    for example in images(classifier_model).arrays()[:3]:
        image, expected = example["image"], classifier_model.graph(example["image"])
        np.testing.assert_allclose(run(last.path, image=image)["scores"], expected, atol=1e-5)
        np.testing.assert_allclose(run(first.path, image=image.transpose(0, 3, 1, 2))["scores"], expected, atol=1e-5)
        swapped = run(last.path, image=image[..., ::-1])["scores"]
        assert np.abs(swapped - expected).max() > 1e-3  # the test would see channels out of order


def test_channels_first_without_an_image_is_refused(classifier_model: Model, tmp_path: Path) -> None:
    inputs = tuple(replace(spec, layout="none") for spec in classifier_model.signature.inputs)
    model = replace(classifier_model, signature=replace(classifier_model.signature, inputs=inputs))
    with pytest.raises(UnsupportedError, match="no 4-D image"):
        export(model, tmp_path, exporter=ONNX(layout="NCHW"))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_two_inputs_and_outputs_of_one_shape_are_bound_by_name(
    pair_model: Model, images: Images, tmp_path: Path, layout: Any
) -> None:
    artifact = export(pair_model, tmp_path, exporter=ONNX(layout=layout))
    assert [spec.name for spec in artifact.signature.inputs] == ["right", "left"]
    assert [spec.name for spec in artifact.signature.outputs] == ["second:0", "first one"]
    example = images(pair_model).arrays()[0]
    expected = pair_model.graph([example["right"], example["left"]])
    moved = {name: x.transpose(0, 3, 1, 2) if layout == "NCHW" else x for name, x in example.items()}
    got = run(artifact.path, **moved)
    np.testing.assert_allclose(got["second:0"], expected[0], atol=1e-5)
    np.testing.assert_allclose(got["first one"], expected[1], atol=1e-5)


def test_open_batch_takes_several_images(classifier_model: Model, images: Images, tmp_path: Path) -> None:
    artifact = export(classifier_model, tmp_path, exporter=ONNX(dynamic_batch=True, layout="NCHW"))
    assert artifact.signature.inputs[0].shape == (None, 3, 12, 8)
    assert artifact.signature.outputs[0].shape == (None, 5)
    batch = np.concatenate([example["image"] for example in images(classifier_model).arrays()[:4]])
    got = run(artifact.path, image=batch.transpose(0, 3, 1, 2))["scores"]
    np.testing.assert_allclose(got, classifier_model.graph(batch), atol=1e-5)


def test_batch_normalization_is_in_the_weights_and_the_operator_set_is_the_one_asked_for(
    classifier_model: Model, tmp_path: Path
) -> None:
    file = onnx_file.read(export(classifier_model, tmp_path, exporter=ONNX(opset=15)).path)
    assert not {"Mul", "Add", "BatchNormalization"} & {node.op_type for node in file.nodes}
    assert [(entry.domain, entry.version) for entry in file.proto.opset_import] == [("", 15)]


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_int8_file_is_within_quantization_steps_of_keras(
    classifier_model: Model, images: Images, tmp_path: Path, layout: Any
) -> None:
    data = images(classifier_model)
    path = export(classifier_model, tmp_path, data, ONNX(layout=layout), scheme="int8").path
    for example in data.arrays():
        image = example["image"].transpose(0, 3, 1, 2) if layout == "NCHW" else example["image"]
        got = run(path, image=image)["scores"]
        assert np.abs(got - classifier_model.graph(example["image"])).max() <= 5 / 256


def test_per_channel_scales_are_the_largest_weight_over_127(plain_model: Model, images: Images, tmp_path: Path) -> None:
    path = export(plain_model, tmp_path, images(plain_model), scheme="int8").path
    kernel = plain_model.graph.get_layer("conv").kernel.numpy()
    expected = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    ((integers, scales),) = weights_of(path, "Conv")
    np.testing.assert_allclose(scales, expected, rtol=1e-5)
    np.testing.assert_allclose(integers, (kernel / expected).transpose(3, 2, 0, 1), atol=0.501)
    ((_, scales),) = weights_of(path, "Gemm")
    expected = np.abs(plain_model.graph.get_layer("classes").kernel.numpy()).max(axis=0) / 127
    np.testing.assert_allclose(scales, expected, rtol=1e-5)


def test_per_tensor_has_one_scale_for_each_weight(plain_model: Model, images: Images, tmp_path: Path) -> None:
    path = export(plain_model, tmp_path, images(plain_model), scheme="int8", granularity="per_tensor").path
    ((_, scales),) = weights_of(path, "Conv")
    largest = np.abs(plain_model.graph.get_layer("conv").kernel.numpy()).max()
    np.testing.assert_allclose(scales, largest / 127, rtol=1e-5)
    with pytest.raises(UnsupportedError, match="1 weight scales, per_channel asks for 6"):
        onnx_scan.scan(onnx_file.read(path), QuantSpec("int8"), lambda name: None)


def test_activations_are_asymmetric_uint8_and_softmax_stays_float(
    classifier_model: Model, images: Images, tmp_path: Path
) -> None:
    artifact = export(classifier_model, tmp_path, images(classifier_model), ONNX(layout="NCHW"), scheme="int8")
    assert artifact.notes == ("classes_softmax: Softmax stays in floating point",)
    file = onnx_file.read(artifact.path)
    zeros = [file.values(node.input[2]) for node in file.nodes if node.op_type == "QuantizeLinear"]
    assert {zero.dtype for zero in zeros if zero is not None} == {np.dtype("uint8")}


def test_weight_left_in_float_is_refused_by_layer(plain_model: Model, tmp_path: Path) -> None:
    path = export(plain_model, tmp_path).path
    with pytest.raises(UnsupportedError, match=r"^here: the weights of node .* stay in floating point"):
        onnx_scan.scan(onnx_file.read(path), QuantSpec("int8"), lambda name: "here")


def test_float_operator_in_an_int8_file_is_refused_by_layer_unless_allowed(
    plain_with: Callable[..., Model], apply: Any, images: Images, tmp_path: Path
) -> None:
    import tensorflow as tf

    model = plain_with(apply(tf.math.sin, name="odd_one"))
    with pytest.raises(UnsupportedError, match=r"^odd_one: Sin has no integer kernel.*allow_float"):
        export(model, tmp_path, images(model), ONNX(layout="NCHW"), scheme="int8")
    assert not list(tmp_path.iterdir())
    notes = export(model, tmp_path, images(model), ONNX(layout="NCHW"), scheme="int8", allow_float=True).notes
    assert notes == ("odd_one: Sin stays in floating point",)


def test_float16_weights_are_the_rounded_ones_and_ends_stay_float32(
    plain_model: Model, images: Images, tmp_path: Path
) -> None:
    artifact = export(plain_model, tmp_path, scheme="float16")
    ends = (*artifact.signature.inputs, *artifact.signature.outputs)
    assert [(end.name, end.dtype) for end in ends] == [("image", "float32"), ("scores", "float32")]
    file = onnx_file.read(artifact.path)
    (conv,) = [node for node in file.nodes if node.op_type == "Conv"]
    kernel = plain_model.graph.get_layer("conv").kernel.numpy()
    np.testing.assert_array_equal(file.values(conv.input[1]), kernel.astype("float16").transpose(3, 2, 0, 1))
    example = images(plain_model).arrays()[0]
    got = run(artifact.path, **example)["scores"]
    np.testing.assert_allclose(got, plain_model.graph(example["image"]), atol=5e-3)


def test_weight_that_overflows_float16_is_refused_by_layer(plain_with: Callable[..., Model], tmp_path: Path) -> None:
    import keras

    model = plain_with(keras.layers.Conv2D(2, 1, name="huge"))
    model.graph.get_layer("huge").kernel.assign(np.full((1, 1, 6, 2), 7e4))
    with pytest.raises(UnsupportedError, match=r"^huge: a constant of 7e.*overflows float16"):
        export(model, tmp_path, scheme="float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_gelu_agrees_with_keras(plain_with: Callable[..., Model], images: Images, tmp_path: Path, layout: Any) -> None:
    import keras

    model = plain_with(keras.layers.Activation("gelu", name="gelu"))
    path = export(model, tmp_path, exporter=ONNX(layout=layout)).path
    image = images(model).arrays()[0]["image"]
    got = run(path, image=image.transpose(0, 3, 1, 2) if layout == "NCHW" else image)["scores"]
    np.testing.assert_allclose(got, model.graph(image), atol=1e-5)


def test_operator_without_an_onnx_form_is_refused_by_layer(
    plain_with: Callable[..., Model], apply: Any, tmp_path: Path
) -> None:
    import tensorflow as tf

    with pytest.raises(UnsupportedError, match=r"^odd_one: its operator BesselI0"):
        export(plain_with(apply(tf.math.bessel_i0, name="odd_one")), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_model_that_computes_nan_is_refused_by_layer(
    plain_with: Callable[..., Model], apply: Any, images: Images, tmp_path: Path, scheme: str
) -> None:
    import tensorflow as tf

    model = plain_with(apply(lambda x: tf.math.log(x - 100.0), name="odd_one"))
    with pytest.raises(UnsupportedError, match=r"^odd_one: .*finite"):
        export(model, tmp_path, images(model), ONNX(layout="NCHW"), scheme=scheme, allow_float=True)
    assert not list(tmp_path.iterdir())


def test_dynamic_and_integer_ends_are_refused_before_any_work(plain_model: Model, tmp_path: Path) -> None:
    assert "ConvInteger" in (ONNX().refusal(QuantSpec("dynamic")) or "")
    assert "float32" in (ONNX().refusal(QuantSpec("int8", io="int8")) or "")
    assert ONNX().refusal(QuantSpec("int8", "per_tensor")) is None
    with pytest.raises(UnsupportedError, match="ConvInteger"):
        export(plain_model, tmp_path, scheme="dynamic")


def test_conv_with_two_biases_is_split_into_conv_and_sum() -> None:
    """Of two pixels' worth of channels: y = w x + b + z, each by hand."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 1, 1]) for name in "xy")
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])
    weights = numpy_helper.from_array(np.array([[1, 2], [3, 4]], "float32").reshape(2, 2, 1, 1), "w")
    bias = numpy_helper.from_array(np.array([10, 20], "float32"), "b")
    conv = helper.make_node("Conv", ["x", "w", "b", "z"], ["y"], "sum")
    graph = helper.make_graph([conv], "net", [x, z], [y], [weights, bias])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx_file.split_sums(proto)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"x": np.array([1, 1], "float32").reshape(1, 2, 1, 1), "z": np.array([100, 200], "float32")}
    np.testing.assert_array_equal(session.run(None, feed)[0].ravel(), [113, 227])


def test_sum_of_images_of_one_pixel_is_written(images: Images, tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((2, 2, 3), name="image")
    x = keras.layers.Conv2D(4, 2, activation="relu", name="stem")(image)
    x = keras.layers.Add(name="sum")([x, keras.layers.Conv2D(4, 1, name="branch")(x)])
    scores = keras.layers.Dense(3, activation="softmax", name="scores")(keras.layers.Flatten(name="flat")(x))
    model = as_model(keras.Model(image, scores))
    artifact = export(model, tmp_path)
    for example in images(model).arrays():
        (found,) = onnxruntime.InferenceSession(str(artifact.path)).run(None, example)
        np.testing.assert_allclose(found, model.graph(example["image"]), atol=1e-6)


def test_onnxruntime_gives_dynamic_convolutions_one_scale_also_where_channels_are_asked_for(tmp_path: Path) -> None:
    """Why `dynamic` is refused; a release that does better ends the refusal."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy"]
    kernel = numpy_helper.from_array(np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype("float32"), "w")
    conv = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    graph = helper.make_graph([conv], "net", ends[:1], ends[1:], [kernel])
    source, target = tmp_path / "float.onnx", tmp_path / "dynamic.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), source)
    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
    made = onnx.load(target).graph
    assert "ConvInteger" in [node.op_type for node in made.node]
    scale = next(found for found in made.initializer if found.name == "w_scale")
    assert numpy_helper.to_array(scale).size == 1


def test_int8_without_calibration_is_an_input_error(plain_model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="calibration"):
        export(plain_model, tmp_path, scheme="int8")
