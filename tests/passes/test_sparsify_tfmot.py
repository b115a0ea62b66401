"""`sparsify` by tensorflow-model-optimization itself, from the pass to the file; and what it refuses before."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from pydantic import ValidationError

from toolkit.core import Batch, ExportContext, Model, PassContext, QuantSpec, Signature, TensorSpec
from toolkit.engine.sparsity import kept
from toolkit.exporters import tflite_file, tflite_scan
from toolkit.exporters.tflite import TFLite
from toolkit.passes.sparsify import Sparsify

pytest.importorskip("tf_keras", reason="the extra `legacy`")


class Noise:
    """A split of images whose class is their brightness."""

    name, fingerprint, task = "train", "abc", "classes"
    classes = ("dark", "grey", "bright")
    labels = np.arange(96) % 3
    ids = tuple(map(str, range(96)))

    def __len__(self) -> int:
        return 96

    def batches(self, size: int) -> Any:
        noise = np.random.default_rng(0).normal(size=(96, 6, 6, 4)) / 2
        images = (noise + self.labels[:, None, None, None]).astype(np.float32)
        for start in range(0, 96, size):
            rows = slice(start, start + size)
            yield Batch({"photo": images[rows]}, {"label": self.labels[rows]}, self.ids[rows])


@pytest.fixture
def model() -> Model:
    keras.utils.set_random_seed(3)
    image = keras.Input((6, 6, 4), name="photo")
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(32, 3, use_bias=False, name="conv")(image))
    x = layers.SeparableConv2D(32, 3, use_bias=False, name="apart")(layers.ReLU(name="relu")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    graph = keras.Model(image, layers.Dense(3, activation="softmax", name="answer")(x))
    ends = TensorSpec("photo", (None, 6, 6, 4), "float32", "image", "NHWC"), TensorSpec("answer", (None, 3), "float32")
    return Model("keras", graph, Signature((ends[0],), (replace(ends[1], meaning="softmax"),)))


@pytest.mark.skipif(find_spec("tensorflow_model_optimization") is None, reason="the extra `tfmot`")
@pytest.mark.slow
def test_zeros_of_tfmot_stand_in_the_packed_file(model: Model, tmp_path: Path) -> None:
    asked = Sparsify(sparsity=0.8, epochs=3, batch_size=32, backend="tfmot")
    result = asked.run(model, PassContext(original=model, train=Noise(), evaluate=lambda model: 0.5))  # type: ignore[arg-type]
    assert result.model.sparse == {"conv": "unstructured", "apart": "unstructured", "answer": "unstructured"}
    assert len(result.curves["loss"]) == 3
    sizes = {"conv": 9 * 4 * 32, "apart": 32 * 32, "answer": 32 * 3}
    rows = {change.layer: change.after for change in result.changes}
    for name, size in sizes.items():
        assert rows[name].startswith(f"{size - kept(size, 0.8):,} of {size:,} weights are zero")
    dense, packed = (
        TFLite(pack_sparse=packed).export(result.model, tmp_path / f"{packed}.tflite", ExportContext())
        for packed in (False, True)
    )
    assert packed.size_bytes < 0.7 * dense.size_bytes
    zeros = sorted(int(np.sum(t.data == 0)) for _, t, _ in tflite_scan.weights(tflite_file.read(packed.path)))
    assert zeros == [0, *sorted(size - kept(size, 0.8) for size in sizes.values())]  # the depthwise kernel has none


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"scope": "global"}, "backend 'tfmot' has scope 'layer' only"),
        ({"augment": "shift"}, "backend 'tfmot' has augment 'none' only"),
        ({"patience": 2}, "backend 'tfmot' has patience 0 only"),
        ({"precision": "bfloat16"}, "backend 'tfmot' has precision 'float32' only"),
        ({"epochs": 0}, "backend 'tfmot' trains"),
    ],
)
def test_what_tfmot_does_not_do_is_refused_in_the_recipe(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Sparsify(sparsity=0.5, backend="tfmot", **asked)


def test_package_is_asked_for_where_it_trains() -> None:
    assert Sparsify(sparsity=0.5, backend="tfmot").packages(QuantSpec(), "keras")[0][1] == "edgekit[tfmot]"
    assert Sparsify(sparsity=0.5).packages(QuantSpec(), "keras") == ()
