"""Networks of keras.applications, rounded as training has them: their int8 files give the same integers in LiteRT.

Their weights are random and their heads fitted to real digits, so that an argmax of theirs means something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import applications, layers

from toolkit.core import ExportContext, Model, QuantSpec, Signature, Statistics, TensorSpec
from toolkit.engine.flatten import flatten
from toolkit.engine.predict import predict_arrays
from toolkit.engine.prepare import prepare
from toolkit.engine.qat import Learned, Rounding, find_ranges, learned, rounding_graph
from toolkit.engine.simulate import simulate
from toolkit.exporters.tflite import TFLite
from toolkit.quantization import TensorRange

SHAPE = (32, 32, 3)
FITTED, JUDGED = 300, 200  # digits
FAMILIES: dict[str, Callable[..., Any]] = {
    "MobileNetV2": lambda **options: applications.MobileNetV2(alpha=0.35, **options),
    "MobileNetV3Small": lambda **options: applications.MobileNetV3Small(alpha=0.75, **options),
    "EfficientNetB0": applications.EfficientNetB0,
}


@dataclass(frozen=True)
class Found:
    """A file with what it was written from, its integers for the digits kept back, and their scale."""

    learned: Learned
    path: Path
    integers: Any
    scale: float


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    """Real digits, 32 x 32 pixels of 0 to 255 in three channels, and which they are."""
    datasets = pytest.importorskip("sklearn.datasets", reason="the digits need scikit-learn")
    bunch = datasets.load_digits()
    images = np.kron(bunch.images[: FITTED + JUDGED], np.ones((4, 4)))[..., None] * (255 / 16)
    return np.repeat(images, 3, axis=-1).astype(np.float32), bunch.target


@pytest.fixture(scope="module", params=list(FAMILIES))
def found(request: pytest.FixtureRequest, digits: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Found:
    keras.utils.set_random_seed(0)
    network = FAMILIES[request.param](input_shape=SHAPE, weights=None, classes=10)
    graph = fitted(flatten(network), digits[0][:FITTED], digits[1][:FITTED])
    prepared = prepare(graph).graph
    inputs = {prepared.inputs[0].name: digits[0][:FITTED]}
    own = learned(prepared, rounding_graph(prepared, find_ranges(prepared, inputs), Rounding()), Rounding())
    path = tmp_path_factory.mktemp("family") / f"{request.param}.tflite"
    export(own, path)
    return Found(own, path, *answers(path, digits[0][FITTED:]))


def fitted(graph: Any, images: Any, labels: Any) -> Any:
    """The network with statistics of these images, offsets at which most values pass a ReLU, and a head for them."""
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(1)
    for layer in (layer for layer in graph.layers if isinstance(layer, layers.BatchNormalization)):
        layer.momentum = 0.0
        new = {"beta": generator.normal(1.5, 0.3, layer.moving_mean.shape)}
        layer.set_weights([new.get(weight.name, np.asarray(weight)) for weight in layer.weights])
    graph(images, training=True)
    head = [layer for layer in graph.layers if isinstance(layer, layers.Dense | layers.Conv2D)][-1]
    trunk = keras.Model(graph.inputs[0], head.input)
    features = predict_arrays(trunk, {graph.inputs[0].name: images})[0].reshape(len(images), -1)
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    classes = LogisticRegression(C=0.01, max_iter=100).fit((features - mean) / spread, labels)
    kernel = (classes.coef_ / spread).T
    head.set_weights([kernel.reshape(head.kernel.shape), classes.intercept_ - mean @ kernel])
    return graph


def export(own: Learned, path: Path) -> None:
    (image,), (output,) = own.graph.inputs, own.graph.outputs
    given = TensorSpec(image.name, tuple(image.shape), "float32", "image")
    taken = TensorSpec(own.graph.output_names[0], tuple(output.shape), "float32", "softmax")
    ranges = {name: TensorRange(*ends, "learned") for name, ends in own.ranges.items()}
    signature, quant = Signature((given,), (taken,)), QuantSpec("int8", io="int8")
    model = Model("keras", own.graph, signature, quant=quant, statistics=Statistics(ranges, FITTED))
    TFLite().export(model, path, ExportContext())  # with no calibration set


def answers(path: Path, images: Any) -> tuple[Any, float]:
    """Integers of the output, zero point taken off, and their scale."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    (scale, zero), integers = given["quantization"], []
    for image in images:
        steps = np.clip(np.rint(image / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], steps[None])
        interpreter.invoke()
        integers.append(interpreter.get_tensor(taken["index"])[0].astype(int) - taken["quantization"][1])
    return np.stack(integers), taken["quantization"][0]


@pytest.mark.slow
def test_family_file_gives_what_the_rounded_network_does(found: Found, digits: tuple[Any, Any]) -> None:
    simulated = simulate(found.learned.graph, found.learned.ranges, exact=True)
    inputs = {found.learned.graph.inputs[0].name: digits[0][FITTED:]}
    wanted = np.rint(predict_arrays(simulated, inputs)[0] / found.scale)
    assert (found.integers.argmax(-1) == wanted.argmax(-1)).mean() >= 0.98
    assert (np.abs(found.integers - wanted) <= 1).mean() >= 0.995
    decided = (found.integers.argmax(-1) == digits[1][FITTED : FITTED + JUDGED]).mean()
    assert decided > 0.5  # of ten classes: an argmax of noise would agree with nothing


@pytest.mark.slow
def test_family_file_holds_no_float_tensor(found: Found) -> None:
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_path=str(found.path)).get_tensor_details()
    assert not [detail["name"] for detail in details if np.issubdtype(detail["dtype"], np.floating)]
