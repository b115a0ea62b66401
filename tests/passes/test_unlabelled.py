"""What distill, prune.recover, qat and sparsify do with images without labels: learn the teacher's part on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.core import Batch, Meaning, Model, PassContext, Preprocessing, Signature, TensorSpec
from toolkit.engine.loss import NO_CLASS
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes import images
from toolkit.passes.cluster import Cluster
from toolkit.passes.distill import Distill
from toolkit.passes.lessons import Attention
from toolkit.passes.prune import Prune, Recover
from toolkit.passes.qat import Qat
from toolkit.passes.sparsify import Sparsify


@dataclass(frozen=True)
class Photos:
    """Random photos of 4x4 pixels, from a seed; labels of them, or none."""

    count: int
    seed: int
    labelled: bool = True
    name: str = "train"
    fingerprint: str = "x"
    task: Any = "classes"

    @property
    def classes(self) -> tuple[str, ...]:
        return ("a", "b", "c") if self.labelled else ()

    @property
    def labels(self) -> Any:
        return np.arange(self.count) % 3 if self.labelled else np.zeros((self.count, 0), np.float32)

    @property
    def photos(self) -> Any:
        return np.random.default_rng(self.seed).normal(size=(self.count, 4, 4, 1)).astype("float32")

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Any:
        for start in range(0, self.count, size):
            rows = slice(start, start + size)
            ids = tuple(map(str, range(self.count)[rows]))
            yield Batch({"photo": self.photos[rows]}, {"label": self.labels[rows]}, ids)


def net(seed: int, wide: int = 4) -> Model:
    keras.utils.set_random_seed(seed)
    image = keras.Input((4, 4, 1), name="photo")
    x = layers.Conv2D(wide, 3, activation="relu", name="conv")(image)
    graph = keras.Model(image, layers.Dense(3, activation="softmax", name="answer")(layers.Flatten(name="flat")(x)))
    ends: Any = [(graph.inputs[0], "photo", "image"), (graph.outputs[0], "answer", "softmax")]
    inputs, outputs = ((TensorSpec(name, t.shape, "float32", meaning),) for t, name, meaning in ends)
    return Model("keras", graph, Signature(inputs, outputs), Preprocessing())


LABELLED, MORE = Photos(12, 0), Photos(24, 1, labelled=False, name="unlabelled")
ORIGINAL, STUDENT = net(0), net(1)


def context(more: Any = MORE, **given: Any) -> PassContext:
    return PassContext(original=ORIGINAL, train=LABELLED, unlabelled=more, **given)


def weights(result: Any) -> list[Any]:
    return [np.asarray(weight) for weight in result.model.graph.get_weights()]


def test_teacher_alone_learns_from_all_images_as_from_labelled_ones() -> None:
    """At alpha 1 no label is looked at: the same images as one labelled split train the same network."""

    @dataclass(frozen=True)
    class Both(Photos):
        @property
        def photos(self) -> Any:
            return np.concatenate([LABELLED.photos, MORE.photos])

    how = Distill(epochs=2, batch_size=9, alpha=1.0, learning_rate=0.01)
    one = how.run(STUDENT, context())
    other = how.run(STUDENT, PassContext(original=ORIGINAL, train=Both(36, 0)))
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "2 epochs of 4 steps; 12 images and 24 without labels held in memory" in one.changes[0].reason


def test_they_teach_what_labelled_images_alone_do_not() -> None:
    """The student comes nearer to the teacher on images of its kind that neither has seen."""
    unseen = Photos(200, 9).photos
    how = Distill(epochs=40, batch_size=12, alpha=1.0, learning_rate=0.01)

    def apart(result: Any) -> float:
        p, q = (np.asarray(model.graph(unseen)) for model in (ORIGINAL, result.model))
        return float((p * np.log(p / q)).sum(axis=1).mean())

    # 12 images for 160 steps against 36 images for as many
    few = replace_epochs(how, 120).run(STUDENT, context(None))
    assert apart(how.run(STUDENT, context())) < 0.7 * apart(few)


def replace_epochs(how: Distill, epochs: int) -> Distill:
    return how.model_copy(update={"epochs": epochs})


def test_left_out_where_the_pass_says_so() -> None:
    one = Distill(epochs=1, batch_size=6, unlabelled=False).run(STUDENT, context())
    two = Distill(epochs=1, batch_size=6).run(STUDENT, context(None))
    assert "; 12 images held in memory" in one.changes[0].reason
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_part_is_the_mean_over_labelled_images_of_the_batch() -> None:
    result = Distill(epochs=1, batch_size=36, alpha=0.25, learning_rate=1e-6).run(STUDENT, context())
    answers = np.asarray(STUDENT.graph(LABELLED.photos), np.float64)
    expected = -np.log(answers[np.arange(12), LABELLED.labels]).mean()
    assert result.curves["labels_loss"][0] == pytest.approx(0.75 * expected, rel=1e-4)
    assert result.curves["loss"][0] == pytest.approx(result.curves["teacher_loss"][0] + 0.75 * expected, rel=1e-4)


@pytest.mark.parametrize(
    "component",
    [
        Prune(sparsity=0.5, round_to=2, recover=Recover(epochs=1, batch_size=6), reestimate_batchnorm=False),
        Qat(epochs=1, batch_size=6),
        Qat(epochs=1, batch_size=6, alpha=0.5, ranges="moving"),
        Sparsify(epochs=2, batch_size=6, sparsity=0.5),
        Cluster(clusters=4, epochs=1, batch_size=6),
        Distill(epochs=1, batch_size=6, attention=Attention()),
    ],
)
def test_other_trainings_learn_from_them_too(component: Any) -> None:
    with_them, without = (component.run(STUDENT, context(more)) for more in (MORE, None))
    assert any("12 images and 24 without labels" in change.reason for change in with_them.changes)
    assert any(not np.array_equal(a, b) for a, b in zip(weights(with_them), weights(without), strict=True))


def test_ranges_of_qat_start_from_the_train_split_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.engine import qat

    asked: list[Any] = []
    find = qat.find_ranges
    monkeypatch.setattr(
        qat, "find_ranges", lambda graph, given, method: asked.append(given) or find(graph, given, method)
    )
    Qat(epochs=1, batch_size=6).run(STUDENT, context())
    np.testing.assert_array_equal(asked[0]["photo"], LABELLED.photos)


@pytest.mark.parametrize(
    ("component", "problem"),
    [
        (Distill(alpha=0.0), "distill.alpha = 0: learns from labels alone.*Fix: set unlabelled = false"),
        (Qat(backend="tfmot"), "qat.backend 'tfmot': learns from labelled images alone"),
        (Cluster(backend="tfmot", clusters=4), "cluster.backend 'tfmot': learns from labelled images alone"),
        (Sparsify(backend="tfmot", sparsity=0.5), "sparsify.backend 'tfmot': learns from labelled images alone"),
    ],
)
def test_trainings_that_cannot_learn_from_them_refuse(component: Any, problem: str) -> None:
    with pytest.raises(UnsupportedError, match=problem):
        component.run(STUDENT, context())


@pytest.mark.parametrize(("head", "task"), [("sigmoids", "labels"), ("regression", "values")])
def test_other_heads_know_which_images_have_no_label(head: Meaning, task: str) -> None:
    values = np.stack([np.arange(12) % 2, np.arange(12) % 3 == 0, np.zeros(12)], axis=1)

    @dataclass(frozen=True)
    class Valued(Photos):
        @property
        def labels(self) -> Any:
            return values.astype(np.uint8 if task == "labels" else np.float32)

    def headed(model: Model) -> Model:
        activation = "sigmoid" if head == "sigmoids" else "linear"
        x = model.graph.layers[-2].output
        graph = keras.Model(model.graph.inputs[0], layers.Dense(3, activation=activation, name="values")(x))
        outputs = (TensorSpec("values", graph.outputs[0].shape, "float32", head),)
        return replace(model, graph=graph, signature=Signature(model.signature.inputs, outputs))

    keras.utils.set_random_seed(3)
    original, student = headed(net(0)), headed(net(1))
    given = PassContext(original=original, train=Valued(12, 0, task=task), unlabelled=MORE)
    how = Distill(epochs=1, batch_size=36, alpha=0.5, learning_rate=1e-6)
    found = how.run(student, given).curves["labels_loss"][0]
    p = np.asarray(student.graph(LABELLED.photos), np.float64)
    each = -(values * np.log(p) + (1 - values) * np.log(1 - p)) if task == "labels" else (p - values) ** 2
    assert found == pytest.approx(0.5 * each.mean(), rel=1e-3)


def test_images_are_held_in_order_with_what_is_known_of_each() -> None:
    seen = images.read(LABELLED, MORE, "photo")
    np.testing.assert_array_equal(seen.rows, np.concatenate([LABELLED.photos, MORE.photos]))
    assert seen.labels.tolist() == [*LABELLED.labels, *[NO_CLASS] * 24]
    np.testing.assert_array_equal(seen.own_rows, LABELLED.photos)
    assert images.read(LABELLED, None, "photo").labels is not None


def test_training_without_any_label_is_refused() -> None:
    from toolkit.engine.teaching import Teaching
    from toolkit.engine.train import fit

    with pytest.raises(InputError, match="no image has a label"):
        fit(STUDENT.graph, None, LABELLED.photos, np.full(12, NO_CLASS), how=Teaching(epochs=1))
