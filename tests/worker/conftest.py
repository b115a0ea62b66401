"""Files whose answers are known by hand: y = relu(W x + b), as .tflite (float32 and int8) and .onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.transports.local import WORKER

FAKES = Path(__file__).with_name("fakes")
WEIGHTS = np.array([[1.0, -1.0], [2.0, 0.5], [0.0, 1.0]], np.float32)  # (3 inputs, 2 outputs)
BIAS = np.array([0.5, -1.0], np.float32)
ROWS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 3], [-1, -1, -1]], np.float32)
# relu(x W + b) by hand
ANSWERS = np.array([[1.5, 0.0], [2.5, 0.0], [0.5, 2.0], [0.0, 0.0]], np.float32)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three files, their input "x" and output "y"."""
    folder = tmp_path_factory.mktemp("files")
    paths = {name: folder / name for name in ("float.tflite", "int8.tflite", "float.onnx", "image.onnx")}
    paths["float.tflite"].write_bytes(tflite(int8=False))
    paths["int8.tflite"].write_bytes(tflite(int8=True))
    onnx_files(paths["float.onnx"], paths["image.onnx"])
    return paths


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The .onnx files alone, which need no TensorFlow."""
    folder = tmp_path_factory.mktemp("graphs")
    paths = {name: folder / name for name in ("float.onnx", "image.onnx")}
    onnx_files(*paths.values())
    return paths


def tflite(*, int8: bool) -> bytes:
    import tensorflow as tf

    class Layer(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((1, 3), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            return {"y": tf.nn.relu(tf.matmul(x, WEIGHTS) + BIAS)}

    module = Layer()
    signature = module.__call__.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([signature], module)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in ROWS)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def onnx_files(plain: Path, image: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    weights = [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(BIAS, "b")]
    save = {"opset_imports": [helper.make_opsetid("", 18)], "ir_version": 9}
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), **save), plain)
    # a channels-first image, each channel summed: sees which axis is which
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 2, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    axes = [numpy_helper.from_array(np.array([2, 3], np.int64), "axes")]
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y], axes), **save), image)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The worker's module, as the worker imports it; on a machine whose memory is its own."""
    monkeypatch.syspath_prepend(str(WORKER))
    import trt_build

    monkeypatch.setattr(trt_build, "memory", lambda: (8000, False))
    return trt_build


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """version -> a fake module."""
    monkeypatch.syspath_prepend(str(FAKES))
    import trt_fake

    return trt_fake.module
