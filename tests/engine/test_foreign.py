"""Answers of files that are no Keras graph: hand-worked numbers, channels turned, one image at a time where need be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.engine import foreign
from toolkit.errors import InputError


def weighted_sum(path: Path, batch: int | str) -> foreign.Network:
    """An NCHW file: each channel's sum over a 2x2 image, channels weighted 1, 10 and 100."""
    nodes = [
        helper.make_node("Mul", ["x", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axes"], ["y"], keepdims=0),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [batch, 3, 2, 2]), ("y", [batch, 3]))
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 10, 100], np.float32).reshape(1, 3, 1, 1), "weights"),
        numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
    ]
    graph = helper.make_graph(nodes, "sums", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return foreign.Network("onnx", path, (foreign.Port("x", channels_first=True),), ("y",))


@pytest.mark.parametrize("batch", [1, "n"])
def test_images_are_given_channels_last_and_turned(tmp_path: Path, batch: int | str) -> None:
    images = np.arange(3 * 12, dtype=np.float32).reshape(3, 2, 2, 3)
    (sums,) = foreign.answers(weighted_sum(tmp_path / "sums.onnx", batch), {"x": images}, batch=2)
    np.testing.assert_array_equal(sums, images.sum(axis=(1, 2)) * [1, 10, 100])
    assert sums[0].tolist() == [0 + 3 + 6 + 9, 10 * (1 + 4 + 7 + 10), 100 * (2 + 5 + 8 + 11)]


def test_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    network, images = weighted_sum(tmp_path / "sums.onnx", 1), np.ones((1, 2, 2, 3), np.float32)
    before = foreign.answers(network, {"x": images})[0]
    proto = onnx.load(str(network.path))
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "weights"))
    onnx.save(proto, str(network.path))
    after = foreign.answers(network, {"x": images})[0]
    assert (before.tolist(), after.tolist()) == ([[4, 40, 400]], [[4, 4, 4]])


def test_image_of_another_size_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be run by onnxruntime") as caught:
        foreign.answers(weighted_sum(tmp_path / "sums.onnx", 1), {"x": np.ones((1, 5, 5, 3), np.float32)})
    assert "\n" not in str(caught.value)


def test_three_kinds_of_one_network_answer_alike(digits_files: dict[str, Path], digits_model: Path) -> None:
    import keras

    images = np.random.default_rng(0).uniform(0, 1, (5, 8, 8, 1)).astype(np.float32)
    expected = np.asarray(keras.models.load_model(digits_model)(images))
    ports = {"onnx": foreign.Port("image", channels_first=True)}
    outputs = {"savedmodel": "output_0"}
    for kind, path in digits_files.items():
        port = ports.get(kind, foreign.Port("image"))
        network = foreign.Network(kind, path, (port,), (outputs.get(kind, "classes"),))
        np.testing.assert_allclose(foreign.answers(network, {"image": images})[0], expected, atol=1e-5)
