"""Ranges inside a file: against the layers of the network it was written from, and what cannot be told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters.observed import observe_onnx, observe_tflite

Images = NDArray[np.float32]


@pytest.fixture(scope="module")
def images() -> Images:
    return np.random.default_rng(0).uniform(0, 1, (8, 8, 8, 1)).astype(np.float32)


def feed(images: Images, *, channels_first: bool = False) -> Iterator[dict[str, Images]]:
    for image in images:
        yield {"image": image[None].transpose(0, 3, 1, 2) if channels_first else image[None]}


def sums() -> onnx.ModelProto:
    """total = x + 1 in float32, its maximum by row as `most`, and a whole number."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Add", ["x", "one"], ["total"], name="add"),
        helper.make_node("ReduceMax", ["total"], ["most"], keepdims=0),
        helper.make_node("Shape", ["total"], ["shape"]),
    ]
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [1, 2]), ("most", []))
    ]
    graph = helper.make_graph(nodes, "sums", [ends[0]], [ends[1]], [one])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ROWS = [np.array([row], np.float32) for row in ([0, 2], [-3, 1], [0, 10])]


def rows() -> Iterator[dict[str, Images]]:
    return ({"x": row} for row in ROWS)


def test_onnx_ranges_are_of_inputs_and_everything_between() -> None:
    proto = sums()
    before = proto.SerializeToString()
    assert observe_onnx(proto, rows()) == {"x": (-3, 10), "total": (-2, 11), "most": (2, 11)}
    assert proto.SerializeToString() == before


def test_onnx_ranges_follow_the_method_that_is_asked_for() -> None:
    """(0, 2), then (-3, 1), then (0, 10), by twentieths."""
    found = observe_onnx(sums(), rows(), "moving_average", names=["x"])
    assert found["x"] == pytest.approx((0.95 * 0.05 * -3, 0.95 * (0.95 * 2 + 0.05) + 0.05 * 10))
    assert observe_onnx(sums(), rows(), "percentile", 50, ["x"])["x"] == pytest.approx((0, 2), abs=0.01)


def test_both_files_of_a_network_have_the_ranges_of_its_layers(
    digits_model: Path, digits_files: dict[str, Path], images: Images
) -> None:
    import keras

    graph = keras.models.load_model(digits_model)
    wanted = {
        name: np.asarray(keras.Model(graph.inputs, graph.get_layer(name).output)([images]))
        for name in ("relu1", "conv2", "classes")
    }
    wanted["image"] = images
    tflite = observe_tflite(digits_files["tflite"].read_bytes(), feed(images))
    ort = observe_onnx(onnx.load(digits_files["onnx"]), feed(images, channels_first=True))
    for values in wanted.values():
        ends = np.array([values.min(), values.max()])
        for found in (tflite, ort):
            assert any(np.allclose(pair, ends, rtol=1e-4, atol=1e-6) for pair in found.values())


def test_names_choose_tensors_and_must_be_there(digits_files: dict[str, Path], images: Images) -> None:
    content = digits_files["tflite"].read_bytes()
    assert set(observe_tflite(content, feed(images), names=["image"])) == {"image"}
    with pytest.raises(InputError, match="nothing_such: is no float tensor"):
        observe_tflite(content, feed(images), names=["nothing_such"])
    with pytest.raises(InputError, match="shape: is no float tensor"):
        observe_onnx(sums(), rows(), names=["shape"])


def test_no_images_and_values_that_are_not_finite_are_refused(digits_files: dict[str, Path], images: Images) -> None:
    with pytest.raises(InputError, match="no image"):
        observe_tflite(digits_files["tflite"].read_bytes(), feed(images[:0]))
    with pytest.raises(InputError, match="no image"):
        observe_onnx(sums(), iter(()))
    with pytest.raises(UnsupportedError, match="total: has no finite range"):
        observe_onnx(sums(), [{"x": np.array([[np.inf, 1]], np.float32)}], names=["total"])
