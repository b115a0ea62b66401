"""Making a model: the laws of each phase, what is asked of the data, and a whole training on real digits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.core import Batch, Model, PassContext, PassResult, Preprocessing, Progress, Signature, Task, TensorSpec
from toolkit.errors import InputError, UnavailableError
from toolkit.training.make import Work, images_contract, make_model
from toolkit.training.section import TrainSection

CONTRACT = Preprocessing(size=(8, 8), scale=(0.5,))
NAMES = ("dark", "grey", "bright")


@dataclass(frozen=True)
class Images:
    """A split of images whose class is their brightness."""

    count: int = 64
    classes: tuple[str, ...] = NAMES
    task: Task = "classes"
    name: str = "train"
    fingerprint: str = ""
    seed: int = 0
    spoiled: bool = False

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.count)))

    @property
    def labels(self) -> Any:
        classes = np.arange(self.count) % len(self.classes)
        if self.task == "labels":
            return np.eye(len(self.classes), dtype=np.uint8)[classes]
        return classes if self.task == "classes" else classes[:, None].astype(np.float32)

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[Batch]:
        noise = np.random.default_rng(self.seed).normal(size=(self.count, 8, 8, 3)) / 4
        images = (noise + (np.arange(self.count) % len(self.classes))[:, None, None, None]).astype("float32")
        images[0] = np.nan if self.spoiled else images[0]
        for start in range(0, self.count, size):
            rows = slice(start, start + size)
            yield Batch({"image": images[rows]}, {"label": self.labels[rows]}, self.ids[rows])


SPLITS = MappingProxyType({"train": Images(), "selection": Images(30, name="selection", seed=1)})


@pytest.fixture(scope="module")
def pretrained() -> Model:
    """conv1, bn1, dropout, conv2, bn2, pooling, a head of seven; statistics that are not those of new layers."""
    keras.utils.set_random_seed(1)
    image = keras.Input((10, 10, 3), name="photo")
    x = layers.BatchNormalization(name="bn1")(layers.Conv2D(6, 3, name="conv1")(image))
    x = layers.Dropout(0.5, name="noise")(layers.ReLU()(x))
    x = layers.ReLU()(layers.BatchNormalization(name="bn2")(layers.Conv2D(8, 3, name="conv2")(x)))
    graph = keras.Model(image, layers.Dense(7, name="old")(layers.GlobalAveragePooling2D()(x)))
    for name in ("bn1", "bn2"):
        layer = graph.get_layer(name)
        layer.set_weights([weight + 0.25 for weight in layer.get_weights()])
    signature = Signature(
        (TensorSpec("photo", (None, 10, 10, 3), "float32", "image"),), (TensorSpec("old", (None, 7), "float32"),)
    )
    return Model("keras", graph, signature)


def transfer(
    pretrained: Model, tmp_path: Path, *, splits: Any = SPLITS, work: Work | None = None, **fields: Any
) -> Any:
    file = tmp_path / "pretrained.keras"
    file.touch()
    phases = {"features": {"epochs": 4, "learning_rate": 0.05}, "finetune": {"epochs": 2, "layers": 1}}
    section = TrainSection.model_validate({"backbone": str(file), "batch_size": 16, **phases, **fields})
    context = PassContext(**splits, load=lambda path: pretrained)
    return make_model(section, context, preprocessing=CONTRACT, work=work)


def scratch(splits: Any = SPLITS, head: str = "auto", **fields: Any) -> PassResult:
    section = TrainSection.model_validate(
        {"width": 4, "depth": 1, "epochs": 2, "batch_size": 16, "learning_rate": 0.02, **fields}
    )
    return make_model(section, PassContext(**splits), preprocessing=CONTRACT, head=head, work=None)


def values(model: Any, layer: str) -> list[Any]:
    return [np.asarray(weight) for weight in model.graph.get_layer(layer).weights]


def same(one: list[Any], two: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("views", [{}, {"augment": {"shift": 0.1}}], ids=["kept features", "views"])
def test_features_phase_leaves_the_backbone_as_it_is(pretrained: Model, tmp_path: Path, views: Any) -> None:
    found = transfer(pretrained, tmp_path, finetune={"epochs": 0}, **views).model
    for layer in ("conv1", "bn1", "conv2", "bn2"):
        assert same(values(pretrained, layer), values(found, layer))
    assert found.graph.get_layer("classes").units == 3 and found.head == "softmax"


@pytest.mark.parametrize("views", [{}, {"augment": {"shift": 0.1}}], ids=["kept features", "views"])
def test_finetuning_changes_the_last_layers_and_no_statistics(pretrained: Model, tmp_path: Path, views: Any) -> None:
    """The last epoch is kept, as there is no selection split: the weights have moved for sure."""
    found = transfer(pretrained, tmp_path, splits={"train": Images()}, **views).model
    for layer in ("conv1", "bn1", "bn2"):
        assert same(values(pretrained, layer), values(found, layer))
    assert not same(values(pretrained, "conv2"), values(found, "conv2"))


def test_features_that_are_kept_change_nothing_but_the_time(
    pretrained: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = transfer(pretrained, tmp_path, head_dropout=0.0)
    monkeypatch.setattr("toolkit.training.make.MOST_KEPT", 0)
    run = transfer(pretrained, tmp_path, head_dropout=0.0)
    assert "still layers held in memory" in kept.changes[1].reason and "images held in memory" in run.changes[1].reason
    for name, line in kept.curves.items():
        assert run.curves[name] == pytest.approx(line, rel=1e-3, abs=1e-6)


def test_curves_and_changes_tell_of_both_phases(pretrained: Model, tmp_path: Path) -> None:
    found = transfer(pretrained, tmp_path)
    kinds = ("loss", "selection_accuracy", "learning_rate")
    assert {name: len(line) for name, line in found.curves.items()} == {
        **{f"features_{kind}": 4 for kind in kinds},
        **{f"finetune_{kind}": 2 for kind in kinds},
    }
    assert found.changes[0].before == "pretrained.keras"
    assert found.changes[1].layer == "features: the head"
    assert found.changes[2].layer == "finetune: the head and 1 backbone layers"
    assert found.changes[1].after == found.changes[2].before
    best = max(found.curves["features_selection_accuracy"])
    assert found.changes[1].after == f"selection accuracy {best:.2%}"


def test_saved_model_has_no_views_and_answers_as_the_trained_network(tmp_path: Path) -> None:
    from toolkit.sources import store

    found = scratch(augment={"flip": "horizontal", "rotation": 10, "brightness": 0.1, "hue": 0.1}).model
    store.save(found, tmp_path / "m.keras")
    again = store.restore(tmp_path / "m.keras")
    kinds = [type(layer).__name__ for layer in again.graph.layers]
    assert kinds == [
        *("InputLayer", "Conv2D", "BatchNormalization", "ReLU", "GlobalAveragePooling2D", "Dropout", "Dense")
    ]
    images = next(Images().batches(64)).inputs["image"]
    np.testing.assert_array_equal(np.asarray(found.graph(images)), np.asarray(again.graph(images)))
    assert replace(again, graph=None) == replace(found, graph=None) and found.preprocessing == CONTRACT


def test_same_seed_makes_the_same_model() -> None:
    one, two = (scratch(augment={"shift": 0.1}).model.graph.get_weights() for _ in range(2))
    assert same(one, two)


def test_patience_ends_a_phase() -> None:
    """Nothing is learned at such a rate: the first epoch is as good as any."""
    found = scratch(epochs=9, patience=2, learning_rate=1e-12)
    assert len(found.curves["loss"]) <= 3


def test_training_that_was_stopped_in_its_second_phase_is_taken_up_there(pretrained: Model, tmp_path: Path) -> None:
    whole = transfer(pretrained, tmp_path, finetune={"epochs": 4, "layers": 1})
    work = Work(tmp_path / "checkpoints", "a")
    said: list[str] = []

    def stop(progress: Progress) -> None:
        if "finetune: epoch 2 of 4" in progress.text:
            raise KeyboardInterrupt

    file = str(tmp_path / "pretrained.keras")
    section = TrainSection.model_validate(
        {
            "backbone": file,
            "batch_size": 16,
            "features": {"epochs": 4, "learning_rate": 0.05},
            "finetune": {"epochs": 4, "layers": 1},
        }
    )
    context = PassContext(**SPLITS, load=lambda path: pretrained)
    with pytest.raises(KeyboardInterrupt):
        make_model(section, replace(context, emit=stop), preprocessing=CONTRACT, work=work)
    assert sorted(path.name for path in work.folder.iterdir()) == ["features.npz", "finetune.npz"]
    context = replace(context, emit=lambda progress: said.append(progress.text))
    found = make_model(section, context, preprocessing=CONTRACT, work=work)
    assert "  train: finetune: taken up after epoch 2 of 4" in said and not any("features: epoch" in t for t in said)
    assert found.curves == whole.curves and same(found.model.graph.get_weights(), whole.model.graph.get_weights())


@pytest.mark.parametrize(
    ("data", "head", "wanted", "columns"),
    [
        (Images(), "auto", "softmax", 3),
        (Images(), "logits", "logits", 3),
        (Images(classes=("a", "b")), "sigmoid", "sigmoid", 1),
        (Images(task="labels"), "auto", "sigmoids", 3),
        (Images(task="values"), "auto", "regression", 1),
    ],
)
def test_head_follows_from_the_labels(data: Images, head: str, wanted: str, columns: int) -> None:
    found = scratch({"train": data, "selection": replace(data, name="selection")}, head, epochs=1)
    assert found.model.head == wanted and found.model.graph.outputs[0].shape == (None, columns)
    score = "selection_accuracy" if data.task == "classes" else "selection_score"
    assert set(found.curves) == {"loss", "learning_rate", score}


@pytest.mark.parametrize(
    ("splits", "fields", "problem"),
    [
        ({}, {}, r"train: there is no train split\. Fix: set data\.splits\.train"),
        ({"train": Images(classes=("a",))}, {}, "the data has one class, 'a'"),
        ({"train": Images(1)}, {}, "all training images are of one class"),
        ({"train": Images()}, {"patience": 1}, "no selection split to judge epochs on"),
        ({"train": Images()}, {"head": "regression"}, "the head regression does not learn from classes"),
        ({"train": Images()}, {"head": "sigmoid"}, "one sigmoid tells two classes apart, the data has 3"),
        ({"train": Images()}, {"class_weights": {"drak": 2}}, "no class is called 'drak'. Fix: did you mean 'dark'"),
        ({"train": Images(task="labels")}, {"class_weights": "balanced"}, "balanced needs one class an image"),
        ({"train": Images(spoiled=True)}, {}, r"the loss is nan in epoch 1\. Fix: lower learning_rate, got 0\.02"),
    ],
)
def test_what_cannot_be_learned_from_is_one_line(splits: Any, fields: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as error:
        scratch(splits, **fields)
    assert "\n" not in str(error.value)


def test_gpu_that_is_asked_for_and_not_there_is_said() -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    with pytest.raises(UnavailableError, match=r"train\.mixed_precision: there is no GPU here"):
        scratch(mixed_precision=True)


def test_class_weights_reach_the_loss() -> None:
    """A class that weighs nothing is never learned (nor kept, as no selection split asks for it)."""
    weights = {"dark": 0.0, "bright": 5}
    found = scratch({"train": Images()}, epochs=20, class_weights=weights).model
    images = next(Images().batches(64)).inputs["image"]
    assert not (np.asarray(found.graph(images)).argmax(axis=1) == 0).any()


def test_backbone_that_cannot_be_used_is_one_line(pretrained: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs a Keras graph, pretrained\.keras holds onnx"):
        transfer(replace(pretrained, kind="onnx"), tmp_path)


def test_contract_has_the_size_and_colours_of_the_training() -> None:
    from toolkit.datasets.preprocess import PreprocessSpec

    def where(*key: str) -> str:
        return ".".join(key)

    gray = PreprocessSpec.model_validate({"scale": 0.5, "color": "gray"})
    found = images_contract(TrainSection(input_size=(6, 8)), gray, where)
    assert (found.size, found.color, found.scale) == ((6, 8), "gray", (0.5,))
    sized = PreprocessSpec.model_validate({"preset": "caffe", "size": [4, 4]})
    assert images_contract(TrainSection(), sized, where).color == "bgr"
    with pytest.raises(InputError, match=r"train\.input_size: is \[6, 8\], and data\.preprocess\.size is \[4, 4\]"):
        images_contract(TrainSection(input_size=(6, 8)), sized, where)
    with pytest.raises(InputError, match=r"train\.input_size: is not given"):
        images_contract(TrainSection(), gray, where)
