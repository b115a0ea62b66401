"""The GPU runners for real, on a machine that has a GPU and the packages; skipped anywhere else."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.fakes.network import network
from toolkit.transports.local import WORKER

pytestmark = pytest.mark.gpu
ROWS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 3], [-1, -1, -1]], np.float32)
ANSWERS = np.array([[1.5, 0.0], [2.5, 0.0], [0.5, 2.0], [0.0, 0.0]], np.float32)


def run(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    request, result = folder / "job.json", folder / "result.json"
    request.write_text(json.dumps({"result": str(result), **job}))
    subprocess.run([sys.executable, str(WORKER), str(request)], check=False, capture_output=True, cwd=folder)
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def needed(folder: Path, delegate: str) -> None:
    """Skip where the runtime of this delegate cannot be had."""
    if delegate == "gpu":
        if find_spec("tensorrt") is None or not run(folder, {"kind": "info", "runtime": "tensorrt"}).get("gpu"):
            pytest.skip("no TensorRT with a GPU here")
        return
    import onnxruntime

    provider = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[delegate]
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"no {provider} here")


@pytest.mark.parametrize(
    ("runtime", "delegate"), [("tensorrt", "gpu"), ("onnxruntime", "cuda"), ("onnxruntime", "tensorrt")]
)
def test_answers_on_a_gpu_are_those_worked_out_by_hand(
    tmp_path: Path, graphs: dict[str, Path], runtime: str, delegate: str
) -> None:
    needed(tmp_path, delegate)
    np.save(tmp_path / "x.npy", ROWS)
    job = {"kind": "eval", "runtime": runtime, "delegate": delegate, "model": str(graphs["float.onnx"])}
    result = run(tmp_path, {**job, "inputs": {"x": str(tmp_path / "x.npy")}, "outputs": {"y": str(tmp_path / "y.npy")}})
    assert result.get("error") is None
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), ANSWERS, atol=2e-2)  # TF32 keeps 10 bits


def test_tensorrt_computes_a_quantized_convolution_in_int8(tmp_path: Path) -> None:
    needed(tmp_path, "gpu")
    file, engine = network(tmp_path / "q.onnx", quantized=True), tmp_path / "q.engine"
    major = int(run(tmp_path, {"kind": "info", "runtime": "tensorrt"})["versions"]["tensorrt"].partition(".")[0])
    spec = {"workspace_mib": 256, "strongly_typed": major >= 10, "int8": True}
    job = {"kind": "build", "runtime": "tensorrt", "model": file, "engine": str(engine), "build": spec}
    result = run(tmp_path, job)
    assert result.get("error") is None
    assert result["precision"].get("int8", 0) >= 1
    assert engine.stat().st_size == result["size_bytes"]


def test_tensorrt_says_which_layers_use_sparse_kernels(tmp_path: Path) -> None:
    needed(tmp_path, "gpu")
    file, engine = network(tmp_path / "s.onnx", sparse=True, half=True), tmp_path / "s.engine"
    major = int(run(tmp_path, {"kind": "info", "runtime": "tensorrt"})["versions"]["tensorrt"].partition(".")[0])
    spec = {"workspace_mib": 256, "strongly_typed": major >= 10, "fp16": True, "sparse": True}
    job = {"kind": "build", "runtime": "tensorrt", "model": file, "engine": str(engine), "build": spec}
    result = run(tmp_path, job)
    assert result.get("error") is None
    assert "SPARSE_WEIGHTS" in result["flags"]
    said = [text for text in result["warnings"] if text.startswith("2:4: ")]
    assert len(said) == 1 and "1 layers could use sparse kernels" in said[0]
