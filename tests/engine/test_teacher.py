"""A teacher of another kind teaches as the Keras model it was written from, in the step and beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from toolkit.engine import foreign, loss
from toolkit.engine.loss import Target
from toolkit.engine.teacher import Teacher, distance, of_graph, of_network
from toolkit.engine.teaching import Teaching
from toolkit.engine.train import fit

IMAGES = np.random.default_rng(0).uniform(0, 1, (40, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(40) % 10


@pytest.fixture(scope="module")
def original(digits_model: Path) -> Any:
    return keras.models.load_model(digits_model)


@pytest.fixture(scope="module")
def elsewhere(digits_files: dict[str, Path]) -> Teacher:
    port = foreign.Port("image", channels_first=True)
    return of_network(foreign.Network("onnx", digits_files["onnx"], (port,), ("classes",)), "softmax", 10)


def test_it_says_in_a_graph_what_it_says_beforehand(elsewhere: Teacher) -> None:
    seen = tf.function(elsewhere.look)(tf.constant(IMAGES))
    assert seen.shape == (40, 10)
    np.testing.assert_allclose(seen, elsewhere.answers(IMAGES), atol=1e-6)


def test_its_logits_are_the_keras_models_up_to_a_constant(original: Any, elsewhere: Teacher) -> None:
    """Softmax is blind to a constant of the row; the Keras teacher drops its softmax, the other undoes it."""
    here = of_graph(original, "softmax")
    assert (here.head, elsewhere.head) == ("logits", "softmax")
    one, two = (np.asarray(loss.as_logits(t.answers(IMAGES), t.head)) for t in (here, elsewhere))
    centred = [logits - logits.mean(axis=1, keepdims=True) for logits in (one, two)]
    np.testing.assert_allclose(*centred, atol=2e-3)


@pytest.mark.parametrize("augment", ["none", "shift"])
def test_student_learns_the_same_of_either(original: Any, elsewhere: Teacher, augment: str) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    student = keras.Model(image, layers.Dense(10, activation="softmax")(layers.Flatten()(image)))
    how = Teaching(epochs=2, batch_size=20, augment=augment, target=Target(alpha=1.0))
    weights = [fit(student, teacher, IMAGES, LABELS, how=how).model.get_weights() for teacher in (original, elsewhere)]
    for one, two, start in zip(*weights, student.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
        assert np.abs(one - start).max() > 1e-3


def test_distance_is_the_mean_divergence_at_the_temperature(original: Any, elsewhere: Teacher) -> None:
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 1), name="image")
    student = keras.Model(image, layers.Dense(10, activation="softmax")(layers.Flatten()(image)))
    batches = [{"image": IMAGES[:30]}, {"image": IMAGES[30:]}]
    target = Target(temperature=2.0, alpha=1.0)
    p, q = (np.asarray(model(IMAGES), np.float64) ** 0.5 for model in (original, student))  # softened: p ** (1 / T)
    p, q = (x / x.sum(axis=1, keepdims=True) for x in (p, q))
    expected = 4 * (p * np.log(p / q)).sum(axis=1).mean()
    for teacher in (of_graph(original, "softmax"), elsewhere):
        found = distance(teacher, lambda: batches, head="softmax", target=target)
        assert found(student) == pytest.approx(expected, rel=1e-4)
        assert found(original) == pytest.approx(0, abs=1e-5)
