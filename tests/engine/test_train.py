"""Training follows its loss step by step, repeats for a seed, keeps the best epoch and leaves its input alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from toolkit.engine.hold import hold
from toolkit.engine.train import Teaching, Watch, fit
from toolkit.errors import InputError


def net(width: int = 4, *, head: str | None = "softmax", seed: int = 0) -> Any:
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(width, 3, name="conv")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(3, activation=head, name="answer")(x))


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    """Three classes that differ in brightness."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 96)
    return (rng.normal(size=(96, 8, 8, 1)) * 0.5 + labels[:, None, None, None]).astype("float32"), labels


@pytest.fixture(scope="module")
def student() -> Any:
    return net()


@pytest.fixture(scope="module")
def teacher(data: tuple[Any, Any]) -> Any:
    return fit(net(8, seed=5), None, *data, how=Teaching(epochs=20, batch_size=16, learning_rate=0.02)).model


def accuracy(model: Any, images: Any, labels: Any) -> float:
    return float((np.asarray(model(images)).argmax(axis=1) == labels).mean())


def weights(model: Any) -> list[Any]:
    return [weight.copy() for weight in model.get_weights()]


def equal(one: list[Any], two: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_student_learns_from_the_teacher_alone(data: tuple[Any, Any], student: Any, teacher: Any) -> None:
    """With alpha = 1 the labels count for nothing: wrong ones are given."""
    images, labels = data
    before = weights(student), weights(teacher)
    how = Teaching(epochs=25, batch_size=16, learning_rate=0.02, alpha=1.0)
    result = fit(student, teacher, images, (labels + 1) % 3, how=how)
    assert accuracy(student, images, labels) < 0.6
    assert accuracy(teacher, images, labels) > 0.9
    agreement = np.asarray(result.model(images)).argmax(axis=1) == np.asarray(teacher(images)).argmax(axis=1)
    assert agreement.mean() > 0.9
    assert equal(before[0], weights(student)) and equal(before[1], weights(teacher))
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in student.layers]
    np.testing.assert_allclose(np.asarray(result.model(images)).sum(axis=1), 1.0, rtol=1e-5)  # a softmax again
    assert len(result.curves["loss"]) == 25 and result.curves["loss"][-1] < result.curves["loss"][0] / 2


@pytest.mark.parametrize("augment", ["none", "flip_shift"])
def test_same_seed_gives_the_same_weights(data: tuple[Any, Any], student: Any, teacher: Any, augment: str) -> None:
    def trained(seed: int) -> list[Any]:
        how = Teaching(epochs=2, batch_size=32, augment=augment, seed=seed)
        return weights(fit(student, teacher, *data, how=how).model)

    one = trained(1)
    assert equal(one, trained(1)) and not equal(one, trained(2))


@pytest.mark.slow
def test_same_seed_gives_the_same_weights_of_a_large_network() -> None:
    """Its graph is one of those whose gradients TensorFlow's memory optimizer adds in the order threads finish."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2((96, 96, 3), alpha=1.0, weights=None, classes=4)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(192, 96, 96, 3)).astype("float32"), rng.integers(0, 4, 192)
    how = Teaching(epochs=2, batch_size=64)
    assert equal(*(weights(fit(model, None, images, labels, how=how).model) for _ in range(2)))


def test_graph_optimizer_is_as_before_after_training(data: tuple[Any, Any], student: Any) -> None:
    before = tf.config.optimizer.get_experimental_options()
    fit(student, None, *data, how=Teaching(epochs=1))
    assert tf.config.optimizer.get_experimental_options() == before
    with pytest.raises(InputError):
        fit(student, None, data[0] * np.nan, data[1], how=Teaching(epochs=1))
    assert tf.config.optimizer.get_experimental_options() == before


def test_one_step_is_adam_on_the_loss_worked_out_by_hand() -> None:
    """Linear student z = w x: with one step, Adam moves each weight by the rate against the sign of its gradient."""
    image = keras.Input((2,), name="x")
    student = keras.Model(image, layers.Dense(2, use_bias=False, activation="softmax", name="answer")(image))
    teacher = keras.models.clone_model(student)
    student.set_weights([np.array([[0.5, -0.5], [0.0, 0.2]], "float32")])
    teacher.set_weights([np.array([[2.0, -1.0], [1.0, 0.0]], "float32")])
    images, labels, heat, alpha = np.array([[1.0, 2.0], [-1.0, 0.5]]), np.array([0, 1]), 4.0, 0.8

    def soft(logits: Any) -> Any:
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    s, t = (images @ np.asarray(model.weights[0]) for model in (student, teacher))
    apart = alpha * heat * (soft(s / heat) - soft(t / heat)) + (1 - alpha) * (soft(s) - np.eye(2)[labels])
    gradient = images.T @ apart / 2
    how = Teaching(epochs=1, batch_size=2, learning_rate=0.01, temperature=heat, alpha=alpha)
    result = fit(student, teacher, images.astype("float32"), labels, how=how)
    moved = np.asarray(result.model.weights[0]) - np.asarray(student.weights[0])
    np.testing.assert_allclose(moved, -0.01 * np.sign(gradient), rtol=1e-3)
    p, q = soft(t / heat), soft(s / heat)
    value = alpha * heat**2 * (p * np.log(p / q)).sum(axis=1) + (1 - alpha) * -np.log(soft(s)[[0, 1], labels])
    assert result.curves["loss"] == (pytest.approx(value.mean(), rel=1e-4),)


def test_known_answers_of_the_teacher_change_nothing(
    data: tuple[Any, Any], student: Any, teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = Teaching(epochs=2, batch_size=32)
    known = fit(student, teacher, *data, how=how)
    monkeypatch.setattr("toolkit.engine.train.MOST_ANSWERS", 0)
    asked = fit(student, teacher, *data, how=how)
    assert known.curves["loss"] == pytest.approx(asked.curves["loss"], rel=1e-3)


@pytest.mark.parametrize("augment", ["none", "shift"])
def test_images_on_disk_train_like_those_in_memory(
    data: tuple[Any, Any], student: Any, teacher: Any, augment: str
) -> None:
    mapped = hold(iter([data[0]]), len(data[0]), limit=0).rows
    how = Teaching(epochs=2, batch_size=32, augment=augment)
    one, two = (fit(student, teacher, images, data[1], how=how).model for images in (data[0], mapped))
    assert isinstance(mapped, np.memmap) and equal(weights(one), weights(two))


def test_best_epoch_is_kept_the_later_of_equals(data: tuple[Any, Any], student: Any) -> None:
    seen: list[list[Any]] = []
    scores = iter([0.2, 0.9, 0.3, 0.9, 0.1])

    def evaluate(model: Any) -> float:
        seen.append(weights(model))
        return next(scores)

    result = fit(student, None, *data, how=Teaching(epochs=4), evaluate=evaluate)
    assert (result.best_epoch, result.before) == (3, 0.2)
    assert result.curves["selection_accuracy"] == (0.9, 0.3, 0.9, 0.1)
    assert equal(weights(result.model), seen[3]) and not equal(seen[3], seen[4]) and equal(seen[0], weights(student))


def test_model_as_it_came_is_kept_when_no_epoch_is_as_good(data: tuple[Any, Any], student: Any) -> None:
    scores = iter([0.5, 0.4, 0.3])
    result = fit(student, None, *data, how=Teaching(epochs=2), evaluate=lambda model: next(scores))
    assert result.best_epoch == 0 and equal(weights(result.model), weights(student))


def test_patience_ends_training_after_epochs_without_a_rise(data: tuple[Any, Any], student: Any) -> None:
    scores = iter([0.1, 0.5, 0.5, 0.5, 0.9])
    how = Teaching(epochs=9, patience=2)
    result = fit(student, None, *data, how=how, evaluate=lambda model: next(scores))
    assert len(result.curves["loss"]) == 3 and result.best_epoch == 3


def test_watch_hears_of_every_epoch(data: tuple[Any, Any], student: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.engine.train.SECOND", -1.0)
    epochs: list[Any] = []
    steps: list[Any] = []
    watch = Watch(lambda *found: epochs.append(found), lambda *found: steps.append(found))
    result = fit(student, None, *data, how=Teaching(epochs=2, batch_size=32), watch=watch)
    assert epochs == [(1, result.curves["loss"][0], None), (2, result.curves["loss"][1], None)]
    assert steps == [(number, pytest.approx(done / 3)) for number in (1, 2) for done in (1, 2, 3)]


def test_regularizers_of_the_layers_shrink_their_weights() -> None:
    image = keras.Input((2,), name="x")
    model = keras.Model(image, layers.Dense(2, kernel_regularizer=keras.regularizers.L2(10.0))(image))
    how = Teaching(epochs=100, batch_size=4, learning_rate=0.1, head="logits")
    result = fit(model, None, np.zeros((4, 2), "float32"), np.array([0, 1, 0, 1]), how=how)
    assert np.abs(result.model.layers[-1].kernel).max() < 0.1 * np.abs(model.layers[-1].kernel).max()


def test_divergence_is_one_line_that_names_the_rate(data: tuple[Any, Any], student: Any) -> None:
    images, labels = data
    broken = images.copy()
    broken[0] = np.nan
    with pytest.raises(InputError, match=r"the loss is nan in epoch 1\. Fix: lower learning_rate, got 0\.001"):
        fit(student, None, broken, labels, how=Teaching(epochs=1))


@pytest.mark.parametrize("wrong", [3, -1])
def test_labels_without_a_class_are_refused(data: tuple[Any, Any], student: Any, wrong: int) -> None:
    labels = data[1].copy()
    labels[0] = wrong
    with pytest.raises(InputError, match="the model has 3 classes"):
        fit(student, None, data[0], labels, how=Teaching(epochs=1))
