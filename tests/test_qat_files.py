"""What quantization-aware training gives and what the delivered file computes are the same, to a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.core import ExportContext, PassContext
from toolkit.engine.predict import predict_arrays
from toolkit.engine.simulate import simulate
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.tflite import TFLite
from toolkit.passes.qat import Qat
from toolkit.sources.keras import Keras


@pytest.fixture(scope="module", params=["frozen", "corrected"])
def trained(digits_model: Path, request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The digits CNN after one epoch, and real digits it has not seen."""
    return taught(digits_model, io="int8", batchnorm=request.param)


@pytest.fixture(scope="module")
def symmetric(digits_model: Path) -> tuple[Any, Any]:
    """The same, for TensorRT."""
    return taught(digits_model, flavour="symmetric")


def taught(path: Path, **options: Any) -> tuple[Any, Any]:
    from toolkit.datasets.digits import Digits
    from toolkit.datasets.preprocess import PreprocessSpec
    from toolkit.datasets.splits import SplitSpec, make_splits

    model = Keras().load(path)
    contract = PreprocessSpec(scale=0.0625).resolve(model.signature.inputs[0].shape)
    spec = SplitSpec(train=600, selection=100, calibration=100, test="rest")
    splits = make_splits(Digits().load(), None, spec, contract, 0)
    result = Qat(epochs=1, **options).run(model, PassContext(original=model, train=splits.train))
    return result.model, np.concatenate([batch.inputs["image"] for batch in splits.test.batches(500)])


@pytest.fixture(scope="module")
def file(trained: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qat") / "digits.tflite"
    artifact = TFLite().export(trained[0], path, ExportContext())  # with no calibration set
    assert artifact.scheme == "int8"
    return path


def test_qat_file_gives_what_the_rounded_network_does(trained: tuple[Any, Any], file: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    model, images = trained
    interpreter = Interpreter(model_path=str(file))
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = given["quantization"]
    found = []
    for image in images:
        steps = np.clip(np.rint(image / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], steps[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(taken["index"])[0].astype(int) - taken["quantization"][1])
    ranges = {name: (ends.low, ends.high) for name, ends in model.statistics.ranges.items()}
    wanted = predict_arrays(simulate(model.graph, ranges, exact=True), {"image": images})[0] / taken["quantization"][0]
    apart = np.abs(np.stack(found) - np.rint(wanted))
    assert taken["quantization"] == (1 / 256, -128)
    assert (apart <= 1).mean() >= 0.995
    assert apart.max() <= 2


def test_qat_file_holds_no_float_tensor(file: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_path=str(file)).get_tensor_details()
    assert not [detail["name"] for detail in details if np.issubdtype(detail["dtype"], np.floating)]


def test_qat_file_holds_the_weights_that_were_learned(trained: tuple[Any, Any], file: Path) -> None:
    from toolkit.exporters import tflite_file

    operators = [op for op in tflite_file.read(file).operators if op.kind == "CONV_2D"]
    kernel = trained[0].graph.get_layer("conv1").get_weights()[0]
    steps = np.rint(kernel / (np.abs(kernel).max(axis=(0, 1, 2)) / 127))
    weights = operators[0].inputs[1]
    assert weights is not None
    np.testing.assert_array_equal(weights.data, np.moveaxis(steps, -1, 0))


@pytest.fixture(scope="module")
def symmetric_file(symmetric: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    from toolkit.exporters import onnx_file

    path = tmp_path_factory.mktemp("qat") / "digits.onnx"
    assert ONNX().export(symmetric[0], path, ExportContext()).notes == ()  # with no calibration set
    return onnx_file.read(path)


def test_symmetric_qat_file_gives_what_the_rounded_network_does(
    symmetric: tuple[Any, Any], symmetric_file: Any
) -> None:
    """But for its logits, which the file does not round: half a step of them."""
    import onnxruntime

    model, images = symmetric
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = symmetric_file.proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])
    ranges = {name: (ends.low, ends.high) for name, ends in model.statistics.ranges.items()}
    wanted = predict_arrays(simulate(model.graph, ranges, flavour="symmetric"), {"image": images})[0]
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.995
    step = model.statistics.ranges["classes"].high / 127
    gaps = [np.log(outputs) - np.log(outputs[:, :1]) for outputs in (found, wanted)]  # of logits to the first class's
    apart = np.abs(gaps[0] - gaps[1])[wanted.min(axis=1) > 1e-30] / step
    assert (apart <= 1.01).mean() >= 0.99
    assert (apart <= 2.01).all()


def test_symmetric_qat_file_holds_what_was_learned(symmetric: tuple[Any, Any], symmetric_file: Any) -> None:
    """Every scale is of a learned range or of a learned weight's grid, every zero point 0."""
    model, file = symmetric[0], symmetric_file
    convolutions = [node for node in file.nodes if node.op_type == "Conv"]
    pair = [file.producers[name] for name in convolutions[0].input[:2]]
    assert float(file.values(pair[0].input[1])) == pytest.approx(model.statistics.ranges["image"].high / 127)
    quantized = file.producers[pair[1].input[0]]
    kernel = model.graph.get_layer("conv1").get_weights()[0].transpose(3, 2, 0, 1)
    np.testing.assert_allclose(file.values(quantized.input[0]), kernel, rtol=1e-6)
    np.testing.assert_allclose(file.values(quantized.input[1]), np.abs(kernel).max(axis=(1, 2, 3)) / 127, rtol=1e-6)
    zeros = [file.values(node.input[2]) for node in file.nodes if node.op_type.endswith("uantizeLinear")]
    assert len(zeros) >= 8
    assert not any(zero.any() for zero in zeros)
