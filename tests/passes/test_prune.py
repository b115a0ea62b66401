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

from toolkit.core import Batch, Delivered, LayerChange, Model, PassContext, Signature, TensorSpec
from toolkit.engine.cost import cost
from toolkit.engine.graph import parameters
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes.prune import Prune, Recover


@dataclass(frozen=True)
class Images:
    """A split of random images."""

    count: int
    name: str = "images"
    fingerprint: str = ""
    classes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    task: Any = "classes"

    @property
    def labels(self) -> Any:
        return np.arange(self.count) % 10

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[Batch]:
        images = np.random.default_rng(0).normal(1.0, 2.0, (self.count, 8, 8, 1)).astype("float32")
        for start in range(0, self.count, size):
            yield Batch({"image": images[start : start + size]}, {}, ())


def wrap(graph: Any) -> Model:
    inputs = tuple(TensorSpec(t.name, t.shape, t.dtype, "image") for t in graph.inputs)
    outputs = tuple(
        TensorSpec(n, t.shape, t.dtype, "softmax") for n, t in zip(graph.output_names, graph.outputs, strict=True)
    )
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


def test_prune_refuses_a_pattern_that_protects_nothing(model: Model) -> None:
    """What has no channels of its own to cut, as an activation or a sum, keeps nothing whole."""
    with pytest.raises(InputError, match=r"prune\.protect: 're_lu\*' names only layers without channels of their own"):
        Prune(sparsity=0.5, protect=("a", "re_lu*")).run(model, PassContext())


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


# ---------------------------------------------------------------- targets


def size_of(graph: Any) -> int:
    return sum(map(parameters, graph.layers))


def test_prune_reaches_the_parameters_asked_for(model: Model) -> None:
    result = Prune(parameters=0.4).run(model, PassContext())
    reached = size_of(result.model.graph) / size_of(model.graph)
    assert abs(reached - 0.4) <= 0.03
    assert changed(result.changes)["digits"].reason == "asked for 40.0% of the parameters"


def test_prune_globally_removes_a_share_of_all_channels(model: Model) -> None:
    result = Prune(sparsity=0.3, ranking="global").run(model, PassContext())
    kept = sum(result.model.graph.get_layer(name).filters for name in ("a", "b", "c", "tiny"))
    assert abs(kept - 0.7 * (32 + 64 + 64 + 4)) <= 4  # half a step of 8


@dataclass
class Files:
    """Stands in for exporter and device: bytes and milliseconds are laws of the model."""

    slow: float = 0.0
    asked: int = 0

    def __call__(self, models: Any, device: str) -> tuple[Delivered, ...]:
        self.asked += 1
        return tuple(self.one(model, device) for model in models)

    def one(self, model: Model, device: str) -> Delivered:
        kib = 1.0 + size_of(model.graph) * 4 / 1024
        if not device:
            return Delivered(kib)
        ms = self.slow + cost(model.graph).macs / 1e6
        return Delivered(kib, ms, (ms / 2, ms * 2), "estimated", "a law")


@pytest.mark.parametrize("ranking", ["local", "global"])
@pytest.mark.parametrize("share", [0.35, 0.6, 0.85])
def test_prune_keeps_within_a_share_of_the_latency_and_near_it(model: Model, share: float, ranking: Any) -> None:
    files = Files(slow=1.0)
    result = Prune(latency=share, device="phone", ranking=ranking).run(model, PassContext(deliver=files))
    reached = files.one(result.model, "phone").milliseconds / files.one(model, "phone").milliseconds  # type: ignore[operator]
    assert share - 0.12 <= reached <= share  # widths go in steps of 8
    line = changed(result.changes)["digits"]
    assert line.reason.startswith(f"asked for {share:.1%} of the latency on phone: ")
    assert "ms (" in line.reason and "(estimated; before: " in line.reason
    assert files.asked <= 9


def test_prune_keeps_within_a_latency_and_a_size(model: Model) -> None:
    files = Files()
    limit = files.one(model, "phone").milliseconds / 3  # type: ignore[operator]
    result = Prune(latency_ms=limit, device="phone").run(model, PassContext(deliver=files))
    assert limit * 0.8 <= files.one(result.model, "phone").milliseconds <= limit  # type: ignore[operator]
    result = Prune(size_kib=150.0).run(model, PassContext(deliver=files))
    assert 120 <= files.one(result.model, "").size_kib <= 150
    assert "at most 150 KiB" in changed(result.changes)["digits"].reason


def test_prune_says_how_near_a_latency_can_be_come(model: Model) -> None:
    with pytest.raises(
        UnsupportedError, match=r"prune\.latency: at most 1 ms on phone cannot be reached: .* of the MACs"
    ):
        Prune(latency_ms=1.0, device="phone").run(model, PassContext(deliver=Files(slow=1.0)))
    with pytest.raises(UnsupportedError, match="is met already: the model as it came has"):
        Prune(latency_ms=1e6, device="phone").run(model, PassContext(deliver=Files()))
    with pytest.raises(InputError, match="nothing here can write and time files"):
        Prune(latency_ms=1.0, device="phone").run(model, PassContext())


def test_prune_rounds_as_the_kernels_of_the_devices_have_it(model: Model) -> None:
    result = Prune(sparsity=0.3, round_to="auto").run(model, PassContext(multiple=16))
    assert [result.model.graph.get_layer(name).filters for name in "abc"] == [16, 48, 48]  # 22.4, 44.8, 44.8


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"latency": 0.5}, "latency needs a device"),
        ({"macs": 0.5, "device": "raspberry-pi-4"}, "device says nothing to macs .*or set ranking = 'global'"),
        ({"size": 0.5, "device": "raspberry-pi-4", "ranking": "global"}, "device says nothing to size"),
        ({"macs": 0.5, "steps": 3, "step_epochs": 2}, "step_epochs trains between steps: it needs recover"),
        ({"macs": 0.5, "recover": Recover(epochs=1), "step_epochs": 2}, "step_epochs trains between steps"),
        ({"macs": 0.5, "importance": "random", "normalization": "max"}, "normalization says nothing to"),
    ],
)
def test_prune_refuses_what_says_nothing(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Prune(**fields)


# ---------------------------------------------------------------- images, steps, recovery


@pytest.mark.parametrize("kind", ["taylor", "fisher", "activation"])
def test_prune_by_images_needs_some_and_says_so_in_the_plan(model: Model, kind: Any) -> None:
    component = Prune(macs=0.5, importance=kind)
    assert [row[0] for row in component.lacking(["selection", "test"])] == ["importance"]
    assert not list(component.lacking(["calibration"]))
    with pytest.raises(InputError, match=f"importance = '{kind}': needs images"):
        component.run(model, PassContext())
    result = component.run(model, PassContext(calibration=Images(64)))
    assert abs(cost(result.model.graph).macs / cost(model.graph).macs - 0.5) <= 0.03


def recovering(**fields: Any) -> Prune:
    return Prune(macs=0.25, ranking="global", recover=Recover(epochs=2, batch_size=32), **fields)


def test_prune_needs_the_train_split_where_it_recovers() -> None:
    assert recovering().needs == ("train",) and Prune(macs=0.5).needs == ()
    with pytest.raises(InputError, match=r"prune\.recover: there is no train split"):
        recovering().run(digits(), PassContext(original=digits()))


def test_prune_in_steps_cuts_and_trains_in_turn() -> None:
    model = digits()
    seen: list[tuple[int, int]] = []

    def evaluate(candidate: Model) -> float:
        graph = candidate.graph
        seen.append((cost(graph).macs, len(seen)))
        return float(len(seen))

    context = PassContext(original=model, train=Images(64), evaluate=evaluate)
    result = recovering(steps=2, step_epochs=1).run(model, context)
    whole = cost(model.graph).macs
    shares = list(dict.fromkeys(round(macs / whole, 2) for macs, _ in seen))
    assert shares == pytest.approx([0.5, 0.25], abs=0.04)  # the square root, then all of it
    assert len(result.curves["loss"]) == 3  # 1 epoch, then 2
    names = [change.layer for change in result.changes]
    assert "step 1 of 2: the model" in names and "step 2 of 2: the model" in names
    assert changed(result.changes)["a"].before == "32 channels"
    assert result.model.signature == model.signature


def test_prune_learns_features_of_the_original_in_each_step() -> None:
    model = digits()
    recover = {"epochs": 1, "batch_size": 32, "hints": {}, "relational": {"on": "logits", "angle": 0}}
    context = PassContext(original=model, train=Images(64))
    result = Prune.model_validate({"macs": 0.25, "steps": 2, "recover": recover}).run(model, context)
    assert len(result.curves["hints_loss"]) == len(result.curves["distances_loss"]) == 2
    assert all(line > 0 for line in result.curves["hints_loss"])


class StopError(Exception):
    """Somebody pulled the plug."""


def test_prune_goes_on_where_a_stopped_run_was_in_its_second_step(tmp_path: Path) -> None:
    model = digits()
    context = PassContext(original=model, train=Images(64), checkpoint=tmp_path / "state.npz", key="k")
    component = recovering(steps=2, step_epochs=2)
    whole = component.run(model, PassContext(original=model, train=Images(64)))

    def stop(progress: Any) -> None:
        if progress.keep and "epoch 1 of 2" in progress.text and (tmp_path / "step-2-state.npz").exists():
            raise StopError

    with pytest.raises(StopError):
        component.run(model, replace(context, emit=stop))
    said: list[Any] = []
    resumed = component.run(model, replace(context, emit=said.append))
    assert not any("choosing channels" in progress.text for progress in said)
    assert sum(progress.keep and " of 2, loss" in progress.text for progress in said) == 1  # the epoch that was left
    for one, two in zip(whole.model.graph.get_weights(), resumed.model.graph.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert resumed.curves == whole.curves


def test_prune_does_not_go_on_from_another_passs_steps(tmp_path: Path) -> None:
    model = digits()
    folder = {"checkpoint": tmp_path / "state.npz"}
    Prune(macs=0.75).run(model, PassContext(key="one", **folder))  # type: ignore[arg-type]
    result = Prune(macs=0.5).run(model, PassContext(key="two", **folder))  # type: ignore[arg-type]
    assert abs(cost(result.model.graph).macs / cost(model.graph).macs - 0.5) <= 0.03
    (tmp_path / "step-1.json").write_text("{", encoding="utf-8")
    again = Prune(macs=0.5).run(model, PassContext(key="two", **folder))  # type: ignore[arg-type]
    assert cost(again.model.graph) == cost(result.model.graph)


def test_prune_says_which_channels_must_stay(model: Model) -> None:
    line = changed(Prune(sparsity=0.5, protect=("c",)).run(model, PassContext()).changes)["channels that must stay"]
    assert line.before == "74 of 174 channels (42.5%)"  # c's 64 and the 10 classes of 32 + 64 + 64 + 4 + 10
    assert line.reason.startswith("'c' is protected by 'c' (64); ")


# ---------------------------------------------------------------- sensitivity


def test_prune_by_sensitivity_spares_the_group_that_matters_and_keeps_its_curves(tmp_path: Path) -> None:
    model = digits()
    scored: list[int] = []

    def evaluate(candidate: Model) -> float:
        """All that counts is how many channels of "b" are alive."""
        scored.append(1)
        kernel = np.asarray(candidate.graph.get_layer("b").kernel)
        return float(np.abs(kernel).sum(axis=(0, 1, 2)).astype(bool).mean())

    context = PassContext(selection=Images(8, fingerprint="f"), evaluate=evaluate, cache=tmp_path)
    component = Prune(parameters=0.6, ranking="sensitivity")
    result = component.run(model, context)
    lines = changed(result.changes)
    kept = {name: int(lines[name].after.split()[0]) for name in "bc"}
    assert kept["b"] >= 56 and kept["c"] <= 40  # one step of b at most, to land nearer
    assert lines["sensitivity of b"].after == "0.75 without 16, 0.5 without 32, 0.25 without 48"
    assert lines["sensitivity of c"].before == "1 with all 64"
    assert len(scored) == 1 + 3 * 4
    again = component.run(model, context)
    assert len(scored) == 13 and again.changes == result.changes
    (output,) = model.signature.outputs
    other = replace(model, signature=replace(model.signature, outputs=(replace(output, meaning="logits"),)))
    component.run(other, context)
    assert len(scored) == 26  # what is scored is another thing: not the curves that were kept
    with pytest.raises(InputError, match=r"prune\.ranking: .* selection split, and there is none"):
        component.run(model, PassContext())
    assert [row[0] for row in component.lacking(["train"])] == ["ranking"]


# ---------------------------------------------------------------- what comes back without training


def test_prune_gives_copied_channels_back_exactly_where_it_reconstructs() -> None:
    """Each channel of "a" is there twice: the layer behind can do with one of each."""
    model = digits()
    kernel, bias = model.graph.get_layer("a").get_weights()
    model.graph.get_layer("a").set_weights([np.repeat(kernel[..., ::2], 2, -1), np.repeat(bias[::2], 2)])
    context = PassContext(train=Images(192))
    fields: dict[str, Any] = {"sparsity": 0.5, "protect": ("b", "c"), "importance": "reconstruction"}
    result = Prune(**fields, reconstruct=True).run(model, context)
    assert result.model.graph.get_layer("a").filters == 16
    images = next(Images(16).batches(16)).inputs["image"]
    wanted, plain = model.graph(images), Prune(**fields).run(model, context).model.graph(images)
    np.testing.assert_allclose(result.model.graph(images), wanted, atol=1e-3)
    assert np.abs(np.asarray(plain) - wanted).max() > 10 * np.abs(np.asarray(result.model.graph(images)) - wanted).max()
    line = changed(result.changes)["feature maps"]
    assert line.reason == "refitted by least squares on 192 images"
    with pytest.raises(InputError, match="reconstruct: needs images"):
        Prune(sparsity=0.5, reconstruct=True).run(model, PassContext())


def test_prune_mends_the_cut_alone_where_statistics_are_of_other_images() -> None:
    """Statistics of training that are far from those of the images at hand stay what the network computes with."""
    model = digits(norm=True)
    norm, kernel = model.graph.get_layer("a_bn"), model.graph.get_layer("a").get_weights()[0]
    gamma, beta, mean, variance = norm.get_weights()
    norm.set_weights([gamma, beta, mean + 3, variance * 4])
    graph = Prune(sparsity=0.5, protect=("b", "c")).run(model, PassContext(train=Images(64))).model.graph
    images = next(Images(64).batches(64)).inputs["image"]
    left = graph.get_layer("a").get_weights()[0]
    kept = [int(np.flatnonzero((kernel == left[..., [i]]).all((0, 1, 2)))[0]) for i in range(16)]
    before = keras.Model(model.graph.inputs, norm.output)(images).numpy()[..., kept]
    after = keras.Model(graph.inputs, graph.get_layer("a_bn").output)(images).numpy()
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_prune_refuses_a_sparse_model_whose_zeros_it_would_break(model: Model) -> None:
    with pytest.raises(UnsupportedError, match="a cut would break its pattern of zeros"):
        Prune(sparsity=0.5).run(replace(model, sparse={"a": "2:4"}), PassContext())
    with pytest.raises(UnsupportedError, match="refitting would fill its zeros"):
        Prune(sparsity=0.5, reconstruct=True).run(replace(model, sparse={"a": "unstructured"}), PassContext())


@pytest.mark.parametrize("kind", ["taylor", "fisher"])
def test_prune_by_slopes_refuses_a_head_without_a_loss(model: Model, kind: Any) -> None:
    (output,) = model.signature.outputs
    other = replace(model, signature=replace(model.signature, outputs=(replace(output, meaning="embedding"),)))
    with pytest.raises(UnsupportedError, match="no label says what an output that means embedding should be"):
        Prune(macs=0.5, importance=kind).run(other, PassContext(train=Images(8)))
