from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.elimination import saliencies
from toolkit.engine.groups import find_groups
from toolkit.engine.samples import Sample

ROWS = 400


def network() -> tuple[Any, Any]:
    """Two dense layers that read the same channels, and what they read."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6,))
    x = layers.Dense(5, activation="relu", name="made")(image)
    model = keras.Model(image, [layers.Dense(3, name="one")(x), layers.Dense(4, name="two")(x)])
    return model, np.random.default_rng(0).normal(size=(ROWS, 6)).astype("float32")


def refit_error(features: Any, outputs: Any) -> float:
    """Share of the outputs' variance that a least-squares fit with an intercept leaves."""
    around = outputs - outputs.mean(0)
    rest = around
    if features.shape[1]:
        centred = features - features.mean(0)
        rest = around - centred @ np.linalg.lstsq(centred, around, rcond=None)[0]
    return float(np.square(rest).sum() / np.square(around).sum())


def test_saliencies_are_what_the_readers_lose_when_the_others_are_refitted() -> None:
    model, values = network()
    scores = saliencies(model, find_groups(model), lambda: [Sample((values,))])["made"]
    features = np.asarray(keras.Model(model.inputs, model.get_layer("made").output)(values), np.float64)
    outputs = [np.asarray(output, np.float64) for output in model(values)]
    left, lost = list(range(5)), 0.0
    for channel in np.argsort(scores, kind="stable"):
        costs = {c: sum(refit_error(features[:, [i for i in left if i != c]], out) for out in outputs) for c in left}
        assert min(costs, key=lambda c: costs[c]) == channel
        assert scores[channel] == pytest.approx(costs[channel] - lost, rel=0.02, abs=1e-3)
        lost = costs[channel]
        left.remove(int(channel))
    assert scores.sum() == pytest.approx(2.0, rel=0.02)  # of each of the two readers all goes in the end


def test_saliencies_leave_out_frozen_groups_and_rise_in_the_order_of_removal() -> None:
    model, values = network()
    found = saliencies(model, find_groups(model), lambda: [Sample((values,))])
    assert set(found) == {"made"} and (found["made"] >= 0).all()


@pytest.mark.parametrize("most", [8192, 1])
def test_saliencies_rank_a_channel_that_is_never_there_lowest_whatever_the_layers_width(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("toolkit.engine.elimination.MOST_FEATURES", most)
    model, values = network()
    kernel, bias = model.get_layer("made").get_weights()
    bias[3], kernel[:, 3] = -1.0, 0.0  # what relu gives is zero
    model.get_layer("made").set_weights([kernel, bias])
    scores = saliencies(model, find_groups(model), lambda: [Sample((values,))])["made"]
    assert scores.argmin() == 3 and scores[3] == pytest.approx(0, abs=1e-6)
    assert (np.delete(scores, 3) > 1e-3).all()
