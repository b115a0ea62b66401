"""Learning rates by hand, and an optimizer that follows them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from toolkit.engine.schedule import Schedule, Table, rates


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        (Schedule("constant"), [0.8, 0.8, 0.8, 0.8]),
        # half a cosine at 0, 1/4, 1/2, 3/4 of the way
        (Schedule("cosine"), [0.8, 0.4 * (1 + 0.5**0.5), 0.4, 0.4 * (1 - 0.5**0.5)]),
        (Schedule("exponential", decay=0.0625), [0.8, 0.4, 0.2, 0.1]),
        (Schedule("step"), [0.8, 0.8, 0.08, 0.008]),
        (Schedule("step", decay=0.5), [0.8, 0.8, 0.4, 0.2]),
        # two epochs of two steps, one of warm-up: 1/2, 1, then from the top
        (Schedule("cosine", warmup_epochs=1), [0.4, 0.8, 0.8, 0.4]),
        (Schedule("constant", warmup_epochs=9), [0.2, 0.4, 0.6, 0.8]),  # warm-up longer than the training
    ],
)
def test_rates_by_hand(schedule: Schedule, wanted: list[float]) -> None:
    np.testing.assert_allclose(rates(schedule, 0.8, 2, 2), wanted, rtol=1e-6)


def test_exponential_ends_near_a_hundredth_of_the_rate() -> None:
    assert rates(Schedule("exponential"), 1.0, 10, 100)[-1] == pytest.approx(0.01, rel=0.01)


def test_cosine_is_that_of_keras() -> None:
    theirs = keras.optimizers.schedules.CosineDecay(0.1, 40)
    np.testing.assert_allclose(
        rates(Schedule(), 0.1, 4, 10), [float(theirs(i)) for i in range(40)], rtol=1e-5, atol=1e-8
    )


def test_optimizer_moves_by_the_rate_of_its_step_and_then_by_the_last() -> None:
    optimizer = keras.optimizers.SGD(Table(np.array([1.0, 0.5], np.float32)))
    weight = keras.Variable(0.0)
    optimizer.build([weight])
    seen = []
    for _ in range(3):
        optimizer.apply([tf.constant(1.0)], [weight])
        seen.append(float(weight))
    assert seen == [-1.0, -1.5, -2.0]
