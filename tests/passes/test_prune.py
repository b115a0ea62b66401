from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from pydantic import ValidationError

from toolkit.core import Batch, LayerChange, Model, PassContext, Signature, TensorSpec
from toolkit.engine.cost import cost
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes.prune import Prune


@dataclass(frozen=True)
class Images:
    """A split of random images."""

    count: int
    name: str = "images"
    fingerprint: str = ""
    classes: tuple[str, ...] = ()
    labels: Any = None

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[Batch]:
        images = np.random.default_rng(0).normal(1.0, 2.0, (self.count, 8, 8, 1)).astype("float32")
        for start in range(0, self.count, size):
            yield Batch({"image": images[start : start + size]}, {}, ())


def wrap(graph: Any) -> Model:
    inputs = tuple(TensorSpec(t.name, t.shape, t.dtype, "image") for t in graph.inputs)
    outputs = tuple(TensorSpec(n, t.shape, t.dtype) for n, t in zip(graph.output_names, graph.outputs, strict=True))
    return Model("keras", graph, Signature(inputs, outputs))


def digits(*, norm: bool = False, shape: tuple[int | None, ...] = (8, 8, 1)) -> Model:
    """The small digits network: 32, 64 and 64 channels, and 4 that cannot be rounded."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input(shape, name="image")
    for filters, name in ((32, "a"), (64, "b"), (64, "c"), (4, "tiny")):
        x = layers.Conv2D(filters, 3, padding="same", name=name)(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"{name}_bn")(x) if norm else x)
    x = layers.GlobalAveragePooling2D()(x)
    return wrap(keras.Model(image, layers.Dense(10, activation="softmax", name="probs")(x), name="digits"))


@pytest.fixture(scope="module")
def model() -> Model:
    return digits()


def changed(changes: tuple[LayerChange, ...]) -> dict[str, LayerChange]:
    return {change.layer: change for change in changes}


def test_prune_halves_every_group_and_says_what_stayed(model: Model) -> None:
    result = Prune(sparsity=0.5).run(model, PassContext())
    lines = changed(result.changes)
    assert lines["a"] == LayerChange("a", "32 channels", "16 channels")
    assert lines["b"].after == lines["c"].after == "32 channels"
    assert lines["tiny"].after == "4 channels" and "multiples of 8" in lines["tiny"].reason
    assert (lines["probs"].after, lines["probs"].reason) == (
        "10 channels",
        "the activation of Dense 'probs' mixes channels",
    )
    assert [result.model.graph.get_layer(name).filters for name in "abc"] == [16, 32, 32]
    old, new = 64 * 9 * (32 + 32 * 64 + 64 * 64 + 64 * 4) + 40, 64 * 9 * (16 + 16 * 32 + 32 * 32 + 32 * 4) + 40
    assert lines["digits"].before.startswith(f"{old:,} MACs") and lines["digits"].after.startswith(f"{new:,} MACs")
    assert "BatchNormalization" not in lines
    assert result.model.signature == model.signature and model.graph.get_layer("a").filters == 32


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75])
def test_prune_reaches_the_macs_asked_for(model: Model, share: float) -> None:
    result = Prune(macs=share).run(model, PassContext())
    reached = cost(result.model.graph).macs / cost(model.graph).macs
    assert abs(reached - share) <= 0.03
    assert f"({reached:.1%})" in changed(result.changes)["digits"].after


def test_prune_refuses_macs_out_of_reach_and_says_what_is_reachable(model: Model) -> None:
    with pytest.raises(UnsupportedError, match=r"60\.0% .* nearest is 100\.0%.*'b' is protected by 'b'"):
        Prune(macs=0.6, protect=("a", "b", "c")).run(model, PassContext())


def test_prune_removes_the_channels_of_least_norm() -> None:
    model = digits()
    kernel, bias = model.graph.get_layer("a").get_weights()
    kernel[..., 1::2] *= 1e-3
    model.graph.get_layer("a").set_weights([kernel, bias])
    readers, reader_bias = model.graph.get_layer("b").get_weights()
    model.graph.get_layer("b").set_weights([np.ones_like(readers), reader_bias])
    result = Prune(sparsity=0.5).run(model, PassContext())
    assert np.array_equal(result.model.graph.get_layer("a").get_weights()[0], kernel[..., ::2])


def test_prune_at_random_follows_the_seed(model: Model) -> None:
    def kernel(seed: int) -> Any:
        result = Prune(sparsity=0.5, importance="random").run(model, PassContext(seed=seed))
        return result.model.graph.get_layer("a").get_weights()[0]

    assert np.array_equal(kernel(1), kernel(1)) and not np.array_equal(kernel(1), kernel(2))


def test_prune_protects_layers_by_pattern(model: Model) -> None:
    result = Prune(sparsity=0.5, protect=("[bc]",)).run(model, PassContext())
    lines = changed(result.changes)
    assert lines["b"] == LayerChange("b", "64 channels", "64 channels", "'b' is protected by '[bc]'")
    assert lines["c"].after == "64 channels" and lines["a"].after == "16 channels"


def test_prune_refuses_a_pattern_that_matches_nothing(model: Model) -> None:
    with pytest.raises(InputError, match=r"prune\.protect: no layer is named like 'block_\*'"):
        Prune(sparsity=0.5, protect=("a", "block_*")).run(model, PassContext())


def test_prune_refuses_when_no_channel_can_go(model: Model) -> None:
    with pytest.raises(UnsupportedError, match=r"no channel can be removed.*tiny \(only 4 channels\)"):
        Prune(sparsity=0.5, min_channels=64).run(model, PassContext())


@pytest.mark.parametrize("fields", [{}, {"sparsity": 0.5, "macs": 0.5}])
def test_prune_wants_exactly_one_target(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=r"give exactly one of sparsity, macs, .* and latency_ms"):
        Prune(**fields)


def test_prune_renews_batchnorm_statistics_on_train_or_else_calibration() -> None:
    model = digits(norm=True)
    on_train = Prune(sparsity=0.5).run(model, PassContext(train=Images(130), calibration=Images(70)))
    assert changed(on_train.changes)["BatchNormalization"].after == "re-estimated on 130 images of train"
    on_calibration = Prune(sparsity=0.5).run(model, PassContext(calibration=Images(70)))
    assert changed(on_calibration.changes)["BatchNormalization"].after == "re-estimated on 70 images of calibration"
    graph = on_calibration.model.graph
    images = np.concatenate([batch.inputs["image"] for batch in Images(70).batches(64)])
    first = keras.Model(graph.inputs, graph.get_layer("a").output)([images]).numpy()
    assert np.allclose(graph.get_layer("a_bn").moving_mean, first.mean((0, 1, 2)), atol=1e-4)


def test_prune_says_why_batchnorm_statistics_stayed() -> None:
    model = digits(norm=True)
    nothing = changed(Prune(sparsity=0.5).run(model, PassContext()).changes)["BatchNormalization"]
    assert nothing.before == nothing.after and nothing.reason == "not re-estimated: no train or calibration split"
    off = Prune(sparsity=0.5, reestimate_batchnorm=False).run(model, PassContext(train=Images(8)))
    assert "reestimate_batchnorm = false" in changed(off.changes)["BatchNormalization"].reason


def test_prune_by_sparsity_works_when_the_shape_is_open() -> None:
    lines = changed(Prune(sparsity=0.5).run(digits(shape=(None, None, 1)), PassContext()).changes)
    assert lines["digits"].after.endswith("parameters") and "MACs cannot be counted" in lines["digits"].reason
