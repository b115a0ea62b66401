"""Zeros by tensorflow-model-optimization itself: the same weights as the native backend chooses, brought back whole."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.engine.loss import Target
from toolkit.engine.schedule import Schedule as Rates
from toolkit.engine.sparsity import ONCE, Pattern, Schedule, Sparsity, kept
from toolkit.engine.teaching import Teaching
from toolkit.engine.tfmot_sparsity import check, train_with_tfmot
from toolkit.engine.train import fit
from toolkit.errors import UnavailableError, UnsupportedError

keras = pytest.importorskip("keras")
pytest.importorskip("tf_keras", reason="the extra `legacy`")
package = pytest.mark.skipif(find_spec("tensorflow_model_optimization") is None, reason="the extra `tfmot`")
layers = keras.layers
LAYERS = ("conv", "apart", "hidden", "classes")
POLYNOMIAL = Schedule(0.75, begin=2, end=14, frequency=3)
HOW = Teaching(
    epochs=2,
    batch_size=32,
    learning_rate=1e-3,
    optimizer="sgd",
    schedule=Rates(),
    target=Target(alpha=1.0, temperature=1.0),
    sparsity=Sparsity(LAYERS, schedule=POLYNOMIAL),
)
IMAGES = np.random.default_rng(5).normal(size=(256, 6, 6, 4)).astype(np.float32)
LABELS = np.arange(256) % 3


@pytest.fixture(scope="module")
def net() -> Any:
    """Without BatchNormalization, whose moving statistics the two Keras do not treat alike."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 4), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    x = layers.DepthwiseConv2D(3, padding="same", name="each")(x)
    x = layers.SeparableConv2D(12, 3, padding="same", activation="relu", name="apart")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="classes")(x))


def kernels(model: Any) -> dict[str, Any]:
    places = {"apart": 1}
    return {name: np.asarray(model.get_layer(name).get_weights()[places.get(name, 0)]) for name in LAYERS}


def both(net: Any, how: Teaching) -> tuple[dict[str, Any], dict[str, Any]]:
    """(TFMOT's kernels, the native backend's) after the same training."""
    brought = train_with_tfmot(net, IMAGES, LABELS, how=how, original=net)
    native = fit(net, net, IMAGES, LABELS, how=how)
    assert brought.best_epoch == native.best_epoch == how.epochs
    np.testing.assert_allclose(brought.curves["loss"], native.curves["loss"], rtol=1e-3, atol=1e-6)
    return kernels(brought.model), kernels(native.model)


def agree(theirs: dict[str, Any], ours: dict[str, Any], count: Any) -> None:
    for name in LAYERS:
        np.testing.assert_array_equal(theirs[name] != 0, ours[name] != 0, err_msg=name)
        assert np.count_nonzero(ours[name]) == count(ours[name])
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-3, atol=1e-5)


@package
@pytest.mark.slow
@pytest.mark.parametrize(
    "schedule",
    [POLYNOMIAL, Schedule(0.6, begin=1, end=9, frequency=4, curve="constant"), Schedule(0.5, begin=3, end=3)],
    ids=["polynomial", "constant", "once"],
)
def test_backends_agree_on_masks_for_the_same_schedule(net: Any, schedule: Schedule) -> None:
    how = replace(HOW, sparsity=Sparsity(LAYERS, schedule=schedule))
    agree(*both(net, how), lambda weight: kept(weight.size, schedule.sparsity))


@package
@pytest.mark.slow
def test_backends_agree_on_2_of_4_along_input_channels(net: Any) -> None:
    how = replace(HOW, sparsity=Sparsity(LAYERS, Pattern.parse("2:4"), ONCE))
    theirs, ours = both(net, how)
    agree(theirs, ours, lambda weight: weight.size / 2)
    groups = theirs["conv"].transpose(3, 0, 1, 2).reshape(-1, 4)  # output, place, input channels
    assert (np.count_nonzero(groups, axis=1) == 2).all()


@package
@pytest.mark.slow
def test_backends_agree_on_blocks_of_dense_layers(net: Any) -> None:
    pattern = Pattern.parse("4x4")
    how = replace(HOW, sparsity=Sparsity(("hidden",), pattern, replace(POLYNOMIAL, sparsity=0.5)))
    brought = train_with_tfmot(net, IMAGES, LABELS, how=how, original=net)
    native = fit(net, net, IMAGES, LABELS, how=how)
    weights = [kernels(result.model)["hidden"] for result in (brought, native)]
    np.testing.assert_array_equal(weights[0] != 0, weights[1] != 0)
    blocks = weights[0].reshape(weights[0].shape[0] // 4, 4, 4, 4)
    alive = (blocks != 0).any(axis=(1, 3))
    assert alive.sum() == kept(alive.size, 0.5)


@package
@pytest.mark.slow
def test_best_epoch_of_those_with_all_zeros_is_kept(net: Any) -> None:
    before = net.get_weights()
    seen: list[float] = []

    def evaluate(graph: Any) -> float:
        seen.append(float(np.mean(kernels(graph)["hidden"] == 0)))
        return -seen[-1]  # a model without zeros is the best: it must not win

    told: list[int] = []
    result = train_with_tfmot(
        net, IMAGES, LABELS, how=HOW, evaluate=evaluate, told=lambda number, _: told.append(number)
    )
    assert told == [1, 2]
    assert seen[0] == 0 < seen[1]
    assert seen[2] == pytest.approx(0.75, abs=1e-3)
    assert result.best_epoch == 2
    assert result.before == 0
    assert result.curves["selection_accuracy"] == tuple(-share for share in seen[1:])
    for own, old in zip(net.get_weights(), before, strict=True):
        np.testing.assert_array_equal(own, old)
    assert [type(layer) for layer in result.model.layers] == [type(layer) for layer in net.layers]


@package
@pytest.mark.slow
def test_layer_that_keras_2_has_no_form_of_is_named(tmp_path: Path) -> None:
    image = keras.Input((6, 6, 4))
    x = layers.Conv2D(4, 1, activation="hard_sigmoid", name="conv")(image)
    model = keras.Model(image, layers.Dense(3, name="classes")(layers.GlobalAveragePooling2D()(x)))
    how = replace(HOW, head="logits", sparsity=Sparsity(("conv",), schedule=POLYNOMIAL))
    with pytest.raises(UnsupportedError, match=r"layer 'conv'.*no form in Keras 2"):
        train_with_tfmot(model, IMAGES, LABELS, how=how)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Sparsity(LAYERS), "makes zeros by a schedule"),
        (Sparsity(LAYERS, schedule=POLYNOMIAL, scope="global"), "a share of each layer"),
        (Sparsity(("conv",), Pattern.parse("4x1"), POLYNOMIAL), "layer 'conv': TFMOT puts blocks into dense layers"),
        (Sparsity(("classes",), Pattern.parse("1x2"), POLYNOMIAL), "layer 'classes'.*do not divide"),
    ],
)
def test_what_tfmot_does_not_have_is_refused_before_any_work(net: Any, asked: Sparsity, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        check(net, replace(HOW, sparsity=asked))


def test_shared_layer_is_refused() -> None:
    image = keras.Input((6, 6, 3))
    shared = layers.Conv2D(3, 1, name="twice")
    model = keras.Model(image, shared(shared(image)))
    with pytest.raises(UnsupportedError, match="'twice': is used more than once"):
        check(model, replace(HOW, sparsity=Sparsity(("twice",), schedule=POLYNOMIAL)))


def test_missing_package_says_what_to_install(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"pip install 'edgekit\[tfmot\]'"):
        check(net, HOW)
