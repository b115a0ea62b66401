"""What several tests share: a small CNN trained on real digits, and one finished run of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RECIPE = """
schema = 1
description = "A small job for tests"

[data]
use = "digits"
preprocess = { scale = 0.0625 }

[data.splits]
selection = 100
calibration = 100
test = 400

[[passes]]
use = "prune"
sparsity = 0.5
round_to = 4

[[passes]]
use = "distill"
epochs = 4
learning_rate = 0.003

[[variants]]
name = "float"
export = ["tflite"]

[[variants]]
name = "int8"
export = ["tflite", { use = "onnx", layout = "NCHW" }]

[[variants.passes]]
use = "quantize"
scheme = "int8"

[budget]
max_accuracy_drop = 0.2
max_size_kib = 100

[measure]
processes = 2
seconds = 0.02
warmup_seconds = 0.01
"""


@pytest.fixture(scope="session")
def digits_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CNN of 12 and 16 channels that reads about nine digits of ten, as a .keras file."""
    pytest.importorskip("sklearn", reason="the digits need scikit-learn")
    import keras
    from keras import layers

    from toolkit.data import load_splits

    recipe = parsed(RECIPE)
    splits = load_splits(recipe.data, recipe.data.preprocess.resolve((None, 8, 8, 1)), seed=recipe.seed)
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(12, 3, strides=2, padding="same", use_bias=False, name="conv1")(image)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(momentum=0.9, name="bn1")(x))
    x = layers.Conv2D(16, 3, activation="relu", padding="same", name="conv2")(x)
    outputs = layers.Dense(10, activation="softmax", name="classes")(layers.Flatten(name="flatten")(x))
    model = keras.Model(image, outputs, name="digits")
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy")
    batches = [(batch.inputs["image"], batch.targets["label"]) for batch in splits.train.batches(2000)]
    model.fit(*batches[0], batch_size=32, epochs=6, verbose=0)
    path = tmp_path_factory.mktemp("model") / "digits.keras"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe above as a file."""
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def finished(digits_model: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One finished run of that recipe; tests read it and leave it as it is."""
    from toolkit import pipeline

    return pipeline.run(recipe_file, model=digits_model, out=tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="session")
def judged(finished: Any) -> Any:
    """Images and labels of that run's test split, drawn anew."""
    import numpy as np

    from toolkit.data import load_splits
    from toolkit.recipe_reader import load_recipe

    recipe = load_recipe(finished.folder / "recipe.toml")
    splits = load_splits(recipe.data, recipe.data.preprocess.resolve((None, 8, 8, 1)), seed=recipe.seed)
    return np.concatenate([batch.inputs["image"] for batch in splits.test.batches(64)]), splits.test.labels


def parsed(text: str) -> Any:
    """A recipe from its text."""
    import tomllib

    from toolkit.documents import Document
    from toolkit.recipe_reader import parse_recipe

    return parse_recipe(Document("small.toml", tomllib.loads(text)), Path.cwd())


@pytest.fixture(scope="session")
def digits_files(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The digits CNN as other kinds of model: a SavedModel folder, a float .tflite, an .onnx with channels first."""
    from toolkit.core import ExportContext
    from toolkit.exporters.onnx import ONNX
    from toolkit.exporters.tflite import TFLite
    from toolkit.sources.keras import Keras

    folder = tmp_path_factory.mktemp("files")
    model = Keras().load(digits_model)
    model.graph.export(folder / "saved", verbose=False)
    TFLite().export(model, folder / "digits.tflite", ExportContext())
    ONNX(layout="NCHW", dynamic_batch=True).export(model, folder / "digits.onnx", ExportContext())
    return {
        "savedmodel": folder / "saved",
        "tflite": folder / "digits.tflite",
        "onnx": folder / "digits.onnx",
    }
