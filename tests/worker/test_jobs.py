"""What a job may ask of any runtime: cores, a batch, shares by layer; and the oldest Python it runs on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.conftest import ANSWERS, BIAS, WEIGHTS
from tests.worker.test_worker import RUNTIME, question, run
from toolkit.transports.local import WORKER

OLDEST = "3.8"


def bench(file: Path, **more: Any) -> dict[str, Any]:
    runtime, delegate = RUNTIME[file.suffix]
    job = {"kind": "bench", "runtime": runtime, "delegate": delegate, "threads": 1, "model": str(file)}
    return {**job, "seconds": 0.01, "warmup_seconds": 0.0, **more}


def free(path: Path) -> Path:
    """y = relu(x W + b) with a free batch."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    weights = [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(BIAS, "b")]
    save = {"opset_imports": [helper.make_opsetid("", 17)], "ir_version": 8}
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), **save), path)
    return path


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_job_stays_on_its_cores_and_says_so(tmp_path: Path, graphs: dict[str, Path]) -> None:
    last = max(os.sched_getaffinity(0))
    code, result = run(tmp_path, bench(graphs["float.onnx"], cores=[last]))
    assert (code, result["cores"]) == (0, [last])
    code, result = run(tmp_path, bench(graphs["float.onnx"]))
    assert result["cores"] == sorted(os.sched_getaffinity(0))
    for cores, words in (([1000], "cannot run on cores 1000"), ([last, 1000], "has no core 1000")):
        code, result = run(tmp_path, bench(graphs["float.onnx"], cores=cores))
        assert code == 1 and words in result["error"]


def test_free_batch_is_the_one_asked_for_and_a_fixed_one_is_refused(tmp_path: Path, graphs: dict[str, Path]) -> None:
    code, result = run(tmp_path, bench(free(tmp_path / "free.onnx"), batch=8))
    assert (code, result["batch"]) == (0, 8)
    code, result = run(tmp_path, bench(graphs["float.onnx"], batch=8))
    assert (code, result["error"]) == (1, "input 'x' has a fixed batch of 1, 8 was asked for")


def test_free_batch_of_a_tflite_file_is_resized(tmp_path: Path, files: dict[str, Path]) -> None:
    import tensorflow as tf

    function = tf.function(lambda x: {"y": tf.nn.relu(x @ WEIGHTS)}, [tf.TensorSpec((None, 3), name="x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], function)
    (tmp_path / "free.tflite").write_bytes(converter.convert())
    sizes = {}
    for batch in (1, 64):
        code, result = run(tmp_path, bench(tmp_path / "free.tflite", batch=batch))
        assert code == 0, result
        sizes[batch] = result["arena_bytes"]
    assert sizes[64] >= 64 * 5 * 4 > sizes[1]  # three floats in and two out, for each image
    code, result = run(tmp_path, bench(files["float.tflite"], batch=2))
    assert code == 1 and "has a fixed batch of 1, 2 was asked for" in result["error"]


def test_sustained_job_runs_for_its_seconds(tmp_path: Path, graphs: dict[str, Path]) -> None:
    job = {**bench(graphs["float.onnx"]), "kind": "sustain", "seconds": 0.1, "samples": str(tmp_path / "times.npy")}
    code, result = run(tmp_path, job)
    assert code == 0, result
    times = np.load(tmp_path / "times.npy")
    assert len(times) == result["inferences"] and times[-1, 0] <= 0.1e9
    assert result["kernel_path"] == "CPUExecutionProvider"


@pytest.mark.parametrize("name", ["float.tflite", "image.onnx"])
def test_shares_of_layers_are_one_together(tmp_path: Path, files: dict[str, Path], name: str) -> None:
    code, result = run(tmp_path, {**bench(files[name]), "kind": "layers"})
    assert code == 0, result
    if not result["layers"]:  # this LiteRT gives none, or they are too short for its clock of 1 us
        assert "LiteRT" in result["why"]
        return
    assert sum(layer["share"] for layer in result["layers"]) == pytest.approx(1.0)
    if name == "image.onnx":
        assert [layer["kind"] for layer in result["layers"]] == ["ReduceSum"]


def test_other_kernels_than_the_profilers_have_no_shares(tmp_path: Path, files: dict[str, Path]) -> None:
    code, result = run(tmp_path, {**bench(files["float.tflite"], delegate="none"), "kind": "layers"})
    assert (code, result["layers"], result["why"]) == (0, [], "litert has no profile with delegate none")
    assert "pieces" not in result


def test_delegate_tells_what_it_took_without_running_the_file(tmp_path: Path, files: dict[str, Path]) -> None:
    code, result = run(tmp_path, {**bench(files["float.tflite"]), "kind": "taken"})
    assert (code, result["pieces"]) == (0, [[0]])
    code, result = run(tmp_path, {**bench(files["image.onnx"]), "kind": "taken"})
    assert code == 0 and "pieces" not in result


def test_pieces_of_a_delegate_are_what_lies_between_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 and 1 are one piece, 2 is left, 3 another; the delegate's nodes stand behind."""
    monkeypatch.syspath_prepend(str(WORKER))
    import partitions

    def node(index: int, name: str, inputs: list[int], output: int) -> dict[str, Any]:
        return {"index": index, "op_name": name, "inputs": np.array(inputs), "outputs": np.array([output])}

    own = [node(0, "CONV_2D", [9, 7, -1], 10), node(1, "ADD", [10, 9], 11)]
    own += [node(2, "CUSTOM", [11], 12), node(3, "SOFTMAX", [12], 13)]
    taken = [node(4, "DELEGATE", [7, 9], 11), node(5, "DELEGATE", [12], 13)]
    assert partitions.pieces([*own, *taken]) == [[0, 1], [3]]
    assert partitions.pieces(own) == []


TABLE = """===== Run Order =====
      [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] [times called]   [Name]
    Delegate/Convolution (NHWC, QC8) IGEMM      0.000      0.011      0.008    75.500%    75.500%      0.000    20   [Delegate]:1
    SOFTMAX      0.011      0.002      0.000     24.500%   100.000%      0.000             20   [Builtin]:15

===== Top by Computation Time =====
    SOFTMAX      0.011      0.002      0.000     24.500%   100.000%      0.000             20   [Builtin]:15
"""  # noqa: E501  (as it is printed)


def test_table_of_litert_is_read_with_delegates_operators_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(WORKER))
    import litert_profile

    kind = "Convolution (NHWC, QC8) IGEMM"
    assert litert_profile.rows(TABLE) == [
        (f"00 {kind}", kind, 75.5, True, None),
        ("01 SOFTMAX", "SOFTMAX", 24.5, False, 15),
    ]
    timed = litert_profile.rows(TABLE + "Timings (microseconds): count=2 curr=400\n")
    assert [row.spent for row in timed] == [400 * 75.5, 400 * 24.5]


def test_inference_that_was_interrupted_is_not_that_layers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five tables one has a row of a thousand times its time."""
    monkeypatch.syspath_prepend(str(WORKER))
    import litert_profile

    said = [TABLE + f"Timings (microseconds): count=2 curr={total}\n" for total in (100, 100_000, 104, 101, 103)]
    monkeypatch.setattr(litert_profile, "summaries", lambda folder, model, runs, repeats: iter(said))
    found = litert_profile.layers("", "m.tflite")
    assert [(layer["by"], layer["share"]) for layer in found["layers"]] == [("delegate", 0.755), ("built-in", 0.245)]
    spoilt = [said[0], TABLE.replace("75.500%", "00.100%").replace("24.500%", "99.900%") + said[1][len(TABLE) :]]
    monkeypatch.setattr(litert_profile, "summaries", lambda folder, model, runs, repeats: iter(spoilt))
    assert [layer["share"] for layer in litert_profile.layers("", "m")["layers"]] == [0.755, 0.245]


def test_profile_of_onnx_runtime_is_of_the_median_and_names_types(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(WORKER))
    import shares

    def event(name: str, spent: int) -> dict[str, Any]:
        ends = {"input_type_shape": [{"uint8": [1, 4]}, {"float": []}], "output_type_shape": [{"float": [1, 4]}]}
        more = {"op_name": "DequantizeLinear", "provider": "CPUExecutionProvider", **ends}
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": spent, "args": more}

    times = {"a": [99, 3, 3, 900, 3], "b": [99, 1, 1, 1, 1]}  # the first inference does not count
    events = [event(name, spent[run]) for run in range(5) for name, spent in times.items()]
    (tmp_path / "p.json").write_text(json.dumps(events))
    found = shares.of_onnxruntime(str(tmp_path / "p.json"))["layers"]
    assert [layer["share"] for layer in found] == [0.75, 0.25]
    assert {key: found[0][key] for key in ("reads", "writes", "by")} == {
        "reads": "uint8",
        "writes": "float",
        "by": "CPU",
    }


def test_library_without_a_profiler_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(WORKER))
    import litert_profile

    found = litert_profile.layers(str(tmp_path), "m.tflite")
    assert found["layers"] == [] and found["why"].startswith("LiteRT gave no profile: ")


# ---------------------------------------------------------------- the oldest Python


def oldest() -> str | None:
    """A CPython 3.8, wherever this machine keeps one."""
    kept = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{OLDEST}.*/bin/python"))
    for program in [shutil.which(f"python{OLDEST}"), *map(str, kept)]:
        if program and subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode == 0:
            return program
    return None


@pytest.mark.slow
def test_worker_runs_on_python_3_8_with_what_it_can_have(tmp_path: Path, files: dict[str, Path]) -> None:
    program = oldest()
    if program is None:
        pytest.skip(f"no Python {OLDEST} here")
    subprocess.run([program, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    packages = ["numpy", "tflite-runtime", "onnxruntime"]
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"{', '.join(packages)} cannot be installed for Python {OLDEST}: no network?")
    free(tmp_path / "free.onnx")
    for file, runtime, delegate in (
        (files["float.tflite"], "tflite-runtime", "xnnpack"),
        (files["int8.tflite"], "tflite-runtime", "none"),
        (tmp_path / "free.onnx", "onnxruntime", "cpu"),
    ):
        for asked in (
            question(tmp_path, file),
            bench(file),
            {**bench(file), "kind": "sustain", "seconds": 0.05, "samples": str(tmp_path / "times.npy")},
            {**bench(file), "kind": "layers"},
        ):
            request, result = tmp_path / "job.json", tmp_path / "result.json"
            request.write_text(json.dumps({**asked, "runtime": runtime, "delegate": delegate, "result": str(result)}))
            done = subprocess.run([str(python), str(WORKER), str(request)], capture_output=True, check=False)
            assert done.returncode == 0, (asked["kind"], done.stderr[-500:], result.read_text())
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), ANSWERS, atol=0.05)
    assert json.loads((tmp_path / "result.json").read_text())["layers"]  # of ONNX Runtime, the last
    request.write_text(json.dumps({"kind": "info", "runtime": "litert", "result": str(result)}))
    subprocess.run([str(python), str(WORKER), str(request)], capture_output=True, check=False)
    fix = json.loads(result.read_text())["fix"]
    assert f"for Python 3.9 to 3.14, this is {OLDEST}." in fix and 'use = "tflite-runtime"' in fix
