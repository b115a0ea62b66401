"""Sensitivity by switches says what simulations of each layer alone, and of all others, say."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.numeric import difference
from toolkit.engine.prepare import prepare
from toolkit.engine.sensitivity import Asked, Sensitivities, extremes, sensitivity
from toolkit.engine.simulate import simulate

IMAGES = {"image": np.random.default_rng(0).normal(size=(12, 8, 8, 3)).astype(np.float32)}


@pytest.fixture(scope="module")
def graph() -> Any:
    """A residual network in which one channel of `wide` is 200 times the others."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(image)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="wide")(stem)
    x = layers.Add(name="add")([stem, layers.Conv2D(8, 1, name="narrow")(x)])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(5, name="head")(x))
    kernel, bias = model.get_layer("wide").get_weights()
    kernel[..., 0] *= 200
    model.get_layer("wide").set_weights([kernel, bias])
    kernel, bias = model.get_layer("narrow").get_weights()
    kernel[:, :, 0] /= 200  # so that what the network computes depends on all channels alike
    model.get_layer("narrow").set_weights([kernel, bias])
    return prepare(model).graph


@pytest.fixture(scope="module")
def found(graph: Any) -> Sensitivities:
    return sensitivity(graph, None, IMAGES, head="logits")


def simulated(graph: Any, names: list[str] | None, **asked: Any) -> float:
    ranges = extremes(graph, IMAGES)
    answers = simulate(graph, ranges, layers=names, **asked)(IMAGES["image"])
    return difference(np.asarray(graph(IMAGES["image"])), np.asarray(answers), "logits").logits_sqnr_db


def test_rows_are_the_layers_that_compute(found: Sensitivities) -> None:
    assert [row.layer for row in found.rows] == ["stem", "wide", "narrow", "add", "pool", "head"]
    assert found.images == 12


def test_all_is_what_the_simulation_of_all_layers_has(graph: Any, found: Sensitivities) -> None:
    assert found.all.sqnr_db == pytest.approx(simulated(graph, None), abs=0.5)


@pytest.mark.parametrize("layer", ["stem", "wide", "add", "head"])
def test_alone_is_what_the_simulation_of_one_layer_has(layer: str, graph: Any, found: Sensitivities) -> None:
    (row,) = (row for row in found.rows if row.layer == layer)
    assert row.alone.sqnr_db == pytest.approx(simulated(graph, [layer]), abs=0.5)


@pytest.mark.parametrize("layer", ["wide", "head"])
def test_rest_is_what_the_simulation_of_all_others_has(layer: str, graph: Any, found: Sensitivities) -> None:
    (row,) = (row for row in found.rows if row.layer == layer)
    others = [other.layer for other in found.rows if other.layer != layer]
    assert row.rest.sqnr_db == pytest.approx(simulated(graph, others), abs=0.5)
    assert row.gain_db == row.rest.sqnr_db - found.all.sqnr_db


def test_layers_of_an_outlying_channel_are_the_most_sensitive_per_tensor(graph: Any) -> None:
    """The weights of `wide` and of `narrow`, and the tensor between them, lose all other channels."""
    rows = sensitivity(graph, None, IMAGES, head="logits", asked=Asked(granularity="per_tensor")).rows
    worst = sorted(rows, key=lambda row: row.alone.sqnr_db)[:2]
    assert {row.layer for row in worst} == {"wide", "narrow"}


def test_most_first_orders_by_what_float_wins_back(found: Sensitivities) -> None:
    gains = [round(row.gain_db, 2) for row in found.most_first()]
    assert gains == sorted(gains, reverse=True)


def test_more_bits_lose_less(graph: Any, found: Sensitivities) -> None:
    finer = sensitivity(graph, None, IMAGES, head="logits", asked=Asked(activation_bits=16))
    coarser = sensitivity(graph, None, IMAGES, head="logits", asked=Asked(weight_bits=4, activation_bits=None))
    assert coarser.all.sqnr_db < finer.all.sqnr_db
    assert finer.all.sqnr_db > found.all.sqnr_db


def test_agreement_is_the_share_of_equal_decisions(found: Sensitivities) -> None:
    assert all(0 <= row.alone.agreement <= 1 for row in found.rows)
    assert all(round(row.rest.agreement * 12) == pytest.approx(row.rest.agreement * 12) for row in found.rows)
    assert np.isnan(_agreement_of_an_embedding())


def _agreement_of_an_embedding() -> float:
    image = keras.Input((8, 8, 3), name="image")
    model = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image)))
    return sensitivity(model, None, IMAGES, head="embedding").all.agreement


def test_extremes_are_those_of_each_layers_output(graph: Any) -> None:
    stem = np.asarray(keras.Model(graph.input, graph.get_layer("stem").output)(IMAGES["image"]))
    assert extremes(graph, IMAGES)["stem"] == pytest.approx((stem.min(), stem.max()))


def test_layers_that_are_left_stay_in_float_and_have_no_row(graph: Any, found: Sensitivities) -> None:
    left = sensitivity(graph, None, IMAGES, head="logits", asked=Asked(left=("wide",)))
    names = [row.layer for row in found.rows]
    assert [row.layer for row in left.rows] == [name for name in names if name != "wide"]
    others = [layer.name for layer in graph.layers if not layer.name.startswith("wide")]  # nor the ReLU it takes in
    assert left.all.sqnr_db == pytest.approx(simulated(graph, others), abs=0.01)
