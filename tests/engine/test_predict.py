"""Predictions equal Keras' own, whatever the number of images."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.predict import compiled, predict_arrays


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


def test_predictions_follow_the_weights_of_a_model_already_compiled() -> None:
    model = keras.Sequential([keras.Input((2,), name="x"), layers.Dense(1, use_bias=False)])
    flat, images = keras.Model(model.inputs, model.outputs), {"x": np.array([[1.0, 2.0]], "float32")}
    for weights in ([3.0, 4.0], [-1.0, 0.5]):
        flat.set_weights([np.array(weights, "float32")[:, None]])
        np.testing.assert_allclose(predict_arrays(flat, images)[0], [[weights[0] + 2 * weights[1]]])
    assert compiled(flat) is compiled(flat)


def test_a_compiled_model_is_let_go() -> None:
    image = keras.Input((2,), name="x")
    model = keras.Model(image, layers.ReLU()(image))
    predict_arrays(model, {"x": np.zeros((1, 2), "float32")})
    gone = weakref.ref(model)
    del model, image
    gc.collect()
    assert gone() is None
