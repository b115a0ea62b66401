"""Keras 2 files, written by tf_keras here, come in as Keras 3 networks with equal outputs; or are refused by layer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from toolkit.errors import InputError, UnavailableError, UnsupportedError
from toolkit.sources import legacy, store
from toolkit.sources.keras import Keras

tf = pytest.importorskip("tensorflow")
tfk = pytest.importorskip("tf_keras", reason="the extra `legacy`")
L = tfk.layers


def shaken(model: Any) -> Any:
    """The model with weights away from their simple first values; moving variances stay positive."""
    rng = np.random.default_rng(3)
    for weight in model.weights:
        if weight.dtype.is_floating:
            low = 0.5 if "variance" in weight.name else -0.5
            weight.assign(rng.uniform(low, 1.5, weight.shape))
    return model


def transfer() -> Any:
    """What transfer learning makes: augmentation in front, rescaling by functions, a nested backbone, odd layers."""
    back = tfk.Sequential(
        [
            L.Input((None, None, 3)),
            L.ZeroPadding2D(((0, 1), (1, 0))),
            L.DepthwiseConv2D(3, strides=2, depth_multiplier=2, name="block/depthwise"),
            L.BatchNormalization(axis=-1),
            L.ReLU(6.0),
            L.SeparableConv2D(4, 3, activation="hard_sigmoid"),
            L.LeakyReLU(0.1),
        ],
        name="back/bone",
    )
    augment = tfk.Sequential([L.RandomFlip("horizontal"), L.RandomRotation(0.1), L.RandomZoom(0.2)], name="augment")
    image = L.Input((16, 16, 3), name="picture")
    x = augment(image)
    x = tf.cast(x, tf.float32) / 127.5 - 1.0
    x = back(x, training=False)
    x = L.GlobalAveragePooling2D()(x)
    x = L.Dropout(0.2)(x)
    return shaken(tfk.Model(image, L.Dense(3, activation="softmax", kernel_regularizer="l2", name="an/swer")(x)))


def caffe() -> Any:
    """VGG's and ResNet's own preprocessing inside the model: channels reversed, means taken off."""
    image = L.Input((8, 8, 3))
    x = tfk.applications.resnet50.preprocess_input(image)
    x = L.Conv2D(4, 3, activation=tf.nn.relu6, kernel_constraint="max_norm")(x)
    return shaken(tfk.Model(image, L.Dense(1, activation="sigmoid")(L.Flatten()(x))))


def shared() -> Any:
    """One layer called twice, two inputs, two outputs."""
    one, two = L.Input((6, 6, 1), name="one"), L.Input((6, 6, 1), name="two")
    conv = L.Conv2D(3, 3, name="conv")
    a, b = conv(one), conv(two)
    total = L.Concatenate()([L.Add()([a, b]), L.Multiply()([a, b])])
    normal = L.Normalization(mean=[1.0] * 6, variance=[4.0] * 6)(total)
    left = L.Dense(2, name="left")(L.GlobalMaxPooling2D()(normal))
    return shaken(tfk.Model([one, two], [left, L.Dense(4, activation="softmax", name="right")(L.Flatten()(a))]))


def excited() -> Any:
    """Squeeze and excitation as Keras 2's MobileNetV3 has it, by TensorFlow functions."""
    image = L.Input((8, 8, 4))
    x = L.TimeDistributed(L.Dense(4, activation="swish"))(image)
    gate = tf.nn.relu6(L.Conv2D(4, 1)(L.GlobalAveragePooling2D(keepdims=True)(x)) + 3.0) * (1.0 / 6.0)
    x = tf.reduce_mean(x * gate, [1, 2])
    return shaken(tfk.Model(image, tf.nn.l2_normalize(x, axis=-1)))


MODELS = [transfer, caffe, shared, excited]


def answers(model: Any, images: list[Any]) -> list[Any]:
    return [np.asarray(output) for output in tf.nest.flatten(model(images if len(images) > 1 else images[0]))]


def check_outputs(before: Any, after: Any, tolerance: float = 1e-5) -> None:
    rng = np.random.default_rng(5)
    images = [rng.uniform(0, 255, (3, *tensor.shape[1:])).astype("float32") for tensor in after.inputs]
    for one, two in zip(answers(before, images), answers(after, images), strict=True):
        np.testing.assert_allclose(two, one, rtol=tolerance, atol=tolerance * np.abs(one).max())


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("suffix", [".h5", ".keras", ""])
def test_every_form_of_file_comes_over_with_equal_outputs(tmp_path: Path, make: Callable[[], Any], suffix: str) -> None:
    model = make()
    if suffix == ".keras" and make is caffe:
        pytest.skip("tf_keras cannot write `x[..., ::-1]` into a .keras file")
    path = tmp_path / f"model{suffix}"
    model.save(path, save_format={".h5": "h5", ".keras": "keras", "": "tf"}[suffix])
    assert legacy.holds_keras(path) == (suffix == "")
    found = Keras().load(path) if suffix else legacy.load_saved_model(path)
    assert isinstance(found.graph, keras.Model)
    assert not any(isinstance(layer, keras.Model) for layer in found.graph.layers)
    check_outputs(model, found.graph)
    store.save(found, tmp_path / "stage.keras")
    check_outputs(found.graph, store.restore(tmp_path / "stage.keras").graph, 1e-7)
    assert found.notes[0].startswith("carried from Keras 2.21.0 " + (suffix or "SavedModel"))
    assert "largest output difference" in found.notes[0]


def test_contract_keeps_names_but_slashes_and_augmentation_is_noted(tmp_path: Path) -> None:
    transfer().save(tmp_path / "m.h5")
    found = Keras().load(tmp_path / "m.h5")
    assert [spec.name for spec in found.signature.inputs] == ["picture"]
    assert [(spec.name, spec.meaning) for spec in found.signature.outputs] == [("an_swer", "softmax")]
    assert "random_flip" in found.notes[1]
    assert not any(type(layer).__name__.startswith("Random") for layer in found.graph.layers)
    assert {"Rescaling", "DepthwiseConv2D"} <= {type(layer).__name__ for layer in found.graph.layers}


def test_open_size_is_taken_from_the_recipe(tmp_path: Path) -> None:
    image = L.Input((None, None, 3))
    tfk.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(image))).save(tmp_path / "m.h5")
    found = Keras(input_shape=(16, 24)).load(tmp_path / "m.h5")
    assert found.signature.inputs[0].shape == (None, 16, 24, 3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_precision_comes_over_in_float32(tmp_path: Path, policy: str) -> None:
    image = L.Input((8, 8, 3))
    x = L.BatchNormalization(dtype=policy)(L.Conv2D(4, 3, dtype=policy)(L.Rescaling(1 / 255, dtype=policy)(image)))
    model = tfk.Model(image, L.Dense(2, dtype=policy)(L.Flatten(dtype=policy)(x * 0.5)))
    model.save(tmp_path / "m.h5")
    found = Keras().load(tmp_path / "m.h5")
    assert {layer.compute_dtype for layer in found.graph.layers} == {"float32"}
    assert {str(weight.dtype) for weight in found.graph.weights} == {"float32"}
    check_outputs(model, found.graph, tolerance=0.05)


# ---------------------------------------------------------------- refused


def test_layer_that_is_random_in_inference_is_refused(tmp_path: Path) -> None:
    image = L.Input((4,))
    tfk.Model(image, L.Dense(2)(L.Dropout(0.5, name="always")(image, training=True))).save(tmp_path / "m.h5")
    with pytest.raises(UnsupportedError, match=r"'always'.*training=True"):
        Keras().load(tmp_path / "m.h5")


def test_layer_that_keras_3_does_not_have_is_named(tmp_path: Path) -> None:
    image = L.Input((6, 6, 1))
    tfk.Model(image, L.LocallyConnected2D(2, 3, name="local", implementation=1)(image)).save(tmp_path / "m.h5")
    with pytest.raises(UnsupportedError, match=r"'local'.*LocallyConnected2D"):
        Keras().load(tmp_path / "m.h5")


def test_subclassed_model_is_refused(tmp_path: Path) -> None:
    class Mine(tfk.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    model = Mine()
    model(np.ones((1, 3), np.float32))
    model.save(tmp_path / "folder", save_format="tf")
    with pytest.raises(UnsupportedError, match="Mine"):
        legacy.load_saved_model(tmp_path / "folder")


def test_missing_tf_keras_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transfer().save(tmp_path / "m.h5")
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(UnavailableError, match=r"pip install 'edgekit\[legacy\]'") as caught:
        Keras().load(tmp_path / "m.h5")
    assert caught.value.exit_code == 3


def test_nan_weight_is_named(tmp_path: Path) -> None:
    model = caffe()
    model.layers[-1].bias.assign([np.nan])
    model.save(tmp_path / "m.h5")
    with pytest.raises(InputError, match=r"bias\S* holds 1 NaN"):
        Keras().load(tmp_path / "m.h5")


@pytest.mark.parametrize("part", ["variables/variables.index", "keras_metadata.pb"])
def test_damaged_saved_model_is_one_line(tmp_path: Path, part: str) -> None:
    caffe().save(tmp_path / "m", save_format="tf")
    file = tmp_path / "m" / part
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError) as caught:
        legacy.load_saved_model(tmp_path / "m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrapper", ["LSTM", "GRU", "SimpleRNN", "MultiHeadAttention", "LayerNormalization", "PReLU"])
def test_layers_beyond_convolutions_come_over(tmp_path: Path, wrapper: str) -> None:
    image = L.Input((6, 4))
    if wrapper == "MultiHeadAttention":
        x = L.MultiHeadAttention(2, 3)(image, image)
    else:
        x = getattr(L, wrapper)(*([5] if wrapper in ("LSTM", "GRU", "SimpleRNN") else []))(image)
    model = shaken(tfk.Model(image, L.Dense(2)(L.Flatten()(x))))
    model.save(tmp_path / "m.h5")
    check_outputs(model, Keras().load(tmp_path / "m.h5").graph)


def test_hard_sigmoid_of_a_recurrent_layer_is_refused(tmp_path: Path) -> None:
    """Keras 3 computes relu6(x + 3) / 6 under that name, Keras 2 clip(0.2 x + 0.5, 0, 1)."""
    image = L.Input((6, 4))
    tfk.Model(image, L.LSTM(3, recurrent_activation="hard_sigmoid", name="gated")(image)).save(tmp_path / "m.h5")
    with pytest.raises(UnsupportedError, match=r"'gated'.*hard_sigmoid"):
        Keras().load(tmp_path / "m.h5")


def test_version_is_named_as_the_file_has_it(tmp_path: Path) -> None:
    import h5py

    caffe().save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["keras_version"] = b"2.4.0"
    assert Keras().load(tmp_path / "m.h5").notes[0].startswith("carried from Keras 2.4.0 .h5: ")
