"""Student puts a smaller network under the model's contract, says what it did, and refuses what would break it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from pydantic import ValidationError

from toolkit.core import Meaning, Model, PassContext, Preprocessing, QuantSpec, Signature, TensorSpec
from toolkit.engine.students import SCALING
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes.distill import Distill
from toolkit.passes.student import Student

UNIT = Preprocessing(scale=(1 / 255,), offset=(0.0,))
SHAPE = (16, 16, 3)


def wrap(graph: Any, head: Meaning = "softmax", contract: Preprocessing = UNIT) -> Model:
    inputs = (TensorSpec("photo", graph.inputs[0].shape, "float32", "image", "NHWC"),)
    outputs = (TensorSpec("answer", graph.outputs[0].shape, "float32", head),)
    return Model("keras", graph, Signature(inputs, outputs), contract)


def net(
    units: int = 3, head: str | None = "softmax", size: tuple[int, int, int] = SHAPE, name: str = "photo", wide: int = 8
) -> Any:
    keras.utils.set_random_seed(wide)
    image = keras.Input(size, name=name)
    x = layers.Conv2D(wide, 3, 2, padding="same", activation="relu", name="stem")(image)
    for block in "ab":
        inner = layers.Conv2D(wide, 3, padding="same", name=block)(x)
        x = layers.ReLU(name=f"{block}_relu")(layers.Add(name=f"{block}_add")([x, inner]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(units, activation=head, name="answer")(x))


@pytest.fixture(scope="module")
def model() -> Model:
    return replace(wrap(net()), sparse={"a": "unstructured"})


def loader(given: Model) -> PassContext:
    return PassContext(load=lambda path: given)


PHOTOS = np.random.default_rng(0).uniform(0, 1, (4, *SHAPE)).astype("float32")


def test_narrower_student_has_the_contract_and_half_the_channels(model: Model) -> None:
    before = [weight.copy() for weight in model.graph.get_weights()]
    result = Student(width=0.5, round_to=4).run(model, PassContext())
    assert replace(result.model, graph=None) == replace(model, graph=None, sparse={})
    assert result.model.graph.get_layer("a").kernel.shape == (3, 3, 4, 4)
    total, weights, *lines = result.changes
    # stem 64 places x 27 values, two convolutions of 64 x 9, the answer; with 8 and with 4 channels
    assert total.before.startswith(f"{64 * 27 * 8 + 2 * 64 * 9 * 64 + 24:,} MACs")
    assert total.after.startswith(f"{64 * 27 * 4 + 2 * 64 * 9 * 16 + 12:,} MACs")
    assert weights.after == "those of the channels that stay, the largest by l2"
    assert {(line.layer, line.before, line.after) for line in lines} >= {("stem", "8 channels", "4 channels")}
    assert all(np.array_equal(a, b) for a, b in zip(before, model.graph.get_weights(), strict=True))


def test_shallower_student_keeps_every_second_block_with_its_weights(model: Model) -> None:
    result = Student(depth=0.5).run(model, PassContext())
    names = [layer.name for layer in result.model.graph.layers]
    assert "a" not in names and "b" in names
    np.testing.assert_array_equal(result.model.graph.get_layer("b").kernel, model.graph.get_layer("b").kernel)
    assert [(c.layer, c.before, c.after) for c in result.changes[1:]] == [
        ("blocks of one shape", "2", "1"),
        ("weights", "trained", "those of the layers that stay"),
        ("a, a_add, a_relu", "3 layers", "dropped"),
    ]


def test_random_weights_follow_the_seed_of_the_run(model: Model) -> None:
    one, two, three = (
        Student(depth=0, weights="random").run(model, PassContext(seed=seed)).model.graph.get_layer("stem").kernel
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, three) and not np.allclose(one, model.graph.get_layer("stem").kernel)


def test_application_gets_the_models_head_and_its_own_scaling(model: Model) -> None:
    big = wrap(net(size=(32, 32, 3)))
    result = Student(application="MobileNet", alpha=0.25).run(big, PassContext())
    assert result.model.signature == big.signature
    assert result.model.graph.output_shape == (None, 3)
    line = next(change for change in result.changes if change.layer == SCALING)
    assert line.after == "input * 2 + -1"  # 0..1 to -1..1
    assert result.changes[0].reason == "MobileNet, alpha 0.25 in its place"
    np.testing.assert_allclose(result.model.graph(np.ones((1, 32, 32, 3), "float32")).numpy().sum(), 1, rtol=1e-5)


def test_pretrained_application_gets_the_values_it_was_trained_on() -> None:
    big, trained = wrap(net(size=(32, 32, 3))), net(7, name="theirs")
    asked: list[Any] = []

    def application(name: str, weights: str, alpha: float | None) -> Model:
        asked.append((name, weights, alpha))
        return wrap(trained, contract=Preprocessing(scale=(1 / 127.5,), offset=(-1.0,)))

    context = PassContext(application=application)
    result = Student(application="MobileNetV2", weights="imagenet", alpha=0.5).run(big, context)
    assert asked == [("MobileNetV2", "imagenet", 0.5)]
    graph = result.model.graph
    np.testing.assert_array_equal(graph.get_layer("b").kernel, trained.get_layer("b").kernel)
    features = keras.Model(trained.inputs[0], trained.get_layer("stem").output)
    seen = keras.Model(graph.inputs[0], graph.get_layer("stem").output)
    np.testing.assert_allclose(
        seen(np.tile(PHOTOS, (1, 2, 2, 1)))[:, :4, :4], features(PHOTOS * 2 - 1)[:, :4, :4], atol=1e-5
    )
    assert graph.output_shape == (None, 3)


def test_application_trained_on_other_colours_is_refused(model: Model) -> None:
    caffe = wrap(net(7), contract=Preprocessing(color="bgr"))
    context = PassContext(application=lambda *given: caffe)
    with pytest.raises(UnsupportedError, match="trained on bgr images, the model takes rgb"):
        Student(application="ResNet50", weights="imagenet").run(model, context)


def test_users_network_answers_as_on_its_own_inputs(model: Model) -> None:
    own = net(name="theirs", wide=4)
    result = Student(source=Path("own.keras"), scale=(1.0,), offset=(-128.0,)).run(model, loader(wrap(own)))
    graph = result.model.graph
    np.testing.assert_allclose(graph(PHOTOS), own(PHOTOS * 255 - 128), rtol=1e-4, atol=1e-5)
    assert result.model.signature == model.signature and graph.inputs[0].name == "photo"
    assert result.changes[0].reason == "own.keras in its place"
    same = Student(source=Path("own.keras")).run(model, loader(wrap(own))).model.graph
    np.testing.assert_allclose(same(PHOTOS), own(PHOTOS), rtol=1e-6)
    assert SCALING not in [layer.name for layer in same.layers]


def test_users_network_answers_in_probabilities_or_logits_as_the_model_does() -> None:
    own = net(name="theirs", wide=4)
    logits = net(name="theirs", wide=4, head=None)
    logits.set_weights(own.get_weights())
    for ours, theirs, expected in (("softmax", logits, own), ("logits", own, logits)):
        model = wrap(net(head="softmax" if ours == "softmax" else None), ours)  # type: ignore[arg-type]
        head = "logits" if ours == "softmax" else "softmax"
        result = Student(source=Path("own.keras")).run(model, loader(wrap(theirs, head)))  # type: ignore[arg-type]
        np.testing.assert_allclose(result.model.graph(PHOTOS), expected(PHOTOS), rtol=1e-5, atol=1e-6)
        assert ("its output", head, ours) in [(line.layer, line.before, line.after) for line in result.changes]


def tensorless(kind: Any) -> Model:
    return replace(wrap(net()), kind=kind)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (wrap(net(4)), r"gives outputs of \[4\], the model of \[3\]"),
        (wrap(net(head="sigmoid"), "sigmoids"), "its output is sigmoids, the model's softmax"),
        (wrap(net(head=None), "embedding"), "its output is embedding, the model's softmax"),
        (wrap(net(size=(8, 8, 3))), r"takes inputs of \[8, 8, 3\], the model of \[16, 16, 3\]"),
        (wrap(net(size=(16, 16, 1))), r"takes inputs of \[16, 16, 1\]"),
        (tensorless("onnx"), "needs a Keras graph, own.keras holds onnx"),
    ],
)
def test_users_network_that_does_not_fit_is_refused(model: Model, given: Model, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Student(source=Path("own.keras")).run(model, loader(given))


@pytest.mark.parametrize(
    ("parameters", "changed", "problem"),
    [
        ({"width": 0.5}, {"quant": QuantSpec("int8")}, "the model is int8 already"),
        ({"width": 0.5}, {}, r"student.width = 0.5: leaves every layer as wide as it is"),
        ({"depth": 0.9}, {}, "student.depth = 0.9: drops none of 2 blocks. Fix: set at most 0.5"),
        ({"source": Path("x.keras")}, {}, "student.source: nothing here can read a model file"),
        ({"application": "VGG16", "alpha": 0.5}, {}, "student.alpha: .*no width multiplier"),
        ({"application": "MobileNet", "weights": "imagenet"}, {}, "nothing here can read its weights"),
    ],
)
def test_students_that_cannot_be_are_refused(model: Model, parameters: Any, changed: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Student(**parameters).run(replace(model, **changed), PassContext())


@pytest.mark.parametrize("name", ["scale", "offset"])
def test_scaling_of_other_channels_than_the_models_is_refused(model: Model, name: str) -> None:
    asked = Student.model_validate({"source": "own.keras", name: (1.0, 2.0)})
    with pytest.raises(InputError, match=rf"student\.{name}: has 2 values, the model's images 3 channels"):
        asked.run(model, loader(wrap(net())))


def test_model_without_blocks_is_refused() -> None:
    image = keras.Input(SHAPE, name="photo")
    graph = keras.Model(image, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 3)(image))))
    with pytest.raises(UnsupportedError, match=r"student.depth: no block of this model"):
        Student(depth=0.5).run(wrap(graph, "logits"), PassContext())


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"width": 0.5, "depth": 0.5},
        {"width": 1.0},
        {"depth": 1.0},
        {"width": 0.5, "alpha": 0.5},
        {"width": 0.5, "weights": "imagenet"},
        {"width": 0.5, "scale": (1.0,)},
        {"application": "MobileNet", "weights": "own"},
        {"source": "x.keras", "weights": "y.weights.h5"},
        {"source": "x.keras", "scale": (0.0,)},
        {"source": "x.keras", "scale": (1.0, 1.0), "offset": (0.0, 0.0, 0.0)},
        {"depth": 0.5, "round_to": 4},
    ],
)
def test_parameters_have_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Student(**wrong)


@pytest.fixture(scope="module")
def teachers(digits_model: Path, digits_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The digits CNN in every form that a source reads, of Keras 2 too."""
    tfk = pytest.importorskip("tf_keras", reason="the extra `legacy`")
    graph, own = keras.models.load_model(digits_model), tfk.layers
    image = own.Input((8, 8, 1), name="image")
    x = own.BatchNormalization()(own.Conv2D(12, 3, strides=2, padding="same", use_bias=False)(image))
    x = own.Flatten()(own.Conv2D(16, 3, activation="relu", padding="same")(own.ReLU()(x)))
    twin = tfk.Model(image, own.Dense(10, activation="softmax")(x))
    twin.set_weights(graph.get_weights())
    path = tmp_path_factory.mktemp("legacy") / "digits.h5"
    twin.save(path)
    return {"original": digits_model, "legacy": path, **digits_files}


def test_every_kind_of_teacher_teaches_a_student_the_same(teachers: dict[str, Path]) -> None:
    """Keras 3, Keras 2, SavedModel, .tflite and .onnx of one network: the student's loss is one and the same."""
    from tests.test_contracts import digits_splits
    from toolkit.sources.keras import Keras
    from toolkit.stages import _load_any

    original = Keras().load(teachers["original"])
    splits = digits_splits(original)
    context = PassContext(original=original, train=splits.train, load=partial(_load_any))
    student = Student(width=0.5, round_to=4).run(original, context).model
    losses = {}
    for kind, path in teachers.items():
        taught = Distill(epochs=2, batch_size=50, alpha=1.0, teacher=path).run(student, context)
        losses[kind] = taught.curves["loss"]
    assert losses["original"][1] < losses["original"][0]
    for found in losses.values():
        assert found == pytest.approx(losses["original"], rel=1e-3)


def test_weights_file_of_a_named_network_gives_its_features(tmp_path: Path) -> None:
    from toolkit.stages import _application

    keras.utils.set_random_seed(5)
    trained = keras.applications.MobileNet(alpha=0.25, weights=None)
    path = tmp_path / "mobilenet.weights.h5"
    trained.save_weights(path)
    big, context = wrap(net(size=(32, 32, 3))), PassContext(application=_application)
    asked = Student(application="MobileNet", alpha=0.25, weights=path)
    result = asked.run(big, context)
    for name in ("conv1", "conv_pw_13"):
        np.testing.assert_array_equal(result.model.graph.get_layer(name).kernel, trained.get_layer(name).kernel)
    assert result.model.signature == big.signature
    scaling = next(change for change in result.changes if change.layer == SCALING)
    assert scaling.after == "input * 2 + -1"  # of the contract MobileNet's weights were trained with
    with pytest.raises(InputError, match="do not fit"):
        asked.model_copy(update={"alpha": 0.5}).run(big, context)
