from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine import prune_sensitivity
from toolkit.engine.groups import find_groups
from toolkit.engine.prune_sensitivity import Curve, curves, keep, key_of, load, measured
from toolkit.engine.surgery import mask


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 2))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(image)
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 1, name="b")(x))
    return keras.Model(image, layers.Dense(3, name="end")(layers.Flatten()(x)), name="net")


def test_curves_are_the_scores_of_masked_networks(model: Any) -> None:
    groups = find_groups(model)
    scores = {"a": np.arange(8.0)[::-1], "b": np.array([3.0, 1.0, 2.0, 4.0])}
    images = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype("float32")
    before = [np.array(weight) for weight in model.weights]

    def evaluate(graph: Any) -> float:
        return float(np.abs(np.asarray(graph(images))).mean())

    found = curves(model, groups, scores, evaluate)
    assert [(curve.group, curve.shut) for curve in found] == [("a", (0, 2, 4, 6)), ("b", (0, 1, 2, 3))]
    expected = [evaluate(mask(model, {"a": list(range(8))[8 - count :]})) for count in (0, 2, 4, 6)]
    assert found[0].scores == pytest.approx(expected, rel=1e-5)
    expected = [evaluate(mask(model, {"b": gone})) for gone in ([], [1], [1, 2], [0, 1, 2])]
    assert found[1].scores == pytest.approx(expected, rel=1e-5)
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, weight)


def test_losses_never_fall() -> None:
    assert Curve("a", 8, (0, 2, 4, 6), (0.9, 0.95, 0.7, 0.8)).losses == pytest.approx((0.0, 0.0, 0.2, 0.2))


def test_measured_scores_add_up_to_the_losses() -> None:
    scores = {"a": np.array([4.0, 1.0, 3.0, 2.0]), "other": np.array([7.0])}
    curve = Curve("a", 4, (0, 1, 2, 3), (1.0, 0.9, 0.6, 0.5))
    found = measured(scores, [curve])
    order = np.argsort(scores["a"])
    assert np.cumsum(found["a"][order])[:3] == pytest.approx([0.1, 0.4, 0.5], abs=1e-5)
    assert found["a"][order][3] == pytest.approx(0.1 * 4 / 3, abs=1e-5)  # as much a unit of importance as before it
    assert found["other"].tolist() == [7.0]


def test_measured_keeps_the_order_where_nothing_was_lost() -> None:
    found = measured({"a": np.array([3.0, 1.0, 2.0, 4.0])}, [Curve("a", 4, (0, 1, 2, 3), (0.5, 0.5, 0.5, 0.5))])
    assert np.argsort(found["a"]).tolist() == [1, 2, 0, 3]


def test_curves_are_kept_under_a_key_of_all_they_depend_on(model: Any, tmp_path: Path) -> None:
    scores = {"a": np.arange(8.0), "b": np.arange(4.0)}
    key = key_of(model, scores, "images")
    assert key == key_of(model, {"b": np.arange(4.0) * 2, "a": np.arange(8.0)}, "images")  # the same order of channels
    others = [key_of(model, scores, "others"), key_of(model, {**scores, "b": -np.arange(4.0)}, "images")]
    changed = keras.models.clone_model(model)
    changed.set_weights([weight + 1 for weight in model.get_weights()])
    assert len({key, *others, key_of(changed, scores, "images")}) == 4
    found = (Curve("a", 8, (0, 2), (0.5, 0.25)),)
    assert load(tmp_path / "new", key) is None
    keep(tmp_path / "new", key, found)
    assert load(tmp_path / "new", key) == found
    (tmp_path / "new" / f"{key}.json").write_text("[{", encoding="utf-8")
    assert load(tmp_path / "new", key) is None
    assert prune_sensitivity.SHARES == (0.25, 0.5, 0.75)
