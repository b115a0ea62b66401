"""The distillation loss equals an independent NumPy one, and small cases worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from toolkit.engine.loss import as_logits, distillation


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_loss_by_hand() -> None:
    """Teacher (ln 3, 0), student (0, 0), label 0, T = 1: KL = 3/4 ln(3/2) + 1/4 ln(1/2), CE = ln 2."""
    student, teacher = tf.zeros((1, 2)), tf.constant([[math.log(3), 0.0]])
    apart = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    found = distillation(student, teacher, tf.constant([0]), temperature=1.0, alpha=0.25)
    assert float(found) == pytest.approx(0.25 * apart + 0.75 * math.log(2), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_loss_equals_an_independent_one(alpha: float, temperature: float) -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(0, 5, (6, 4)), rng.normal(0, 5, (6, 4))
    labels = rng.integers(0, 4, 6)
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    soft = (p * (np.log(p) - np.log(q))).sum(axis=1)
    hard = -np.log(softmax(student)[np.arange(6), labels])
    wanted = (alpha * temperature**2 * soft + (1 - alpha) * hard).mean()
    given = (tf.constant(array, tf.float32) for array in (student, teacher))
    found = distillation(*given, tf.constant(labels), temperature=temperature, alpha=alpha)
    assert float(found) == pytest.approx(wanted, rel=1e-4)


def test_soft_gradient_is_that_of_hinton_at_any_temperature() -> None:
    """d/ds of T^2 KL is T (q - p); it tends to centred s - t over the classes at high temperature (section 2.1)."""
    student, teacher = tf.Variable([[1.0, -2.0, 0.5]]), tf.constant([[0.0, 1.0, -3.0]])
    with tf.GradientTape() as tape:
        value = distillation(student, teacher, tf.constant([0]), temperature=1000.0, alpha=1.0)
    apart = student.numpy() - teacher.numpy()
    np.testing.assert_allclose(tape.gradient(value, student), (apart - apart.mean()) / 3, atol=0.01)


def test_probabilities_are_the_logits_they_come_from_up_to_a_constant() -> None:
    logits = np.array([[0.0, 30.0, -25.0], [5.0, -5.0, 1.0]])
    found = as_logits(tf.constant(softmax(logits), tf.float32), "softmax").numpy()
    np.testing.assert_allclose(found - found[:, :1], logits - logits[:, :1], rtol=1e-4)


@pytest.mark.parametrize(("head", "value"), [("logits", 2.0), ("sigmoid", 1 / (1 + math.exp(-2.0)))])
def test_one_column_is_two_classes(head: str, value: float) -> None:
    np.testing.assert_allclose(as_logits(tf.constant([[value]]), head), [[0.0, 2.0]], rtol=1e-5)


def test_impossible_classes_give_no_nan() -> None:
    outputs = tf.Variable([[1.0, 0.0]])
    with tf.GradientTape() as tape:
        value = distillation(
            as_logits(outputs, "softmax"), tf.constant([[0.0, 9.0]]), tf.constant([1]), temperature=4.0, alpha=0.5
        )
    assert np.isfinite(float(value)) and np.isfinite(tape.gradient(value, outputs)).all()
