"""The law of surgery: cutting channels out computes what zeroing them computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.engine.law import TOLERANCE, difference, images, outputs, random_removals, randomize
from tests.engine.random_networks import STEPS, random_network
from toolkit.engine.groups import find_groups, frozen_channels
from toolkit.engine.surgery import mask, remove
from toolkit.errors import InputError, UnsupportedError


def conv(x: Any, filters: int, name: str, *, norm: bool = True, **options: Any) -> Any:
    x = layers.Conv2D(filters, options.pop("size", 3), padding="same", name=name, **options)(x)
    return layers.ReLU()(layers.BatchNormalization(name=f"{name}_bn")(x)) if norm else x


def flatten_dense() -> Any:
    x = image = keras.Input((6, 6, 2), name="image")
    x = layers.MaxPooling2D()(conv(layers.Rescaling(0.5)(x), 5, "a"))
    x = layers.Flatten()(layers.Dropout(0.5)(x))
    x = layers.Dense(7, activation="tanh", name="hidden")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="probs")(x))


def residual() -> Any:
    x = image = keras.Input((6, 6, 2), name="image")
    x = stem = conv(x, 6, "stem")
    x = conv(conv(x, 4, "a"), 6, "b", norm=False)
    x = layers.Activation("gelu")(layers.Add()([x, stem]))
    x = layers.Average()([x, layers.Maximum()([x, conv(x, 6, "c", size=1)])])
    x = layers.GlobalAveragePooling2D()(layers.Subtract()([x, conv(x, 6, "d", norm=False)]))
    return keras.Model(image, layers.Dense(3, name="logits")(x))


def concatenation() -> Any:
    x = image = keras.Input((6, 6, 2), name="image")
    x = conv(x, 4, "stem")
    for number in range(2):  # two steps of a dense block
        x = layers.Concatenate()([x, conv(x, 3, f"grow{number}")])
    x = layers.Add()([x, conv(x, 10, "across", norm=False)])
    x = layers.Concatenate(axis=1)([x, x])
    x = layers.GlobalMaxPooling2D()(layers.Concatenate()([x, x]))
    return keras.Model(image, layers.Dense(3, name="logits")(x))


def inverted_residual() -> Any:
    x = image = keras.Input((6, 6, 2), name="image")
    x = short = conv(x, 4, "stem")
    x = conv(x, 8, "expand", size=1, use_bias=False)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Add()([short, conv(x, 4, "project", size=1, norm=False)])
    x = conv(layers.ZeroPadding2D()(x), 8, "wide")
    x = layers.Conv2D(16, 3, groups=8, name="by_channel")(x)
    return keras.Model(image, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)))


def squeeze_excite() -> Any:
    x = image = keras.Input((6, 6, 2), name="image")
    x = body = conv(x, 6, "stem")
    x = layers.Reshape((1, 1, 6))(layers.GlobalAveragePooling2D()(x))
    x = layers.Conv2D(4, 1, activation="silu", name="squeeze")(x)
    x = layers.Conv2D(6, 1, name="excite")(x)
    x = layers.Multiply()([body, layers.Activation("hard_sigmoid")(x)])
    x = layers.Multiply()([x, keras.ops.relu6(x + 3.0) * (1 / 6)])  # operations without a layer
    x = layers.Multiply()([x, layers.Conv2D(1, 1, activation="sigmoid", name="gate")(x)])
    return keras.Model(image, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)))


def separable() -> Any:
    x = image = keras.Input((6, 6, 2), name="image")
    x = layers.PReLU(name="by_pixel")(conv(x, 5, "stem"))
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, name="separable")(x)
    x = layers.PReLU(shared_axes=[1, 2], name="by_filter")(x)
    x = layers.UpSampling2D()(layers.AveragePooling2D(2)(x))
    x = layers.Conv2DTranspose(5, 2, strides=2, name="transposed")(x)
    x = conv(x, 8, "grouped_in")
    x = layers.Cropping2D()(layers.Conv2D(6, 3, groups=2, name="grouped")(x))
    x = layers.Dense(4, activation="relu", name="pixelwise")(x)
    return keras.Model(image, layers.Dense(3, name="logits")(layers.Flatten()(x)))


def two_ends() -> Any:
    left, right = keras.Input((6, 6, 2), name="left"), keras.Input((6, 6, 3), name="right")
    x = layers.Concatenate()([conv(left, 4, "a"), conv(right, 5, "b")])
    trunk = conv(x, 6, "trunk")
    pooled = layers.GlobalAveragePooling2D()(trunk)
    score = layers.Dense(1, activation="sigmoid", name="score")(pooled)
    boxes = layers.Reshape((36, 6))(trunk)
    boxes = layers.Dense(4, name="boxes")(layers.Reshape((6, 6, -1))(boxes))
    return keras.Model([left, right], [score, boxes])


def shared() -> Any:
    left, right = keras.Input((6, 6, 2), name="left"), keras.Input((6, 6, 2), name="right")
    tower = [layers.Conv2D(5, 3, name="tower"), layers.BatchNormalization(name="tower_bn"), layers.Flatten()]
    tower += [layers.Dense(6, activation="relu", name="embed"), layers.Reshape((2, 3), name="fold")]
    ends = [conv(left, 4, "a"), conv(right, 4, "b")]
    for layer in tower:
        ends = [layer(x) for x in ends]
    x = layers.GlobalAveragePooling1D()(layers.Subtract()(ends))
    return keras.Model([left, right], layers.Dense(1, name="distance")(x))


def generator() -> Any:
    code = keras.Input((4,), name="code")
    x = layers.Reshape((3, 3, 5))(layers.Dense(45, activation="relu", name="spread")(code))
    x = layers.Conv2DTranspose(6, 3, strides=2, name="up")(x)
    return keras.Model(code, layers.Conv2D(3, 1, activation="tanh", name="image")(x))


BUILDERS: tuple[Callable[[], Any], ...] = (
    flatten_dense,
    residual,
    concatenation,
    inverted_residual,
    squeeze_excite,
    separable,
    two_ends,
    shared,
    generator,
)


@pytest.fixture(scope="module", params=BUILDERS, ids=lambda build: build.__name__)
def model(request: pytest.FixtureRequest) -> Any:
    keras.utils.set_random_seed(0)
    return randomize(request.param())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_remove_computes_what_mask_computes(model: Any, seed: int) -> None:
    removals, inputs = random_removals(model, seed), images(model, seed)
    assert removals
    masked = outputs(mask(model, removals), inputs)
    assert difference(masked, outputs(remove(model, removals), inputs)) < TOLERANCE
    assert difference(masked, outputs(model, inputs)) > 1e-3  # the channels did matter


def test_remove_changes_nothing_when_channels_are_zero(model: Any) -> None:
    removals, inputs = random_removals(model, 3), images(model)
    zeroed = mask(model, removals)
    assert difference(outputs(zeroed, inputs), outputs(remove(zeroed, removals), inputs)) < TOLERANCE


def test_remove_keeps_names_order_and_types_and_leaves_its_input_alone(model: Any) -> None:
    weights = [np.asarray(weight).copy() for weight in model.weights]
    cut = remove(model, random_removals(model, 4))
    assert [layer.name for layer in cut.layers] == [layer.name for layer in model.layers]
    assert [t.name for t in cut.inputs] == [t.name for t in model.inputs]
    assert cut.output_names == model.output_names
    assert [t.shape for t in cut.inputs + cut.outputs] == [t.shape for t in model.inputs + model.outputs]
    assert [w.dtype for w in cut.weights] == [w.dtype for w in model.weights]
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(weights, model.weights, strict=True))
    assert not {id(w) for w in cut.weights} & {id(w) for w in model.weights}


def test_remove_survives_saving_and_loading(tmp_path: Path) -> None:
    model = randomize(separable())
    cut, inputs = remove(model, random_removals(model, 5)), images(model)
    cut.save(tmp_path / "cut.keras")
    assert difference(outputs(cut, inputs), outputs(keras.models.load_model(tmp_path / "cut.keras"), inputs)) == 0


def test_remove_takes_the_named_filter_only() -> None:
    model = randomize(flatten_dense())
    cut = remove(model, {"a": [1, 3]})
    assert np.array_equal(cut.get_layer("a").get_weights()[0], model.get_layer("a").get_weights()[0][..., [0, 2, 4]])
    for new, old in zip(cut.get_layer("a_bn").get_weights(), model.get_layer("a_bn").get_weights(), strict=True):
        assert np.array_equal(new, old[[0, 2, 4]])
    rows = [place * 5 + channel for place in range(9) for channel in (0, 2, 4)]  # 3 x 3 pixels of 5 channels, row-major
    assert np.array_equal(cut.get_layer("hidden").get_weights()[0], model.get_layer("hidden").get_weights()[0][rows])


def test_remove_keeps_statistics_of_a_normalization_layer() -> None:
    x = image = keras.Input((4, 4, 2))
    normalize = layers.Normalization(name="normalize")
    x = layers.GlobalAveragePooling2D()(conv(normalize(x), 4, "a"))
    model = keras.Model(image, layers.Dense(2)(x))
    normalize.adapt(np.random.default_rng(0).normal(3.0, 2.0, (8, 4, 4, 2)).astype("float32"))
    inputs = images(model)
    assert difference(outputs(model, inputs), outputs(remove(model, {}), inputs)) == 0
    assert difference(outputs(mask(model, {"a": [0]}), inputs), outputs(remove(model, {"a": [0]}), inputs)) < TOLERANCE


def test_remove_refuses_what_cannot_be_cut() -> None:
    model = flatten_dense()
    with pytest.raises(InputError, match="nonsense: is not a channel group"):
        remove(model, {"nonsense": [0]})
    with pytest.raises(InputError, match="a: has channels 0 to 4, got 0 to 5"):
        remove(model, {"a": [0, 5]})
    with pytest.raises(InputError, match="a: has channels 0 to 4, got -1 to 0"):
        remove(model, {"a": [0, -1]})
    with pytest.raises(InputError, match="would lose all 5 channels"):
        remove(model, {"a": range(5)})
    with pytest.raises(UnsupportedError, match="the activation of Dense 'probs' mixes channels"):
        remove(model, {"probs": [0]})


FOLLOWED = ("is an output of the model", "normalizes over the channels, so that each depends on the others")


def random_case(seed: int) -> set[str]:
    """The law on a network drawn at random; what it was made of."""
    keras.utils.set_random_seed(seed)
    model, taken = random_network(seed)
    randomize(model, seed)
    for reason, _ in frozen_channels(find_groups(model)).reasons:
        assert reason.endswith(FOLLOWED) or "spreads its one channel" in reason, (seed, reason)
    removals, inputs = random_removals(model, seed), images(model, seed)
    assert difference(outputs(mask(model, removals), inputs), outputs(remove(model, removals), inputs)) < 1e-4, seed
    return set(taken)


def test_remove_computes_what_mask_computes_on_random_networks() -> None:
    for seed in range(6):
        random_case(seed)


@pytest.mark.slow
def test_remove_computes_what_mask_computes_on_many_random_networks_of_all_layers() -> None:
    taken = set().union(*(random_case(seed) for seed in range(100, 160)))
    assert taken == {step.__name__ for step in STEPS}
