"""Keras 3 files come in flat and unchanged in what they compute; heads are told; nothing of the file's code runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.core import Preprocessing, QuantSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.sources import store
from toolkit.sources.keras import Keras


def small(head: str = "softmax", units: int = 3) -> Any:
    image = keras.Input((8, 8, 1), name="picture")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(units, activation=head, name="answer")(x), name="net")


def saved(model: Any, folder: Path, name: str = "m.keras") -> Path:
    path = folder / name
    model.save(path)
    return path


def test_signature_keeps_names_and_shapes(tmp_path: Path) -> None:
    found = Keras().load(saved(small(), tmp_path))
    assert [(s.name, s.shape, s.layout, s.meaning) for s in found.signature.inputs] == [
        ("picture", (None, 8, 8, 1), "NHWC", "image")
    ]
    assert [(s.name, s.shape, s.meaning) for s in found.signature.outputs] == [("answer", (None, 3), "softmax")]


@pytest.mark.parametrize(
    ("activation", "units", "head"),
    [("softmax", 3, "softmax"), ("sigmoid", 1, "sigmoid"), ("sigmoid", 4, "sigmoids"), (None, 3, "logits")],
)
def test_head_follows_the_last_activation(tmp_path: Path, activation: str, units: int, head: str) -> None:
    assert Keras().load(saved(small(activation, units), tmp_path)).head == head


@pytest.mark.parametrize("last", [layers.Softmax(), layers.Activation("softmax")])
def test_head_of_a_separate_activation_behind_a_reshape(tmp_path: Path, last: Any) -> None:
    base = small(None)
    model = keras.Model(base.input, layers.Reshape((3,))(last(base.output)))
    assert Keras().load(saved(model, tmp_path)).head == "softmax"


def test_head_of_the_recipe_wins(tmp_path: Path) -> None:
    assert Keras(head="logits").load(saved(small(), tmp_path)).head == "logits"


def test_sequential_and_nested_models_come_in_flat_with_equal_outputs(tmp_path: Path) -> None:
    backbone = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.BatchNormalization()], name="back")
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = backbone(x, training=False)
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).uniform(0.5, 1.5, weight.shape))
    found = Keras().load(saved(model, tmp_path)).graph
    assert not any(isinstance(layer, keras.Model) for layer in found.layers)
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(found(images), model(images), rtol=1e-5)


def test_open_size_is_taken_from_the_recipe(tmp_path: Path) -> None:
    image = keras.Input((None, None, 3))
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(image)))
    found = Keras(input_shape=(16, 24)).load(saved(model, tmp_path))
    assert found.signature.inputs[0].shape == (None, 16, 24, 3)


def test_nan_weight_is_named(tmp_path: Path) -> None:
    model = small()
    kernel = model.get_layer("conv").kernel
    values = np.array(kernel)
    values[0, 0, 0, 0] = np.nan
    kernel.assign(values)
    with pytest.raises(InputError, match=r"'conv/kernel' holds 1 NaN or infinite values of 36"):
        Keras().load(saved(model, tmp_path))


def test_lambda_never_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    image = keras.Input((4,))

    def touch(x: Any, path: str = str(marker)) -> Any:
        os.close(os.open(path, os.O_CREAT))
        return x

    path = saved(keras.Model(image, layers.Lambda(touch, name="evil")(image)), tmp_path)
    marker.unlink()  # building the model ran it
    with pytest.raises(UnsupportedError, match="'evil' holds code"):
        Keras().load(path)
    assert not marker.exists()


def test_model_with_weights_missing_is_one_line(tmp_path: Path) -> None:
    path = saved(small(), tmp_path)
    import zipfile

    broken = tmp_path / "broken.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(broken, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, b"\x89HDF junk" if member.filename.endswith(".h5") else old.read(member))
    with pytest.raises(InputError) as caught:
        Keras().load(broken)
    assert "\n" not in str(caught.value)


def test_store_gives_back_the_model_and_its_contract(tmp_path: Path) -> None:
    from dataclasses import replace

    model = replace(
        Keras().load(saved(small(), tmp_path)),
        preprocessing=Preprocessing(size=(8, 8), color="gray", scale=(0.5,)),
        quant=QuantSpec("int8"),
    )
    path = tmp_path / "stage.keras"
    store.save(model, path)
    found = store.restore(path)
    assert (found.signature, found.preprocessing, found.quant) == (model.signature, model.preprocessing, model.quant)
    assert store.read_contract(path).graph is None
    for before, after in zip(model.graph.weights, found.graph.weights, strict=True):
        np.testing.assert_array_equal(before, after)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.keras", "stage.json", "stage.keras"]
