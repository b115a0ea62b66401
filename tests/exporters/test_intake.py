"""Files that take pixels: known tensors by hand, and the same outputs as the file that takes the prepared image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from tests.exporters.conftest import SIZE, Images, as_model, classifier
from toolkit.core import ExportContext, Model, Preprocessing, QuantSpec
from toolkit.datasets.preprocess import PreprocessSpec, normalise
from toolkit.errors import UnsupportedError
from toolkit.exporters import intake, tflite_file, tflite_intake
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.tflite import TFLite
from toolkit.inspection import read_artifact

PIXELS = np.array([[[0, 127, 255], [255, 0, 127]]], np.uint8)  # 1 x 2, RGB
# by hand, of (0, 127, 255): signed x / 127.5 - 1; caffe BGR and x - mean; imagenet (x / 255 - mean) / std
BY_HAND = {
    "raw": [0, 127, 255],
    "unit": [0, 127 / 255, 1],
    "signed": [-1, -0.5 / 127.5, 1],
    "caffe": [255 - 103.939, 127 - 116.779, -123.68],
    "imagenet": [-0.485 / 0.229, (127 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225],
}


def preset(name: str) -> Preprocessing:
    return PreprocessSpec.model_validate(name).resolve((None, *SIZE, 3))


def identity(name: str) -> Model:
    """A network that gives its input back: x + 0, flattened by nothing."""
    image = keras.Input((1, 2, 3), name="image")
    model = as_model(keras.Model(image, keras.layers.ReLU(negative_slope=1.0)(image)))
    return replace(model, preprocessing=preset(name))


def run_tflite(path: Path, image: Any) -> Any:
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    runner = interpreter.get_signature_runner(tflite_file.SIGNATURE_KEY)
    return next(iter(runner(image=image).values()))


def run_onnx(path: Path, image: Any) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]


@pytest.mark.parametrize("name", BY_HAND)
def test_pixels_become_the_tensor_worked_out_by_hand(tmp_path: Path, name: str) -> None:
    model = identity(name)
    TFLite(embed_preprocessing=True).export(model, tmp_path / "m.tflite", ExportContext())
    ONNX(embed_preprocessing=True).export(model, tmp_path / "m.onnx", ExportContext())
    for found in (run_tflite(tmp_path / "m.tflite", PIXELS[None]), run_onnx(tmp_path / "m.onnx", PIXELS[None])):
        np.testing.assert_allclose(found[0, 0, 0], BY_HAND[name], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def model() -> Model:
    return as_model(classifier())


def examples(model: Model, wanted: Preprocessing) -> tuple[Any, Images]:
    """20 images as uint8, and calibration data that holds them prepared."""
    pixels = np.random.default_rng(1).integers(0, 256, (20, *SIZE, 3), dtype=np.uint8)
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    ready = normalise(pixels[..., ::-1] if wanted.color == "bgr" else pixels, wanted)

    class Prepared(Images):
        def arrays(self) -> list[dict[str, Any]]:
            return [{"image": image[None]} for image in ready]

    return pixels, Prepared(model.signature.inputs, count=len(pixels))


def export_both(exporter: Any, model: Model, folder: Path, data: Any) -> tuple[Any, Any]:
    """The artifact that takes pixels, and the plain one."""
    suffix = exporter.suffix
    made = [
        type(exporter)(**{**exporter.model_dump(), "embed_preprocessing": embed}).export(
            model, folder / f"{embed}{suffix}", ExportContext(data)
        )
        for embed in (True, False)
    ]
    return made[0], made[1]


@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic"])
@pytest.mark.parametrize("name", ["signed", "caffe", "imagenet"])
def test_tflite_of_pixels_answers_exactly_as_the_plain_file(
    tmp_path: Path, model: Model, scheme: Any, name: str
) -> None:
    wanted = replace(model, preprocessing=preset(name), quant=QuantSpec(scheme))
    pixels, data = examples(wanted, wanted.preprocessing)
    taken, plain = export_both(TFLite(), wanted, tmp_path, data)
    assert taken.pixels and not plain.pixels
    (spec,) = taken.signature.inputs
    assert (spec.name, spec.shape, spec.dtype, spec.meaning, spec.layout) == (
        "image",
        (1, *SIZE, 3),
        "uint8",
        "image",
        "NHWC",
    )
    for image, example in zip(pixels, data.arrays(), strict=True):
        found, expected = run_tflite(taken.path, image[None]), run_tflite(plain.path, example["image"])
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("io", ["float32", "uint8"])
@pytest.mark.parametrize("name", ["raw", "signed", "caffe", "imagenet"])
def test_int8_tflite_of_pixels_is_integer_and_one_step_from_the_plain_file(
    tmp_path: Path, model: Model, name: str, io: Any
) -> None:
    wanted = replace(model, preprocessing=preset(name), quant=QuantSpec("int8", io=io))
    pixels, data = examples(wanted, wanted.preprocessing)
    taken, plain = export_both(TFLite(), wanted, tmp_path, data)
    file, other = tflite_file.read(taken.path), tflite_file.read(plain.path)
    (_, first), (_, out) = file.inputs[0], file.outputs[0]
    assert (first.dtype, first.scales, first.zero_points, out.dtype) == ("uint8", (1.0,), (0,), io)
    kinds = [operator.kind for operator in file.operators]
    own = 1 if name == "raw" else 2
    assert kinds[:own] == ["QUANTIZE", "CONV_2D"][:own]
    assert kinds[own:] == [operator.kind for operator in other.operators][1:]  # that file quantizes its own input
    assert [t.scales for op in file.operators[own:] for t in op.outputs] == [
        t.scales for op in other.operators[1:] for t in op.outputs
    ]
    entered = file.operators[own - 1].outputs[0]
    for image, example in zip(pixels, data.arrays(), strict=True):
        steps = np.round(example["image"] / entered.scales[0]) + entered.zero_points[0]
        assert np.abs(_entered(taken.path, image[None], entered.name) - steps.clip(-128, 127)).max() <= 1


def _entered(path: Path, image: Any, name: str) -> Any:
    """Values of an inner tensor after a run under the built-in kernels."""
    interpreter = Interpreter(model_path=str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    index = next(item["index"] for item in interpreter.get_tensor_details() if item["name"] == name)
    return interpreter.get_tensor(index).astype(int)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("scheme", ["float32", "float16", "int8"])
def test_onnx_of_pixels_answers_exactly_as_the_plain_file(
    tmp_path: Path, model: Model, scheme: Any, layout: Any
) -> None:
    for name in ("signed", "caffe", "imagenet"):
        wanted = replace(model, preprocessing=preset(name), quant=QuantSpec(scheme))
        pixels, data = examples(wanted, wanted.preprocessing)
        taken, plain = export_both(ONNX(layout=layout), wanted, tmp_path, data)
        assert taken.signature.inputs[0].dtype == "uint8" and taken.pixels
        order = (0, 3, 1, 2) if layout == "NCHW" else (0, 1, 2, 3)
        for image, example in zip(pixels[:5], data.arrays(), strict=False):
            found = run_onnx(taken.path, np.ascontiguousarray(image[None].transpose(order)))
            expected = run_onnx(plain.path, np.ascontiguousarray(example["image"].transpose(order)))
            np.testing.assert_array_equal(found, expected)


def test_pixel_files_are_known_again_and_uint8_ends_are_not_taken_for_them(tmp_path: Path, model: Model) -> None:
    wanted = replace(model, preprocessing=preset("raw"), quant=QuantSpec("int8", io="uint8"))
    _, data = examples(wanted, wanted.preprocessing)
    taken, plain = export_both(TFLite(), wanted, tmp_path, data)
    floats = TFLite(embed_preprocessing=True).export(
        replace(wanted, quant=QuantSpec()), tmp_path / "f.tflite", ExportContext()
    )
    assert [read_artifact(artifact.path).pixels for artifact in (taken, plain, floats)] == [True, False, True]


def test_pixels_of_an_example_give_that_example_back() -> None:
    wanted = preset("caffe")
    front = intake.Intake("image", (1.0, 1.0, 1.0), wanted.offset, flip=True)
    ready = normalise(PIXELS[None][..., ::-1], wanted)
    np.testing.assert_array_equal(front.pixels({"image": ready}, axis=-1)["image"], PIXELS[None])
    first = front.pixels({"image": ready.transpose(0, 3, 1, 2)}, axis=1)["image"]
    np.testing.assert_array_equal(first, PIXELS[None].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("exporter", [TFLite, ONNX])
def test_other_kinds_than_keras_are_refused_before_any_work(exporter: Any) -> None:
    asked = exporter(embed_preprocessing=True)
    assert asked.refusal(QuantSpec()) is None
    assert "needs a Keras model" in asked.refusal(QuantSpec(), "savedmodel")


def test_what_pixels_cannot_feed_is_refused_with_the_reason(tmp_path: Path, model: Model, pair_model: Model) -> None:
    def reason(subject: Model, **how: Any) -> str:
        with pytest.raises(UnsupportedError) as caught:
            _, data = examples(subject, preset("raw"))
            TFLite(embed_preprocessing=True).export(subject, tmp_path / "no.tflite", ExportContext(data))
        return str(caught.value)

    assert "2 inputs" in reason(pair_model)
    assert "int8 inputs" in reason(replace(model, quant=QuantSpec("int8", io="int8")))
    gray = replace(model.preprocessing, color="gray")
    assert "gives gray images" in reason(replace(model, preprocessing=gray))
    assert "2 scales" in reason(replace(model, preprocessing=replace(model.preprocessing, scale=(1.0, 2.0))))
    quant = QuantSpec("int8", granularity="per_tensor")
    assert "per_channel" in reason(replace(model, preprocessing=preset("imagenet"), quant=quant))
    assert not (tmp_path / "no.tflite").exists()


def test_embedding_leaves_the_operators_behind_as_they_were(tmp_path: Path, model: Model) -> None:
    wanted = replace(model, preprocessing=preset("signed"))
    plain = TFLite().export(wanted, tmp_path / "plain.tflite", ExportContext())
    front = intake.of(wanted, wanted.signature.inputs, "tflite")
    (tmp_path / "front.tflite").write_bytes(tflite_intake.embed(plain.path.read_bytes(), front))
    before, after = tflite_file.read(plain.path), tflite_file.read(tmp_path / "front.tflite")
    assert [op.kind for op in after.operators] == ["CAST", "MUL", "ADD", *(op.kind for op in before.operators)]
