"""Distill gives a trained copy with the same contract, says what it did, and refuses what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from pydantic import ValidationError

from toolkit.core import Batch, Meaning, Model, PassContext, Progress, QuantSpec, Signature, Task, TensorSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes.distill import Distill


@dataclass(frozen=True)
class Images:
    """A split of images whose class is their brightness."""

    count: int = 60
    classes: tuple[str, ...] = ("dark", "grey", "bright")
    name: str = "train"
    fingerprint: str = ""
    task: Task = "classes"

    @property
    def brightness(self) -> Any:
        return np.arange(self.count) % 3

    @property
    def labels(self) -> Any:
        classes = np.arange(self.count) % len(self.classes)
        if self.task == "classes":
            return classes
        several = np.stack([self.brightness > 0, self.brightness > 1], axis=1)
        return several.astype(np.uint8) if self.task == "labels" else several.astype(np.float32) * 2 - 1

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[Batch]:
        noise = np.random.default_rng(0).normal(size=(self.count, 6, 6, 1)) / 2
        images = (noise + (self.labels if self.task == "classes" else self.brightness)[:, None, None, None]).astype(
            "float32"
        )
        for start in range(0, self.count, size):
            rows = slice(start, start + size)
            ids = tuple(map(str, range(self.count)[rows]))
            yield Batch({"photo": images[rows]}, {"label": self.labels[rows]}, ids)


def wrap(graph: Any, head: Meaning) -> Model:
    inputs = tuple(TensorSpec(t.name, t.shape, t.dtype, "image") for t in graph.inputs)
    outputs = tuple(
        TensorSpec(n, t.shape, t.dtype, head) for n, t in zip(graph.output_names, graph.outputs, strict=True)
    )
    return Model("keras", graph, Signature(inputs, outputs))


def net(units: int = 3, head: str | None = "softmax", width: int = 8, **more: Any) -> Model:
    keras.utils.set_random_seed(width)
    x = image = keras.Input((6, 6, 1), name="photo")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(width, 3, activation="relu", name="conv", **more)(x))
    graph = keras.Model(image, layers.Dense(units, activation=head, name="answer")(x))
    meaning: Meaning = "softmax" if head == "softmax" else "sigmoid" if head == "sigmoid" else "logits"
    return wrap(graph, meaning)


@pytest.fixture(scope="module")
def original() -> Model:
    context = PassContext(original=net(width=12), train=Images())
    return Distill(epochs=30, learning_rate=0.03, alpha=0.0, batch_size=20).run(net(width=12), context).model


def accuracy(model: Model) -> float:
    batch = next(Images().batches(60))
    answers = np.asarray(model.graph(batch.inputs["photo"]))
    chosen = answers.argmax(axis=1) if answers.shape[1] > 1 else (answers[:, 0] > 0.5).astype(int)
    return float((chosen == batch.targets["label"]).mean())


def test_distill_teaches_a_copy_and_tells_what_it_gained(original: Model) -> None:
    student, said = replace(net(), quant=QuantSpec("int8")), list[Progress]()
    before = [weight.copy() for weight in student.graph.get_weights()]
    context = PassContext(original=original, train=Images(), evaluate=accuracy, emit=said.append)
    result = Distill(epochs=25, batch_size=20, learning_rate=0.03).run(student, context)
    assert accuracy(student) < 0.7 and accuracy(result.model) > 0.9
    assert replace(result.model, graph=None) == replace(student, graph=None)
    assert all(np.array_equal(a, b) for a, b in zip(before, student.graph.get_weights(), strict=True))
    (change,) = result.changes
    assert change.before == f"selection accuracy {accuracy(student):.2%}"
    assert change.after == f"selection accuracy {accuracy(result.model):.2%}"
    best = max(result.curves["selection_accuracy"])
    assert accuracy(result.model) == best and "best on selection; 25 epochs of 3 steps; 60 images held" in change.reason
    ends = {name: result.curves[f"{name}_loss"][-1] for name in ("teacher", "labels")}
    whole = f"{sum(ends.values()):.3g} = teacher {ends['teacher']:.3g} + labels {ends['labels']:.3g}"
    assert change.reason.endswith(f"; loss at the end {whole}")
    # a slow machine also tells of steps inside an epoch: "epoch 1 of 25, 33%, loss ..."
    epochs = [progress for progress in said if ", loss " in progress.text and "%, loss " not in progress.text]
    assert [progress.fraction for progress in epochs] == [number / 25 for number in range(1, 26)]
    assert f"selection accuracy {result.curves['selection_accuracy'][-1]:.1%}" in epochs[-1].text
    assert " left" in epochs[0].text and " left" not in epochs[-1].text
    assert [number for number, progress in enumerate(epochs, 1) if progress.keep] == [3, 6, 9, 12, 15, 18, 21, 24, 25]


def test_distill_says_when_nothing_was_as_good(original: Model) -> None:
    scores = iter([0.9, 0.5, 0.5])
    context = PassContext(original=original, train=Images(), evaluate=lambda model: next(scores))
    result = Distill(epochs=2).run(original, context)
    assert (result.changes[0].before, result.changes[0].after) == ("selection accuracy 90.00%",) * 2
    assert "whose weights stay" in result.changes[0].reason
    for old, new in zip(original.graph.get_weights(), result.model.graph.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_distill_without_selection_keeps_the_last_epoch_and_says_so(original: Model) -> None:
    result = Distill(epochs=1).run(net(), PassContext(original=original, train=Images()))
    assert "no selection split" in result.changes[0].after and "the last epoch is kept" in result.changes[0].reason
    assert set(result.curves) == {"loss", "teacher_loss", "labels_loss", "learning_rate"}


def test_distill_follows_the_seed_of_the_run(original: Model) -> None:
    def taught(seed: int) -> list[Any]:
        context = PassContext(seed=seed, original=original, train=Images())
        weights: list[Any] = Distill(epochs=1, batch_size=20).run(net(), context).model.graph.get_weights()
        return weights

    one, again, other = taught(1), taught(1), taught(2)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_one_sigmoid_is_taught_as_two_classes() -> None:
    data = Images(classes=("dark", "bright"))
    how = {"batch_size": 20, "learning_rate": 0.03}
    context = PassContext(original=net(1, "sigmoid", 12), train=data)
    teacher = Distill(epochs=60, alpha=0.0, **how).run(net(1, "sigmoid", 12), context).model
    student = (
        Distill(epochs=60, alpha=1.0, temperature=2.0, **how)
        .run(net(1, "sigmoid"), replace(context, original=teacher))
        .model
    )
    images = next(data.batches(60)).inputs["photo"]
    one, two = (np.asarray(model.graph(images))[:, 0] > 0.5 for model in (teacher, student))
    assert (one == data.labels).mean() > 0.85 and (one == two).mean() > 0.9


def test_frozen_layers_are_trained_and_named(original: Model) -> None:
    student = net(trainable=False)
    result = Distill(epochs=1).run(student, PassContext(original=original, train=Images()))
    kernels = [np.asarray(model.graph.get_layer("conv").kernel) for model in (student, result.model)]
    assert not np.array_equal(*kernels) and not result.model.graph.get_layer("conv").trainable
    assert (result.changes[1].layer, result.changes[1].after) == ("1 frozen layers (conv)", "trained too")


@pytest.mark.parametrize(
    ("student", "changes", "problem"),
    [
        (net(), {"original": None}, "no original to teach"),
        (net(), {"train": None}, "no train split"),
        (net(4), {}, "the student has 4 classes, the teacher 3"),
        (net(), {"train": Images(classes=("a", "b"))}, "the model has 3 classes, the data has 2"),
    ],
)
def test_distill_refuses_what_does_not_fit(
    original: Model, student: Model, changes: dict[str, Any], problem: str
) -> None:
    context = replace(PassContext(original=original, train=Images()), **changes)
    with pytest.raises(InputError, match=problem):
        Distill().run(student, context)


def test_patience_needs_a_selection_split(original: Model) -> None:
    with pytest.raises(InputError, match=r"distill\.patience: there is no selection split"):
        Distill(patience=2).run(net(), PassContext(original=original, train=Images()))


def test_several_decisions_and_views_of_no_image_are_refused(original: Model) -> None:
    image = keras.Input((4,), name="photo")
    flat = wrap(keras.Model(image, layers.Dense(3)(image)), "logits")
    with pytest.raises(UnsupportedError, match=r"distill\.augment 'shift': needs images"):
        Distill(augment="shift").run(flat, PassContext(original=flat, train=Images()))
    two = wrap(keras.Model(image, [layers.Dense(3)(image), layers.Dense(3)(image)]), "logits")
    with pytest.raises(UnsupportedError, match="got 1 inputs, 2 outputs"):
        Distill().run(two, PassContext(original=two, train=Images()))


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"alpha": 1.1}, {"temperature": 0.5}, {"learning_rate": 0}, {"teacher": 3}]
)
def test_parameters_have_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Distill.model_validate(wrong)


# ---------------------------------------------------------------- heads that do not choose one class

LIT = Images(classes=("lit", "bright"), count=60)


def headed(head: Meaning, width: int = 8, units: int = 2) -> Model:
    graph = net(units, "sigmoid" if head == "sigmoids" else None, width).graph
    return wrap(graph, head)


@pytest.mark.parametrize(("head", "task"), [("sigmoids", "labels"), ("regression", "values")])
def test_labels_and_values_are_taught(head: Meaning, task: Task) -> None:
    """A teacher trained on the labels; a student that learns from the teacher alone ends up like it."""
    data = Images(classes=("lit", "bright"), task=task)
    how = {"batch_size": 20, "learning_rate": 0.03}
    context = PassContext(original=headed(head, 12), train=data)
    teacher = Distill(epochs=60, alpha=0.0, **how).run(headed(head, 12), context).model
    student = Distill(epochs=60, alpha=1.0, **how).run(headed(head), replace(context, original=teacher)).model
    images = next(data.batches(60)).inputs["photo"]
    one, two, before = (np.asarray(model.graph(images)) for model in (teacher, student, headed(head)))
    assert np.abs(one - data.labels).mean() < np.abs(before - data.labels).mean()
    assert np.abs(one - two).mean() < 0.3 * np.abs(one - before).mean()


def test_embedding_is_taught_by_the_teacher_alone() -> None:
    said: list[Progress] = []
    scores = iter([-0.5, -0.25])
    context = PassContext(
        original=headed("embedding", 12), train=Images(), evaluate=lambda model: next(scores), emit=said.append
    )
    result = Distill(epochs=1).run(headed("embedding"), context)
    assert set(result.curves) == {"loss", "selection_score", "learning_rate"}
    assert (result.changes[0].before, result.changes[0].after) == ("selection score -0.5", "selection score -0.25")
    assert any("selection score -0.25" in progress.text for progress in said)
    with pytest.raises(InputError, match=r"distill\.alpha: no label says what an embedding should be, got 0\.5"):
        Distill(alpha=0.5).run(headed("embedding"), context)


@pytest.mark.parametrize(
    ("student", "data", "problem"),
    [
        (headed("regression"), Images(), "the student's head is regression, the teacher's sigmoids"),
        (headed("sigmoids"), LIT, r"the head sigmoids learns from labels, the data has classes.*alpha = 1"),
        (headed("sigmoids"), Images(task="labels"), "the model has 2 outputs, the data has 3"),
        (headed("sigmoids", units=3), LIT, "the student has 3 outputs, the teacher 2"),
    ],
)
def test_heads_and_labels_that_do_not_fit_are_refused(student: Model, data: Images, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Distill().run(student, PassContext(original=headed("sigmoids"), train=data))


def test_teacher_alone_needs_no_labels_of_its_kind() -> None:
    result = Distill(epochs=1, alpha=1.0).run(headed("sigmoids"), PassContext(original=headed("sigmoids"), train=LIT))
    assert len(result.curves["loss"]) == 1


# ---------------------------------------------------------------- what is inside, several teachers


def test_lessons_are_told_layer_by_layer_and_as_curves(original: Model) -> None:
    student, context = net(), PassContext(original=original, train=Images())
    result = Distill.model_validate({"epochs": 2, "hints": {}, "attention": {}, "relational": {"angle": 0}}).run(
        student, context
    )
    own, theirs = student.graph.layers[-2].name, original.graph.layers[-2].name
    assert [(change.layer, change.after) for change in result.changes[1:]] == [
        ("conv", "hints of the teacher's 'conv' (4x4, 8 -> 12 channels by a projection that is dropped)"),
        ("conv", "attention of the teacher's 'conv' (4x4, 8 channels)"),
        (own, f"relations of the teacher's {theirs!r} (8 channels)"),
    ]
    parts = {"teacher_loss", "labels_loss", "hints_loss", "attention_loss", "distances_loss"}
    assert set(result.curves) == {"loss", "learning_rate", *parts}
    assert result.model.graph.count_params() == net().graph.count_params()


def test_several_teachers_are_read_and_weighted(original: Model) -> None:
    """One of them says little: the student ends up nearly as of the original alone."""
    other, asked = net(width=5), list[Any]()
    context = PassContext(original=original, train=Images(), load=lambda path: asked.append(path) or other)
    how = {"epochs": 2, "batch_size": 20, "alpha": 1.0}
    both = Distill(teacher=("original", "other.onnx"), teacher_weights=(1e6, 1), **how).run(net(), context)
    alone = Distill(**how).run(net(), context)
    even = Distill(teacher=("original", "other.onnx"), **how).run(net(), context)
    assert asked == [Path("other.onnx")] * 2
    assert both.curves["loss"] == pytest.approx(alone.curves["loss"], rel=1e-3)
    assert even.curves["loss"] != pytest.approx(alone.curves["loss"], rel=1e-2)


def rounding_net(path: Path) -> Path:
    """A file that is sure which of the first three rows of an image is the brightest, in steps of 1/256 as int8 is."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("photo", ["n", 6, 6, 1]), ("answer", ["n", 3]))
    ]
    constants = {"steps": np.float32(256), "at": np.zeros(1), "to": np.full(1, 3), "along": np.ones(1)}
    stored = [
        numpy_helper.from_array(np.asarray(x, x.dtype if n == "steps" else np.int64), n) for n, x in constants.items()
    ]
    nodes = [
        helper.make_node("ReduceSum", ["photo", "summed"], ["rows"], keepdims=0),
        helper.make_node("Slice", ["rows", "at", "to", "along"], ["three"]),
        helper.make_node("Mul", ["three", "steps"], ["sharp"]),
        helper.make_node("Softmax", ["sharp"], ["shares"], axis=1),
        helper.make_node("Mul", ["shares", "steps"], ["scaled"]),
        helper.make_node("Floor", ["scaled"], ["whole"]),
        helper.make_node("Div", ["whole", "steps"], ["answer"]),
    ]
    stored.append(numpy_helper.from_array(np.array([1, 3], np.int64), "summed"))
    graph = helper.make_graph(nodes, "rounding", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_teacher_whose_probabilities_are_rounded_to_0_is_refused(tmp_path: Path) -> None:
    """Their logarithms would be taken for logits near -69, and so taught."""
    file = Model("onnx", rounding_net(tmp_path / "net.onnx"), net().signature, quant=QuantSpec("int8"))
    context = PassContext(original=net(), train=Images(), load=lambda path: file)
    with pytest.raises(
        InputError, match=r"distill\.teacher: .*net\.onnx is int8, and \d+% of its probabilities"
    ) as said:
        Distill(teacher=Path("net.onnx")).run(net(), context)
    assert "float model" in str(said.value.fix)
    logits = replace(file, signature=net(head=None).signature)  # whatever 0 means there, it is a number
    found = Distill(teacher=Path("net.onnx"), epochs=1).run(net(head=None), replace(context, load=lambda path: logits))
    assert len(found.curves["loss"]) == 1


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_squared_error_of_logits_teaches_as_well(original: Model, loss: Any) -> None:
    context = PassContext(original=original, train=Images())
    taught = Distill(epochs=25, batch_size=20, learning_rate=0.03, alpha=1.0, loss=loss).run(net(), context).model
    assert accuracy(taught) > 0.9


def test_embedding_learns_values_not_directions_by_squared_error() -> None:
    context = PassContext(original=headed("embedding", 12), train=Images())
    student, images = headed("embedding"), next(Images().batches(60)).inputs["photo"]
    found = Distill(epochs=1, batch_size=60, learning_rate=1e-9, loss="mse").run(student, context).curves["loss"]
    assert context.original is not None
    apart = np.asarray(student.graph(images)) - np.asarray(context.original.graph(images))
    assert found == (pytest.approx((apart**2).mean(), rel=1e-4),)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"loss": "mse", "temperature": 2.0}, "temperature softens probabilities"),
        ({"alpha": 0, "temperature": 2.0}, "temperature is of no use with alpha = 0"),
        ({"alpha": 0, "loss": "mse"}, "loss is of no use with alpha = 0"),
        ({"alpha": 0, "teacher": "large.keras"}, "teacher is of no use with alpha = 0"),
        ({"alpha": 0, "teacher": "large.keras", "hints": {}, "loss": "mse"}, "loss is of no use with alpha = 0"),
        ({"teacher": ["original", "a.keras"], "teacher_weights": [1.0]}, "got 2 teachers, 1 weights"),
        ({"teacher": []}, "at least 1 item"),
        ({"relational": {"distance": 0, "angle": 0}}, "distance and angle are both 0"),
        ({"hints": {"layers": {}}}, "at least 1 item"),
        ({"hints": {"weight": 0}}, "greater than 0"),
    ],
)
def test_settings_that_say_nothing_are_refused(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Distill.model_validate(wrong)


@pytest.mark.parametrize("part", ["hints", "attention", "relational"])
def test_teachers_that_cannot_be_looked_into_are_refused_before_anything_is_read(original: Model, part: str) -> None:
    elsewhere = replace(original, kind="savedmodel", graph=Path("net"))
    context = PassContext(original=original, train=Images(), load=lambda path: elsewhere)
    with pytest.raises(
        UnsupportedError, match=rf"distill\.{part}: a teacher of kind savedmodel shows its outputs alone"
    ):
        Distill(teacher=Path("net"), **{part: {}}).run(net(), context)
    with pytest.raises(ValidationError, match="look into the layers of one teacher, got 2"):
        Distill(teacher=("original", "original"), **{part: {}})
    with pytest.raises(ValidationError, match=r"net\.onnx shows its outputs alone"):
        Distill(teacher=Path("net.onnx"), **{part: {}})
    assert Distill(teacher=Path("net.onnx"), relational={"on": "logits"}).relational is not None


def test_layers_that_are_not_there_are_refused_by_the_key(original: Model) -> None:
    context = PassContext(original=original, train=Images())
    with pytest.raises(InputError, match=r"distill\.hints\.layers: the student has no layer 'nine'"):
        Distill(hints={"layers": {"nine": "conv"}}).run(net(), context)
