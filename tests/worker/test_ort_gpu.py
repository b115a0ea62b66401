"""ONNX Runtime's GPU providers: what they are asked, what a profile says they ran, and never the CPU in silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.fakes.network import network
from toolkit.transports.local import WORKER

FAKES = Path(__file__).with_name("fakes")
CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
GPU = {"available": [TENSORRT, CUDA, CPU], "nodes": [["Conv", CUDA], ["Gemm", CUDA], ["Softmax", CPU]]}


@pytest.fixture
def worker(tmp_path: Path, graphs: dict[str, Path]) -> Any:
    """(delegate, world) -> (exit code, result, calls), a timing in a worker of its own."""

    def run(delegate: str, world: dict[str, Any], **more: Any) -> tuple[int, Any, list[Any]]:
        request, result, said = (tmp_path / name for name in ("job.json", "result.json", "calls.json"))
        job = {"kind": "bench", "runtime": "onnxruntime", "delegate": delegate, "model": str(graphs["float.onnx"])}
        job |= {"seconds": 0.001, "warmup_seconds": 0, "result": str(result), **more}
        request.write_text(json.dumps(job))
        settings = {"PYTHONPATH": str(FAKES / "gpu"), "FAKE_ORT": json.dumps(world), "FAKE_CALLS": str(said)}
        command = [sys.executable, str(WORKER), str(request)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **settings})
        assert result.is_file(), done.stderr
        return done.returncode, json.loads(result.read_text()), json.loads(said.read_text()) if said.is_file() else []

    return run


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(WORKER))
    import ort_gpu

    return ort_gpu


# ---------------------------------------------------------------- whole jobs, on a stand-in


def test_nodes_are_told_by_provider(worker: Any, tmp_path: Path) -> None:
    code, result, calls = worker("cuda", GPU)
    assert (code, result.get("error")) == (0, None)
    assert result["kernel_path"] == "CUDA 2 of 3 nodes; on the CPU: Softmax"
    assert result["delegate"] == "cuda"
    timed, profiled = (call for call in calls if call[0] == "session")
    assert calls[0] == ["preload_dlls"]
    assert timed == ["session", [[CUDA, {"device_id": 0}]], 0, False]  # no fallback, no profile while it is timed
    assert profiled[3] is True
    assert not list(tmp_path.glob("ort-profile*"))


def test_tensorrt_takes_subgraphs_and_leaves_the_rest_to_cuda(worker: Any, tmp_path: Path) -> None:
    world = {**GPU, "nodes": [["TRTKernel_graph_1", TENSORRT], ["Resize", CUDA], ["TopK", CPU], ["Memcpy", CUDA]]}
    code, result, calls = worker("tensorrt", world, build={"workspace_mib": 64})
    assert (code, result.get("error")) == (0, None)
    words = "TensorRT 1 of 3 nodes (a node may be a whole subgraph), CUDA 1; on the CPU: TopK"
    assert result["kernel_path"] == words
    (name, options), second = calls[1][1]
    assert (name, second[0]) == (TENSORRT, CUDA)
    folder = str(tmp_path / "ort-engines")
    assert (options["trt_engine_cache_path"], options["trt_timing_cache_path"]) == (folder, folder)
    assert (tmp_path / "ort-engines").stat().st_mode & 0o777 == 0o700
    assert options["trt_max_workspace_size"] == 64 * 2**20
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (False, False)


@pytest.mark.parametrize("delegate", ["cuda", "tensorrt"])
def test_build_without_the_provider_is_unavailable_with_the_package(worker: Any, delegate: str) -> None:
    code, result, calls = worker(delegate, {"available": [CPU], "nodes": []})
    assert (code, result["kind"]) == (1, "unavailable")
    assert "it has CPUExecutionProvider: install onnxruntime-gpu" in result["error"]
    assert calls == []


@pytest.mark.parametrize(("delegate", "name"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
def test_provider_that_cannot_be_loaded_is_no_cpu_in_silence(worker: Any, delegate: str, name: str) -> None:
    code, result, _ = worker(delegate, {**GPU, "loads": False})
    assert (code, result["kind"]) == (1, "unavailable")
    assert f"{name} was asked for and {CPU} ran" in result["error"]


@pytest.mark.parametrize(
    ("delegate", "nodes", "words"),
    [
        ("cuda", [["Conv", CPU], ["Memcpy", CUDA]], "CUDA 0 of 1 nodes; on the CPU: Conv"),
        ("tensorrt", [["Conv", CUDA]], "TensorRT 0 of 1 nodes (a node may be a whole subgraph), CUDA 1"),
    ],
)
def test_provider_that_takes_nothing_is_an_error(worker: Any, delegate: str, nodes: Any, words: str) -> None:
    code, result, _ = worker(delegate, {**GPU, "nodes": nodes})
    assert code == 1
    assert f"took no node of the file: {words}" in result["error"]


def test_cpu_is_neither_profiled_nor_preloaded(worker: Any) -> None:
    code, result, calls = worker("cpu", GPU)
    assert code == 0
    assert result["kernel_path"] == CPU
    assert calls == [["session", [CPU], 0, False]]


# ---------------------------------------------------------------- options, and real profiles


@pytest.mark.parametrize(
    ("form", "held"),
    [
        ({}, set()),
        ({"half": True}, {"float16"}),
        ({"quantized": True}, {"int8"}),
        ({"quantized": True, "half": True}, {"int8", "float16"}),
        ({"takes": 10}, {"float16"}),
        ({"takes": 2}, set()),
    ],
)
def test_types_are_allowed_by_what_the_file_holds(
    parser: Any, tmp_path: Path, form: dict[str, Any], held: set[str]
) -> None:
    file = network(tmp_path / "m.onnx", **form)
    found = parser.onnx_types.held(file)
    assert found == held
    (_, options), _ = parser.providers("tensorrt", {"model": file, "result": str(tmp_path / "r.json")})
    assert options["trt_int8_enable"] == ("int8" in held)
    assert options["trt_fp16_enable"] == ("float16" in held)


def test_float16_is_seen_in_casts_and_constants_alone(parser: Any, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    there = helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16)
    back = helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT)
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(1, np.float16)))
    plain = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(10, np.float32)))
    copy = helper.make_node("Identity", ["x"], ["y"])
    forms: list[tuple[list[Any], set[str]]] = [([there, back], {"float16"}), ([constant, copy], {"float16"})]
    for nodes, held in [*forms, ([plain, copy], set()), ([copy], set())]:
        graph = helper.make_graph(nodes, "a graph of QuantizeLinear by name", [x], [y])
        onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
        assert parser.onnx_types.held(str(tmp_path / "m.onnx")) == held


@pytest.mark.parametrize("content", [b"not a model at all", b"\x00" * 100, b"\xff" * 100, b"\x3a\xff\xff\x7f", b"\x08"])
def test_other_files_hold_nothing_and_are_refused(parser: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="no ONNX file"):
        parser.onnx_types.held(str(tmp_path / "bad.onnx"))


def test_ranges_of_shapes_are_written_as_the_provider_reads_them(parser: Any, tmp_path: Path) -> None:
    shapes = {"x": [[1, 3, 8, 8], [2, 3, 8, 8], [4, 3, 8, 8]], "z": {"least": [1], "usual": [2], "greatest": [3]}}
    job = {"model": network(tmp_path / "m.onnx"), "result": str(tmp_path / "r.json"), "build": {"shapes": shapes}}
    (_, options), _ = parser.providers("tensorrt", job)
    assert options["trt_profile_min_shapes"] == "x:1x3x8x8,z:1"
    assert options["trt_profile_opt_shapes"] == "x:2x3x8x8,z:2"
    assert options["trt_profile_max_shapes"] == "x:4x3x8x8,z:3"


def test_profile_of_onnx_runtime_itself_is_read(parser: Any, graphs: dict[str, Path], tmp_path: Path) -> None:
    """Two runs of Gemm and Relu, without fusion: two nodes, each once, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "real")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(graphs["float.onnx"]), options, providers=[CPU])
    for _ in range(2):
        session.run(None, {"x": np.zeros((1, 3), np.float32)})
    found = parser.read(session.end_profiling())
    assert [(node.operator, node.provider) for node in found] == [("Gemm", CPU), ("Relu", CPU)]
    assert parser.words(CUDA, found) == "CUDA 0 of 2 nodes; on the CPU: Gemm, Relu"
