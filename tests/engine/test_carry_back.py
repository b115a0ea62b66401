"""Keras 3 layers carried to tf_keras, against Keras 3 itself on random images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from toolkit.engine import agree
from toolkit.engine.carry import carry
from toolkit.engine.carry_back import carry_back
from toolkit.errors import UnsupportedError

keras = pytest.importorskip("keras")
pytest.importorskip("tf_keras", reason="the extra `legacy`")
layers = keras.layers

# ruff: noqa: PLW0108 - each line shows the call as users write it
# name -> what is called on x: (n, 8, 8, 4)
KINDS: dict[str, Callable[[Any], Any]] = {
    "Conv2D": lambda x: layers.Conv2D(5, 3, strides=2, padding="same", activation="relu")(x),
    "grouped Conv2D": lambda x: layers.Conv2D(6, 3, groups=2, use_bias=False)(x),
    "dilated Conv2D": lambda x: layers.Conv2D(5, 3, dilation_rate=2, activation="silu")(x),
    "DepthwiseConv2D": lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x),
    "Conv2DTranspose": lambda x: layers.Conv2DTranspose(3, 3, strides=2, padding="same")(x),
    "SeparableConv2D": lambda x: layers.SeparableConv2D(5, 3, strides=2, activation="relu", name="apart")(x),
    "Dense": lambda x: layers.Dense(3, activation="softmax")(layers.Flatten()(x)),
    "BatchNormalization": lambda x: layers.BatchNormalization(epsilon=0.1)(layers.Conv2D(5, 3)(x)),
    "BatchNormalization without scale": lambda x: layers.BatchNormalization(scale=False)(x),
    "ReLU6": lambda x: layers.ReLU(max_value=6.0)(x),
    "LeakyReLU": lambda x: layers.LeakyReLU(negative_slope=0.3)(x),
    "PReLU": lambda x: layers.PReLU(shared_axes=[1, 2])(x),
    "ELU": lambda x: layers.ELU(alpha=0.7)(x),
    "tanh": lambda x: layers.Activation("tanh")(x),
    "swish": lambda x: layers.Activation("swish")(x),
    "gelu": lambda x: layers.Activation("gelu")(x),
    "Softmax": lambda x: layers.Softmax()(x),
    "Add": lambda x: layers.Add()([x, layers.Conv2D(4, 1)(x)]),
    "Multiply": lambda x: layers.Multiply()([x, layers.Conv2D(4, 1, activation="sigmoid")(x)]),
    "Concatenate": lambda x: layers.Concatenate()([x, layers.Conv2D(2, 1)(x), x]),
    "MaxPooling2D": lambda x: layers.MaxPooling2D(2)(x),
    "AveragePooling2D": lambda x: layers.AveragePooling2D(3, strides=2, padding="same")(x),
    "GlobalAveragePooling2D": lambda x: layers.GlobalAveragePooling2D(keepdims=True)(x),
    "GlobalMaxPooling2D": lambda x: layers.GlobalMaxPooling2D()(x),
    "ZeroPadding2D": lambda x: layers.ZeroPadding2D(((0, 1), (2, 0)))(x),
    "Cropping2D": lambda x: layers.Cropping2D(1)(x),
    "UpSampling2D": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "Reshape": lambda x: layers.Permute((2, 1))(layers.Reshape((16, 16))(x)),
    "Dropout": lambda x: layers.SpatialDropout2D(0.2)(layers.Dropout(0.5)(x, training=False)),
    "Rescaling": lambda x: layers.Rescaling(1 / 127.5, -1)(x),
    "Resizing": lambda x: layers.Resizing(12, 10)(x),
    "augmentation": lambda x: layers.RandomFlip()(x),
}


@pytest.fixture
def graph() -> Callable[[Callable[[Any], Any]], Any]:
    """Builds a model around a call, every weight of it random."""

    def build(call: Callable[[Any], Any]) -> Any:
        keras.utils.set_random_seed(3)
        image = keras.Input((8, 8, 4), name="image")
        model = keras.Model(image, call(image))
        rng = np.random.default_rng(0)
        model.set_weights([rng.uniform(0.1, 0.9, weight.shape).astype(np.float32) for weight in model.get_weights()])
        return model

    return build


@pytest.mark.parametrize("name", KINDS)
def test_layer_computes_the_same_in_keras_2(name: str, graph: Any) -> None:
    model = graph(KINDS[name])
    old = carry_back(model)
    inputs = agree.random_inputs([(None, 8, 8, 4)])
    found = agree.agreement(agree.keras_answer(model), agree.tf_keras_answer(old), inputs)
    assert found.images == 2
    assert found.relative < 1e-5


def test_names_of_layers_stay_and_a_separable_convolution_has_those_of_its_prepared_form(graph: Any) -> None:
    old = carry_back(graph(KINDS["SeparableConv2D"]))
    assert [layer.name for layer in old.layers] == ["image", "apart_depthwise", "apart"]


def test_there_and_back_again_gives_the_same_weights_and_outputs(graph: Any) -> None:
    model = graph(lambda x: layers.Add()([x, layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 1)(x)))]))
    again = carry(carry_back(model)).model
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 4)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(model(x)), np.asarray(again(x)))
    for before, after in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_shared_layer_and_several_ends_stay(graph: Any) -> None:
    one, two = keras.Input((4,), name="one"), keras.Input((4,), name="two")
    shared = layers.Dense(3, name="shared")
    model = keras.Model([one, two], [shared(one), layers.Concatenate()([shared(one), shared(two)])])
    old = carry_back(model)
    rows = [np.eye(4, dtype=np.float32)[:2], np.ones((2, 4), np.float32)]
    for mine, other in zip(agree.keras_answer(model)(rows), agree.tf_keras_answer(old)(rows), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: keras.ops.hard_silu(x) * 1.0, "is a function, not a layer"),
        (lambda x: layers.Activation("hard_sigmoid", name="gate")(x), r"'gate'.*computes another function"),
        (lambda x: layers.Activation(lambda y: y * 2, name="own")(x), "'own'.*function of its own"),
    ],
)
def test_what_keras_2_has_not_is_refused_by_name(call: Any, words: str, graph: Any) -> None:
    model = graph(call)
    with pytest.raises(UnsupportedError, match=words):
        carry_back(model)
