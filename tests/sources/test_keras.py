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


# ---------------------------------------------------------------- forms, precision, heads


@pytest.mark.filterwarnings("ignore")
def test_h5_of_keras_3_comes_in(tmp_path: Path) -> None:
    model = small()
    found = Keras().load(saved(model, tmp_path, "m.h5"))
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(found.graph(images), model(images), rtol=1e-5)
    assert found.notes[0].startswith("made flat: largest output difference")


def test_augmentation_is_left_out_and_noted(tmp_path: Path) -> None:
    augment = keras.Sequential([layers.RandomFlip(name="flip"), layers.RandomRotation(0.1, name="turn")])
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, small()(layers.RandomBrightness(0.2, name="light")(augment(image))))
    found = Keras().load(saved(model, tmp_path))
    assert [layer.name for layer in found.graph.layers][1:] == ["conv", "pool", "answer"]
    assert found.notes[1] == "augmentation left out, it does nothing in inference: flip, light, turn"
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(found.graph(images, training=True), model(images, training=False), rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_precision_is_rebuilt_in_float32(tmp_path: Path, policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        back = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.BatchNormalization()])
        image = keras.Input((8, 8, 1))
        x = layers.TimeDistributed(layers.Dense(4))(back(layers.Rescaling(1 / 255)(image)))
        model = keras.Model(image, layers.Dense(2)(layers.Flatten()(keras.ops.cast(x, "float16") * 0.5)))
    finally:
        keras.config.set_dtype_policy(before)
    found = Keras().load(saved(model, tmp_path))
    assert {str(tensor.dtype) for layer in found.graph.layers for tensor in [layer.output]} == {"float32"}
    assert {str(weight.dtype) for weight in found.graph.weights} == {"float32"}
    half = "bfloat16" if "bfloat16" in policy else "float16"
    assert found.notes[0].startswith(f"made flat, and float32 from {half}: largest output difference")
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 1)).astype("float32")
    expected = np.asarray(keras.ops.cast(model(images), "float32"))
    np.testing.assert_allclose(found.graph(images), expected, atol=0.05 * np.abs(expected).max())


def test_pixels_of_any_type_come_in_as_float32(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 1), dtype="uint8")
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(layers.Rescaling(1 / 255)(image))))
    found = Keras().load(saved(model, tmp_path))
    assert (found.graph.inputs[0].dtype, found.signature.inputs[0].dtype) == ("float32", "float32")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype("uint8")
    np.testing.assert_allclose(found.graph(images.astype("float32")), model(images), rtol=1e-5)


@pytest.mark.parametrize(
    ("tail", "head"),
    [
        (lambda x: layers.GlobalAveragePooling2D()(layers.ReLU()(x)), "embedding"),
        (
            lambda x: layers.Flatten()(layers.GlobalMaxPooling2D(keepdims=True)(layers.BatchNormalization()(x))),
            "embedding",
        ),
        (lambda x: layers.UnitNormalization()(layers.Dense(8)(layers.Flatten()(x))), "embedding"),
        (lambda x: keras.ops.normalize(layers.Dense(8)(layers.Flatten()(x))), "embedding"),
        (lambda x: layers.GlobalAveragePooling2D()(layers.Conv2D(3, 1)(x)), "logits"),
        (lambda x: layers.Dense(1)(layers.Flatten()(x)), "logits"),
        (lambda x: keras.ops.softmax(layers.Dense(3)(layers.Flatten()(x))), "softmax"),
        (lambda x: layers.Activation("sigmoid")(layers.Dense(3)(layers.Flatten()(x))), "sigmoids"),
    ],
)
def test_head_is_told_from_the_last_operation(tmp_path: Path, tail: Any, head: str) -> None:
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, tail(layers.Conv2D(4, 3)(image)))
    assert Keras().load(saved(model, tmp_path)).head == head
    assert Keras(head="regression").load(saved(model, tmp_path)).head == "regression"


# ---------------------------------------------------------------- refused


@keras.saving.register_keras_serializable("edgekit_tests")
class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.dense = layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


def test_subclassed_model_is_refused(tmp_path: Path) -> None:
    model = Subclassed()
    model(np.ones((1, 3), np.float32))
    path = saved(model, tmp_path)
    with pytest.raises(UnsupportedError, match="Subclassed"):
        Keras().load(path)


def test_model_that_was_never_built_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="before it knew its input shape"):
        Keras().load(saved(keras.Sequential([layers.Dense(2)]), tmp_path))


def test_file_without_some_of_its_weights_is_refused(tmp_path: Path) -> None:
    """Keras itself gives the missing ones random values, and warns at most."""
    import io
    import zipfile

    import h5py

    path = saved(small(), tmp_path)
    broken = tmp_path / "broken.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(broken, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith(".h5"):
                buffer = io.BytesIO(content)
                with h5py.File(buffer, "a") as file:
                    del file["layers/dense"]
                content = buffer.getvalue()
            new.writestr(member.filename, content)
    with pytest.raises(InputError) as caught:
        Keras().load(broken)
    assert "\n" not in str(caught.value)


def test_weights_that_link_to_another_file_are_refused(tmp_path: Path) -> None:
    import io
    import zipfile

    import h5py

    path = saved(small(), tmp_path)
    broken = tmp_path / "broken.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(broken, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith(".h5"):
                buffer = io.BytesIO(content)
                with h5py.File(buffer, "a") as file:
                    file["layers/stolen"] = h5py.ExternalLink("/etc/passwd", "/")
                content = buffer.getvalue()
            new.writestr(member.filename, content)
    with pytest.raises(InputError, match="is a link to another file"):
        Keras().load(broken)


def test_manifest_says_how_far_the_model_is_from_its_file(finished: Any) -> None:
    original = next(stage for stage in finished.manifest.stages if stage.name == "original")
    assert original.notes[0].startswith("made flat: largest output difference 0 of ")
    assert original.notes[0].endswith("over 2 random images")


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.filterwarnings("ignore")
def test_model_that_would_fill_the_memory_is_refused(tmp_path: Path, name: str) -> None:
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, layers.Flatten()(layers.UpSampling2D(10_000, name="blown")(image)))
    with pytest.raises(InputError, match=r"'blown' gives a tensor of \?x80000x80000x1"):
        Keras().load(saved(model, tmp_path, name))


def test_layer_wider_than_the_weights_of_its_file_is_refused(tmp_path: Path) -> None:
    import zipfile

    path = saved(small(), tmp_path)
    wide = tmp_path / "wide.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(wide, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            new.writestr(member.filename, content.replace(b'"units": 3', b'"units": 3000000000'))
    with pytest.raises(InputError, match="'answer' has units = 3,000,000,000"):
        Keras().load(wide)


@pytest.mark.filterwarnings("ignore")
def test_h5_of_keras_3_with_bare_operations_comes_in(tmp_path: Path) -> None:
    """Keras writes such a file and cannot load it: it takes the operation Add for the layer."""
    image = keras.Input((8, 8, 3))
    x = keras.applications.resnet.preprocess_input(image / 2.0 + 1.0)
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()], name="inner")
    x = layers.TimeDistributed(layers.Dense(4))(inner(x))
    x = layers.Add()([x, keras.ops.relu6(x) * 0.5])
    model = keras.Model(image, layers.Dense(2, kernel_regularizer="l2")(keras.ops.mean(x[..., ::-1], axis=(1, 2))))
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).uniform(0.5, 1.5, weight.shape))
    path = saved(model, tmp_path, "m.h5")
    with pytest.raises(Exception):  # noqa: B017 - whatever Keras says; the day it does not, h5_operations can go
        keras.models.load_model(path, compile=False)
    found = Keras().load(path)
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(found.graph(images), model(images), rtol=1e-5)
