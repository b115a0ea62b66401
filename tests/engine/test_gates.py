"""A closed gate is a channel removed; the slope in an open one is what a small step of it does to the loss."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from toolkit.engine.gates import Gates, centred, find_gates, run, slopes
from toolkit.engine.groups import find_groups
from toolkit.engine.samples import Sample
from toolkit.engine.surgery import remove

CLASSES, IMAGES, SIDE = 3, 4, 6


@pytest.fixture(scope="module")
def mixed() -> Any:
    """A residual sum, a concatenation, grouped, depthwise, separable and shared layers, squeeze-and-excitation."""
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Activation("silu")(
        layers.BatchNormalization(name="bn")(layers.Conv2D(8, 3, padding="same", name="stem")(image))
    )
    x = layers.Add()([x, layers.Conv2D(8, 3, padding="same", activation="silu", name="branch")(x)])
    shared = layers.Conv2D(8, 1, activation="silu", name="shared")
    x = layers.Concatenate()([shared(x), layers.DepthwiseConv2D(3, padding="same", name="depthwise")(shared(x))])
    x = layers.Conv2D(8, 3, groups=2, activation="silu", name="grouped")(x)
    squeezed = layers.Dense(4, activation="silu", name="squeeze")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.Dense(8, activation="sigmoid", name="excite")(squeezed)])
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, activation="silu", name="separable")(x)
    x = layers.Dense(5, activation="silu", name="code")(layers.Flatten()(x))
    model = keras.Model(image, layers.Dense(CLASSES, activation="softmax", name="classes")(x))
    rng = np.random.default_rng(0)
    shapes = [(variable.name, variable.shape) for variable in model.variables]
    model.set_weights(
        [rng.uniform(0.5, 1.5, s) if "var" in n or "gamma" in n else rng.normal(0, 0.4, s) for n, s in shapes]
    )
    return model


@pytest.fixture(scope="module")
def batch() -> Sample:
    rng = np.random.default_rng(1)
    return Sample((rng.normal(size=(IMAGES, SIDE, SIDE, 3)).astype(np.float32),), np.array([0, 1, 2, 1]))


def answers(model: Any, gates: Gates, batch: Sample, values: Any) -> Any:
    return np.asarray(run(model, gates, list(batch.inputs), ops.convert_to_tensor(values, "float32")))


def test_open_gates_change_nothing(mixed: Any, batch: Sample) -> None:
    gates = find_gates(mixed, find_groups(mixed))
    assert np.allclose(answers(mixed, gates, batch, np.ones((1, gates.count))), mixed(*batch.inputs), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_closed_gates_compute_what_the_cut_network_computes(mixed: Any, batch: Sample, seed: int) -> None:
    groups, rng = find_groups(mixed), np.random.default_rng(seed)
    gates = find_gates(mixed, groups)
    free = [group for group in groups if not group.frozen]
    assert {"stem", "shared", "grouped", "squeeze", "separable", "code"} <= {group.id for group in free}
    removals = {g.id: rng.choice(g.size, rng.integers(0, g.size), replace=False) for g in free}
    values = np.ones((1, gates.count))
    for name, part in gates.split(values).items():
        part[:, removals[name]] = 0  # a view
    cut = np.asarray(remove(mixed, removals)(*batch.inputs))
    assert np.allclose(answers(mixed, gates, batch, values), cut, atol=1e-5)
    assert not np.allclose(cut, mixed(*batch.inputs), atol=1e-3)


def test_closed_centred_gates_leave_the_mean_of_what_is_read(mixed: Any, batch: Sample) -> None:
    groups = find_groups(mixed)
    gates = centred(mixed, find_gates(mixed, groups), lambda: [batch], ["classes"])
    values = np.ones((1, gates.count))
    gates.split(values)["code"][:] = 0
    constant = answers(mixed, gates, batch, values)
    code = keras.Model(mixed.input, mixed.get_layer("code").output)(*batch.inputs)
    assert np.allclose(constant, mixed.get_layer("classes")(ops.mean(code, axis=0, keepdims=True)), atol=1e-5)
    assert np.allclose(answers(mixed, gates, batch, np.ones((1, gates.count))), mixed(*batch.inputs), atol=1e-5)


def test_a_frozen_group_has_no_gates(mixed: Any) -> None:
    groups = find_groups(mixed)
    assert set(find_gates(mixed, groups).places) == {group.id for group in groups if not group.frozen}
    assert find_gates(mixed, [group for group in groups if group.frozen]).count == 0


def test_slopes_are_what_a_small_step_of_a_gate_does_to_each_image(mixed: Any, batch: Sample) -> None:
    gates = find_gates(mixed, find_groups(mixed))
    (found,) = slopes(mixed, gates, lambda: [batch], head="softmax")
    assert found.shape == (IMAGES, gates.count)

    def losses(values: Any) -> Any:
        return -np.log(answers(mixed, gates, batch, values)[np.arange(IMAGES), batch.labels].astype(np.float64))

    step = 3e-3
    for gate in range(0, gates.count, 3):
        pair = [np.ones((1, gates.count)) for _ in range(2)]
        pair[0][:, gate] += step
        pair[1][:, gate] -= step
        assert np.allclose((losses(pair[0]) - losses(pair[1])) / (2 * step), found[:, gate], rtol=0.02, atol=2e-4)


def test_slopes_do_not_depend_on_the_batches(mixed: Any, batch: Sample) -> None:
    gates = find_gates(mixed, find_groups(mixed))
    one = [Sample((batch.inputs[0][i : i + 1],), batch.labels[i : i + 1]) for i in range(IMAGES)]  # type: ignore[index]
    together = next(slopes(mixed, gates, lambda: [batch], head="softmax"))
    apart = np.concatenate(list(slopes(mixed, gates, lambda: one, head="softmax")))
    assert np.allclose(together, apart, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("head", ["sigmoids", "regression", "embedding"])
def test_drawn_labels_follow_the_seed_and_need_none_given(mixed: Any, batch: Sample, head: str) -> None:
    gates = find_gates(mixed, find_groups(mixed))
    blind = Sample(batch.inputs)

    def drawn(seed: int) -> Any:
        return next(slopes(mixed, gates, lambda: [blind], head=head, labels="drawn", seed=seed))

    assert np.array_equal(drawn(1), drawn(1))
    assert not np.allclose(drawn(1), drawn(2))
