from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.batchnorm import has_batchnorm, reestimate_batchnorm, settle
from toolkit.engine.samples import Sample
from toolkit.errors import InputError


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(0)
    x = image = keras.Input((4, 4, 2), name="image")
    x = layers.BatchNormalization(name="first")(x)
    x = layers.Dropout(0.5)(layers.Conv2D(3, 3, activation="relu")(x))
    x = layers.BatchNormalization(name="second", trainable=False, scale=False, momentum=0.7)(x)
    return keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))


def batches(*sizes: int) -> list[list[Any]]:
    rng = np.random.default_rng(0)
    return [[rng.normal(2.0, 3.0, (size, 4, 4, 2)).astype("float32")] for size in sizes]


def statistics(model: Any, name: str) -> tuple[Any, Any]:
    layer = model.get_layer(name)
    return np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)


def test_reestimate_averages_batch_statistics_weighted_by_their_images(model: Any) -> None:
    data = batches(6, 2)
    mean, variance = statistics(reestimate_batchnorm(model, data), "first")
    moments = [(batch.mean((0, 1, 2)), batch.var((0, 1, 2))) for (batch,) in data]
    assert np.allclose(mean, 0.75 * moments[0][0] + 0.25 * moments[1][0], atol=1e-5)
    assert np.allclose(variance, 0.75 * moments[0][1] + 0.25 * moments[1][1], rtol=1e-5)


def test_reestimate_agrees_with_keras_training_mode_without_dropout(model: Any) -> None:
    data = batches(8)

    def forgetful(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, layers.BatchNormalization):
            config |= {"momentum": 0.0, "trainable": True}
        return type(layer).from_config(config | ({"rate": 0.0} if isinstance(layer, layers.Dropout) else {}))

    keras_says = keras.models.clone_model(model, clone_function=forgetful)
    keras_says.set_weights(model.get_weights())
    keras_says(data[0][0], training=True)
    for name in ("first", "second"):
        ours, theirs = statistics(reestimate_batchnorm(model, data), name), statistics(keras_says, name)
        assert np.allclose(ours[0], theirs[0], atol=1e-5) and np.allclose(ours[1], theirs[1], rtol=1e-4)


def test_reestimate_changes_nothing_else_and_not_its_input(model: Any) -> None:
    before = [weight.copy() for weight in model.get_weights()]
    new = reestimate_batchnorm(model, batches(4))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    for old, weight in zip(model.weights, new.weights, strict=True):
        assert np.array_equal(np.asarray(old), np.asarray(weight)) != weight.name.startswith("moving_")
    assert new.get_layer("second").momentum == 0.7


def test_reestimate_averages_over_the_uses_of_a_shared_layer() -> None:
    left, right = keras.Input((2,), name="left"), keras.Input((2,), name="right")
    shared = layers.BatchNormalization(name="shared")
    model = keras.Model([left, right], layers.Add()([shared(left), shared(right)]))
    low, high = np.zeros((4, 2), "float32"), np.full((4, 2), 6.0, "float32")
    high[0] = 2.0  # mean 5, variance 3
    mean, variance = statistics(reestimate_batchnorm(model, [[low, high]]), "shared")
    assert np.allclose(mean, 2.5) and np.allclose(variance, 1.5)


def test_reestimate_refuses_no_images(model: Any) -> None:
    assert has_batchnorm(model)
    with pytest.raises(InputError, match="no images"):
        reestimate_batchnorm(model, [])


def samples(*sizes: int) -> Any:
    return lambda: [Sample(tuple(batch)) for batch in batches(*sizes)]


def test_settle_computes_the_same_with_the_statistics_of_the_images(model: Any) -> None:
    (images,) = batches(8)[0]
    settled = settle(model, samples(8))
    assert np.allclose(settled(images), model(images), rtol=1e-4, atol=1e-5)
    mean, variance = statistics(settled, "first")
    assert np.allclose(mean, images.mean((0, 1, 2)), atol=1e-5) and np.allclose(
        variance, images.var((0, 1, 2)), rtol=1e-4
    )
    elsewhere = np.full((1, 4, 4, 2), -7.0, "float32")
    assert np.allclose(settled(elsewhere), model(elsewhere), rtol=1e-4, atol=1e-5)


def test_reestimate_changes_a_settled_model_by_nothing(model: Any) -> None:
    (images,) = batches(8)[0]
    again = reestimate_batchnorm(settle(model, samples(8)), batches(8))
    assert np.allclose(again(images), model(images), rtol=1e-3, atol=1e-4)
    assert not np.allclose(reestimate_batchnorm(model, batches(8))(images), model(images), atol=0.1)  # as it is without


def test_settle_refuses_no_images(model: Any) -> None:
    with pytest.raises(InputError, match="no images"):
        settle(model, list)
