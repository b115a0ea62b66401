"""BatchNormalization by the fused kernel against Keras' own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from toolkit.engine.fused_norm import FusedBatchNormalization, fits

CASES = [{}, {"scale": False}, {"center": False}, {"epsilon": 0.1, "momentum": 0.5}]


def trained(layer: Any, images: Any, given: Any) -> list[Any]:
    """Outputs, gradients of the input and of the trainable weights, weights after one step, outputs of inference."""
    layer.build(images.shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.uniform(0.5, 2, weight.shape) for weight in layer.weights])
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=True)
        loss = tf.reduce_sum(outputs * given)
    gradients = tape.gradient(loss, [images, *(weight.value for weight in layer.trainable_weights)])
    return [outputs, *gradients, *layer.get_weights(), layer(images, training=False)]


@pytest.mark.parametrize("config", CASES, ids=str)
def test_fused_normalization_is_that_of_keras(config: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    images, given = (tf.constant(rng.normal(1, 2, (4, 3, 2, 5)), tf.float32) for _ in range(2))
    found = trained(FusedBatchNormalization(**config), images, given)
    expected = trained(keras.layers.BatchNormalization(**config), images, given)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=2e-5, atol=2e-5)


def test_moving_statistics_are_the_batch_s_by_hand() -> None:
    layer = FusedBatchNormalization(momentum=0.75)
    values = tf.constant([1.0, 2.0, 3.0, 6.0], shape=(1, 2, 2, 1))  # mean 3, mean square 12.5, biased variance 3.5
    layer(values, training=True)
    np.testing.assert_allclose(layer.moving_mean, [0.25 * 3], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [0.75 + 0.25 * 3.5], rtol=1e-6)


def test_frozen_layer_keeps_its_statistics() -> None:
    layer = FusedBatchNormalization(trainable=False)
    values = tf.reshape(tf.range(8.0), (1, 2, 2, 2))
    np.testing.assert_allclose(layer(values, training=True), values / np.sqrt(1 + layer.epsilon), rtol=1e-6)
    np.testing.assert_array_equal(layer.moving_mean, [0, 0])


def test_fits_images_with_channels_last_alone() -> None:
    images, rows = keras.Input((4, 4, 3)), keras.Input((7,))
    layers: list[tuple[Any, Any, bool]] = [
        (keras.layers.BatchNormalization(), images, True),
        (keras.layers.BatchNormalization(axis=3), images, True),
        (keras.layers.BatchNormalization(axis=1), images, False),
        (keras.layers.BatchNormalization(synchronized=True), images, False),
        (keras.layers.BatchNormalization(), rows, False),
        (keras.layers.ReLU(), images, False),
    ]
    for layer, tensor, expected in layers:
        layer(tensor)
        assert fits(layer) is expected
