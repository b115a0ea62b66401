# ruff: noqa: PLW0108 - each line shows the call as users write it
"""Training by tensorflow-model-optimization: refusals, the process, what comes back; partly with a stand-in."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.engine.loss import Target
from toolkit.engine.prepare import prepare
from toolkit.engine.qat import Rounding, find_ranges, learned, rounding_graph
from toolkit.engine.simulate import simulate
from toolkit.engine.teaching import Teaching
from toolkit.engine.tfmot_qat import (
    Brought,
    brought_back,
    names_in_prepared,
    refusals,
    round_to_grid,
    train_with_tfmot,
)
from toolkit.engine.train import fit
from toolkit.errors import UnavailableError, UnsupportedError

keras = pytest.importorskip("keras")
pytest.importorskip("tf_keras", reason="the extra `legacy`")
layers = keras.layers
HOW = Teaching(epochs=2, batch_size=32, learning_rate=1e-4, target=Target(alpha=1.0, temperature=1.0))


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    """Real digits as the network of `digits_model` reads them, and their classes."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images[..., None] / 16).astype(np.float32), found.target


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of TFMOT's name on the path: its variables under its names (see stand_in_tfmot)."""
    shutil.copy(Path(__file__).with_name("stand_in_tfmot.py"), tmp_path / "tensorflow_model_optimization.py")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture(scope="module")
def net() -> Any:
    """One of each thing that prepared form renames: BatchNormalization, activations inside, a separable convolution."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(3, activation="silu", name="each")(x)
    y = layers.BatchNormalization(name="norm2")(layers.SeparableConv2D(4, 3, padding="same", name="apart")(x))
    x = layers.Add(name="add")([x, y])
    x = layers.Dense(5, activation="softmax", name="classes")(layers.Flatten(name="flat")(x))
    model = keras.Model(image, x)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.2, 0.8, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


def test_ranges_go_to_the_layer_that_gives_the_same_tensor_in_prepared_form(net: Any) -> None:
    from toolkit.engine.prepare import prepare

    prepared = prepare(net).graph
    names = names_in_prepared(net, prepared)
    assert (names["norm"], names["norm2"], names["each"]) == ("conv", "apart", "each_silu")
    x = np.random.default_rng(1).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    for name in ("norm", "relu", "each", "norm2", "add", "flat", "classes"):
        mine = keras.Model(net.inputs, net.get_layer(name).output)(x)
        other = keras.Model(prepared.inputs, prepared.get_layer(names[name]).output)(x)
        np.testing.assert_allclose(np.asarray(mine), np.asarray(other), rtol=1e-4, atol=1e-5)


def test_weights_brought_back_are_folded_and_on_their_grid(net: Any) -> None:
    arrays = {f"weight/{layer.name}/{i}": w for layer in net.layers for i, w in enumerate(layer.get_weights())}
    depthwise, pointwise, bias = net.get_layer("apart").get_weights()
    arrays |= {"weight/apart_depthwise/0": depthwise, "weight/apart/0": pointwise, "weight/apart/1": bias}
    arrays |= {"range/norm2": np.array([-1.5, 2.5]), "range/image": np.array([0.0, 1.0])}
    del arrays["weight/apart/2"]
    images = np.random.default_rng(1).uniform(size=(40, 8, 8, 3)).astype(np.float32)
    result = brought_back(net, arrays, images)
    assert result.learned == {"apart", "image"}
    assert (result.ranges["apart"], result.ranges["image"]) == ((-1.5, 2.5), (0.0, 1.0))
    assert set(result.regridded) == {"conv", "each", "apart_depthwise", "apart", "classes"}
    steps = _steps(result, "conv", axes=(0, 1, 2))
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    np.testing.assert_allclose(np.abs(steps).max(axis=(0, 1, 2)), 127)
    low, high = result.ranges["relu"]
    outputs = np.asarray(keras.Model(result.graph.inputs, result.graph.get_layer("relu").output)(images))
    assert (low, high) == pytest.approx((outputs.min(), outputs.max()), rel=1e-5)
    assert not any(round_to_grid(result.graph.get_layer(name)) for name in result.regridded)  # nothing left to round


def test_depthwise_and_transposed_kernels_have_a_grid_for_each_channel_they_give() -> None:
    for layer, axes in ((layers.DepthwiseConv2D(3), (0, 1)), (layers.Conv2DTranspose(5, 3), (0, 1, 3))):
        layer.build((None, 8, 8, 4))
        kernel, bias = layer.get_weights()
        layer.set_weights([np.random.default_rng(0).normal(size=kernel.shape), bias])
        round_to_grid(layer)
        kernel = layer.get_weights()[0]
        steps = kernel / np.abs(kernel).max(axis=axes, keepdims=True) * 127
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: layers.Rescaling(2.0, name="scale")(x), r"'scale' \(Rescaling\): its default"),
        (lambda x: layers.Multiply(name="gate")([x, x]), r"'gate' \(Multiply\)"),
        (lambda x: layers.BatchNormalization(name="first")(x), r"'first' \(BatchNormalization\).*not right behind"),
        (lambda x: layers.Conv2D(2, 1, activation="elu", name="own")(x), r"'own' \(Conv2D\): its activation elu"),
        (lambda x: layers.Concatenate(name="seven")([x] * 7), r"'seven' \(Concatenate\): joins 7 tensors"),
        (lambda x: layers.PReLU(name="p")(layers.LeakyReLU(name="l")(x)), r"'l' \(LeakyReLU\).*'p' \(PReLU\)"),
    ],
)
def test_what_tfmot_refuses_is_named_before_any_training(call: Any, words: str) -> None:
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, call(image))
    with pytest.raises(UnsupportedError, match=words):
        train_with_tfmot(model, np.zeros((4, 8, 8, 3), np.float32), np.zeros(4, np.int64), how=HOW)


def test_shared_layer_is_refused() -> None:
    image = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 1, name="twice")
    assert [str(item) for item in refusals(keras.Model(image, shared(shared(image))))] == [
        "'twice' (Conv2D): is used more than once"
    ]


def test_missing_package_says_what_to_install(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"pip install 'edgekit\[tfmot\]'"):
        train_with_tfmot(net, np.zeros((4, 8, 8, 3), np.float32), np.zeros(4, np.int64), how=HOW)


def test_training_runs_in_a_process_and_comes_back_quantized(digits_model: Path, digits: Any, stand_in: None) -> None:
    _check_trained(digits_model, digits)


def test_refusal_of_the_packages_own_is_told(stand_in: None) -> None:
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.Cropping2D(1, name="cut")(image))
    with pytest.raises(UnsupportedError, match="TFMOT refuses the model: Layer cut"):
        train_with_tfmot(model, np.zeros((4, 8, 8, 3), np.float32), np.zeros(4, np.int64), how=HOW)


@pytest.mark.skipif(find_spec("tensorflow_model_optimization") is None, reason="the extra `tfmot`")
@pytest.mark.slow
def test_training_with_the_package_itself_comes_back_quantized(digits_model: Path, digits: Any) -> None:
    _check_trained(digits_model, digits)


def _check_trained(path: Path, digits: Any) -> None:
    """The loss falls or stays small, ranges hold the values seen, and the prepared graph still reads digits."""
    images, labels = digits
    model = keras.models.load_model(path, compile=False)
    epochs: list[int] = []
    result, run = train_with_tfmot(
        model,
        images[:600],
        labels[:600],
        how=HOW,
        original=model,
        evaluate=lambda graph: np.mean(np.argmax(np.asarray(graph(images[600:900])), 1) == labels[600:900]),
        told=lambda number, _: epochs.append(number),
    )
    assert epochs == [1, 2]
    assert run.curves["loss"][-1] < 0.05  # KL to the float model
    scores = (run.before, *run.curves["selection_accuracy"])
    assert run.best_epoch == max(range(3), key=lambda number: (scores[number], number))
    assert run.steps == 600 // 32
    assert result.learned == {"image", "relu1", "conv2_relu", "classes"}
    assert result.ranges["image"] == pytest.approx((0.0, 1.0), abs=0.02)
    low, high = result.ranges["classes"]  # what the softmax reads
    assert low < -6
    assert high > 6
    low, high = result.ranges["relu1"]
    assert low == 0 < high
    steps = _steps(result, "conv1", axes=(0, 1, 2))
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    _check_like_native(result, model, images, labels)


def _check_like_native(result: Brought, model: Any, images: Any, labels: Any) -> None:
    """Both kinds of training give a simulated file that decides as the float model does, weights on one grid."""
    prepared = prepare(model).graph
    how = Rounding(moving_steps=30)
    graph = rounding_graph(prepared, find_ranges(prepared, {"image": images[:200]}), how)
    native = learned(prepared, fit(graph, model, images[:600], labels[:600], how=HOW).model, how)
    wanted = np.argmax(np.asarray(model(images)), 1)
    for found in (result, native):
        decided = np.argmax(np.asarray(simulate(found.graph, found.ranges)(images)), 1)
        assert (decided == wanted).mean() > 0.97
        for name in ("conv1", "conv2", "classes"):
            assert not round_to_grid(found.graph.get_layer(name))


def _steps(result: Brought, name: str, axes: tuple[int, ...]) -> Any:
    """Weights in units of a 127th of the largest of each channel."""
    kernel = result.graph.get_layer(name).get_weights()[0]
    return kernel / np.abs(kernel).max(axis=axes, keepdims=True) * 127
