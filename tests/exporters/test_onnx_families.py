"""Networks of keras.applications as int8 ONNX files: hard-swish, swish, squeeze-excite, in both flavours."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from toolkit.core import ExportContext, Model, PassContext
from toolkit.engine.numeric import difference
from toolkit.engine.prepare import prepare
from toolkit.engine.simulate import simulate
from toolkit.exporters.onnx import ONNX
from toolkit.passes.quantize import Quantize

from .conftest import Images, as_model

SIDE = 64
MOVING = {"Transpose", "Reshape", "Flatten", "QuantizeLinear", "DequantizeLinear"}
NEAR_DB = 3.0  # what these files were seen to differ by is 0.3
INTEGER = ("QLinear", "MatMulInteger")  # ONNX Runtime's names for what it computes on integers


class Pixels(Images):
    """Images of 0..255, as these networks take them."""

    task = "classes"

    def arrays(self) -> list[dict[str, Any]]:
        return [{name: image * 255 for name, image in example.items()} for example in super().arrays()]


@pytest.fixture(scope="module", params=["MobileNetV3Small", "EfficientNetB0"])
def model(request: pytest.FixtureRequest) -> Model:
    """Random weights, and the BatchNormalization statistics of images: values of the sizes a trained network has."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3), name="image")
    graph = getattr(keras.applications, request.param)(weights=None, classes=10, input_tensor=image)
    for layer in graph.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    found = as_model(graph)
    graph(np.concatenate([example["image"] for example in data_of(found).arrays()]), training=True)
    return found


def data_of(model: Model) -> Pixels:
    specs = tuple(replace(spec, shape=(1, SIDE, SIDE, 3)) for spec in model.signature.inputs)
    return Pixels(specs, count=24)


def run(path: Path, data: Pixels, optimized: Path) -> tuple[Any, Counter[str]]:
    """Answers, and the operators that ONNX Runtime makes of the file on this machine."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(optimized), 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rows = [session.run(None, example)[0] for example in data.arrays()]
    return np.concatenate(rows), Counter(node.op_type for node in onnx.load(optimized).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["asymmetric", "symmetric"])
def test_family_is_written_and_computed_on_integers(model: Model, flavour: Any, tmp_path: Path) -> None:
    data: Any = data_of(model)
    made = Quantize(scheme="int8", flavour=flavour).run(model, PassContext(original=model, calibration=data)).model
    artifact = ONNX().export(made, tmp_path / "net.onnx", ExportContext(data))
    answers, operators = run(artifact.path, data, tmp_path / "optimized.onnx")
    if flavour == "asymmetric":
        assert {kind for kind in operators if not kind.startswith(INTEGER)} - MOVING == {"Softmax"}
        (stays,) = [note for note in artifact.notes if "floating point" in note]
        assert stays.endswith("Softmax stays in floating point")
    else:  # nothing but what TensorRT fuses is asked for; every weight is on integers
        stored = {t.name: t.data_type for t in onnx.load(artifact.path).graph.initializer if len(t.dims) == 4}
        weights = [node.input[1] for node in onnx.load(artifact.path).graph.node if node.op_type == "Conv"]
        assert weights
        assert not set(weights) & set(stored)  # each reads its weights behind a DequantizeLinear
    images = np.concatenate([example["image"] for example in data.arrays()])
    reference = np.asarray(model.graph(images))
    ranges = {name: (found.low, found.high) for name, found in made.statistics.ranges.items()}
    simulated = simulate(prepare(model.graph, scalings=made.quant.folds_scalings).graph, ranges, flavour=flavour)
    pair = answers, np.asarray(simulated(images))
    loss, expected = (difference(reference, each, "softmax").logits_sqnr_db for each in pair)
    assert loss > expected - NEAR_DB  # the file loses what the simulation says; symmetric files round less than that
