"""Sparsify puts as many zeros as asked for, which later passes, rest and delivered files keep, and refuses the rest."""

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

from toolkit.core import Batch, ExportContext, Model, PassContext, Progress, QuantSpec, Signature, Task, TensorSpec
from toolkit.engine.sparsity import kept
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes.distill import Distill
from toolkit.passes.prune import Prune
from toolkit.passes.qat import Qat
from toolkit.passes.quantize import Quantize
from toolkit.passes.sparsify import Sparsify
from toolkit.sources import store

SIZES = {"conv": 72, "point": 128, "answer": 48}  # weights that can be zero


@dataclass(frozen=True)
class Images:
    """A split of images whose class is their brightness."""

    count: int = 90
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
        noise = np.random.default_rng(0).normal(size=(self.count, 6, 6, 1)) / 2
        images = (noise + self.labels[:, None, None, None]).astype("float32")
        for start in range(0, self.count, size):
            rows = slice(start, start + size)
            yield Batch({"photo": images[rows]}, {"label": self.labels[rows]}, self.ids[rows])


@pytest.fixture(scope="module")
def original() -> Model:
    keras.utils.set_random_seed(3)
    x = image = keras.Input((6, 6, 1), name="photo")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(8, 3, use_bias=False, name="conv")(x))
    x = layers.ReLU(name="relu")(x)
    x = layers.BatchNormalization(name="bn2")(layers.SeparableConv2D(16, 3, use_bias=False, name="point")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu2")(x))
    graph = keras.Model(image, layers.Dense(3, activation="softmax", name="answer")(x))
    graph.compile(keras.optimizers.Adam(0.03), "sparse_categorical_crossentropy")
    batch = next(Images().batches(90))
    graph.fit(batch.inputs["photo"], batch.targets["label"], epochs=20, verbose=0)
    ends = (
        (TensorSpec("photo", (None, 6, 6, 1), "float32", "image"),),
        (TensorSpec("answer", (None, 3), "float32", "softmax"),),
    )
    return Model("keras", graph, Signature(*ends))


@pytest.fixture(scope="module")
def context(original: Model) -> PassContext:
    return PassContext(original=original, train=Images(), calibration=Images())


@pytest.fixture(scope="module")
def result(original: Model, context: PassContext) -> Any:
    return Sparsify(sparsity=0.75, epochs=3, batch_size=30).run(original, context)


@pytest.fixture(scope="module")
def halved(original: Model, context: PassContext) -> Any:
    """2:4; the first layer, with one input channel, is whole."""
    return Sparsify(pattern="2:4", epochs=1, batch_size=30).run(original, context).model


def kernels(model: Model) -> dict[str, Any]:
    graph = model.graph
    point = getattr(graph.get_layer("point"), "pointwise_kernel", None)
    own = {name: np.asarray(graph.get_layer(name).kernel) for name in ("conv", "answer")}
    return {**own, "point": np.asarray(graph.get_layer("point").kernel if point is None else point)}


def zero_places(model: Model) -> dict[str, Any]:
    return {name: kernel == 0 for name, kernel in kernels(model).items()}


def holds_two_of_four(rows: Any) -> bool:
    """Input channels last."""
    return bool((np.count_nonzero(rows.reshape(-1, 4), axis=1) <= 2).all())


def test_sparsify_makes_the_share_asked_for_exact_to_one_weight(original: Model, result: Any) -> None:
    assert {name: int((~zeros).sum()) for name, zeros in zero_places(result.model).items()} == {
        name: kept(size, 0.75) for name, size in SIZES.items()
    }
    assert [type(layer) for layer in result.model.graph.layers] == [type(layer) for layer in original.graph.layers]
    assert result.model.sparse == dict.fromkeys(SIZES, "unstructured")
    assert not any(zeros.any() for zeros in zero_places(original).values()) and not original.sparse


def test_sparsify_says_what_became_of_each_layer(result: Any) -> None:
    told = {change.layer: (change.before, change.after, change.reason) for change in result.changes}
    assert told["conv"][:2] == (
        "0 of 72 weights are zero (0.0%)",
        "54 of 72 weights are zero (75.0%), unstructured",
    )
    assert told["3 layers"][1:] == ("186 of 248 weights are zero (75.0%)", "asked for 75.0% of the weights, layer")
    assert "3 epochs of 3 steps" in told["the model"][2] and len(result.curves["loss"]) == 3


def test_sparse_model_is_the_same_after_rest(result: Any, tmp_path: Path) -> None:
    store.save(result.model, tmp_path / "m.keras")
    again = store.restore(tmp_path / "m.keras")
    assert again.sparse == result.model.sparse
    assert all(np.array_equal(one, kernels(again)[name]) for name, one in kernels(result.model).items())


@pytest.mark.parametrize("step", [Distill(epochs=2, batch_size=30), Qat(epochs=1, batch_size=30, learning_rate=0.01)])
def test_zeros_stay_in_the_passes_that_follow(result: Any, context: PassContext, step: Any) -> None:
    """qat rounds: what is small becomes zero too, what is zero stays."""
    after = step.run(result.model, context)
    for name, zeros in zero_places(result.model).items():
        found = kernels(after.model)[name]
        assert (found[zeros] == 0).all() and not np.array_equal(found, kernels(result.model)[name])
    line = next(change for change in after.changes if change.layer == "3 sparse layers")
    count = sum(int(zeros.sum()) for zeros in zero_places(after.model).values())
    assert (line.before, line.after) == ("186 zeros", f"{count} zeros")
    assert after.model.sparse == result.model.sparse


def test_zeros_would_not_stay_if_distill_did_not_know_of_them(result: Any, context: PassContext) -> None:
    after = Distill(epochs=1, batch_size=30).run(replace(result.model, sparse={}), context).model
    assert sum(int(zeros.sum()) for zeros in zero_places(after).values()) < 100


@pytest.mark.parametrize("step", ["qat", "quantize", "corrected"])
def test_zeros_are_in_the_delivered_int8_files(halved: Model, context: PassContext, step: str, tmp_path: Path) -> None:
    """Through BatchNormalization, rounding and both exporters, along the axis the files have the input channels on."""
    from ai_edge_litert.interpreter import Interpreter
    from onnx import load, numpy_helper

    from toolkit.exporters.onnx import ONNX
    from toolkit.exporters.tflite import TFLite

    corrections = ("equalize", "adaround", "bias") if step == "corrected" else ()
    quantize = Qat(epochs=1, batch_size=30) if step == "qat" else Quantize(scheme="int8", corrections=corrections)
    model = quantize.run(halved, context).model
    assert model.sparse == {"point": "2:4", "answer": "2:4"}
    export = ExportContext(calibration=Images())  # type: ignore[arg-type]
    TFLite().export(model, tmp_path / "m.tflite", export)
    ONNX().export(model, tmp_path / "m.onnx", export)
    reader = Interpreter(str(tmp_path / "m.tflite"))
    reader.allocate_tensors()
    weights = [found for found in reader.get_tensor_details() if found["dtype"] == np.int8 and len(found["shape"]) > 1]
    shapes = {(16, 1, 1, 8), (3, 16)}
    lite = [reader.get_tensor(found["index"]) for found in weights if tuple(found["shape"]) in shapes]
    assert len(lite) == 2 and all(holds_two_of_four(found) for found in lite)
    arrays = [numpy_helper.to_array(tensor) for tensor in load(tmp_path / "m.onnx").graph.initializer]
    (point,) = (array for array in arrays if array.shape == (16, 8, 1, 1))
    (answer,) = (array for array in arrays if array.dtype == np.int8 and array.shape in ((16, 3), (3, 16)))
    assert holds_two_of_four(point[:, :, 0, 0]) and holds_two_of_four(answer if answer.shape[0] == 3 else answer.T)


def test_prune_after_sparsify_is_refused(halved: Model, original: Model) -> None:
    with pytest.raises(UnsupportedError, match="prune first, then sparsify"):
        Prune(sparsity=0.5, round_to=1).run(halved, PassContext(original=original))


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_second_sparsify_keeps_the_zeros_of_layers_it_leaves_whole(
    original: Model, context: PassContext, epochs: int
) -> None:
    first = Sparsify(sparsity=0.75, epochs=epochs, batch_size=30, protect=("answer",)).run(original, context).model
    how = Sparsify(pattern="2:4", epochs=epochs, batch_size=30, protect=("conv", "point"))
    both = how.run(first, context).model
    assert dict(both.sparse) == {"conv": "unstructured", "point": "unstructured", "answer": "2:4"}
    before, after = zero_places(first), zero_places(both)
    assert all((before[name] == after[name]).all() for name in ("conv", "point"))
    assert holds_two_of_four(kernels(both)["answer"].T)
    with pytest.raises(UnsupportedError, match="would fill the zeros that layer 'conv' has already"):
        how.model_copy(update={"backend": "tfmot", "epochs": 1}).run(first, context)


@pytest.mark.parametrize("corrections", [("gptq",), ("adaround",), ("outliers", "equalize", "gptq", "bias")])
def test_corrections_of_quantize_keep_zeros(result: Any, context: PassContext, corrections: Any) -> None:
    found = Quantize(scheme="int8", corrections=corrections).run(result.model, context).model
    assert dict(found.sparse) == dict(result.model.sparse)
    before, after = zero_places(result.model), zero_places(found)
    for name, zeros in before.items():
        assert after[name].shape == zeros.shape
        assert (after[name] | ~zeros).all()  # rounding may only add zeros


def test_two_of_four_leaves_a_layer_of_one_input_whole_and_says_so(original: Model, context: PassContext) -> None:
    found = Sparsify(pattern="2:4", epochs=0).run(original, context)
    told = {change.layer: change.reason for change in found.changes}
    assert told["conv"] == "1 input channels, fewer than the 4 of 2:4"
    assert zero_places(found.model)["point"].sum() == 64 and not zero_places(found.model)["conv"].any()


def test_without_training_the_others_stay_and_no_images_are_needed(original: Model) -> None:
    step = Sparsify(sparsity=0.5, epochs=0, protect=("answer",))
    assert step.needs == () and Sparsify(sparsity=0.5).needs == ("train",)
    found = step.run(original, PassContext())
    assert found.model.sparse == {"conv": "unstructured", "point": "unstructured"}
    assert {"answer": "protected by 'answer'"}.items() <= {row.layer: row.reason for row in found.changes}.items()
    for name, old in kernels(original).items():
        new = kernels(found.model)[name]
        assert np.array_equal(new[new != 0], old[new != 0])
        assert np.count_nonzero(new) == (SIZES[name] if name == "answer" else SIZES[name] // 2)


def test_global_scope_takes_the_share_of_all_layers(original: Model) -> None:
    zeros = zero_places(Sparsify(sparsity=0.8, scope="global", epochs=0).run(original, PassContext()).model)
    assert sum(int((~x).sum()) for x in zeros.values()) == kept(248, 0.8)
    sizes = np.concatenate([np.abs(x).ravel() for x in kernels(original).values()])
    gone = np.concatenate([zeros[name].ravel() for name in kernels(original)])
    assert sizes[gone].max() <= sizes[~gone].min()


def test_sparsify_goes_on_from_its_checkpoint(
    original: Model, context: PassContext, result: Any, tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def emit(progress: Progress) -> None:
        if progress.keep:
            raise KilledError

    step = Sparsify(sparsity=0.75, epochs=3, batch_size=30)
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
        ({}, "give sparsity"),
        ({"sparsity": 1.0}, "less than 1"),
        ({"pattern": "4:2"}, "fewer than 2 can stay"),
        ({"pattern": "two of four"}, "pattern"),
        ({"pattern": "1x1", "sparsity": 0.5}, "unstructured"),
        ({"pattern": "2:4", "sparsity": 0.7}, "0.5; leave it"),
        ({"pattern": "2:4", "scope": "global"}, "no scope 'global'"),
        ({"pattern": "2:4", "begin": 0.1}, "begin is of no use with pattern '2:4'"),
        ({"sparsity": 0.5, "epochs": 0, "frequency": 7}, "frequency is of no use with epochs = 0"),
        ({"sparsity": 0.5, "schedule": "constant", "power": 2}, "power is of no use with schedule 'constant'"),
        ({"sparsity": 0.5, "begin": 0.5, "end": 0.5}, "begin must be before end"),
        ({"sparsity": 0.5, "initial": 0.5}, "initial must be below"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sparsify(**settings)


def test_sparsify_refuses_what_it_cannot_do(original: Model, context: PassContext) -> None:
    with pytest.raises(UnsupportedError, match="int8 already"):
        Sparsify(sparsity=0.5).run(replace(original, quant=QuantSpec("int8")), context)
    with pytest.raises(InputError, match=r"sparsify\.protect: no layer is named like 'nothing'"):
        Sparsify(sparsity=0.5, protect=("nothing",)).run(original, context)
    with pytest.raises(UnsupportedError, match=r"no layer can have zeros: conv \(protected"):
        Sparsify(sparsity=0.5, protect=("*",)).run(original, context)
    with pytest.raises(InputError, match="no train split"):
        Sparsify(sparsity=0.5).run(original, PassContext(original=original))
    sparse = replace(original, sparse={"conv": "2:4"})
    with pytest.raises(UnsupportedError, match="would fill the zeros"):
        Qat(backend="tfmot").run(sparse, context)
