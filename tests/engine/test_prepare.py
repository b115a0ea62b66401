"""The prepared form computes what the graph does, holds what quantized files compute, and is its own prepared form."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.flatten import flatten
from toolkit.engine.graph import walk
from toolkit.engine.prepare import affine, kernel_axis, prepare


def enlivened(model: Any) -> Any:
    """The model with BatchNormalization statistics that are not 0 and 1; some gammas are negative."""
    generator = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.moving_mean.shape
            signs = generator.choice([-1, 1], size)
            new = {
                "gamma": generator.uniform(0.5, 1.5, size) * signs,
                "moving_variance": generator.uniform(0.5, 2, size),
            }
            layer.set_weights([new.get(w.name, generator.normal(0, 0.3, size)) for w in layer.weights])
    return model


def kinds(graph: Any) -> list[str]:
    return [type(layer).__name__ for layer in graph.layers]


@pytest.fixture(scope="module")
def mixed() -> Any:
    x = inputs = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(6, 3, use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Activation("swish", name="act")(x)
    x = layers.SeparableConv2D(8, 3, activation="relu", name="separable")(x)
    x = layers.BatchNormalization(name="alone")(x)
    x = layers.Conv2DTranspose(5, 2, strides=2, name="up")(x)
    x = layers.BatchNormalization(scale=False, name="bn_up")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.BatchNormalization(center=False, name="bn_depthwise")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(7, name="hidden")(x)
    x = layers.BatchNormalization(name="bn_hidden")(x)
    return enlivened(keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x)))


def test_prepare_keeps_what_the_graph_computes(mixed: Any) -> None:
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 4)).astype(np.float32)
    np.testing.assert_allclose(prepare(mixed).graph(images), mixed(images), rtol=1e-4, atol=1e-6)


def test_prepare_leaves_no_norm_and_no_activation_inside(mixed: Any) -> None:
    graph = prepare(mixed).graph
    assert not {"BatchNormalization", "SeparableConv2D"} & set(kinds(graph))
    assert [layer.name for layer in graph.layers if layer.name.startswith(("act", "separable", "head"))] == [
        "act_sigmoid",
        "act",
        "separable_depthwise",
        "separable",
        "separable_relu",
        "head",
        "head_softmax",
    ]


def test_prepare_says_what_it_rewrote(mixed: Any) -> None:
    told = {rewrite.layer: rewrite.after for rewrite in prepare(mixed).rewrites}
    assert told["bn"] == "in the weights of conv"
    assert told["alone"] == "a 1x1 depthwise convolution"
    assert told["act"] == "sigmoid, then a product"


def test_prepare_twice_changes_nothing(mixed: Any) -> None:
    graph = prepare(mixed).graph
    assert prepare(graph).graph is graph


def test_folded_kernel_is_the_kernel_times_gamma_over_deviation(mixed: Any) -> None:
    kernel, bias = prepare(mixed).graph.get_layer("conv").get_weights()
    gamma, beta, mean, variance = mixed.get_layer("bn").get_weights()
    scale = gamma / np.sqrt(variance + mixed.get_layer("bn").epsilon)
    np.testing.assert_allclose(kernel, mixed.get_layer("conv").get_weights()[0] * scale, rtol=1e-6)
    np.testing.assert_allclose(bias, beta - mean * scale, rtol=1e-5, atol=1e-6)


def test_norm_stays_apart_when_something_else_reads_the_convolution() -> None:
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 1, name="conv")(inputs)
    y = layers.BatchNormalization(name="bn")(x)
    model = enlivened(keras.Model(inputs, layers.Add()([x, y])))
    graph = prepare(model).graph
    assert isinstance(graph.get_layer("bn"), layers.DepthwiseConv2D)
    np.testing.assert_array_equal(graph.get_layer("conv").get_weights()[0], model.get_layer("conv").get_weights()[0])


def test_shared_layers_stay_shared_and_whole() -> None:
    inputs = keras.Input((4, 4, 2))
    conv = layers.Conv2D(2, 1, activation="relu", name="conv")
    model = keras.Model(inputs, layers.BatchNormalization()(conv(conv(inputs))))
    graph = prepare(model).graph
    assert len(graph.get_layer("conv")._inbound_nodes) == 2
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(graph(images), model(images), rtol=1e-5, atol=1e-6)


def test_affine_of_a_norm_without_gamma_and_beta() -> None:
    norm = layers.BatchNormalization(scale=False, center=False, epsilon=0.0)
    norm.build((None, 2))
    norm.set_weights([np.array([1.0, -2.0]), np.array([4.0, 0.25])])
    scale, offset = affine(norm)
    assert scale.tolist() == [0.5, 2.0]
    assert offset.tolist() == [-0.5, 4.0]


def test_kernel_axis_is_that_of_the_output_channels() -> None:
    assert kernel_axis(layers.Conv2DTranspose(3, 2)) == -2
    assert kernel_axis(layers.Conv2D(3, 2)) == -1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "DenseNet121", "Xception"])
def test_prepared_networks_compute_the_same(name: str) -> None:
    network = getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=10)
    model = enlivened(flatten(network))
    images = np.random.default_rng(0).uniform(size=(2, 96, 96, 3)).astype(np.float32)
    expected = np.asarray(model(images))
    prepared = prepare(model)
    assert np.abs(np.asarray(prepared.graph(images)) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert "BatchNormalization" not in kinds(prepared.graph)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling"),
        layers.Rescaling([0.5, 1.0, 2.0], offset=[0.0, 1.0, -1.0], name="scaling"),
        layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[4.0, 1.0, 0.25], name="scaling"),
        layers.Normalization(axis=None, mean=2.0, variance=4.0, name="scaling"),
    ],
)
def test_prepare_makes_scalings_of_images_a_convolution(layer: Any) -> None:
    image = keras.Input((4, 4, 3), name="image")
    model = keras.Model(image, layers.Conv2D(2, 3)(layer(image)))
    graph = prepare(model).graph
    assert type(graph.get_layer("scaling")).__name__ == "DepthwiseConv2D"
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(graph(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("behind", ["conv", "pad", "larger", "smaller"])
def test_prepare_keeps_one_rescaling_of_pixels(behind: str) -> None:
    """Of all channels alike, before what puts zeros around the image, or before a Resizing."""
    x = image = keras.Input((6, 6, 3), name="image")
    x = layers.Resizing(9, 9, name="larger")(x) if behind == "larger" else x
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")(x)
    x = layers.ZeroPadding2D(name="pad")(x) if behind == "pad" else x
    x = layers.Resizing(3, 3, name="smaller")(x) if behind == "smaller" else x
    model = keras.Model(image, layers.Conv2D(2, 3, padding="valid" if behind == "pad" else "same", name="conv")(x))
    graph = prepare(model).graph
    assert type(graph.get_layer("scaling")).__name__ == "Rescaling"
    assert order(graph)[1] == "scaling"
    images = np.random.default_rng(0).uniform(0, 255, (2, 6, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(graph(images), model(images), rtol=1e-4, atol=1e-5)
    assert prepare(graph).graph is graph


@pytest.mark.parametrize("numbers", [(1 / 255, 0.0), (1.0, -127.5), (-1.0, 255.0)])
def test_prepare_keeps_no_rescaling_that_is_not_a_product_and_a_sum(numbers: tuple[float, float]) -> None:
    image = keras.Input((6, 6, 3), name="image")
    x = layers.Rescaling(numbers[0], offset=numbers[1], name="scaling")(image)
    graph = prepare(keras.Model(image, layers.Conv2D(2, 3, padding="same", name="conv")(x))).graph
    assert type(graph.get_layer("scaling")).__name__ == "DepthwiseConv2D"


def order(graph: Any) -> list[str]:
    return [call.name for call in walk(graph).calls]


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_prepare_scales_before_an_image_is_made_larger(interpolation: str) -> None:
    image = keras.Input((4, 4, 3), name="image")
    x = layers.Resizing(9, 7, interpolation=interpolation, name="larger")(image)
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")(x)
    x = layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[4.0, 1.0, 0.25], name="norm")(x)
    model = keras.Model(image, layers.Conv2D(2, 3, padding="same", name="conv")(x))
    found = prepare(model)
    assert order(found.graph) == ["image", "scaling", "norm", "larger", "conv"]
    assert {rewrite.layer: rewrite.after for rewrite in found.rewrites}["larger"] == "behind scaling, norm"
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(found.graph(images), model(images), rtol=1e-4, atol=1e-5)
    assert prepare(found.graph).graph is found.graph
    assert order(prepare(model, scalings=False).graph) == ["image", "larger", "scaling", "norm", "conv"]


@pytest.mark.parametrize(
    "resizing",
    [
        layers.Resizing(3, 5, name="resizing"),  # fewer pixels
        layers.Resizing(8, 6, interpolation="bicubic", name="resizing"),
        layers.Resizing(8, 6, pad_to_aspect_ratio=True, name="resizing"),  # with 0, which a scaling moves
    ],
)
def test_prepare_leaves_scalings_behind_other_resizings(resizing: Any) -> None:
    image = keras.Input((4, 4, 3), name="image")
    model = keras.Model(image, layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")(resizing(image)))
    assert order(prepare(model).graph) == ["image", "resizing", "scaling"]


def test_prepare_leaves_scalings_of_images_that_are_read_as_they_are_too() -> None:
    image = keras.Input((4, 4, 3), name="image")
    x = layers.Resizing(8, 8, name="larger")(image)
    scaled = layers.Conv2D(2, 3, name="conv")(layers.Rescaling(0.5, name="scaling")(x))
    model = keras.Model(image, layers.Concatenate(name="both")([layers.Conv2D(2, 3, name="raw")(x), scaled]))
    assert order(prepare(model).graph).index("larger") < order(prepare(model).graph).index("scaling")


def test_prepare_keeps_scalings_of_what_is_no_image() -> None:
    numbers = keras.Input((3,), name="numbers")
    model = keras.Model(numbers, layers.Dense(2)(layers.Rescaling(0.5)(numbers)))
    assert prepare(model).graph is model


def test_prepare_puts_an_added_number_into_the_bias() -> None:
    """As hard-sigmoid has it, relu6(x + 3) / 6, with and without BatchNormalization in between."""
    image = keras.Input((4, 4, 3), name="image")
    x = layers.Conv2D(5, 1, name="first")(image)
    x = layers.ReLU(6.0, name="gate")(x + 3.0) * (1 / 6)
    x = layers.Conv2D(4, 1, use_bias=False, name="second")(x)
    x = 0.5 + layers.BatchNormalization(name="norm")(x)
    model = enlivened(keras.Model(image, layers.Dense(2, name="head")(x)))
    graph = prepare(model).graph
    assert "Add" not in [call.kind for call in walk(graph).calls]
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(graph(images), model(images), rtol=1e-5, atol=1e-6)
    bias = np.asarray(model.get_layer("first").bias)
    np.testing.assert_allclose(graph.get_layer("first").get_weights()[1], bias + 3)
    assert not prepare(graph).rewrites


def test_prepare_keeps_an_added_number_where_something_else_reads_the_layer() -> None:
    image = keras.Input((4, 4, 3), name="image")
    x = layers.Conv2D(5, 1, name="first")(image)
    model = keras.Model(image, layers.Multiply(name="product")([x, layers.ReLU(6.0)(x + 3.0)]))
    assert "Add" in [call.kind for call in walk(prepare(model).graph).calls]


@pytest.mark.parametrize(
    ("pool", "whole"),
    [
        (layers.AveragePooling2D((4, 6), name="pool"), True),
        (layers.AveragePooling2D((4, 6), strides=1, name="pool"), True),
        (layers.AveragePooling2D(7, padding="same", name="pool"), True),  # zeros around an image count for nothing
        (layers.AveragePooling2D(4, name="pool"), False),  # one place comes out, of 4 of 6 columns
        (layers.AveragePooling2D((4, 3), name="pool"), False),
        (layers.AveragePooling2D((4, 6), strides=3, padding="same", name="pool"), False),  # several windows
        (layers.MaxPooling2D((4, 6), name="pool"), False),
    ],
)
def test_prepare_makes_pooling_a_mean_where_its_window_is_the_whole_image(pool: Any, whole: bool) -> None:
    image = keras.Input((4, 6, 3), name="image")
    model = keras.Model(image, layers.Flatten()(pool(image)))
    prepared = prepare(model)
    assert (type(prepared.graph.get_layer("pool")).__name__ == "GlobalAveragePooling2D") == whole
    assert [rewrite.layer for rewrite in prepared.rewrites] == ["pool"] * whole
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(prepared.graph(images), model(images), rtol=1e-5, atol=1e-6)
    if whole:
        np.testing.assert_allclose(prepared.graph(images), images.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    assert not prepare(prepared.graph).rewrites


@pytest.mark.parametrize("sides", [(None, None), (1, 1)])
def test_prepare_keeps_pooling_of_unknown_sides_and_of_one_place(sides: tuple[Any, Any]) -> None:
    image = keras.Input((*sides, 3), name="image")
    model = keras.Model(image, layers.AveragePooling2D(1)(image))
    assert prepare(model).graph is model


def test_prepare_keeps_pooling_that_is_called_on_several_sizes() -> None:
    pool, image = layers.AveragePooling2D(2, name="pool"), keras.Input((4, 4, 3), name="image")
    model = keras.Model(image, pool(pool(image)))
    assert prepare(model).graph is model
