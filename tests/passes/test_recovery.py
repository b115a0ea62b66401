"""With corrections, `quantize` gives the prepared graph with corrected weights, its ranges, and what was done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray
from pydantic import ValidationError

from toolkit.core import Batch, Model, PassContext, Progress, Signature
from toolkit.engine.prepare import prepare
from toolkit.engine.simulate import on_grid, weight_scales
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes.quantize import Quantize

IMAGES = np.random.default_rng(0).uniform(-1, 1, (110, 8, 8, 3)).astype(np.float32)


@dataclass(frozen=True)
class Sample:
    """Images in memory as a dataset."""

    images: NDArray[np.float32] = field(default_factory=lambda: IMAGES)
    classes: tuple[str, ...] = ("cat", "dog")
    task: Any = "classes"
    name: str = "calibration"
    fingerprint: str = "f00d"

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.arange(len(self.images)) % 2

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(map(str, range(len(self.images))))

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int) -> Iterator[Batch]:
        for i in range(0, len(self), size):
            yield Batch({"image": self.images[i : i + size]}, {}, self.ids[i : i + size])


@pytest.fixture(scope="module")
def model() -> Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(6, 3, use_bias=False, name="conv")(image))
    x = layers.DepthwiseConv2D(3, name="deep")(layers.ReLU(6.0, name="relu")(x))
    x = layers.Dense(2, name="head")(layers.GlobalAveragePooling2D(name="pool")(x))
    return Model("keras", keras.Model(image, x), Signature((), ()))


def context(data: Any = None, said: list[Progress] | None = None) -> PassContext:
    return PassContext(calibration=data, emit=(said if said is not None else []).append)


def test_corrected_model_has_the_prepared_graph_on_its_grid_and_the_ranges_of_its_layers(model: Model) -> None:
    said: list[Progress] = []
    result = Quantize(scheme="int8", corrections=("bias",)).run(model, context(Sample(), said))
    prepared = prepare(model.graph).graph
    assert [layer.name for layer in result.model.graph.layers] == [layer.name for layer in prepared.layers]
    for name in ("conv", "deep", "head"):
        layer = result.model.graph.get_layer(name)
        kernel = layer.get_weights()[0]
        np.testing.assert_allclose(on_grid(kernel, weight_scales(layer, kernel)), kernel, rtol=1e-5, atol=1e-8)
    assert result.model.statistics is not None
    assert set(result.model.statistics.ranges) == {layer.name for layer in prepared.layers}
    assert result.model.quant.scheme == "int8"
    shifts = [change.layer for change in result.changes if change.before.startswith("mean shift")]
    assert shifts == ["conv", "deep", "head"]
    assert [p.text for p in said if "biases" in p.text] == ["  correcting biases"]


def test_the_ranges_are_those_of_the_equalized_graph(model: Model) -> None:
    result = Quantize(scheme="int8", corrections=("equalize",), granularity="per_tensor").run(model, context(Sample()))
    graph, statistics = result.model.graph, result.model.statistics
    values = np.asarray(keras.Model(graph.input, graph.get_layer("deep").output)(IMAGES))
    assert statistics is not None
    assert statistics.ranges["deep"].high == pytest.approx(float(values.max()), rel=1e-4)
    np.testing.assert_allclose(graph(IMAGES), model.graph(IMAGES), rtol=1e-3, atol=1e-5)


def test_the_order_of_the_request_does_not_matter(model: Model) -> None:
    one, two = (
        Quantize(scheme="int8", corrections=given).run(model, context(Sample())).model.graph.get_weights()  # type: ignore[arg-type]
        for given in (("bias", "equalize"), ("equalize", "bias"))
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_layers_of_another_scheme_are_left_alone(model: Model) -> None:
    component = Quantize(scheme="int8", layers={"head": "float32"}, corrections=("bias",))
    graph = component.run(model, context(Sample())).model.graph
    np.testing.assert_array_equal(
        graph.get_layer("head").get_weights()[0], model.graph.get_layer("head").get_weights()[0]
    )
    assert not np.array_equal(
        graph.get_layer("deep").get_weights()[1], prepare(model.graph).graph.get_layer("deep").get_weights()[1]
    )


def test_biases_behind_a_float_layer_are_measured_behind_it_in_float_with_its_activation(model: Model) -> None:
    """A convolution and the ReLU it takes in are one operator: naming either or both is the same request."""
    bare = prepare(model.graph).graph.get_layer("deep").get_weights()[1]
    named: tuple[dict[str, Any], ...] = (
        {},
        {"conv": "float32"},
        {"relu": "float32"},
        {"conv": "float32", "relu": "float32"},
    )
    found = []
    for schemes in named:
        component = Quantize(scheme="int8", layers=schemes, corrections=("bias",))
        found.append(component.run(model, context(Sample())).model.graph.get_layer("deep").get_weights()[1] - bare)
    np.testing.assert_array_equal(found[1], found[2])
    np.testing.assert_array_equal(found[1], found[3])
    assert not np.array_equal(found[1], found[0])


def test_weights_alone_are_corrected_with_and_without_images(model: Model) -> None:
    component = Quantize(scheme="weight_int4", corrections=("outliers", "bias"))
    assert component.needs == ()
    told, measured = (component.run(model, context(data)) for data in (None, Sample()))
    assert told.model.statistics is measured.model.statistics is None
    reasons = {change.layer: change.reason for change in told.changes if "BatchNormalization" in change.reason}
    assert set(reasons) == {"conv", "head"}  # of the image and of a depthwise output nothing is known
    expected = np.asarray(model.graph(IMAGES)).mean(axis=0)
    np.testing.assert_allclose(np.asarray(measured.model.graph(IMAGES)).mean(axis=0), expected, atol=1e-4)


@pytest.mark.parametrize("rounding", ["adaround", "gptq"])
def test_adaptive_rounding_of_weights_alone_asks_for_images(model: Model, rounding: Any) -> None:
    component = Quantize(scheme="weight_int8", corrections=(rounding,))
    assert component.needs == ("calibration",)
    with pytest.raises(InputError, match="there is no calibration split"):
        component.run(model, context())


def test_corrections_that_cannot_be_are_refused(model: Model) -> None:
    with pytest.raises(ValidationError, match="need weights in integers"):
        Quantize(scheme="float16", corrections=("bias",))
    with pytest.raises(ValidationError, match="both round the weights"):
        Quantize(scheme="int8", corrections=("adaround", "gptq"))
    with pytest.raises(ValidationError, match="Input should be"):
        Quantize.model_validate({"scheme": "int8", "corrections": ["biass"]})
    with pytest.raises(UnsupportedError, match="layers of a Keras graph, the model is onnx"):
        Quantize(scheme="int8", corrections=("bias",)).run(
            Model("onnx", Path("m.onnx"), Signature((), ())), context(Sample())
        )
