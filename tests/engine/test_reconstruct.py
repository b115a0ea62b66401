from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.groups import find_groups
from toolkit.engine.reconstruct import reconstruct, saliencies
from toolkit.engine.samples import Sample
from toolkit.engine.surgery import remove
from toolkit.errors import InputError

SIDE = 6


def images(count: int = 48, side: int = SIDE, size: int = 16) -> Callable[[], Iterator[Sample]]:
    values = np.random.default_rng(3).normal(size=(count, side, side, 3)).astype("float32")
    return lambda: (Sample((values[start : start + size],)) for start in range(0, count, size))


def stacked(samples: Callable[[], Iterator[Sample]]) -> Any:
    return np.concatenate([sample.inputs[0] for sample in samples()])


def model(body: Callable[[Any], Any], seed: int = 0) -> Any:
    """Trained-looking: every weight random, variances positive."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((SIDE, SIDE, 3), name="image")
    made = keras.Model(image, body(image))
    rng = np.random.default_rng(seed)
    for layer in made.layers:
        shaped = [rng.normal(0, 0.4, weight.shape) for weight in layer.weights]
        positive = [
            np.abs(w) + 0.5 if v.name in ("gamma", "moving_variance") else w
            for v, w in zip(layer.weights, shaped, strict=True)
        ]
        layer.set_weights(positive)
    return made


def copy_channel(made: Any, layers_of: tuple[str, ...], source: int, target: int) -> None:
    """Make one output channel of these layers the same as another."""
    for name in layers_of:
        layer = made.get_layer(name)
        values = layer.get_weights()
        for value in values:
            axis = value.ndim - 2 if isinstance(layer, layers.DepthwiseConv2D) and value.ndim == 4 else value.ndim - 1
            along = np.moveaxis(value, axis, 0)
            along[target] = along[source]
        layer.set_weights(values)


def plain(x: Any) -> Any:
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(x)
    x = layers.Conv2D(5, 3, strides=2, padding="same", use_bias=False, name="second")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    return layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(x))


def bottleneck(x: Any) -> Any:
    x = layers.Conv2D(8, 1, use_bias=False, name="expand")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="expand_norm")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="depthwise_norm")(x))
    x = layers.BatchNormalization(name="project_norm")(layers.Conv2D(4, 1, use_bias=False, name="project")(x))
    return layers.Dense(3, name="head")(layers.Flatten()(x))


@pytest.mark.parametrize(
    ("body", "copied", "group"),
    [
        (plain, ("first",), "first"),
        (plain, ("second", "norm"), "second"),
        (bottleneck, ("expand", "expand_norm", "depthwise", "depthwise_norm"), "expand"),
    ],
)
def test_reconstruct_gives_the_outputs_back_when_a_removed_channel_is_a_copy(
    body: Any, copied: tuple[str, ...], group: str
) -> None:
    made = model(body)
    copy_channel(made, copied, 0, 2)
    samples = images()
    given = stacked(samples)
    wanted = made.predict(given, verbose=0)
    cut = remove(made, {group: [2]}).predict(given, verbose=0)
    found = reconstruct(made, {group: [2]}, samples).graph.predict(given, verbose=0)
    assert np.abs(cut - wanted).max() > 0.01 * np.abs(wanted).max()
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()


def residual(x: Any) -> Any:
    x = layers.BatchNormalization(name="stem_norm")(layers.Conv2D(6, 1, use_bias=False, name="stem")(x))
    y = layers.Conv2D(5, 3, padding="same", activation="relu", name="inner")(layers.ReLU()(x))
    y = layers.BatchNormalization(name="outer_norm")(layers.Conv2D(6, 3, padding="same", name="outer")(y))
    x = layers.ReLU()(layers.Add(name="sum")([x, y]))
    x = layers.SeparableConv2D(7, 3, strides=2, padding="same", activation="relu", name="separable")(x)
    x = layers.Concatenate()([layers.Conv2D(4, 1, name="left")(x), layers.Conv2D(4, 1, name="right")(x)])
    return layers.Dense(3, activation="softmax", name="head")(layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("body", [plain, bottleneck, residual])
def test_reconstruct_never_makes_a_layer_worse_on_the_images_it_saw(body: Any, seed: int) -> None:
    made = model(body, seed)
    removals = {group.id: range(group.size // 3) for group in find_groups(made) if not group.frozen}
    found = reconstruct(made, removals, images(), seed=seed)
    assert found.rows and found.images == 48
    for row in found.rows:
        assert row.after <= row.before * (1 + 1e-9) + 1e-12, row
    assert any(row.after < 0.9 * row.before for row in found.rows)


def test_reconstruct_brings_outputs_nearer_and_leaves_the_original_alone() -> None:
    made, samples = model(residual), images()
    given, removals = stacked(samples), {"inner": [0, 3], "stem": [1], "separable": [2, 5], "left": [0]}
    weights = [weight.copy() for weight in made.get_weights()]
    wanted = made.predict(given, verbose=0)
    found = reconstruct(made, removals, samples).graph
    plainly = np.square(remove(made, removals).predict(given, verbose=0) - wanted).sum()
    assert np.square(found.predict(given, verbose=0) - wanted).sum() < 0.5 * plainly
    for before, after in zip(weights, made.get_weights(), strict=True):
        assert np.array_equal(before, after)


def test_reconstruct_refuses_when_there_are_no_images() -> None:
    with pytest.raises(InputError, match="images"):
        reconstruct(model(plain), {"first": [0]}, lambda: iter(()))


def test_saliencies_find_one_of_two_copies_cheap_and_the_other_dear() -> None:
    made = model(plain)
    copy_channel(made, ("first",), 0, 2)
    scores = saliencies(made, find_groups(made), images())["first"]
    assert min(scores[0], scores[2]) < 0.01 * np.median(scores)
    assert max(scores[0], scores[2]) > 0.1 * np.median(scores)
