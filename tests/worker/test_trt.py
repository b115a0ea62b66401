"""The TensorRT runner as a device runs it, on a fake TensorRT that computes and a fake CUDA runtime that checks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.transports.local import WORKER

FAKES = Path(__file__).with_name("fakes")
ROWS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 3], [-1, -1, -1]], np.float32)
ANSWERS = np.array([[1.5, 0.0], [2.5, 0.0], [0.5, 2.0], [0.0, 0.0]], np.float32)
BUILD = {"workspace_mib": 256}
INT8 = "Thirty-two wide channel vectorized row major Int8 format"
LAYERS = [{"Name": n, "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": INT8}]} for n in ("a", "b")]
LAYERS.append({"Name": "c", "LayerType": "SoftMax", "Inputs": [{"Format/Datatype": "Row major linear FP32"}]})


@pytest.fixture(scope="session")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcudart.so that needs no GPU."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of libcudart")
    folder = tmp_path_factory.mktemp("cuda")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(folder / "libcudart.so"), str(FAKES / "cudart.c")]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def device(cuda: Path, tmp_path: Path) -> Any:
    """job -> (exit code, result, calls of TensorRT, calls of CUDA), run in a worker of its own."""

    def run(job: dict[str, Any], *, version: str = "10.3.0", **more: Any) -> tuple[int, Any, list[Any], list[str]]:
        request, result, said, log = (tmp_path / name for name in ("job.json", "result.json", "calls.json", "cuda.log"))
        for path in (result, said, log):
            path.unlink(missing_ok=True)
        request.write_text(json.dumps({"result": str(result), "runtime": "tensorrt", **job}))
        settings = {"FAKE_TENSORRT": version, "FAKE_CALLS": str(said), "FAKE_CUDA_LOG": str(log), **more}
        paths = {"PYTHONPATH": str(FAKES / "site"), "LD_LIBRARY_PATH": str(cuda)}
        command = [sys.executable, str(WORKER), str(request)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, **paths, **settings}
        )
        assert result.is_file(), done.stderr
        calls = json.loads(said.read_text()) if said.is_file() else []
        return (
            done.returncode,
            json.loads(result.read_text()),
            calls,
            log.read_text().splitlines() if log.is_file() else [],
        )

    return run


@pytest.fixture
def question(tmp_path: Path) -> Any:
    """An eval job on rows."""

    def ask(file: Path, rows: Any = ROWS, **more: Any) -> dict[str, Any]:
        np.save(tmp_path / "x.npy", rows)
        job = {"kind": "eval", "delegate": "gpu", "model": str(file), "build": BUILD}
        return {**job, "inputs": {"x": str(tmp_path / "x.npy")}, "outputs": {"y": str(tmp_path / "y.npy")}, **more}

    return ask


def free_batch(path: Path) -> Path:
    """y = x + 1, rows of 3, any number of them."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    one = numpy_helper.from_array(np.ones((1, 3), np.float32), "one")
    graph = helper.make_graph([helper.make_node("Add", ["x", "one"], ["y"])], "g", [x], [y], [one])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("version", ["8.5.2.2", "8.6.2", "10.3.0", "10.16.2", "11.4.1"])
def test_answers_are_those_worked_out_by_hand(
    device: Any, question: Any, graphs: dict[str, Path], tmp_path: Path, version: str
) -> None:
    build = {**BUILD, "strongly_typed": version[:2] != "8."}
    code, result, calls, log = device(question(graphs["float.onnx"], build=build), version=version)
    assert (code, result.get("error")) == (0, None)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), ANSWERS, atol=1e-6)
    assert result["n"] == 4
    assert result["versions"]["tensorrt"] == version
    assert result["versions"]["cuda"] == "12.6"
    # memory of 3 floats and 2, then for each row: input, engine, output, wait
    assert log == ["malloc 12", "malloc 8", *(["upload 12", "download 8", "wait 0"] * 4)]
    names = [call[0] for call in calls]
    assert [call[1] for call in calls if call[0] == "set_tensor_address"] == ["x", "y"]
    assert names.count("execute_async_v3") == 4
    assert names.index("set_input_shape") < names.index("set_tensor_address") < names.index("execute_async_v3")
    assert all(call[1] == 77 for call in calls if call[0] == "execute_async_v3")  # the stream of the copies


def test_images_are_turned_and_pixels_stay_pixels(
    device: Any, question: Any, graphs: dict[str, Path], tmp_path: Path
) -> None:
    images = np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3)
    code, result, _, log = device(question(graphs["image.onnx"], images, layouts={"x": "NCHW"}))
    assert (code, result.get("error")) == (0, None)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), [[84.0, 92.0, 100.0]])
    assert log[:2] == ["malloc 96", "malloc 12"]


def test_uint8_input_is_one_byte_a_pixel(device: Any, question: Any, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 3])
    graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "p.onnx")
    rows = np.array([[0, 127, 255]], np.uint8)
    code, result, _, log = device(question(tmp_path / "p.onnx", rows))
    assert (code, result.get("error")) == (0, None)
    assert log[:2] == ["malloc 3", "malloc 6"]
    found = np.load(tmp_path / "y.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0, 127, 255]])
    code, result, _, _ = device(question(tmp_path / "p.onnx", rows.astype(np.float32)))
    assert code == 1
    assert "takes uint8 pixels, the data is float32" in result["error"]


def test_free_batch_runs_one_row_at_a_time(device: Any, question: Any, tmp_path: Path) -> None:
    build = {**BUILD, "shapes": {"x": [[1, 3], [2, 3], [4, 3]]}}
    code, result, calls, _ = device(question(free_batch(tmp_path / "free.onnx"), build=build))
    assert (code, result.get("error")) == (0, None)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), ROWS + 1)
    assert [call[2] for call in calls if call[0] == "set_input_shape"] == [[1, 3]]
    code, result, _, _ = device(question(tmp_path / "free.onnx"))
    assert code == 1
    assert "--shapes x=1x3,1x3,8x3" in result["error"]


@pytest.mark.parametrize(
    ("rows", "change", "words"),
    [
        (np.zeros((2, 4), np.float32), {}, "input 'x' takes [1, 3], the data is (2, 4)"),
        (ROWS, {"outputs": {"z": "z.npy", "y": "y.npy"}}, "no output 'z', it has y"),
        (ROWS, {"delegate": "tpu"}, "no delegate 'tpu'"),
        (ROWS, {"build": {"dla_core": 0}}, "use delegate dla"),
        (ROWS, {"build": {"hidden": 0}}, "no such key of a build: hidden"),
        (ROWS, {"delegate": "dla"}, "sees no DLA here"),
        (ROWS, {"build": {"strongly_typed": False, "int8": True}}, "int8 was asked for and the file holds none"),
    ],
)
def test_mistakes_in_a_job_are_named(
    device: Any, question: Any, graphs: dict[str, Path], rows: Any, change: dict[str, Any], words: str
) -> None:
    code, result, _, _ = device(question(graphs["float.onnx"], rows, **change))
    assert code == 1
    assert words in result["error"]
    assert "\n" not in result["error"]


# ---------------------------------------------------------------- engines


def test_engine_is_built_once_in_the_work_folder(
    device: Any, question: Any, graphs: dict[str, Path], tmp_path: Path
) -> None:
    job = question(graphs["float.onnx"])
    before = sorted(graphs["float.onnx"].parent.iterdir())
    first, second = device(job), device(job)
    assert [[call[0] for call in run[2]].count("build_serialized_network") for run in (first, second)] == [1, 0]
    assert (first[1]["build_seconds"] > 0, second[1]["build_seconds"]) == (True, 0)
    assert first[1]["build"] == second[1]["build"]
    assert first[1]["kernel_path"] == second[1]["kernel_path"]
    engines = list(tmp_path.glob("trt-*.engine"))
    assert len(engines) == 1
    assert engines[0].stat().st_mode & 0o777 == 0o600
    assert sorted(graphs["float.onnx"].parent.iterdir()) == before  # nothing beside a user's file
    # another specification, another version: another engine
    device({**job, "build": {"workspace_mib": 128}})
    device(job, version="10.16.2")
    assert len(list(tmp_path.glob("trt-*.engine"))) == 3


def test_job_that_says_nothing_takes_the_precision_of_the_file(
    device: Any, question: Any, graphs: dict[str, Path], tmp_path: Path
) -> None:
    from tests.worker.fakes.network import network

    quantized = network(tmp_path / "q.onnx", quantized=True)
    images = np.ones((1, 16, 8, 8), np.float32)
    for file, rows, flags in ((graphs["float.onnx"], ROWS, []), (quantized, images, ["INT8"])):
        job = question(Path(file), rows)
        del job["build"]
        _, old, calls, _ = device(job, version="8.5.2.2")
        assert [call[1] for call in calls if call[0] == "set_flag"] == flags
        assert "weakly typed" in old["kernel_path"]
        _, new, calls, _ = device(job, version="11.4.1")
        assert [call for call in calls if call[0] == "set_flag"] == []
        assert "strongly typed" in new["kernel_path"]


def test_engine_is_loaded_only_under_the_hash_the_job_names(
    device: Any, question: Any, graphs: dict[str, Path], tmp_path: Path
) -> None:
    engine = tmp_path / "own.engine"
    job = {"kind": "build", "model": str(graphs["float.onnx"]), "build": BUILD, "engine": str(engine)}
    code, built, _, _ = device(job, FAKE_WORLD=json.dumps({"layers": LAYERS, "warnings": ["slow"]}))
    assert code == 0
    sha = hashlib.sha256(engine.read_bytes()).hexdigest()
    assert built["engine_sha256"] == sha
    assert built["onnx_sha256"] == hashlib.sha256(graphs["float.onnx"].read_bytes()).hexdigest()
    assert built["size_bytes"] == engine.stat().st_size
    assert built["flags"] == ["STRONGLY_TYPED"]
    assert json.loads(built["inspector"]) == {"Layers": LAYERS}
    assert built["precision"] == {"int8": 2, "float32": 1}
    assert (built["warnings"], built["on_gpu"]) == (["slow"], [])
    assert built["gpu"]["compute_capability"] == "8.7"
    code, _, calls, _ = device(question(engine, engine_sha256=sha))
    assert code == 0
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), ANSWERS, atol=1e-6)
    assert "build_serialized_network" not in [call[0] for call in calls]
    for wrong in ({}, {"engine_sha256": "0" * 64}):
        code, result, calls, _ = device(question(engine, **wrong))
        assert code == 1
        assert "engines are code" in result["error"]
        assert calls == []  # not even opened
    code, result, _, _ = device(question(engine, engine_sha256=sha), version="10.16.2")
    assert code == 1
    assert "not compatible with this version of TensorRT" in result["error"]


def test_only_tensorrt_builds_engines(device: Any, graphs: dict[str, Path]) -> None:
    code, result, _, _ = device({"kind": "build", "runtime": "onnxruntime", "model": str(graphs["float.onnx"])})
    assert code == 1
    assert "builds no engines" in result["error"]


def test_dla_names_what_it_left_to_the_gpu(device: Any, question: Any, tmp_path: Path) -> None:
    from tests.worker.fakes.network import network

    file = Path(network(tmp_path / "h.onnx", half=True))
    images = np.ones((1, 16, 8, 8), np.float32)
    world = json.dumps({"dla_cores": 1, "on_dla": ["conv"], "layers": LAYERS})
    code, result, calls, _ = device(question(file, images, delegate="dla"), FAKE_WORLD=world)
    assert (code, result.get("error")) == (0, None)
    assert [call for call in calls if call[:2] == ["set", "DLA_core"]] == [["set", "DLA_core", 0]] * 2  # build, load
    assert result["kernel_path"].endswith("left to the GPU by the DLA: relu")


# ---------------------------------------------------------------- timing, and what is missing


def test_timing_keeps_whole_inferences_and_the_gpu_apart(device: Any, graphs: dict[str, Path]) -> None:
    job = {"kind": "bench", "delegate": "gpu", "model": str(graphs["float.onnx"]), "build": BUILD, "seed": 0}
    world = json.dumps({"layers": LAYERS})
    code, result, _, log = device({**job, "seconds": 0.01, "warmup_seconds": 0}, FAKE_WORLD=world)
    assert code == 0
    assert result["kernel_path"] == "TensorRT 10.3.0, 2 of 3 layers int8, 1 float32, strongly typed"
    assert result["precision"] == {"int8": 2, "float32": 1}
    assert len(result["samples_ns"]) >= 2
    # a whole inference uploads, the GPU's own does not
    assert log.count("upload 12") == log.count("download 8") == log.count("wait 0") == len(result["samples_ns"]) + 1
    # the fake's marks lie half a millisecond apart
    assert result["gpu_ms"] == {"median": 0.5, "p99": 0.5, "runs": 50, "how": "CUDA events around execute_async_v3"}
    assert result["load_ms"] >= 0
    assert result["arena_bytes"] is None
    assert result["device_memory_bytes"] == 4096


def test_gpu_is_described_with_the_versions(device: Any) -> None:
    code, result, _, _ = device({"kind": "info"})
    assert code == 0
    assert result["versions"]["tensorrt"] == "10.3.0"
    assert result["gpu"] == {
        "device": "Orin",
        "compute_capability": "8.7",
        "memory_mib": 7168,
        "free_mib": 3072,
        "integrated": True,
        "cuda": "12.6",
        "driver_cuda": "12.8",
    }
    code, result, _, _ = device({"kind": "info"}, FAKE_CUDA_NONE="1")
    assert (code, result["gpu"]) == (0, None)
    assert "driver version is insufficient" in result["problem"]


def test_machine_without_a_gpu_is_unavailable_before_tensorrt_is_asked(
    device: Any, question: Any, graphs: dict[str, Path]
) -> None:
    code, result, calls, _ = device(question(graphs["float.onnx"]), FAKE_CUDA_NONE="1")
    assert (code, result["kind"]) == (1, "unavailable")
    assert "there is no GPU to use" in result["error"]
    assert "CUDA driver version is insufficient" in result["error"]
    assert calls == []


def test_machine_without_cuda_is_unavailable(device: Any, question: Any, graphs: dict[str, Path]) -> None:
    code, result, _, _ = device(question(graphs["float.onnx"]), LD_LIBRARY_PATH="")
    if code == 0:
        pytest.skip("a CUDA runtime is installed here")
    assert result["kind"] == "unavailable"
    assert "there is no GPU to use" in result["error"]


def test_machine_without_tensorrt_is_unavailable(device: Any, question: Any, graphs: dict[str, Path]) -> None:
    code, result, _, _ = device(question(graphs["float.onnx"]), PYTHONPATH="")
    if code == 0:
        pytest.skip("TensorRT is installed here")
    assert result["kind"] == "unavailable"
    assert "tensorrt cannot be imported" in result["error"]


def test_memory_of_the_gpu_that_runs_out_is_one_line(device: Any, question: Any, graphs: dict[str, Path]) -> None:
    code, result, _, _ = device(question(graphs["float.onnx"]), FAKE_CUDA_MEMORY="8")
    assert code == 1
    assert "cudaMalloc: error 2, out of memory" in result["error"]


def test_real_cuda_runtime_has_every_call_and_says_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(WORKER))
    import cudart

    try:
        library = cudart._library()
    except cudart.CudaError:
        pytest.skip("no CUDA runtime here")
    assert [name for name in (*cudart.SIGNATURES, "cudaGetErrorString") if not hasattr(library, name)] == []
    try:
        assert cudart.Cuda().describe()["memory_mib"] > 0
    except cudart.CudaError as error:
        assert "cudaGetDeviceCount: error" in str(error)
