"""Cluster leaves as few values as asked for, which later passes, rest and files keep, and refuses the rest."""

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

from toolkit.core import Batch, Codebook, Model, PassContext, Progress, QuantSpec, Signature, Task, TensorSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes.cluster import Cluster
from toolkit.passes.distill import Distill
from toolkit.passes.prune import Prune
from toolkit.passes.qat import Qat
from toolkit.passes.quantize import Quantize
from toolkit.passes.sparsify import Sparsify
from toolkit.sources import store

NAMES = ("conv", "point", "answer")


@dataclass(frozen=True)
class Images:
    """A split of images whose class is their brightness."""

    count: int = 48
    classes: tuple[str, ...] = ("dark", "grey", "bright")
    name: str = "train"
    fingerprint: str = "abc"
    task: Task = "classes"

    @property
    def labels(self) -> Any:
        return np.arange(self.count) % 3

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.count)))

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[Batch]:
        noise = np.random.default_rng(0).normal(size=(self.count, 6, 6, 2)) / 2
        images = (noise + self.labels[:, None, None, None]).astype("float32")
        for start in range(0, self.count, size):
            rows = slice(start, start + size)
            yield Batch({"photo": images[rows]}, {"label": self.labels[rows]}, self.ids[rows])


@pytest.fixture(scope="module")
def original() -> Model:
    """BatchNormalization scales channels apart, one of them by a negative number."""
    keras.utils.set_random_seed(3)
    x = image = keras.Input((6, 6, 2), name="photo")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(8, 3, use_bias=False, name="conv")(x))
    x = layers.ReLU(name="relu")(x)
    x = layers.BatchNormalization(name="bn2")(layers.SeparableConv2D(16, 3, use_bias=False, name="point")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu2")(x))
    graph = keras.Model(image, layers.Dense(3, activation="softmax", name="answer")(x))
    for name, size in (("bn", 8), ("bn2", 16)):
        graph.get_layer(name).gamma.assign(np.linspace(-0.5, 2, size))
    ends = (
        (TensorSpec("photo", (None, 6, 6, 2), "float32", "image"),),
        (TensorSpec("answer", (None, 3), "float32", "softmax"),),
    )
    return Model("keras", graph, Signature(*ends))


@pytest.fixture(scope="module")
def context(original: Model) -> PassContext:
    return PassContext(original=original, train=Images(), calibration=Images())


@pytest.fixture(scope="module")
def result(original: Model, context: PassContext) -> Any:
    return Cluster(clusters=4, epochs=2, batch_size=16, learning_rate=0.01).run(original, context)


def kernels(model: Model) -> dict[str, Any]:
    graph = model.graph
    point = getattr(graph.get_layer("point"), "pointwise_kernel", None)
    own = {name: np.asarray(graph.get_layer(name).kernel) for name in ("conv", "answer")}
    return {**own, "point": np.asarray(graph.get_layer("point").kernel if point is None else point)}


def values(model: Model) -> dict[str, int]:
    return {name: len(np.unique(kernel)) for name, kernel in kernels(model).items()}


def values_per_channel(model: Model) -> dict[str, int]:
    every = kernels(model).items()
    return {name: max(len(np.unique(row)) for row in np.moveaxis(kernel, -1, 0)) for name, kernel in every}


def partners(kernel: Any) -> Any:
    """Which weights share a value, as a number for each."""
    return np.unique(kernel, return_inverse=True)[1]


def test_cluster_leaves_as_many_values_in_each_layer_as_asked_for(original: Model, result: Any) -> None:
    assert values(result.model) == dict.fromkeys(NAMES, 4)
    assert result.model.clustered == dict.fromkeys(NAMES, Codebook(4, "layer"))
    assert [type(layer) for layer in result.model.graph.layers] == [type(layer) for layer in original.graph.layers]
    told = {change.layer: (change.before, change.after, change.reason) for change in result.changes}
    assert told["conv"] == ("144 values of 144 weights", "4 values", "in the layer")
    assert told["point"][0] == "128 values of 128 weights" and "2 epochs of 3 steps" in told["the model"][2]
    assert min(values(original).values()) > 40 and not original.clustered


def test_training_moves_the_values_and_who_shares_them(original: Model, context: PassContext, result: Any) -> None:
    at_once = Cluster(clusters=4, epochs=0).run(original, PassContext()).model
    fixed = Cluster(clusters=4, epochs=2, batch_size=16, learning_rate=0.01, assignment="fixed").run(original, context)
    moved = [kernels(model)["point"] for model in (at_once, fixed.model, result.model)]
    assert not np.array_equal(np.unique(moved[0]), np.unique(moved[1]))
    np.testing.assert_array_equal(partners(moved[0]), partners(moved[1]))
    assert (partners(moved[0]) != partners(moved[2])).any()


def test_each_channel_can_have_values_of_its_own_and_small_layers_stay(original: Model, context: PassContext) -> None:
    found = Cluster(clusters=8, per="channel", epochs=1, batch_size=16, protect=("answer",)).run(original, context)
    told = {change.layer: change.reason for change in found.changes}
    assert told["point"] == "each output channel has 8 weights, no more than a codebook's values"
    assert told["answer"] == "protected by 'answer'"
    assert found.model.clustered == {"conv": Codebook(8, "channel")}
    assert values_per_channel(found.model)["conv"] == 8 < values(found.model)["conv"]


def test_clustered_model_is_the_same_after_rest(result: Any, tmp_path: Path) -> None:
    store.save(result.model, tmp_path / "m.keras")
    again = store.restore(tmp_path / "m.keras")
    assert again.clustered == result.model.clustered
    assert all(np.array_equal(one, kernels(again)[name]) for name, one in kernels(result.model).items())


def test_the_model_as_it_came_is_not_the_best_epoch(original: Model, context: PassContext) -> None:
    """Whatever scores best has shared weights."""
    more = replace(context, evaluate=lambda model: float(len(np.unique(kernels(model)["conv"]))))
    found = Cluster(clusters=4, epochs=1, batch_size=16).run(original, more)
    assert values(found.model)["conv"] == 4
    line = next(change for change in found.changes if change.layer == "the model")
    assert "epoch 1 is kept" in line.reason and line.before == "selection accuracy 14400.00%"


def test_clustering_computes_in_16_bits_where_it_is_asked_to(original: Model, context: PassContext) -> None:
    found = Cluster(clusters=4, epochs=1, batch_size=16, precision="float16").run(original, context).model
    assert values(found) == dict.fromkeys(NAMES, 4)


def test_clustering_learns_from_what_is_inside_the_teacher(original: Model, context: PassContext) -> None:
    found = Cluster(clusters=4, epochs=1, batch_size=16, hints={}).run(original, context)
    assert values(found.model) == dict.fromkeys(NAMES, 4) and "hints_loss" in found.curves


def test_distill_moves_the_values_and_leaves_who_shares_them(result: Any, context: PassContext) -> None:
    after = Distill(epochs=1, batch_size=16).run(result.model, context)
    for name, kernel in kernels(result.model).items():
        np.testing.assert_array_equal(partners(kernel), partners(kernels(after.model)[name]))
        assert not np.array_equal(kernel, kernels(after.model)[name])
    line = next(change for change in after.changes if change.layer == "3 clustered layers")
    assert line.after == "3 as they were" and after.model.clustered == result.model.clustered
    loose = Distill(epochs=1, batch_size=16).run(replace(result.model, clustered={}), context).model
    assert min(values(loose).values()) > 4  # it would not stay if distill did not know of it


@pytest.mark.parametrize(
    "settings", [{}, {"batchnorm": "corrected", "granularity": "per_tensor"}, {"flavour": "symmetric", "hints": {}}]
)
def test_qat_leaves_as_many_integers_in_each_output_channel(
    result: Any, context: PassContext, settings: dict[str, Any]
) -> None:
    """BatchNormalization goes into the weights: of a codebook there is one for each channel then."""
    after = Qat(epochs=2, batch_size=16, learning_rate=0.01, **settings).run(result.model, context)
    assert max(values_per_channel(after.model).values()) <= 4 < values(after.model)["conv"]
    assert not np.array_equal(kernels(after.model)["answer"], kernels(result.model)["answer"])
    assert after.model.clustered["conv"] == after.model.clustered["point"] == Codebook(4, "channel")
    line = next(change for change in after.changes if change.layer == "3 clustered layers")
    assert "with a codebook for each output channel, which were scaled apart" in line.after


def test_what_is_zero_stays_zero_and_clustered_through_qat(original: Model, context: PassContext) -> None:
    """Sparsify, cluster, qat: what others call PCQAT."""
    sparse = Sparsify(sparsity=0.5, epochs=0).run(original, context).model
    both = Cluster(clusters=5, epochs=2, batch_size=16, learning_rate=0.01).run(sparse, context).model
    after = Qat(epochs=2, batch_size=16, learning_rate=0.01).run(both, context).model
    for name, kernel in kernels(sparse).items():
        assert (kernels(both)[name][kernel == 0] == 0).all() and (kernels(after)[name][kernel == 0] == 0).all()
    assert max(values(both).values()) <= 5 and max(values_per_channel(after).values()) <= 5
    assert set(both.sparse) == set(after.sparse) == set(both.clustered) == set(after.clustered) == set(NAMES)


def test_a_second_cluster_keeps_the_values_of_layers_it_leaves(original: Model, context: PassContext) -> None:
    first = Cluster(clusters=4, epochs=0, protect=("answer",)).run(original, context).model
    both = Cluster(clusters=8, epochs=1, batch_size=16, protect=("conv", "point")).run(first, context).model
    assert both.clustered == {"conv": Codebook(4), "point": Codebook(4), "answer": Codebook(8)}
    np.testing.assert_array_equal(partners(kernels(first)["conv"]), partners(kernels(both)["conv"]))
    assert values(both) == {"conv": 4, "point": 4, "answer": 8}


def test_cluster_goes_on_from_its_checkpoint(
    original: Model, context: PassContext, result: Any, tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def emit(progress: Progress) -> None:
        if progress.keep:
            raise KilledError

    step = Cluster(clusters=4, epochs=2, batch_size=16, learning_rate=0.01)
    kept_here = replace(context, checkpoint=tmp_path / "state.npz", key="k")
    with pytest.raises(KilledError):
        step.run(original, replace(kept_here, emit=emit))
    again = step.run(original, kept_here)
    assert again.curves == result.curves
    for one, two in zip(result.model.graph.get_weights(), again.model.graph.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Field required"),
        ({"clusters": 1}, "greater than or equal to 2"),
        ({"clusters": 4, "backend": "tfmot", "augment": "shift"}, "has augment 'none' only"),
        ({"clusters": 4, "backend": "tfmot", "assignment": "fixed"}, "has assignment 'renewed' only"),
        ({"clusters": 4, "backend": "tfmot", "epochs": 0}, "backend 'tfmot' trains"),
        ({"clusters": 4, "assignment": "fixed", "epochs": 0}, "assignment is of no use with epochs = 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Cluster(**settings)


def test_what_would_part_shared_weights_is_refused(original: Model, context: PassContext) -> None:
    model = replace(original, clustered={"conv": Codebook(4)})
    with pytest.raises(UnsupportedError, match="prune first, then cluster"):
        Prune(sparsity=0.5, round_to=1).run(model, context)
    with pytest.raises(UnsupportedError, match="make zeros first, then cluster"):
        Sparsify(sparsity=0.5).run(model, context)
    with pytest.raises(UnsupportedError, match=r"quantize\.corrections: would part the shared weights of 1 clustered"):
        Quantize(scheme="int8", corrections=("adaround",)).run(model, context)
    with pytest.raises(UnsupportedError, match="would part the shared weights of 1 clustered layers"):
        Qat(backend="tfmot").run(model, context)
    with pytest.raises(UnsupportedError, match="int8 already"):
        Cluster(clusters=4).run(replace(original, quant=QuantSpec("int8")), context)


def test_cluster_refuses_what_it_cannot_do(original: Model, context: PassContext) -> None:
    with pytest.raises(InputError, match=r"cluster\.protect: no layer is named like 'nothing'"):
        Cluster(clusters=4, protect=("nothing",)).run(original, context)
    with pytest.raises(UnsupportedError, match=r"no layer can share weights: conv \(protected"):
        Cluster(clusters=4, protect=("*",)).run(original, context)
    with pytest.raises(InputError, match="no train split"):
        Cluster(clusters=4).run(original, PassContext(original=original))
    with pytest.raises(InputError, match=r"cluster\.clusters: zero is one value of a sparse model, needs 3"):
        Cluster(clusters=2).run(replace(original, sparse={"conv": "unstructured"}), context)
