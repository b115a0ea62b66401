"""`qat` with backend "tfmot" and "native" on one model: both files, both held against the float model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from toolkit.core import Batch, ExportContext, Model, PassContext, Task
from toolkit.errors import UnsupportedError
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.tflite import TFLite
from toolkit.passes.qat import Qat
from toolkit.sources.keras import Keras

pytest.importorskip("tf_keras", reason="the extra `legacy`")
STAND_IN = Path(__file__).resolve().parents[1] / "engine" / "stand_in_tfmot.py"


@dataclass(frozen=True)
class Digits:
    """Real digits as the network of `digits_model` reads them."""

    first: int
    last: int
    classes: tuple[str, ...] = tuple("0123456789")
    name: str = "train"
    fingerprint: str = "abc"
    task: Task = "classes"

    @property
    def rows(self) -> tuple[Any, Any]:
        from sklearn.datasets import load_digits

        found = load_digits()
        rows = slice(self.first, self.last)
        return (found.images[rows, ..., None] / 16).astype(np.float32), found.target[rows]

    @property
    def labels(self) -> Any:
        return self.rows[1]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.first, self.last)))

    def __len__(self) -> int:
        return self.last - self.first

    def batches(self, size: int) -> Iterator[Batch]:
        images, labels = self.rows
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield Batch({"image": images[rows]}, {"label": labels[rows]}, self.ids[rows])


@pytest.fixture(scope="module")
def original(digits_model: Path) -> Model:
    return Keras().load(digits_model)


@pytest.fixture
def context(original: Model) -> PassContext:
    images, labels = Digits(600, 800).rows

    def evaluate(model: Model) -> float:
        return float(np.mean(np.argmax(np.asarray(model.graph(images)), 1) == labels))

    return PassContext(original=original, train=Digits(0, 600), evaluate=evaluate)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of TFMOT's name on the path: its variables under its names."""
    folder = tmp_path / "stand-in"
    folder.mkdir()
    shutil.copy(STAND_IN, folder / "tensorflow_model_optimization.py")
    monkeypatch.syspath_prepend(str(folder))


def answers(path: Path, images: Any) -> Any:
    """What a file gives for images, one at a time."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    runner = interpreter.get_signature_runner()
    return np.concatenate([next(iter(runner(image=image[None]).values())) for image in images])


def check_files(original: Model, context: PassContext, folder: Path) -> None:
    """Files of both backends decide as the float model does, and their learned ranges come from it."""
    images, labels = Digits(800, 1100).rows
    wanted = np.argmax(np.asarray(original.graph(images)), 1)
    right = {}
    for backend in ("native", "tfmot"):
        result = Qat(epochs=2, learning_rate=1e-4, backend=backend).run(original, context)
        assert result.model.statistics is not None
        assert result.model.statistics.ranges["relu1"].how == "learned"
        for exporter in (TFLite(), ONNX()):
            path = folder / f"{backend}{exporter.suffix}"
            exporter.export(result.model, path, ExportContext(calibration=Digits(0, 100)))
            decided = np.argmax(answers(path, images), 1)
            assert np.mean(decided == wanted) > 0.97, path.name
            right[path.name] = np.mean(decided == labels)
        assert len(result.curves["loss"]) == len(result.curves["selection_accuracy"]) == 2
    assert abs(right["tfmot.tflite"] - right["native.tflite"]) < 0.03
    assert abs(right["tfmot.onnx"] - right["native.onnx"]) < 0.03


def test_both_backends_files_decide_as_the_float_model(
    original: Model, context: PassContext, stand_in: None, tmp_path: Path
) -> None:
    check_files(original, context, tmp_path)


@pytest.mark.skipif(find_spec("tensorflow_model_optimization") is None, reason="the extra `tfmot`")
@pytest.mark.slow
def test_files_of_the_package_itself_decide_as_the_float_model(
    original: Model, context: PassContext, tmp_path: Path
) -> None:
    check_files(original, context, tmp_path)


def test_refused_layer_is_named_before_images_are_read(context: PassContext, original: Model) -> None:
    import keras

    from toolkit.engine.flatten import flatten

    image = keras.Input((8, 8, 1), name="image")
    nested = keras.Model(image, original.graph(keras.layers.Rescaling(0.5, name="halve")(image)))
    model = replace(original, graph=flatten(nested))

    class Unread(Digits):
        def batches(self, size: int) -> Iterator[Batch]:
            raise AssertionError("images were read")

    with pytest.raises(UnsupportedError, match="TFMOT refuses 'halve'"):
        Qat(backend="tfmot").run(model, replace(context, train=Unread(0, 600)))


@pytest.mark.parametrize(
    "asked",
    [
        {"flavour": "symmetric"},
        {"granularity": "per_tensor"},
        {"augment": "shift"},
        {"freeze_after": 0.5},
        {"ranges": "moving"},
    ],
)
def test_what_tfmot_has_not_is_refused_in_the_recipe(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(asked))):
        Qat(backend="tfmot", **asked)
