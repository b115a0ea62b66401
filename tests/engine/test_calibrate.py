"""Calibration of a graph: by hand, against Keras layer by layer, and laws of batches."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.calibrate import batch_size, calibrate, float_tensors
from toolkit.engine.graph import walk
from toolkit.engine.ranges import Collector
from toolkit.errors import InputError, UnsupportedError

Images = NDArray[np.float32]


@pytest.fixture(scope="module")
def graph() -> keras.Model:
    """A shared layer, a layer of two outputs and a second input."""
    keras.utils.set_random_seed(0)
    image, gain = keras.Input((6, 6, 4), name="image"), keras.Input((4,), name="gain")
    conv = layers.Conv2D(4, 3, padding="same", name="conv")
    x = conv(layers.ReLU(name="relu")(conv(image)))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    left, right = keras.ops.split(layers.Multiply(name="times")([x, gain]), 2, axis=-1)
    return keras.Model([image, gain], layers.Add(name="sum")([left, right]))


@pytest.fixture(scope="module")
def images() -> dict[str, Images]:
    generator = np.random.default_rng(0)
    shapes = {"image": (70, 6, 6, 4), "gain": (70, 4)}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def batches(images: dict[str, Images], size: int) -> Iterator[dict[str, Images]]:
    count = len(next(iter(images.values())))
    return ({name: a[i : i + size] for name, a in images.items()} for i in range(0, count, size))


def test_every_float_tensor_is_named_as_statistics_names_it(graph: keras.Model) -> None:
    names = set(float_tensors(graph))
    (split,) = [call.name for call in walk(graph).calls if call.kind == "Split"]  # Keras numbers them in a process
    assert names == {"image", "gain", "conv", "conv:1", "relu", "pool", "times", split, f"{split}:1", "sum"}


@pytest.mark.parametrize("histograms", [False, True])
def test_ends_are_those_of_every_layer(graph: keras.Model, images: dict[str, Images], histograms: bool) -> None:
    found = calibrate(graph, batches(images, 64), histograms=histograms)
    assert found.images == 70
    assert found.has_histograms == histograms
    tensors = float_tensors(graph)
    assert list(found.tensors) == list(tensors)
    values = keras.Function(graph.inputs, list(tensors.values()))([images["image"], images["gain"]])
    for collected, expected in zip(found.tensors.values(), map(np.asarray, values), strict=True):
        assert (collected.low, collected.high) == pytest.approx((expected.min(), expected.max()), rel=1e-5, abs=1e-6)
        if collected.histogram is not None:
            assert collected.values == expected.size


def test_padding_and_batches_leave_no_trace(graph: keras.Model, images: dict[str, Images]) -> None:
    """Histograms, zeros and moving averages of batches of 64 and 6, and of 7, are the same; the last batch is short."""
    one, other = (calibrate(graph, batches(images, size), histograms=True) for size in (64, 9))
    for name in one.tensors:
        first, second = one.tensors[name], other.tensors[name]
        assert first.values == second.values
        assert first.average == pytest.approx(second.average, rel=1e-4, abs=1e-6)
    np.testing.assert_array_equal(one.tensors["image"].histogram, other.tensors["image"].histogram)
    ends = calibrate(graph, batches(images, 64))
    assert ends.tensors["relu"].average == pytest.approx(one.tensors["relu"].average, rel=1e-5)


def test_ranges_by_hand() -> None:
    """2x - 1 of the images 0..3: -1 to 5; half of those values are 1 and 3."""
    image = keras.Input((1,), name="image")
    line = layers.Dense(1, kernel_initializer=keras.initializers.Constant(2.0), name="line")
    graph = keras.Model(image, line(image))
    line.bias.assign([-1.0])
    seen: list[int] = []
    found = calibrate(
        graph, [{"image": np.array([[0], [1], [2], [3]], np.float32)}], histograms=True, watch=seen.append
    )
    assert seen == [4]
    ends = {name: (item.low, item.high, item.how) for name, item in found.ranges("minmax").items()}
    assert ends == {"image": (0, 3, "minmax"), "line": (-1, 5, "minmax")}
    half = found.ranges("percentile", 50)["line"]
    assert (half.low, half.high) == pytest.approx((1, 3), abs=0.01)
    assert found.tensors["line"].outside(half.low - 0.1, half.high + 0.1) == 0.5


def test_batches_are_small_where_activations_are_large() -> None:
    image = keras.Input((None, None, 3), name="image")
    graph = keras.Model(image, layers.Conv2D(64, 3, padding="same")(image))
    assert batch_size(graph) == (128 << 20) // (224 * 224 * 67 * 4)
    flat = keras.Input((3,))
    assert batch_size(keras.Model(flat, layers.ReLU()(flat))) == 64


def test_values_that_are_not_finite_are_named_where_they_arise(graph: keras.Model) -> None:
    image = keras.Input((2,), name="image")
    root = layers.Lambda(keras.ops.sqrt, name="root", output_shape=(2,))(image)
    broken = keras.Model(image, layers.Dense(3, name="after")(root))
    for histograms in (False, True):
        with pytest.raises(UnsupportedError, match="root: has no finite range"):
            calibrate(broken, [{"image": np.array([[1, -1]], np.float32)}], histograms=histograms)
    with pytest.raises(InputError, match="there are no images"):
        calibrate(graph, [])


def test_histograms_are_those_that_arrays_give(graph: keras.Model, images: dict[str, Images]) -> None:
    """What TensorFlow counts, bin by bin, against numpy on the same values; the last batch is padded."""
    found = calibrate(graph, batches(images, 64), histograms=True)
    tensors = float_tensors(graph)
    function = keras.Function(graph.inputs, list(tensors.values()))
    collectors = {name: Collector() for name in tensors}
    for batch in batches(images, 64):
        padded = {name: np.concatenate([a, np.repeat(a[-1:], 64 - len(a), axis=0)]) for name, a in batch.items()}
        values = function([padded["image"], padded["gain"]])
        for collector, value in zip(collectors.values(), values, strict=True):
            collector.add(np.asarray(value)[: len(batch["image"])])
    assert [name for name in tensors if found.tensors[name].histogram is None] == ["conv"]  # inside, before its ReLU
    assert found.ranges("mse")["conv"].how == "minmax"
    for name, collector in collectors.items():
        if name == "conv":
            continue
        expected, own = collector.collected(), found.tensors[name]
        assert (own.values, own.start, own.width, own.zeros) == (
            expected.values,
            expected.start,
            expected.width,
            expected.zeros,
        )
        assert np.abs(own.histogram - expected.histogram).sum() <= 4  # a value at a bin's edge, rounded otherwise
