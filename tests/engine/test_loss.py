"""The distillation loss equals an independent NumPy one, and small cases worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from toolkit.engine.loss import Target, agreed, as_logits, balanced, from_labels, from_teacher, parts, raw, total


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def distillation(student: Any, teacher: Any, labels: Any, *, temperature: float, alpha: float) -> Any:
    return total(student, teacher, labels, head="logits", target=Target(temperature, alpha))


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


# ---------------------------------------------------------------- other heads and options, by hand


def test_smoothing_gives_all_classes_their_share() -> None:
    """p = (3/4, 1/4), label 0, a tenth shared: 0.9 ln(4/3) + 0.1 (ln(4/3) + ln 4) / 2."""
    logits = tf.constant([[math.log(3), 0.0]])
    found = from_labels(logits, tf.constant([0]), "logits", Target(smoothing=0.1))
    wanted = 0.9 * math.log(4 / 3) + 0.1 * (math.log(4 / 3) + math.log(4)) / 2
    np.testing.assert_allclose(found, [wanted], rtol=1e-6)


def test_class_weights_scale_each_images_loss() -> None:
    logits = tf.zeros((2, 2))
    found = from_labels(logits, tf.constant([0, 1]), "logits", Target(class_weights=(3.0, 0.5)))
    np.testing.assert_allclose(found, [3 * math.log(2), 0.5 * math.log(2)], rtol=1e-6)


def test_balanced_weights_by_hand() -> None:
    """Six images, three classes: 6 / (3 * 4), 6 / (3 * 2), and nothing for the class that has none."""
    assert balanced(np.array([0, 0, 0, 0, 1, 1]), 3) == (0.5, 1.0, 0.0)


def test_several_labels_by_hand() -> None:
    """Logits (0, ln 3) are (1/2, 3/4); labels (1, 0) cost (ln 2 + ln 4) / 2; smoothed by 0.2: labels (0.9, 0.1)."""
    logits, labels = tf.constant([[0.0, math.log(3)]]), tf.constant([[1, 0]], tf.uint8)
    found = from_labels(logits, labels, "label_logits", Target())
    np.testing.assert_allclose(found, [(math.log(2) + math.log(4)) / 2], rtol=1e-6)
    found = from_labels(logits, labels, "label_logits", Target(smoothing=0.2))
    second = 0.1 * math.log(4 / 3) + 0.9 * math.log(4)
    np.testing.assert_allclose(found, [(math.log(2) + second) / 2], rtol=1e-6)
    weighted = from_labels(logits, labels, "label_logits", Target(class_weights=(2.0, 0.0)))
    np.testing.assert_allclose(weighted, [math.log(2)], rtol=1e-6)


def test_probabilities_of_several_labels_are_the_logits_they_come_from() -> None:
    np.testing.assert_allclose(raw(tf.constant([[0.5, 0.75]]), "sigmoids"), [[0.0, math.log(3)]], rtol=1e-5, atol=1e-6)


def test_teacher_of_several_labels_by_hand() -> None:
    """At T = 2 logits 2 ln 3 and 0 are 3/4 and 1/2: 4 KL(3/4 || 1/2), half of it where the other label agrees."""
    teacher, student = tf.constant([[2 * math.log(3), 0.0]]), tf.zeros((1, 2))
    apart = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    found = from_teacher(student, teacher, "label_logits", Target(temperature=2.0))
    np.testing.assert_allclose(found, [4 * apart / 2], rtol=1e-5)
    np.testing.assert_allclose(from_teacher(teacher, teacher, "label_logits", Target()), [0.0], atol=1e-6)


@pytest.mark.parametrize(("errors", "wanted"), [("squared", [2.5]), ("absolute", [1.5])])
def test_regression_by_hand(errors: str, wanted: list[float]) -> None:
    """Off by 1 and 2."""
    values, labels = tf.constant([[1.0, 5.0]]), tf.constant([[2.0, 3.0]])
    np.testing.assert_allclose(from_labels(values, labels, "regression", Target(errors=errors)), wanted)


def test_regression_takes_labels_of_one_column_without_a_dimension() -> None:
    found = from_labels(tf.constant([[1.0], [2.0]]), tf.constant([1.0, 4.0]), "regression", Target())
    np.testing.assert_allclose(found, [0.0, 4.0])


@pytest.mark.parametrize(("closeness", "wanted"), [("cosine", 1 - 24 / 25), ("squared", 1.0)])
def test_embedding_by_hand(closeness: str, wanted: float) -> None:
    """(3, 4) and (4, 3): cosine 24/25, squared distance 1 for each column."""
    found = from_teacher(tf.constant([[3.0, 4.0]]), tf.constant([[4.0, 3.0]]), "embedding", Target(closeness=closeness))
    np.testing.assert_allclose(found, [wanted], rtol=1e-5)


def test_teacher_and_labels_share_the_loss_of_a_regression() -> None:
    """A quarter of (1 - 3)^2 to the teacher, three quarters of (1 - 2)^2 to the label."""
    given = (tf.constant([[1.0]]), tf.constant([[3.0]]), tf.constant([[2.0]]))
    assert float(total(*given, head="regression", target=Target(alpha=0.25))) == pytest.approx(0.25 * 4 + 0.75)


def test_labels_alone_say_nothing_of_an_embedding() -> None:
    with pytest.raises(ValueError, match="no loss from labels"):
        from_labels(tf.zeros((1, 2)), tf.constant([0]), "embedding", Target())


# ---------------------------------------------------------------- logits by squared error, several teachers

KINDS = [("logits", "kl"), ("logits", "mse"), ("label_logits", "kl"), ("label_logits", "mse"), ("regression", "kl")]


def test_kl_is_that_of_keras() -> None:
    student, teacher = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
    """Given as an object: by its name, the default, Keras 3.15 takes it of the logits themselves."""
    theirs = keras.distillation.LogitsDistillation(temperature=3.0, loss=keras.losses.KLDivergence())
    wanted = theirs.compute_loss(teacher, student)
    found = from_teacher(tf.constant(student), tf.constant(teacher), "logits", Target(3.0))
    assert float(tf.reduce_mean(found)) == pytest.approx(float(wanted), rel=1e-4)


def test_squared_error_of_logits_by_hand() -> None:
    """(3, 1) and (0, 2) are (1, -1) and (-1, 1) about their means: 4 for each class."""
    given = tf.constant([[3.0, 1.0]]), tf.constant([[0.0, 2.0]])
    np.testing.assert_allclose(from_teacher(*given, "logits", Target(divergence="mse")), [4.0])
    np.testing.assert_allclose(from_teacher(*given, "label_logits", Target(divergence="mse")), [(9 + 1) / 2])


def test_hot_kl_is_half_the_squared_error_of_logits() -> None:
    """Hinton et al. 2015, section 2.1."""
    student, teacher = (tf.constant(rows, tf.float32) for rows in np.random.default_rng(0).normal(size=(2, 5, 4)))
    hot = from_teacher(student, teacher, "logits", Target(temperature=100.0))
    np.testing.assert_allclose(hot, from_teacher(student, teacher, "logits", Target(divergence="mse")) / 2, rtol=0.05)


def test_teacher_that_gives_probabilities_asks_the_same_by_squared_error() -> None:
    student, logits = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    target = Target(divergence="mse")
    one = from_teacher(tf.constant(student), tf.constant(logits), "logits", target)
    two = from_teacher(tf.constant(student), raw(tf.constant(softmax(logits)), "softmax"), "logits", target)
    np.testing.assert_allclose(one, two, rtol=1e-4)


@pytest.mark.parametrize(("head", "divergence"), KINDS)
def test_several_teachers_pull_like_the_weighted_sum_of_their_losses(head: str, divergence: str) -> None:
    rng = np.random.default_rng(0)
    student = tf.Variable(rng.normal(size=(5, 3)), dtype=tf.float32)
    teachers = [tf.constant(rows, tf.float32) for rows in rng.normal(0, 3, size=(3, 5, 3))]
    weights, target = (0.5, 0.3, 0.2), Target(2.0, 1.0, divergence=divergence)
    with tf.GradientTape(persistent=True) as tape:
        losses = [tf.reduce_mean(from_teacher(student, rows, head, target)) for rows in teachers]
        apart = tf.add_n([weight * loss for weight, loss in zip(weights, losses, strict=True)])
        together = tf.reduce_mean(from_teacher(student, agreed(teachers, weights, head, target), head, target))
    one, two = (tape.gradient(value, student) for value in (apart, together))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    assert float(together) < float(apart)


def test_agreement_by_hand() -> None:
    """(3/4, 1/4) and (1/4, 3/4), the first three times as weighty: (5/8, 3/8)."""
    rows = [tf.constant([[math.log(3), 0.0]]), tf.constant([[0.0, math.log(3)]])]
    found = tf.nn.softmax(agreed(rows, (0.75, 0.25), "logits", Target(temperature=1.0)))
    np.testing.assert_allclose(found, [[5 / 8, 3 / 8]], rtol=1e-6)
    found = tf.sigmoid(agreed(rows, (0.75, 0.25), "label_logits", Target(temperature=1.0)))
    np.testing.assert_allclose(found, [[0.75 * 0.75 + 0.25 * 0.5, 0.75 * 0.5 + 0.25 * 0.75]], rtol=1e-6)
    directions = [tf.constant([[2.0, 0.0]]), tf.constant([[0.0, 7.0]])]
    np.testing.assert_allclose(agreed(directions, (0.5, 0.5), "embedding", Target()), [[0.5, 0.5]], rtol=1e-6)


def test_parts_add_up_to_the_whole() -> None:
    given = (tf.constant([[1.0, 0.0]]), tf.constant([[0.0, 2.0]]), tf.constant([1]))
    found = parts(*given, head="logits", target=Target(alpha=0.3))
    assert set(found) == {"teacher", "labels"}
    assert sum(map(float, found.values())) == pytest.approx(float(distillation(*given, temperature=4.0, alpha=0.3)))
    assert set(parts(*given, head="logits", target=Target(alpha=1.0))) == {"teacher"}
