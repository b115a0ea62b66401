"""OpenVINO in the worker: the same answers, in the arithmetic of the file, and what ran is read from its own record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.conftest import ANSWERS
from tests.worker.test_worker import question, run

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
OPENVINO = {"runtime": "openvino", "delegate": "cpu"}


def convolution(path: Path, *, int8: bool, batch: int | str = 1) -> None:
    """y = conv(x) of 1x1 by a diagonal of 0.5, between quantizers of 1/127 where int8."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = (np.eye(16, dtype=np.float32) * 0.5).reshape(16, 16, 1, 1)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 16, 8, 8]) for name in ("x", "y"))
    stored: dict[str, Any] = {"w": weights}
    nodes, source, kernel = [], "x", "w"
    if int8:
        stored = {"s": np.float32(1 / 127), "z": np.int8(0), "q": np.round(weights * 127).astype(np.int8)}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["wd"]),
        ]
        source, kernel = "xd", "wd"
    nodes.append(helper.make_node("Conv", [source, kernel], ["y"]))
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


@pytest.mark.parametrize("name", ["float.tflite", "float.onnx"])
def test_answers_equal_those_worked_out_by_hand(tmp_path: Path, files: dict[str, Path], name: str) -> None:
    code, result = run(tmp_path, question(tmp_path, files[name], **OPENVINO))
    assert (code, result.get("error"), result["n"]) == (0, None, 4)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), ANSWERS, atol=1e-5)


def test_integer_ends_are_refused(tmp_path: Path, files: dict[str, Path]) -> None:
    code, result = run(tmp_path, question(tmp_path, files["int8.tflite"], **OPENVINO))
    assert code == 1
    assert ", which is i8: write the file with float32 ends" in result["error"]


@pytest.mark.parametrize("int8", [False, True])
def test_layers_run_in_the_arithmetic_of_the_file(tmp_path: Path, int8: bool) -> None:
    convolution(tmp_path / "net.onnx", int8=int8)
    rows = np.linspace(-1, 1, 2 * 16 * 64, dtype=np.float32).reshape(2, 16, 8, 8)
    code, result = run(tmp_path, question(tmp_path, tmp_path / "net.onnx", rows, **OPENVINO))
    assert code == 0, result
    assert result["kernel_path"] == f"OpenVINO CPU, layers: 1 in {'i8' if int8 else 'f32'}"
    # by hand: 0.5 is 64/127 in int8. bfloat16, its own choice where a processor has it, would be off by 2^-9 of a half
    expected = np.round(rows * 127) / 127 * np.float32(64 / 127) if int8 else rows / 2
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5)


def test_bench_keeps_raw_samples_and_says_what_ran(tmp_path: Path) -> None:
    convolution(tmp_path / "net.onnx", int8=False)
    job = {"kind": "bench", "threads": 1, "model": str(tmp_path / "net.onnx"), "seconds": 0.02, "warmup_seconds": 0.0}
    code, result = run(tmp_path, {**job, **OPENVINO})
    assert code == 0, result
    assert len(result["samples_ns"]) >= 2
    assert result["versions"]["openvino"][:2] == "20"
    assert (result["threads"], result["delegate"], result["arena_bytes"]) == (1, "cpu", None)


def test_batch_is_the_files_or_what_was_asked_for_of_a_free_one(tmp_path: Path) -> None:
    job = {"kind": "bench", "threads": 1, "model": str(tmp_path / "net.onnx"), "seconds": 0.01, "warmup_seconds": 0.0}
    convolution(tmp_path / "net.onnx", int8=False, batch="n")
    assert run(tmp_path, {**job, **OPENVINO, "batch": 4})[0] == 0
    convolution(tmp_path / "net.onnx", int8=False)
    code, result = run(tmp_path, {**job, **OPENVINO, "batch": 4})
    assert (code, result["error"]) == (1, "input 'x' has a fixed batch of 1, 4 was asked for")


@pytest.mark.parametrize("name", ["bad.tflite", "bad.onnx"])
def test_file_that_cannot_be_loaded_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a model at all")
    code, result = run(tmp_path, question(tmp_path, tmp_path / name, **OPENVINO))
    assert code == 1
    assert result["error"].startswith("openvino cannot load the file") and "\n" not in result["error"]


def test_other_device_than_the_cpu_is_refused(tmp_path: Path) -> None:
    convolution(tmp_path / "net.onnx", int8=False)
    code, result = run(tmp_path, question(tmp_path, tmp_path / "net.onnx", **{**OPENVINO, "delegate": "gpu"}))
    assert (code, result["error"]) == (1, "openvino has no device 'gpu' in this worker")


def test_delivered_int8_file_runs_in_int8_and_decides_as_litert_does(finished: Any, tmp_path: Path) -> None:
    """ai-edge-quantizer leaves operator codes where OpenVINO does not look; the exporter puts them there."""
    file = finished.folder / "artifacts" / "int8.tflite"
    rows = np.random.default_rng(0).random((50, 8, 8, 1), dtype=np.float32)
    answers = {}
    for runtime, delegate in (("openvino", "cpu"), ("litert", "none")):
        job = question(tmp_path, file, rows, runtime=runtime, delegate=delegate)
        code, result = run(tmp_path, {**job, "inputs": {"image": job["inputs"]["x"]}})
        assert code == 0, result
        answers[runtime] = np.load(tmp_path / "y.npy")
        assert runtime == "litert" or " in i8" in result["kernel_path"]
    agree = np.mean(answers["openvino"].argmax(axis=1) == answers["litert"].argmax(axis=1))
    assert agree >= 0.9  # other kernels, other roundings
