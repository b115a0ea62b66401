"""Training follows its loss step by step, repeats for a seed, keeps the best epoch and leaves its input alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from toolkit.engine.checkpoint import Checkpoint
from toolkit.engine.hold import hold
from toolkit.engine.loss import Target
from toolkit.engine.schedule import Schedule
from toolkit.engine.teaching import Precision, Teaching
from toolkit.engine.train import Watch, fit
from toolkit.engine.views import Views
from toolkit.errors import InputError


def net(width: int = 4, *, head: str | None = "softmax", seed: int = 0, dropout: str | None = None) -> Any:
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(width, 3, name="conv")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Dropout(0.2, name=dropout)(layers.GlobalAveragePooling2D()(x))
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
    how = Teaching(epochs=25, batch_size=16, learning_rate=0.02, target=Target(alpha=1.0))
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
    how = Teaching(epochs=1, batch_size=2, learning_rate=0.01, target=Target(heat, alpha))
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
    monkeypatch.setattr("toolkit.engine.asking.MOST_ANSWERS", 0)
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


def test_least_loss_is_kept_where_epochs_are_judged_by_it(data: tuple[Any, Any], student: Any) -> None:
    losses = iter([0.5, 0.2, 0.4, 0.2, 0.3, 0.3, 0.1])
    how = Teaching(epochs=9, patience=4, judged_by="loss")
    result = fit(student, None, *data, how=how, evaluate=lambda model: next(losses))
    assert (result.best_epoch, result.before) == (3, 0.5)
    assert result.curves["selection_loss"] == (0.2, 0.4, 0.2, 0.3, 0.3) and "selection_accuracy" not in result.curves


def test_watch_hears_of_every_epoch(data: tuple[Any, Any], student: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.engine.step.SECOND", -1.0)
    epochs: list[Any] = []
    steps: list[Any] = []
    watch = Watch(epoch=lambda *found: epochs.append(found), step=lambda *found: steps.append(found[:2]))
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


# ---------------------------------------------------------------- layers that stay, views, checkpoints, precision


def moving(model: Any) -> list[Any]:
    return [np.asarray(weight) for weight in model.get_layer("norm").weights]


def test_frozen_layers_stay_as_they_are_statistics_and_dropout_too(data: tuple[Any, Any], student: Any) -> None:
    """With everything but the last layer frozen it trains as that layer alone on the features of inference."""
    how = Teaching(epochs=3, batch_size=16, learning_rate=0.02, frozen=frozenset(("conv", "norm", "dropout")))
    frozen = net(dropout="dropout")
    frozen.set_weights(student.get_weights())
    result = fit(frozen, None, *data, how=how)
    for name in ("conv", "norm"):
        assert equal(frozen.get_layer(name).get_weights(), result.model.get_layer(name).get_weights())
    still = keras.Model(frozen.inputs[0], frozen.get_layer("dropout").input)
    features = np.asarray(still(data[0]))
    image = keras.Input(features.shape[1:], name="features")
    head = keras.Model(image, layers.Dense(3, activation="softmax", name="answer")(image))
    head.set_weights(frozen.get_layer("answer").get_weights())
    alone = fit(head, None, features, data[1], how=Teaching(epochs=3, batch_size=16, learning_rate=0.02))
    for one, two in zip(result.model.get_layer("answer").get_weights(), alone.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


def test_layers_that_are_not_frozen_learn_beside_frozen_statistics(data: tuple[Any, Any], student: Any) -> None:
    result = fit(student, None, *data, how=Teaching(epochs=1, frozen=frozenset(("norm",))))
    assert equal(moving(student), moving(result.model))
    assert not equal(student.get_layer("conv").get_weights(), result.model.get_layer("conv").get_weights())
    free = fit(student, None, *data, how=Teaching(epochs=1))
    assert not equal(moving(student), moving(free.model))


def test_model_that_was_trained_on_views_has_none_of_their_layers(data: tuple[Any, Any], student: Any) -> None:
    """Its graph is the student's; what it gives is what the trained network gives in inference."""
    how = Teaching(epochs=2, batch_size=32, views=Views(flip="horizontal", rotation=10, brightness=0.1))
    seen: list[Any] = []
    result = fit(student, None, *data, how=how, evaluate=lambda model: seen.append(np.asarray(model(data[0]))) or 0.0)
    kinds = [type(layer).__name__ for layer in result.model.layers]
    assert kinds == [type(layer).__name__ for layer in student.layers]
    assert not [name for name in kinds if name.startswith("Random") or name == "Rescaling"]
    np.testing.assert_array_equal(np.asarray(result.model(data[0])), seen[-1])
    plain = fit(student, None, *data, how=replace(how, views=Views()))
    assert not equal(weights(result.model), weights(plain.model))


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adamw"])
def test_training_that_was_stopped_and_taken_up_ends_bit_for_bit_as_one_that_was_not(
    data: tuple[Any, Any], student: Any, tmp_path: Path, optimizer: str
) -> None:
    """Stopped after epoch 2 of 4, with dropout, views, BatchNormalization and a best epoch before the stop."""
    how = Teaching(
        epochs=4,
        batch_size=32,
        learning_rate=0.01,
        optimizer=optimizer,
        views=Views(shift=0.2, contrast=0.2),
        schedule=Schedule("cosine", warmup_epochs=1),
    )
    scores = [0.1, 0.3, 0.9, 0.4, 0.5]

    def evaluate() -> Any:
        left = iter(scores)
        return lambda model: next(left)

    whole = fit(student, None, *data, how=how, evaluate=evaluate())
    place, told = Checkpoint(tmp_path / "train.npz", "a"), list[int]()

    def stop(number: int, loss: float, score: float | None) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(student, None, *data, how=how, evaluate=evaluate(), watch=Watch(epoch=stop), checkpoint=place)
    later = iter(scores[3:])
    watch = Watch(begin=told.append)
    result = fit(student, None, *data, how=how, evaluate=lambda model: next(later), watch=watch, checkpoint=place)
    assert told == [2] and result.best_epoch == whole.best_epoch == 2
    assert result.curves == whole.curves and equal(weights(result.model), weights(whole.model))


def test_last_epoch_after_a_stop_is_that_of_a_training_without_one(
    data: tuple[Any, Any], student: Any, tmp_path: Path
) -> None:
    how, place = Teaching(epochs=4, batch_size=32, learning_rate=0.01), Checkpoint(tmp_path / "train.npz", "a")

    def stop(number: int, loss: float, score: float | None) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(student, None, *data, how=how, watch=Watch(epoch=stop), checkpoint=place)
    taken_up = fit(student, None, *data, how=how, checkpoint=place)
    whole = fit(student, None, *data, how=how)
    assert equal(weights(taken_up.model), weights(whole.model)) and taken_up.curves == whole.curves
    again = fit(student, None, *data, how=how, checkpoint=place)  # finished: nothing is left to do
    assert equal(weights(again.model), weights(whole.model))


def test_checkpoint_of_another_training_is_not_taken_up(data: tuple[Any, Any], student: Any, tmp_path: Path) -> None:
    told: list[int] = []
    for key in ("a", "b"):
        place = Checkpoint(tmp_path / "train.npz", key)
        fit(student, None, *data, how=Teaching(epochs=1), watch=Watch(begin=told.append), checkpoint=place)
    assert told == [0, 0]


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_trains_and_gives_back_float32(
    data: tuple[Any, Any], student: Any, precision: Precision
) -> None:
    how = Teaching(epochs=8, batch_size=16, learning_rate=0.02, precision=precision)
    result = fit(student, None, *data, how=how)
    assert {layer.compute_dtype for layer in result.model.layers} == {"float32"}
    assert {weight.dtype for weight in result.model.weights} == {"float32"}
    assert result.curves["loss"][-1] < result.curves["loss"][0]
    plain = fit(student, None, *data, how=replace(how, precision="float32"))
    assert result.curves["loss"][0] == pytest.approx(plain.curves["loss"][0], rel=0.05)


def test_learning_rate_curve_is_the_mean_of_each_epoch(data: tuple[Any, Any], student: Any) -> None:
    how = Teaching(epochs=2, batch_size=48, learning_rate=0.8, schedule=Schedule("cosine"))
    found = fit(student, None, *data, how=how).curves["learning_rate"]  # two steps an epoch
    assert found == (pytest.approx((0.8 + 0.4 * (1 + 0.5**0.5)) / 2), pytest.approx((0.4 + 0.4 * (1 - 0.5**0.5)) / 2))


@pytest.mark.parametrize(
    ("head", "activation", "labels"),
    [
        ("sigmoids", "sigmoid", lambda y: np.eye(3, dtype=np.uint8)[y]),
        ("regression", None, lambda y: np.stack([y, -y, 2.0 * y], axis=1).astype(np.float32)),
    ],
)
def test_labels_and_values_are_learned(data: tuple[Any, Any], head: str, activation: str | None, labels: Any) -> None:
    how = Teaching(epochs=30, batch_size=16, learning_rate=0.03, head=head)
    wanted = labels(data[1])
    result = fit(net(8, head=activation), None, data[0], wanted, how=how)
    found = np.asarray(result.model(data[0]))
    if head == "sigmoids":
        assert ((found > 0.5) == wanted).mean() > 0.85
    else:
        assert np.abs(found - wanted).mean() < 0.5 * np.abs(wanted - wanted.mean(axis=0)).mean()
    with pytest.raises(InputError, match=r"labels have shape \(96, 2\), the model has 3 outputs"):
        fit(net(head=activation), None, data[0], wanted[:, :2], how=how)


def test_embedding_is_taught_without_labels(data: tuple[Any, Any], teacher: Any) -> None:
    """Its labels are of no model's shape and are not looked at."""
    master = keras.Model(teacher.inputs[0], teacher.layers[-2].output)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu", name="conv")(image))
    student = keras.Model(image, layers.Dense(8, name="answer")(x))
    how = Teaching(epochs=30, batch_size=16, learning_rate=0.03, head="embedding", target=Target(alpha=1.0))
    result = fit(student, master, data[0], np.full((96, 2), 99), how=how)

    def likeness(model: Any) -> float:
        one, two = np.asarray(model(data[0])), np.asarray(master(data[0]))
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
        return float(((one * two).sum(axis=1) / lengths).mean())

    assert likeness(result.model) > 0.9 > likeness(student)
    assert result.curves["loss"][-1] == pytest.approx(1 - likeness(result.model), abs=0.05)
