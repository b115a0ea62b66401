"""What quantization-aware training gives and what the delivered file computes are the same, to a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.core import ExportContext, PassContext
from toolkit.engine.predict import predict_arrays
from toolkit.engine.simulate import simulate
from toolkit.exporters.tflite import TFLite
from toolkit.passes.qat import Qat
from toolkit.sources.keras import Keras


@pytest.fixture(scope="module")
def trained(digits_model: Path) -> tuple[Any, Any]:
    """The digits CNN after one epoch, and real digits it has not seen."""
    from toolkit.datasets.digits import Digits
    from toolkit.datasets.preprocess import PreprocessSpec
    from toolkit.datasets.splits import SplitSpec, make_splits

    model = Keras().load(digits_model)
    contract = PreprocessSpec(scale=0.0625).resolve(model.signature.inputs[0].shape)
    spec = SplitSpec(train=600, selection=100, calibration=100, test="rest")
    splits = make_splits(Digits().load(), None, spec, contract, 0)
    result = Qat(epochs=1, io="int8").run(model, PassContext(original=model, train=splits.train))
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
