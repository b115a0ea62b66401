"""Layers are matched by name or resolution; what is compared there is learned, and leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from toolkit.codebook import Codebook
from toolkit.engine import asking
from toolkit.engine.checkpoint import Checkpoint
from toolkit.engine.clusters import Sharing
from toolkit.engine.graph import walk
from toolkit.engine.hints import Attention, Beside, Hints, Lessons, Relational, match, penultimate, words
from toolkit.engine.loss import Target
from toolkit.engine.prepare import prepare
from toolkit.engine.qat import Rounding, find_ranges, rounding_graph
from toolkit.engine.teacher import Teacher, of_graph, together
from toolkit.engine.teaching import Precision, Teaching
from toolkit.engine.train import TrainResult, Watch, fit
from toolkit.errors import InputError, UnsupportedError

ALL = Beside(Hints(), Attention(), Relational())


def net(width: int, prefix: str = "", *, seed: int = 0) -> Any:
    """8x8 until a convolution of stride 2, a block with an addition at 4x4, then a dense layer."""
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{prefix}one")(x)
    x = layers.ReLU(name=f"{prefix}relu")(layers.BatchNormalization(name=f"{prefix}norm")(x))
    x = layers.Conv2D(2 * width, 3, strides=2, padding="same", activation="relu", name=f"{prefix}two")(x)
    y = layers.Conv2D(2 * width, 3, padding="same", name=f"{prefix}three")(x)
    x = layers.Add(name=f"{prefix}add")([x, y])
    x = layers.ZeroPadding2D(name=f"{prefix}pad")(x)
    x = layers.Dropout(0.1, name=f"{prefix}noise")(layers.GlobalAveragePooling2D(name=f"{prefix}pool")(x))
    return keras.Model(image, layers.Dense(3, activation="softmax", name=f"{prefix}answer")(x))


@pytest.fixture(scope="module")
def student() -> Any:
    return net(3)


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    """Three classes that differ in brightness, brighter to the left."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 48)
    slope = np.linspace(1.5, 0.5, 8)[None, None, :, None]
    return (rng.normal(size=(48, 8, 8, 1)) / 2 + labels[:, None, None, None] * slope).astype("float32"), labels


@pytest.fixture(scope="module")
def teacher(data: tuple[Any, Any]) -> Any:
    how = Teaching(epochs=12, batch_size=16, learning_rate=0.02)
    return fit(net(5, seed=1), None, *data, how=how).model


def pairs(student: Any, teacher: Any, asked: Beside) -> list[tuple[str, str]]:
    return [(one.student.layer, one.teacher.layer) for one in match(student, teacher, asked)]


def weights(model: Any) -> list[Any]:
    return [weight.copy() for weight in model.get_weights()]


def equal(one: list[Any], two: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


# ---------------------------------------------------------------- which layers


def test_auto_takes_the_last_activation_of_each_resolution(student: Any) -> None:
    """By name in a network of the same layers, else whatever it is called; padding is no activation."""
    other = net(2, "b_")
    assert pairs(student, net(5), Beside(Hints())) == [("relu", "relu"), ("add", "add")]
    assert pairs(other, student, Beside(Hints())) == [("b_relu", "relu"), ("b_add", "add")]


def test_auto_stays_with_the_name_where_blocks_have_gone(student: Any) -> None:
    """What is left of a teacher is compared where it comes from, which need not be the teacher's last."""
    x = image = keras.Input((8, 8, 1), name="image")
    for name, stride in (("one", 1), ("two", 2)):
        x = layers.Conv2D(4, 3, strides=stride, padding="same", activation="relu", name=name)(x)
    shallow = keras.Model(image, layers.Dense(3, name="answer")(layers.Flatten()(x)))
    assert pairs(shallow, student, Beside(attention=Attention())) == [("one", "one"), ("two", "two")]


def test_auto_finds_the_same_places_in_a_network_that_rounds(student: Any, data: tuple[Any, Any]) -> None:
    prepared = prepare(student).graph
    rounded = rounding_graph(prepared, find_ranges(prepared, {"image": data[0]}), Rounding())
    assert pairs(rounded, student, Beside(Hints())) == [("relu", "relu"), ("add", "add")]


def test_layers_are_taken_by_name(student: Any, teacher: Any) -> None:
    found = match(student, teacher, Beside(Hints((("two", "three"), ("pool", "pool")))))
    assert [words(one) for one in found] == [
        "hints of the teacher's 'three' (4x4, 6 -> 10 channels by a projection that is dropped)",
        "hints of the teacher's 'pool' (6 -> 10 channels by a projection that is dropped)",
    ]
    assert words(match(student, student, Beside(attention=Attention()))[0]).endswith("'relu' (8x8, 3 channels)")


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (Beside(Hints((("nine", "two"),))), r"hints\.layers: the student has no layer 'nine'"),
        (Beside(Hints((("two", "nine"),))), r"hints\.layers: the teacher has no layer 'nine'"),
        (Beside(Hints((("two", "relu"),))), r"hints\.layers: 'two' gives 4x4x6 and 'relu' gives 8x8x5"),
        (Beside(attention=Attention((("pool", "pool"),))), r"attention\.layers: 'pool' gives 6 .*no map of places"),
    ],
)
def test_layers_that_cannot_be_compared_are_refused(student: Any, teacher: Any, asked: Beside, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        match(student, teacher, asked)


def test_penultimate_is_what_the_last_dense_layer_reads_without_noise(student: Any) -> None:
    assert penultimate(walk(student)).layer == "pool"
    image = keras.Input((4,), name="image")
    with pytest.raises(UnsupportedError, match=r"no layer in front of the one that decides.*on = \"logits\""):
        penultimate(walk(keras.Model(image, layers.Softmax()(layers.Dense(3)(image)))))


def test_penultimate_of_a_network_that_ends_in_a_separable_convolution_is_what_that_reads() -> None:
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="first")(image)
    x = layers.GlobalAveragePooling2D()(layers.SeparableConv2D(3, 3, name="deciding")(x))
    assert penultimate(walk(keras.Model(image, layers.Softmax()(x)))).layer == "first"


def test_networks_without_a_common_resolution_are_refused(student: Any) -> None:
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, activation="relu")(image)
    flat = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    with pytest.raises(UnsupportedError, match="no activations of one resolution"):
        match(flat, student, Beside(Hints()))


def test_teacher_that_shows_its_outputs_alone_is_refused_but_for_logits(student: Any, teacher: Any) -> None:
    two = together([of_graph(teacher, "softmax")] * 2, (1, 1), Target())
    for asked in (Beside(Hints()), Beside(attention=Attention()), Beside(relational=Relational())):
        with pytest.raises(UnsupportedError, match="shows its outputs alone"):
            Lessons(student, two.graph, asked, 0)
    assert Lessons(student, two.graph, Beside(relational=Relational("logits")), 0).matches == ()


# ---------------------------------------------------------------- in training


def taught(student: Any, teacher: Any, data: tuple[Any, Any], beside: Beside, **more: Any) -> TrainResult:
    how = Teaching(**{"epochs": 2, "batch_size": 16, "learning_rate": 0.01, "beside": beside, **more})
    return fit(student, teacher, *data, how=how)


@pytest.mark.parametrize(
    ("beside", "parts"),
    [
        (Beside(Hints()), ("hints",)),
        (Beside(attention=Attention()), ("attention",)),
        (Beside(relational=Relational()), ("distances", "angles")),
        (Beside(relational=Relational("logits", angle=0)), ("distances",)),
    ],
)
def test_each_lesson_is_learned_and_leaves_the_network_as_it_was_built(
    student: Any, teacher: Any, data: tuple[Any, Any], beside: Beside, parts: tuple[str, ...]
) -> None:
    """Without a word of the outputs from the teacher: alpha is 0."""
    before = weights(student), weights(teacher)
    result = taught(student, teacher, data, beside, epochs=15, target=Target(alpha=0.0))
    for name in parts:
        line = result.curves[f"{name}_loss"]
        assert line[-1] < 0.6 * line[0], name
    assert set(result.curves) == {"loss", "labels_loss", "learning_rate", *(f"{name}_loss" for name in parts)}
    assert equal(before[0], weights(student)) and equal(before[1], weights(teacher))
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in student.layers]
    assert len(result.model.outputs) == 1 and result.model.count_params() == student.count_params()


def test_parts_of_the_loss_add_up(student: Any, teacher: Any, data: tuple[Any, Any]) -> None:
    curves = taught(student, teacher, data, ALL).curves
    names = {name for name in curves if name.endswith("_loss")}
    assert names == {f"{part}_loss" for part in ("teacher", "labels", "hints", "attention", "distances", "angles")}
    np.testing.assert_allclose(sum(np.array(curves[name]) for name in names), curves["loss"], rtol=1e-6)


def test_first_hint_loss_is_the_relative_error_of_the_features(student: Any, data: tuple[Any, Any]) -> None:
    """One step of all images; of equal widths, nothing stands between, and inference is what a teacher does."""
    other = net(3, seed=7)
    frozen = frozenset(layer.name for layer in student.layers)
    beside = Beside(Hints((("add", "add"),), weight=3.0))
    how = Teaching(epochs=1, batch_size=48, beside=beside, frozen=frozen, target=Target(alpha=1.0))
    found = fit(student, other, *data, how=how).curves["hints_loss"]
    own, theirs = (np.asarray(keras.Model(x.inputs[0], x.get_layer("add").output)(data[0])) for x in (student, other))
    assert found == (pytest.approx(3 * ((own - theirs) ** 2).mean() / (theirs**2).mean(), rel=1e-4),)


def test_a_network_that_teaches_itself_has_nothing_to_learn_at_first(student: Any, data: tuple[Any, Any]) -> None:
    """Born again (Furlanello et al. 2018, arXiv:1805.04770): the teacher may be the student as it was."""
    frozen = frozenset(("norm", "noise"))
    found = taught(student, student, data, ALL, epochs=1, batch_size=48, frozen=frozen, target=Target(alpha=1.0))
    assert {name: line[0] for name, line in found.curves.items() if name.endswith("loss")} == {
        name: pytest.approx(0, abs=1e-4) for name in found.curves if name.endswith("loss")
    }


def test_a_fresh_network_learns_from_one_of_its_own_kind(data: tuple[Any, Any], teacher: Any) -> None:
    images, labels = data
    fresh = net(5, seed=11)
    result = taught(fresh, teacher, (images, (labels + 1) % 3), Beside(), epochs=25, target=Target(alpha=1.0))
    chosen, wanted = (np.asarray(model(images)).argmax(axis=1) for model in (result.model, teacher))
    assert (chosen == wanted).mean() > 0.9


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_what_a_teacher_said_beforehand_is_what_it_says_in_the_step(
    student: Any, teacher: Any, data: tuple[Any, Any], augment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, features, maps and relations of either view: kept ones train as those asked for step by step."""
    asked: list[int] = []
    look = asking.Asked.look
    monkeypatch.setattr(asking.Asked, "look", lambda self, images: asked.append(1) or look(self, images))
    kept = taught(student, teacher, data, ALL, augment=augment)
    beforehand = len(asked)
    monkeypatch.setattr(asking, "MOST_ANSWERS", 0)
    live = taught(student, teacher, data, ALL, augment=augment)
    assert len(asked) > beforehand
    for name, line in kept.curves.items():
        assert line == pytest.approx(live.curves[name], rel=2e-3), name
    for one, two in zip(kept.model.get_weights(), live.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-3)


def test_answers_are_kept_of_two_views_and_chosen_by_the_seed(teacher: Any, data: tuple[Any, Any]) -> None:
    images = data[0][:6]
    one = asking.Asked(of_graph(teacher, "softmax"), None)
    (known,) = one.known(images, "flip")
    assert known.shape == (6, 2, 3)
    seed = tf.constant([3, 1])
    seen = asking.augment.view(tf.constant(images), "flip", seed)
    assert not np.array_equal(seen, images)
    np.testing.assert_allclose(one.chosen((tf.constant(known),), seed)[0], one.look(seen)[0], atol=1e-5)
    assert one.known(images, "shift") == ()


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_lessons_compute_in_16_bits_too(
    student: Any, teacher: Any, data: tuple[Any, Any], precision: Precision
) -> None:
    """The same losses; float16 leaves steps out until its gradients have a scale, so that none is compared."""
    how = {"epochs": 1, "learning_rate": 1e-6}
    plain, half = (taught(student, teacher, data, ALL, precision=x, **how) for x in ("float32", precision))
    for name, line in half.curves.items():
        assert line == pytest.approx(plain.curves[name], rel=0.03), name
    assert {weight.dtype for weight in half.model.weights} == {"float32"}


def test_stopped_training_with_projections_ends_bit_for_bit_as_one_that_was_not(
    student: Any, teacher: Any, data: tuple[Any, Any], tmp_path: Path
) -> None:
    how = Teaching(epochs=3, batch_size=16, learning_rate=0.01, augment="flip_shift", beside=ALL)
    place = Checkpoint(tmp_path / "train.npz", "a")

    def stop(number: int, loss: float, score: float | None) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(student, teacher, *data, how=how, watch=Watch(epoch=stop), checkpoint=place)
    taken_up, whole = (fit(student, teacher, *data, how=how, checkpoint=x) for x in (place, None))
    assert equal(weights(taken_up.model), weights(whole.model)) and taken_up.curves == whole.curves
    other = fit(student, teacher, *data, how=replace(how, seed=1))
    assert not equal(weights(other.model), weights(whole.model))


def test_shared_weights_learn_beside_projections_and_go_on_after_a_stop(
    student: Any, teacher: Any, data: tuple[Any, Any], tmp_path: Path
) -> None:
    how = Teaching(epochs=2, batch_size=16, learning_rate=0.01, beside=ALL, sharing=Sharing({"three": Codebook(4)}))
    place, curves = Checkpoint(tmp_path / "train.npz", "a"), []

    def stop(number: int, loss: float, score: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(student, teacher, *data, how=how, watch=Watch(epoch=stop), checkpoint=place)
    for kept in (place, None):
        result = fit(student, teacher, *data, how=how, checkpoint=kept)
        assert len(np.unique(result.model.get_layer("three").kernel)) <= 4
        curves.append((result.curves, weights(result.model)))
    assert curves[0][0] == curves[1][0] and equal(curves[0][1], curves[1][1])
    assert curves[0][0]["hints_loss"][1] < curves[0][0]["hints_loss"][0]


def test_several_teachers_agree_before_they_teach(student: Any, teacher: Any, data: tuple[Any, Any]) -> None:
    """Two of one opinion are one; a weight of nearly everything is nearly alone."""
    one, other = of_graph(teacher, "softmax"), of_graph(net(4, seed=3), "softmax")
    target = Target(alpha=1.0)
    alone = taught(student, one, data, Beside(), target=target).curves["loss"]

    def loss(teachers: list[Teacher], shares: tuple[float, ...]) -> Any:
        return taught(student, together(teachers, shares, target), data, Beside(), target=target).curves["loss"]

    assert loss([one, one], (1, 3)) == pytest.approx(alone, rel=1e-3)
    assert loss([one, other], (1e6, 1)) == pytest.approx(alone, rel=1e-3)
    assert loss([one, other], (1, 1)) != pytest.approx(alone, rel=1e-2)
