"""Quantization-aware training: what is trained is what a simulated file computes; what is learned lies on its grid."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.engine.loss import Target
from toolkit.engine.prepare import Norm, folded_norms, prepare
from toolkit.engine.qat import Rounding, corrected, find_ranges, learned, rounding_graph
from toolkit.engine.rounded_layers import RoundedConv2D, RoundedDense, RoundedDepthwiseConv2D, TrackedRange
from toolkit.engine.simulate import on_grid, simulate, weight_scales
from toolkit.engine.teaching import Teaching
from toolkit.engine.train import fit


@pytest.fixture(scope="module")
def prepared() -> Any:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    x = layers.Concatenate(name="join")(
        [x, layers.Activation("swish", name="swish")(layers.Conv2D(4, 1, name="one")(x))]
    )
    x = layers.Add(name="add")([x, layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)])
    x = layers.AveragePooling2D(2, name="average")(layers.ZeroPadding2D(1)(x))
    x = layers.Conv2DTranspose(4, 2, strides=2, activation="tanh", name="up")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return prepare(keras.Model(image, layers.Dense(3, activation="softmax", name="head")(x))).graph


@pytest.fixture(scope="module")
def images() -> Any:
    return np.random.default_rng(0).normal(size=(48, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def ranges(prepared: Any, images: Any) -> Any:
    return find_ranges(prepared, {"image": images})


def taught(prepared: Any, ranges: Any, images: Any, how: Rounding, **more: Any) -> Any:
    teaching = Teaching(2, batch_size=16, learning_rate=3e-3, target=Target(alpha=1.0), **more)
    return fit(rounding_graph(prepared, ranges, how), prepared, images, np.zeros(48), how=teaching).model


def test_find_ranges_are_least_and_largest_values(prepared: Any, images: Any, ranges: Any) -> None:
    values = np.asarray(keras.Model(prepared.inputs[0], prepared.get_layer("add").output)(images))
    assert ranges["add"] == pytest.approx((values.min(), values.max()), rel=1e-5)
    assert ranges["image"] == (images.min(), images.max())
    assert ranges["conv"][1] == ranges["relu"][1]  # what the ReLU behind it does not cut


@pytest.mark.parametrize("flavour", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_rounding_graph_computes_what_the_simulated_file_does(
    prepared: Any, images: Any, ranges: Any, flavour: Any, granularity: Any
) -> None:
    trained = rounding_graph(prepared, ranges, Rounding(flavour, granularity))
    file = simulate(prepared, ranges, flavour=flavour, granularity=granularity)
    step = 1 / 256  # the output's; biases are not rounded while training
    assert np.abs(np.asarray(trained(images)) - file(images)).max() <= 1.5 * step


@pytest.mark.parametrize("flavour", ["asymmetric", "symmetric"])
def test_corrected_graph_has_the_float_means_once_rounded(
    prepared: Any, images: Any, ranges: Any, flavour: Any
) -> None:
    def means(graph: Any) -> Any:
        outputs = keras.Model(graph.inputs, [graph.get_layer(name).output for name in ("conv", "depthwise", "up")])
        return np.concatenate([np.asarray(x).mean(axis=(0, 1, 2)) for x in outputs([images])])

    how = Rounding(flavour)
    found = corrected(prepared, ranges, {"image": images}, how)
    plain, mended = (simulate(graph, ranges, flavour=flavour) for graph in (prepared, found))
    wanted = means(prepared)
    assert np.abs(means(mended) - wanted).max() < 0.1 * np.abs(means(plain) - wanted).max()
    trained = rounding_graph(found, ranges, how)
    assert np.abs(np.asarray(trained(images)) - mended(images)).max() <= 1.5 / 256
    np.testing.assert_array_equal(found.get_layer("conv").get_weights()[0], prepared.get_layer("conv").get_weights()[0])


def test_learned_graph_simulates_to_what_was_trained(prepared: Any, images: Any, ranges: Any) -> None:
    how = Rounding(moving_steps=4)
    trained = taught(prepared, ranges, images, how)
    found = learned(prepared, trained, how)
    file = simulate(found.graph, found.ranges)
    assert np.abs(np.asarray(trained(images)) - file(images)).max() <= 1.5 / 256
    assert not {type(layer).__module__ for layer in found.graph.layers} & {TrackedRange.__module__}
    kernel = found.graph.get_layer("conv").get_weights()[0]
    steps = kernel / (np.abs(kernel).max(axis=(0, 1, 2)) / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert (np.abs(steps).max(axis=(0, 1, 2)) > 126.999).all()
    before = prepared.get_layer("conv").get_weights()[0]
    assert np.abs(kernel - before).max() > 1e-3


def test_tensors_that_are_joined_learn_one_range(prepared: Any, images: Any, ranges: Any) -> None:
    how = Rounding(moving_steps=100)
    found = learned(prepared, taught(prepared, ranges, images, how), how).ranges
    assert found["relu"] == found["swish"] == found["join"]
    assert found["average"] == found["add"]
    low, high = found["join"]
    assert 0 < -255 * low / (high - low) < 255
    assert -255 * low / (high - low) == pytest.approx(round(-255 * low / (high - low)), abs=1e-4)
    assert found["up_tanh"] == (-1.0, 127 / 128)


def test_ranges_follow_batches_then_freeze() -> None:
    layer = TrackedRange(-1.0, 3.0, symmetric=False, moving_steps=2)
    batch = np.array([[-2.0, 5.0]], np.float32)
    layer(batch, training=True)
    assert (float(layer.low.numpy()), float(layer.high.numpy())) == pytest.approx((-1.01, 3.02))
    layer(batch, training=True)
    assert (float(layer.low.numpy()), float(layer.high.numpy())) == pytest.approx((-1.0199, 3.0398))
    layer(batch, training=True)
    layer(batch)
    assert (float(layer.low.numpy()), float(layer.high.numpy())) == pytest.approx((-1.0199, 3.0398))


def test_a_joined_range_moves_once_a_step_to_all_its_tensors() -> None:
    layer = TrackedRange(-1.0, 3.0, symmetric=False, moving_steps=9)
    layer(np.array([[-2.0]], np.float32), part="gather", training=True)
    layer(np.array([[5.0]], np.float32), part="gather", training=True)
    assert float(layer.high.numpy()) == 3.0
    layer(np.array([[1.0]], np.float32), part="settle", training=True)
    assert (float(layer.low.numpy()), float(layer.high.numpy())) == pytest.approx((-1.01, 3.02))
    assert (float(layer.least.numpy()), float(layer.most.numpy())) == (0.0, 0.0)


def test_small_weights_learn_at_the_pace_of_large_ones() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 2)).astype(np.float32) * [1.0, 1e-3]
    layer = RoundedConv2D(2, 3)
    layer.build((None, 8, 8, 4))
    layer.take(kernel, np.array([0.5, 0.5]), size=2.0)
    assert np.square(layer.kernel.numpy()).mean(axis=(0, 1, 2)) == pytest.approx(2 / 36, rel=1e-4)
    found, bias = layer.weights_learned()
    np.testing.assert_allclose(found, kernel, rtol=1e-5)
    np.testing.assert_allclose(bias, 0.5, rtol=1e-5)


# ---------------------------------------------------------------- BatchNormalization that is corrected


def test_corrected_batchnorm_gives_hand_worked_numbers() -> None:
    """x = 1, 5 times a weight of 2; gamma 2, beta 1, moving mean 2 and variance 4: in the weights 2 x - 1."""
    layer = RoundedDense(1, norm_steps=1)
    layer.build((None, 1))
    layer.take(np.array([[2.0]]), np.array([-1.0]), size=1.0)
    layer.take_norm(Norm(*(np.array([value], np.float32) for value in (2.0, 4.0, 0.0))))
    x = np.array([[1.0], [5.0]], np.float32)
    assert np.ravel(layer(x)) == pytest.approx([1, 9])
    assert np.ravel(layer(x, training=True)) == pytest.approx([-1, 3])  # 2 (2 x - 6) / 4 + 1, by the batch
    scale = 2 / np.sqrt(4.12)  # moving: mean 2 + 4 / 100, variance 4 + 12 / 100
    kernel, bias = layer.weights_learned()
    assert (kernel.item(), bias.item()) == pytest.approx((2 * scale, 1 - 2.04 * scale))
    frozen = 2 * scale * x + 1 - 2.04 * scale
    np.testing.assert_allclose(layer(x, training=True), frozen, rtol=1e-5)  # one step was all
    np.testing.assert_allclose(layer(x), frozen, rtol=1e-5)


@pytest.fixture(scope="module")
def normalized() -> Any:
    """A 1x1 depthwise convolution, of whose weights rounding loses nothing, and its BatchNormalization."""
    generator = np.random.default_rng(2)
    image = keras.Input((4, 4, 3), name="image")
    x = layers.BatchNormalization(name="bn")(layers.DepthwiseConv2D(1, name="wise")(image))
    model = keras.Model(image, x)
    model.get_layer("wise").set_weights([generator.normal(size=(1, 1, 3, 1)), generator.normal(size=3)])
    model.get_layer("bn").set_weights([np.array(v) for v in ([1.5, -0.5, 0], [0.2, 1, 3], [1, 2, 0.1], [4, 0.5, 1])])
    return model


def rounded_twin(model: Any, kind: Any, name: str, steps: int, **how: Any) -> Any:
    folded = prepare(model).graph.get_layer(name)
    layer = kind.from_config({**folded.get_config(), "norm_steps": steps, **how})
    layer.build((None, *model.inputs[0].shape[1:]))
    layer.take(*folded.get_weights(), size=1.0)
    layer.take_norm(folded_norms(model)[name])
    return layer


def test_corrected_batchnorm_trains_as_keras_does_where_nothing_is_rounded(normalized: Any, images: Any) -> None:
    """Outputs and their gradients by the inputs and by the weights; a channel with gamma 0 stays finite."""
    import tensorflow as tf

    x = tf.constant(images[:16, :4, :4])
    layer = rounded_twin(normalized, RoundedDepthwiseConv2D, "wise", 5)
    np.testing.assert_allclose(layer(x), normalized(x), atol=1e-4)
    pull = tf.constant(np.random.default_rng(3).normal(size=(16, 4, 4, 3)).astype(np.float32))
    found = []
    for network, kernel in ((normalized, normalized.get_layer("wise").kernel), (layer, layer.kernel)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = network(x, training=True)
        found.append([outputs, *tape.gradient(outputs, [x, kernel.value], output_gradients=pull)])
    for one, two in zip(found[0][:2], found[1][:2], strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
    own, theirs = np.ravel(layer.kernel)[:2], np.ravel(normalized.get_layer("wise").kernel)[:2]  # of other units
    gradients = [np.ravel(gradient[2]) for gradient in found]
    np.testing.assert_allclose(gradients[0][:2] * theirs / own, gradients[1][:2], rtol=1e-3)
    assert np.isfinite(gradients[1]).all()


def test_corrected_batchnorm_rounds_the_kernel_that_the_file_has(images: Any) -> None:
    """Not the one of the batch's statistics: what it sums is corrected behind the convolution."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3), name="image")
    model = keras.Model(
        image, layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, use_bias=False, name="c")(image))
    )
    model.get_layer("bn").set_weights([np.array(v) for v in ([1] * 4, [0.0] * 4, [0.1] * 4, [3.0, 0.2, 1, 9])])
    layer = rounded_twin(model, RoundedConv2D, "c", 5)
    kernel = model.get_layer("c").get_weights()[0]
    folded = kernel / np.sqrt(np.array([3.0, 0.2, 1, 9]) + 1e-3)
    x = images[:16]
    sums = keras.ops.conv(x, on_grid(folded, weight_scales(layer, folded)))
    plain = keras.ops.conv(x, kernel)
    mean, variance = np.mean(plain, axis=(0, 1, 2)), np.var(plain, axis=(0, 1, 2))
    ratio = np.sqrt((np.array([3.0, 0.2, 1, 9]) + 1e-3) / (variance + 1e-3))  # moving to batch
    wanted = np.asarray(sums) * ratio - mean / np.sqrt(variance + 1e-3)
    np.testing.assert_allclose(layer(x, training=True), wanted, atol=1e-4)


def test_corrected_batchnorm_ends_as_the_weights_of_the_file(images: Any) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.SeparableConv2D(8, 3, use_bias=False, name="apart")(image)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    x = layers.BatchNormalization(name="bn2")(layers.Conv2DTranspose(4, 2, name="up")(x))
    model = keras.Model(image, layers.Dense(3, activation="softmax", name="head")(layers.GlobalMaxPooling2D()(x)))
    prepared = prepare(model).graph
    assert set(folded_norms(model)) == {"apart", "up"}
    how = Rounding(moving_steps=4, norm_steps=4, norms=folded_norms(model))
    trained = taught(prepared, find_ranges(prepared, {"image": images}), images, how)
    layer = trained.get_layer("up")
    assert float(layer.steps.numpy()) == 6  # 2 epochs of 3 steps
    assert np.abs(layer.variance.numpy() - folded_norms(model)["up"].variance).max() > 1e-3
    found = learned(prepared, trained, how)
    kernel, bias = found.graph.get_layer("up").get_weights()
    spread = np.sqrt(layer.variance.numpy() + layer.epsilon.numpy())
    scale = layer.gain.numpy() * layer.start.numpy() / spread
    whole = layer.kernel.numpy() * layer.unit.numpy() * scale[:, None]
    np.testing.assert_allclose(kernel, on_grid(whole, weight_scales(layer, whole)), rtol=1e-5, atol=1e-6)
    beta = layer.bias.numpy() * layer.bias_unit.numpy()
    np.testing.assert_allclose(bias, beta - scale * layer.mean.numpy(), rtol=1e-4, atol=1e-6)
    file = simulate(found.graph, found.ranges)
    assert np.abs(np.asarray(trained(images)) - file(images)).max() <= 1.5 / 256
