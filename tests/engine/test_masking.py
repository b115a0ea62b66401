"""Zeros survive every optimizer, half precision, a stop and a kill; where they are is worked out step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine import schedule as rates
from toolkit.engine.checkpoint import Checkpoint
from toolkit.engine.loss import Target
from toolkit.engine.sparsity import Pattern, Schedule, Sparsity, kept, masks_for, over, sparsified
from toolkit.engine.step import Batches
from toolkit.engine.teaching import Precision, Teaching
from toolkit.engine.train import Watch, fit
from toolkit.engine.views import Views

NAMES = ("conv", "separable", "answer")


@pytest.fixture(scope="module")
def student() -> Any:
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, use_bias=False, name="conv")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.SeparableConv2D(8, 3, activation="relu", name="separable")(x)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(3, activation="softmax", name="answer")(x))


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 96)
    return (rng.normal(size=(96, 8, 8, 1)) * 0.5 + labels[:, None, None, None]).astype("float32"), labels


def kernels(model: Any) -> dict[str, Any]:
    found = model.get_layer("separable")
    own = {name: np.asarray(model.get_layer(name).kernel) for name in ("conv", "answer")}
    return {**own, "separable": np.asarray(found.pointwise_kernel)}


def polynomial(steps: int, **more: Any) -> Sparsity:
    return Sparsity(NAMES, schedule=over(steps, 0.7, **more))


def teaching(epochs: int = 3, **more: Any) -> Teaching:
    return Teaching(epochs=epochs, batch_size=16, learning_rate=0.02, sparsity=polynomial(6 * epochs), **more)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_zeros_are_as_many_as_asked_for_under_every_optimizer(
    data: tuple[Any, Any], student: Any, optimizer: str, precision: Precision
) -> None:
    result = fit(student, None, *data, how=teaching(optimizer=optimizer, precision=precision))
    for name, kernel in kernels(result.model).items():
        assert np.count_nonzero(kernel) == kept(kernel.size, 0.7), name
        assert not np.signbit(kernel[kernel == 0]).any()  # plain zeros: bits that compress
    assert np.count_nonzero(result.model.get_layer("separable").depthwise_kernel) == 54


def test_zeros_that_the_model_came_with_stay_and_the_others_learn(data: tuple[Any, Any], student: Any) -> None:
    sparse = sparsified(student, polynomial(1), 0.7)
    how = replace(teaching(), sparsity=Sparsity(NAMES), learning_rate=0.05, optimizer="sgd")
    before, after = kernels(sparse), kernels(fit(sparse, None, *data, how=how).model)
    for name, kernel in before.items():
        assert np.array_equal(kernel == 0, after[name] == 0) and np.count_nonzero(kernel) == kept(kernel.size, 0.7)
        assert (kernel != after[name])[kernel != 0].mean() > 0.8  # a ReLU may be off


def test_two_of_four_are_chosen_once_and_stay(data: tuple[Any, Any], student: Any) -> None:
    pattern = Pattern.parse("2:4")
    zeros = Sparsity(("separable", "answer"), pattern, Schedule(0.5, curve="constant", frequency=1))
    wanted = masks_for({name: kernels(student)[name] for name in zeros.layers}, 0.0, pattern)
    found = kernels(fit(student, None, *data, how=replace(teaching(), sparsity=zeros)).model)
    for name in zeros.layers:
        assert np.array_equal(found[name] != 0, wanted[name])
    assert np.count_nonzero(found["conv"]) == found["conv"].size


def test_masks_and_weights_are_those_of_the_steps_done_by_hand() -> None:
    """Momentum moves masked weights too; one may come back where masks are due, and nowhere else.

    Nesterov's step as Keras has it: velocity = m * velocity - rate * gradient, w += m * velocity - rate * gradient.
    """
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(24, 10)).astype("float32"), rng.integers(0, 3, 24)
    schedule = Schedule(0.6, 0.2, begin=2, end=8, frequency=2)
    image = keras.Input((10,), name="x")
    student = keras.Model(image, layers.Dense(3, use_bias=False, activation="softmax", name="answer")(image))
    weight = rng.normal(size=(10, 3)).astype("float32") * 0.3
    student.set_weights([weight])
    how = Teaching(
        epochs=3,
        batch_size=6,
        learning_rate=0.5,
        target=Target(alpha=0.0),
        schedule=rates.Schedule("constant"),
        optimizer="sgd",
        momentum=0.9,
        sparsity=Sparsity(("answer",), schedule=schedule),
    )
    mask, velocity, step, returned = np.ones_like(weight, bool), np.zeros_like(weight), 0, 0
    for epoch in (1, 2, 3):
        for rows in Batches(images, labels, 6, how.seed).rows(epoch):
            step += 1
            if step in (2, 4, 6, 8):
                share = 0.6 - 0.4 * (1 - (step - 2) / 6) ** 3
                order = np.argsort(-np.abs(weight).ravel(), kind="stable")[: round(30 * (1 - share))]
                chosen = np.isin(np.arange(30), order).reshape(10, 3)
                returned += int((chosen & ~mask).sum())
                mask = chosen
            weight = weight * mask
            scores = np.exp(images[rows] @ weight)
            scores /= scores.sum(axis=1, keepdims=True)
            gradient = images[rows].T @ (scores - np.eye(3)[labels[rows]]) / 6
            velocity = 0.9 * velocity - 0.5 * gradient
            weight = weight + 0.9 * velocity - 0.5 * gradient
        weight = weight * mask
    found = fit(student, None, images, labels, how=how).model.get_layer("answer").get_weights()[0]
    assert np.array_equal(found != 0, mask) and returned > 0
    np.testing.assert_allclose(found, weight, atol=2e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_taken_up_between_two_masks_ends_bit_for_bit_as_one_never_stopped(
    data: tuple[Any, Any], student: Any, tmp_path: Path, optimizer: str
) -> None:
    """Stopped after epoch 2 of 4; masks are due at steps 1, 6, 11, 16, 21, an epoch has 6."""
    zeros = polynomial(24, end=0.9, frequency=5)
    assert [step for step in range(25) if zeros.schedule and zeros.schedule.is_due(step)] == [1, 6, 11, 16, 21]
    how = replace(teaching(4, optimizer=optimizer, views=Views(shift=0.2)), sparsity=zeros)
    whole, place = fit(student, None, *data, how=how), Checkpoint(tmp_path / "train.npz", "a")

    def stop(number: int, loss: float, score: float | None) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(student, None, *data, how=how, watch=Watch(epoch=stop), checkpoint=place)
    taken_up = fit(student, None, *data, how=how, checkpoint=place)
    for one, two in zip(whole.model.get_weights(), taken_up.model.get_weights(), strict=True):
        assert np.array_equal(one, two)
    assert taken_up.curves == whole.curves


def test_only_epochs_with_all_zeros_count(data: tuple[Any, Any], student: Any) -> None:
    """Six steps an epoch and masks until step 9: the second epoch is the first that counts, whatever the first is."""
    scores, shares = iter([0.99, 0.98, 0.5, 0.6, 0.4]), list[float]()

    def evaluate(model: Any) -> float:
        shares.append(float(np.mean(kernels(model)["conv"] == 0)))
        return next(scores)

    how = replace(teaching(9), sparsity=polynomial(18, frequency=4), patience=1)
    result = fit(student, None, *data, how=how, evaluate=evaluate)
    assert (result.best_epoch, result.before) == (3, 0.99)
    assert result.curves["selection_accuracy"] == (0.98, 0.5, 0.6, 0.4)  # one worse than the best ends it
    assert np.count_nonzero(kernels(result.model)["conv"]) == kept(54, 0.7)
    assert shares[0] == 0 and shares == sorted(shares) and 0 < shares[1] < shares[2] == shares[4]
