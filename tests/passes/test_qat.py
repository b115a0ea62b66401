"""Qat gives a plain prepared graph on its grid with learned ranges, goes on after a kill, and refuses the rest."""

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

from toolkit.core import Batch, Model, PassContext, Progress, QuantSpec, Signature, Task, TensorSpec
from toolkit.engine.simulate import simulate
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes.qat import Qat
from toolkit.sources import store


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

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[Batch]:
        noise = np.random.default_rng(0).normal(size=(self.count, 6, 6, 1)) / 2
        images = (noise + self.labels[:, None, None, None]).astype("float32")
        for start in range(0, self.count, size):
            rows = slice(start, start + size)
            yield Batch({"photo": images[rows]}, {"label": self.labels[rows]}, tuple(map(str, range(self.count)[rows])))


@pytest.fixture(scope="module")
def original() -> Model:
    keras.utils.set_random_seed(3)
    x = image = keras.Input((6, 6, 1), name="photo")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(8, 3, use_bias=False, name="conv")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu")(x))
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
def result(original: Model) -> Any:
    return Qat(epochs=2, batch_size=30).run(original, PassContext(original=original, train=Images()))


def answers(graph: Any) -> Any:
    return np.asarray(graph(next(Images().batches(90)).inputs["photo"]))


def test_qat_gives_what_exporters_realise_without_calibration(original: Model, result: Any) -> None:
    model = result.model
    assert model.quant == QuantSpec("int8")
    assert (model.statistics.images, model.statistics.sample) == (90, "abc")
    assert set(model.statistics.ranges) == {"photo", "relu", "pool", "answer", "answer_softmax"}
    assert {found.how for found in model.statistics.ranges.values()} == {"learned"}
    assert [type(layer).__name__ for layer in model.graph.layers] == [
        "InputLayer",
        "Conv2D",
        "ReLU",
        "GlobalAveragePooling2D",
        "Dense",
        "Activation",
    ]
    for name in ("conv", "answer"):
        kernel = model.graph.get_layer(name).get_weights()[0]
        steps = kernel / np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0) * 127
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_qat_stays_near_the_original(original: Model, result: Any) -> None:
    ranges = {name: (found.low, found.high) for name, found in result.model.statistics.ranges.items()}
    quantized, float_answers = answers(simulate(result.model.graph, ranges)), answers(original.graph)
    assert (quantized.argmax(1) == float_answers.argmax(1)).mean() >= 0.97
    assert np.abs(quantized - float_answers).max() < 0.05


def test_qat_says_what_became_of_each_layer(result: Any) -> None:
    told = {change.layer: change.after for change in result.changes}
    assert told["bn"] == "in the weights of conv"
    assert told["conv"] == "int8 weights (per-channel), int8 activations (asymmetric)"
    assert len(result.curves["loss"]) == 2


def test_qat_model_is_the_same_after_rest(result: Any, tmp_path: Path) -> None:
    path = tmp_path / "qat.keras"
    store.save(result.model, path)
    again = store.restore(path)
    assert again.statistics == result.model.statistics
    np.testing.assert_array_equal(answers(again.graph), answers(result.model.graph))


def test_qat_needs_no_labels(original: Model, result: Any) -> None:
    @dataclass(frozen=True)
    class Unlabelled(Images):
        @property
        def labels(self) -> Any:
            return np.full(self.count, 2)

        def batches(self, size: int) -> Iterator[Batch]:
            return Images().batches(size)

    again = Qat(epochs=2, batch_size=30).run(original, PassContext(original=original, train=Unlabelled()))
    for one, two in zip(result.model.graph.get_weights(), again.model.graph.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_qat_keeps_the_epoch_nearest_to_the_teacher(original: Model) -> None:
    said: list[Progress] = []
    context = PassContext(original=original, train=Images(), selection=Images(30), emit=said.append)
    found = Qat(epochs=3, batch_size=30, learning_rate=0.05).run(original, replace(context, evaluate=None))
    assert set(found.curves) == {"loss", "selection_loss", "learning_rate"}
    told, losses = found.changes[0], found.curves["selection_loss"]
    before = float(told.before.removeprefix("selection loss "))
    least = min((before, *losses))
    best = 0 if least == before else losses.index(least) + 1
    assert f"selection loss {least:.4g}" == told.after
    assert (f"epoch {best} is kept" in told.reason) == (best > 0)
    assert said[-1].text.endswith(f"selection loss {losses[-1]:.4g}")


def test_qat_is_judged_by_the_score_where_labels_teach_too(original: Model) -> None:
    scores = iter([0.5, 0.25])
    context = PassContext(original=original, train=Images(), selection=Images(30), evaluate=lambda model: next(scores))
    found = Qat(epochs=1, batch_size=30, alpha=0.5).run(original, context)
    assert found.curves["selection_accuracy"] == (0.25,) and "selection_loss" not in found.curves


def test_qat_goes_on_from_its_checkpoint(original: Model, result: Any, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def emit(progress: Progress) -> None:
        if progress.keep:
            raise KilledError

    context = PassContext(original=original, train=Images(), checkpoint=tmp_path / "state.npz", key="k")
    with pytest.raises(KilledError):
        Qat(epochs=2, batch_size=30).run(original, replace(context, emit=emit))
    again = Qat(epochs=2, batch_size=30).run(original, context)
    assert again.curves == result.curves
    assert again.model.statistics == result.model.statistics
    for one, two in zip(result.model.graph.get_weights(), again.model.graph.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_qat_starts_from_the_ranges_a_model_brings(original: Model, result: Any) -> None:
    calibrated = replace(original, statistics=result.model.statistics)
    again = Qat(epochs=1, batch_size=30, ranges="moving", freeze_after=0).run(
        calibrated, PassContext(original=original, train=Images())
    )
    for name, found in result.model.statistics.ranges.items():
        assert (again.model.statistics.ranges[name].low, again.model.statistics.ranges[name].high) == pytest.approx(
            (found.low, found.high), rel=1e-5, abs=1e-7
        )


def test_dropout_does_nothing(original: Model) -> None:
    def curves(rate: float) -> Any:
        image = keras.Input((6, 6, 1), name="photo")
        x = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(8, 3, name="conv")(image))
        answer = layers.Dense(3, activation="softmax", name="answer")(layers.Dropout(rate, name="drop")(x))
        graph = keras.Model(image, answer)
        rng = np.random.default_rng(0)
        graph.set_weights([rng.normal(size=weight.shape) for weight in graph.get_weights()])
        model = replace(original, graph=graph)
        return Qat(epochs=1, batch_size=30).run(model, PassContext(original=model, train=Images())).curves

    assert curves(0.9) == curves(0.0)


def test_ranges_stay_unless_they_are_to_move(original: Model, result: Any) -> None:
    context = PassContext(original=original, train=Images())
    slower = Qat(epochs=2, batch_size=30, learning_rate=1e-7).run(original, context)
    moving = Qat(epochs=2, batch_size=30, learning_rate=1e-7, ranges="moving").run(original, context)
    still, other, moved = (found.model.statistics.ranges for found in (result, slower, moving))
    assert still == other  # whatever the weights learned
    assert moved["relu"].high > still["relu"].high  # which cuts off what is rare


def test_qat_trains_batchnorm_when_asked_and_goes_on_from_its_checkpoint(
    original: Model, result: Any, tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def emit(progress: Progress) -> None:
        if progress.keep:
            raise KilledError

    corrected = Qat(epochs=2, batch_size=30, batchnorm="corrected")
    whole = corrected.run(original, PassContext(original=original, train=Images()))
    gaps = [
        np.abs(one.graph.get_layer("conv").get_weights()[1] - result.model.graph.get_layer("conv").get_weights()[1])
        for one in (whole.model, result.model)
    ]
    assert gaps[0].max() > 1e-4 > gaps[1].max()  # its statistics moved
    context = PassContext(original=original, train=Images(), checkpoint=tmp_path / "state.npz", key="k")
    with pytest.raises(KilledError):
        corrected.run(original, replace(context, emit=emit))
    again = corrected.run(original, context)
    assert again.model.statistics == whole.model.statistics
    for one, two in zip(whole.model.graph.get_weights(), again.model.graph.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_qat_gives_symmetric_ranges_of_127_steps(original: Model) -> None:
    context = PassContext(original=original, train=Images())
    model = Qat(epochs=1, batch_size=30, flavour="symmetric", granularity="per_tensor").run(original, context).model
    assert model.quant == QuantSpec("int8", "per_tensor", "float32", "symmetric")
    assert model.statistics is not None
    ranges = model.statistics.ranges
    assert all(ranges[name].low == -ranges[name].high for name in ("photo", "relu", "pool", "answer"))


def test_qat_refuses_what_it_cannot_do(original: Model, result: Any) -> None:
    context = PassContext(original=original, train=Images())
    with pytest.raises(UnsupportedError, match="qat: the model is int8 already"):
        Qat().run(result.model, context)
    with pytest.raises(InputError, match="qat: there is no train split"):
        Qat().run(original, replace(context, train=None))
    with pytest.raises(InputError, match="qat: there is no original"):
        Qat().run(original, replace(context, original=None))
    with pytest.raises(ValidationError):
        Qat(freeze_after=1.5)
    with pytest.raises(ValidationError, match="steps are finer than bfloat16 tells apart"):
        Qat(precision="bfloat16")
    with pytest.raises(ValidationError, match="lasts for freeze_after of the training"):
        Qat(batchnorm="corrected", freeze_after=0)
    with pytest.raises(ValidationError, match="freeze_after is of ranges 'moving'"):
        Qat(freeze_after=0.5)
    with pytest.raises(ValidationError, match="batchnorm is of backend 'native'"):
        Qat(batchnorm="frozen", backend="tfmot")
    image = keras.Input((6, 6, 1), name="photo")
    bare = replace(original, graph=keras.Model(image, layers.Softmax()(layers.GlobalAveragePooling2D()(image))))
    with pytest.raises(UnsupportedError, match="no convolution and no dense layer"):
        Qat().run(bare, context)
    plain = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(image)))
    with pytest.raises(UnsupportedError, match="no BatchNormalization of this model stands behind weights"):
        Qat(batchnorm="corrected").run(replace(original, graph=plain), context)


# ---------------------------------------------------------------- lessons beside the outputs


def test_rounded_network_learns_features_of_the_float_teacher(original: Model) -> None:
    context = PassContext(original=original, train=Images())
    asked = {"hints": {"layers": {"relu": "relu"}}, "attention": {}, "relational": {}}
    how = {"epochs": 4, "batch_size": 30, "learning_rate": 1e-3}
    result = Qat.model_validate({**how, **asked}).run(original, context)
    told = [change.after for change in result.changes if change.before == "taught through the outputs alone"]
    assert told == [
        "hints of the teacher's 'relu' (4x4, 8 channels)",
        "attention of the teacher's 'relu' (4x4, 8 channels)",
        "relations of the teacher's 'pool' (8 channels)",
    ]
    parts = [name for name in result.curves if name.endswith("_loss")]
    assert parts == ["teacher_loss", "hints_loss", "attention_loss", "distances_loss", "angles_loss"]
    assert result.model.statistics is not None and "relu" in result.model.statistics.ranges
    assert [layer.name for layer in result.model.graph.layers] == [
        layer.name for layer in Qat(epochs=1).run(original, context).model.graph.layers
    ]
    assert (answers(result.model.graph).argmax(1) == answers(original.graph).argmax(1)).mean() >= 0.97


def test_layers_with_weights_and_tfmot_are_refused_for_lessons(original: Model) -> None:
    context = PassContext(original=original, train=Images())
    with pytest.raises(InputError, match=r"qat\.hints\.layers: 'conv' has weights.*or leave it to \"auto\""):
        Qat.model_validate({"hints": {"layers": {"conv": "conv"}}}).run(original, context)
    with pytest.raises(InputError, match=r"qat\.attention\.layers: 'bn' is folded into the layers beside it"):
        Qat.model_validate({"attention": {"layers": {"bn": "bn"}}}).run(original, context)
    with pytest.raises(InputError, match=r"qat\.attention\.layers: the student has no layer 'none'"):
        Qat.model_validate({"attention": {"layers": {"none": "bn"}}}).run(original, context)
    for part in ("hints", "attention", "relational"):
        with pytest.raises(ValidationError, match=f"teaches through the outputs alone; leave {part} out"):
            Qat.model_validate({"backend": "tfmot", part: {}})
