"""Shared weights by tensorflow-model-optimization itself: the same values as the native backend comes to."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from toolkit.codebook import Codebook
from toolkit.engine.clusters import Sharing
from toolkit.engine.loss import Target
from toolkit.engine.schedule import Schedule as Rates
from toolkit.engine.teaching import Teaching
from toolkit.engine.tfmot_clusters import check, train_with_tfmot
from toolkit.engine.train import fit
from toolkit.errors import UnavailableError, UnsupportedError

keras = pytest.importorskip("keras")
pytest.importorskip("tf_keras", reason="the extra `legacy`")
package = pytest.mark.skipif(find_spec("tensorflow_model_optimization") is None, reason="the extra `tfmot`")
layers = keras.layers
MADE = {"conv": Codebook(6), "apart": Codebook(5), "classes": Codebook(4)}
HOW = Teaching(
    epochs=2,
    batch_size=32,
    learning_rate=3e-3,
    optimizer="sgd",
    schedule=Rates(),
    target=Target(alpha=1.0, temperature=1.0),
    sharing=Sharing(MADE, start="linear"),
)
IMAGES = np.random.default_rng(5).normal(size=(96, 6, 6, 4)).astype(np.float32)
LABELS = np.arange(96) % 3


@pytest.fixture(scope="module")
def net() -> Any:
    """Without BatchNormalization, whose moving statistics the two Keras do not treat alike."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 4), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    x = layers.SeparableConv2D(12, 3, padding="same", activation="relu", name="apart")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="classes")(x))


def kernels(model: Any) -> dict[str, Any]:
    return {name: np.asarray(model.get_layer(name).get_weights()[name == "apart"]) for name in MADE}


@package
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["layer", "channel", "zeros"])
def test_backends_come_to_the_same_values(net: Any, kind: str) -> None:
    """Of the same start: codebooks of layers, of channels, and with zeros that stay."""
    sharing, student = HOW.sharing, net
    if kind == "channel":
        sharing = Sharing({"conv": Codebook(5, "channel")}, start="linear")
    if kind == "zeros":
        student = keras.models.clone_model(net)
        student.set_weights([np.where(np.abs(w) < 0.1, 0, w) for w in net.get_weights()])
        sharing = replace(HOW.sharing, zeros=tuple(MADE))
    how = replace(HOW, sharing=sharing)
    theirs = train_with_tfmot(student, IMAGES, LABELS, how=how, original=net)
    ours = fit(student, net, IMAGES, LABELS, how=how)
    assert theirs.best_epoch == ours.best_epoch == 2
    np.testing.assert_allclose(theirs.curves["loss"], ours.curves["loss"], rtol=1e-3, atol=1e-6)
    for name, codebook in how.sharing.made.items():
        one, two = kernels(theirs.model)[name], kernels(ours.model)[name]
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)
        assert len(np.unique(two[..., 0] if kind == "channel" else two)) <= codebook.values
        assert not np.allclose(two, kernels(student)[name], atol=1e-3)
        if kind == "zeros":
            assert (two[kernels(student)[name] == 0] == 0).all() and (two == 0).any()


@package
@pytest.mark.slow
def test_best_epoch_is_one_that_is_clustered(net: Any) -> None:
    def evaluate(graph: Any) -> float:
        return float(len(np.unique(kernels(graph)["conv"])))  # best where nothing is shared: it must not win

    told: list[int] = []
    how = replace(HOW, sharing=Sharing({"conv": Codebook(6)}))
    result = train_with_tfmot(net, IMAGES, LABELS, how=how, evaluate=evaluate, told=lambda n, _: told.append(n))
    assert told == [1, 2] and result.best_epoch > 0
    assert len(np.unique(kernels(result.model)["conv"])) <= 6
    assert len(np.unique(kernels(result.model)["classes"])) == 36


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Sharing(held={"conv": Codebook(4)}), "has none to make"),
        (
            Sharing({"classes": Codebook(4)}, held={"conv": Codebook(4)}),
            "would part the shared weights of layer 'conv'",
        ),
        (Sharing({"classes": Codebook(4)}, zeros=("conv",)), "would fill the zeros of layer 'conv'"),
        (Sharing(MADE, renewed=False), "the nearest value for each weight"),
        (Sharing({"classes": Codebook(4, "channel")}), "layer 'classes': TFMOT has one codebook for a Dense"),
    ],
)
def test_what_tfmot_does_not_have_is_refused_before_any_work(net: Any, asked: Sharing, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        check(net, replace(HOW, sharing=asked))


def test_missing_package_says_what_to_install(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"pip install 'edgekit\[tfmot\]'"):
        check(net, HOW)
