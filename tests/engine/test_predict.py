"""Predictions equal Keras' own, whatever the number of images."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.predict import predict_arrays


@pytest.mark.parametrize("count", [1, 7, 8, 9])
def test_predictions_equal_keras_when_the_last_batch_is_short(count: int) -> None:
    one, two = keras.Input((3,), name="one"), keras.Input((3,), name="two")
    added = layers.Add()([one, layers.Rescaling(2.0)(two)])
    model = keras.Model([one, two], [added, layers.Dense(2)(added)])
    rng = np.random.default_rng(0)
    inputs = {"two": rng.normal(size=(count, 3)).astype("f4"), "one": rng.normal(size=(count, 3)).astype("f4")}
    first, second = predict_arrays(model, inputs, batch=8)
    np.testing.assert_allclose(first, inputs["one"] + 2 * inputs["two"], rtol=1e-6)
    np.testing.assert_allclose(second, model([inputs["one"], inputs["two"]])[1], rtol=1e-5)
