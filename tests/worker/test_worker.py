"""The worker alone, as a device would run it: hand-worked answers, bound by name, and errors that say what is wrong."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.transports.local import WORKER

ROWS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 3], [-1, -1, -1]], np.float32)
ANSWERS = np.array([[1.5, 0.0], [2.5, 0.0], [0.5, 2.0], [0.0, 0.0]], np.float32)
RUNTIME = {".tflite": ("litert", "xnnpack"), ".onnx": ("onnxruntime", "cpu")}


def run(folder: Path, job: dict[str, Any], worker: Path = WORKER) -> tuple[int, dict[str, Any]]:
    """Exit code and result of one job."""
    request, result = folder / "job.json", folder / "result.json"
    result.unlink(missing_ok=True)
    request.write_text(json.dumps({"result": str(result), **job}))
    done = subprocess.run([sys.executable, str(worker), str(request)], capture_output=True, check=False, cwd=folder)
    return done.returncode, json.loads(result.read_text())


def question(folder: Path, file: Path, rows: Any = ROWS, **more: Any) -> dict[str, Any]:
    """An eval job on these rows."""
    np.save(folder / "x.npy", rows)
    runtime, delegate = RUNTIME[file.suffix]
    job = {"kind": "eval", "runtime": runtime, "delegate": delegate, "threads": 1, "model": str(file)}
    return {**job, "inputs": {"x": str(folder / "x.npy")}, "outputs": {"y": str(folder / "y.npy")}, **more}


@pytest.mark.parametrize("name", ["float.tflite", "float.onnx"])
def test_answers_equal_those_worked_out_by_hand(tmp_path: Path, files: dict[str, Path], name: str) -> None:
    code, result = run(tmp_path, question(tmp_path, files[name]))
    assert (code, result["n"]) == (0, 4)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), ANSWERS, atol=1e-6)


def test_rows_beyond_a_block_are_answered_in_order(tmp_path: Path, files: dict[str, Path]) -> None:
    repeats = 6000  # 24,000 rows of 12 bytes: one block of 21,845 and a shorter one
    asked = question(tmp_path, files["float.tflite"], np.tile(ROWS, (repeats, 1)))
    run(tmp_path, {**asked, "told": str(tmp_path / "told")})
    assert (tmp_path / "told").read_text() == "0.9102"  # when the second block began
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), np.tile(ANSWERS, (repeats, 1)), atol=1e-6)


def test_int8_ends_are_quantized_and_dequantized(tmp_path: Path, files: dict[str, Path]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(files["int8.tflite"]))
    step = interpreter.get_output_details()[0]["quantization"][0]
    assert interpreter.get_input_details()[0]["dtype"] == np.int8
    code, _ = run(tmp_path, question(tmp_path, files["int8.tflite"]))
    assert code == 0
    found = np.load(tmp_path / "y.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ANSWERS, atol=2 * step)
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-4)  # on the output's own grid


def test_image_is_turned_for_a_channels_first_file(tmp_path: Path, files: dict[str, Path]) -> None:
    images = np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3)  # height 2, width 4, channels 3
    code, _ = run(tmp_path, question(tmp_path, files["image.onnx"], images, layouts={"x": "NCHW"}))
    assert code == 0
    # channel c holds c, c+3, ..., c+21: eight values, sum 8c + 84
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), [[84.0, 92.0, 100.0]])


def test_file_of_pixels_takes_uint8_exactly_and_refuses_floats(tmp_path: Path) -> None:
    import onnx
    import tensorflow as tf
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(made, tmp_path / "pixels.onnx")
    cast = tf.function(lambda x: {"y": tf.cast(x, tf.float32) + 1.0}, [tf.TensorSpec((1, 3), tf.uint8, name="x")])
    function = cast.get_concrete_function()
    converted = tf.lite.TFLiteConverter.from_concrete_functions([function], cast).convert()
    (tmp_path / "pixels.tflite").write_bytes(converted)
    rows = np.array([[0, 127, 255], [1, 2, 3]], np.uint8)
    for name, more in (("pixels.onnx", 0.0), ("pixels.tflite", 1.0)):
        code, _ = run(tmp_path, question(tmp_path, tmp_path / name, rows))
        assert code == 0
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), rows + np.float32(more))
        code, result = run(tmp_path, question(tmp_path, tmp_path / name, rows.astype(np.float32)))
        assert code == 1 and "takes uint8 pixels, the data is float32" in result["error"]


@pytest.mark.parametrize("name", ["float.tflite", "float.onnx"])
def test_bench_keeps_raw_samples_and_says_what_ran(tmp_path: Path, files: dict[str, Path], name: str) -> None:
    runtime, delegate = RUNTIME[Path(name).suffix]
    job = {"kind": "bench", "runtime": runtime, "delegate": delegate, "threads": 1, "model": str(files[name])}
    code, result = run(tmp_path, {**job, "seconds": 0.02, "warmup_seconds": 0.0, "seed": 0})
    assert code == 0
    assert len(result["samples_ns"]) >= 2
    assert all(isinstance(sample, int) and sample > 0 for sample in result["samples_ns"])
    assert sum(result["samples_ns"]) <= 0.02e9 + max(result["samples_ns"])
    assert result["versions"][runtime]
    assert result["kernel_path"] == {"litert": "XNNPACK (1 partition)", "onnxruntime": "CPUExecutionProvider"}[runtime]
    # at least 3 floats in and 2 out, in an arena aligned to 64 bytes
    assert result["arena_bytes"] is None if runtime == "onnxruntime" else 20 <= result["arena_bytes"] <= 4096


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system says it of the process alone")
def test_peak_memory_is_the_workers_own_and_not_of_who_started_it(tmp_path: Path, files: dict[str, Path]) -> None:
    ours = bytearray(1 << 29)
    ours[::4096] = b"x" * len(ours[::4096])  # half a GiB is resident here
    job = {"kind": "bench", "runtime": "onnxruntime", "delegate": "cpu", "threads": 1, "seed": 0}
    file = next(path for name, path in files.items() if name.endswith(".onnx"))
    _, result = run(tmp_path, {**job, "model": str(file), "seconds": 0.01, "warmup_seconds": 0.0})
    assert 0 < result["rss_before_kib"] <= result["peak_rss_kib"] < len(ours) // 1024


def test_arena_of_half_precision_weights_is_that_of_full_precision(tmp_path: Path) -> None:
    """Weights unpacked from float16 lie outside the arena, which holds the same activations either way."""
    import tensorflow as tf

    weights = tf.constant(np.ones((3, 3, 8, 8), np.float32))
    function = tf.function(lambda x: tf.nn.conv2d(x, weights, 1, "SAME"), [tf.TensorSpec((1, 16, 16, 8), name="x")])
    sizes = {}
    for half in (False, True):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
        if half:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        file = tmp_path / f"{half}.tflite"
        file.write_bytes(converter.convert())
        job = {"kind": "bench", "runtime": "litert", "delegate": "xnnpack", "threads": 1, "model": str(file)}
        sizes[half] = run(tmp_path, {**job, "seconds": 0.01, "warmup_seconds": 0})[1]["arena_bytes"]
    least = 2 * 16 * 16 * 8 * 4  # input and output
    assert least <= sizes[False] < 20 * least
    assert least <= sizes[True] <= sizes[False] + 4 * weights.shape.num_elements() + 4096


def test_built_in_kernels_run_when_no_delegate_is_asked_for(tmp_path: Path, files: dict[str, Path]) -> None:
    _, result = run(tmp_path, question(tmp_path, files["float.tflite"], delegate="none"))
    assert result["kernel_path"] == "built-in kernels"


def test_delegate_that_takes_nothing_is_an_error_and_no_fallback(tmp_path: Path) -> None:
    import tensorflow as tf

    function = tf.function(lambda x: tf.math.floormod(x, 0.5), [tf.TensorSpec((1, 2), name="x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    file = tmp_path / "odd.tflite"
    file.write_bytes(converter.convert())
    job = {"kind": "bench", "runtime": "litert", "threads": 1, "model": str(file), "seconds": 0.01, "warmup_seconds": 0}
    code, result = run(tmp_path, {**job, "delegate": "xnnpack"})
    assert (code, result["kind"]) == (1, "unavailable")
    assert "took no operator" in result["error"]
    assert run(tmp_path, {**job, "delegate": "none"})[0] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": {"x": "x.npy"}, "outputs": {"z": "z.npy", "y": "y.npy"}}, "no output 'z', it has y"),
        ({"delegate": "gpu"}, "gpu"),
        ({"runtime": "other"}, "no such runtime"),
    ],
)
def test_mistakes_in_a_job_are_named(
    tmp_path: Path, files: dict[str, Path], change: dict[str, Any], words: str
) -> None:
    code, result = run(tmp_path, question(tmp_path, files["float.tflite"], **change))
    assert code == 1
    assert words in result["error"]


@pytest.mark.parametrize("name", ["float.tflite", "float.onnx"])
def test_data_of_another_shape_is_named(tmp_path: Path, files: dict[str, Path], name: str) -> None:
    code, result = run(tmp_path, question(tmp_path, files[name], np.zeros((2, 4), np.float32)))
    assert code == 1
    assert "input 'x' takes" in result["error"]


@pytest.mark.parametrize("name", ["bad.tflite", "bad.onnx"])
def test_file_that_cannot_be_loaded_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a model at all")
    code, result = run(tmp_path, question(tmp_path, tmp_path / name))
    assert code == 1
    assert "cannot load the file" in result["error"]
    assert "\n" not in result["error"]


def test_absent_runtime_is_unavailable(tmp_path: Path, files: dict[str, Path]) -> None:
    code, result = run(tmp_path, question(tmp_path, files["float.tflite"], runtime="tflite-runtime"))
    if code == 0:
        pytest.skip("tflite-runtime is installed here")
    assert result["kind"] == "unavailable"
    assert "tflite-runtime cannot be imported" in result["error"]


def test_worker_runs_from_a_zip(tmp_path: Path, files: dict[str, Path]) -> None:
    packed = tmp_path / "worker.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in WORKER.glob("*.py"):
            archive.write(file, file.name)
    assert run(tmp_path, question(tmp_path, files["float.tflite"]), packed)[0] == 0


def test_worker_reports_versions(tmp_path: Path) -> None:
    code, result = run(tmp_path, {"kind": "info", "runtime": "onnxruntime"})
    assert code == 0
    assert result["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize("file", sorted(WORKER.glob("*.py")), ids=lambda path: path.name)
def test_worker_is_python_3_8_and_knows_nothing_of_ours(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 8))
    allowed = {"__future__", "json", "os", "sys", "time", "typing", "platform", "resource", "importlib", "sysconfig"}
    allowed |= {"re", "contextlib", "ctypes", "glob", "hashlib", "mmap", "statistics", "subprocess", "tempfile"}
    allowed |= {"numpy", "onnxruntime", "ai_edge_litert", "tflite_runtime", "tensorrt", "openvino", "tflite_micro"}
    allowed |= {path.stem for path in WORKER.glob("*.py")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] in allowed
        # the union syntax parses under 3.8 but fails when it runs; annotations alone are never run
        assert not isinstance(node, ast.Match)


# Attributes that came with Python 3.9 or later ("What's New in Python"), and builtins that are no generics before
NEWER = {"removeprefix", "removesuffix", "is_relative_to", "with_stem", "readlink", "hardlink_to", "bit_count", "lcm"}
NEWER |= {"nextafter", "ulp", "pairwise", "batched", "file_digest", "randbytes", "unparse", "to_thread"}
GENERIC_SINCE = {"list", "dict", "tuple", "set", "frozenset", "type"}


@pytest.mark.parametrize("file", sorted(WORKER.glob("*.py")), ids=lambda path: path.name)
def test_worker_calls_nothing_newer_than_python_3_8(file: Path) -> None:
    assert newer(ast.parse(file.read_text())) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("'x.py'.removesuffix('.py')", ["removesuffix"]),
        ("Job = dict[str, int]", ["dict[]"]),
        ("zip(a, b, strict=True)", ["zip(strict=)"]),
        ("def f(x: dict[str, int]) -> list[int]:\n    y: set[int] = x\n    return y", []),
        ("a = {}; a.update(b); c = a['x']", []),
    ],
)
def test_what_is_newer_is_found(text: str, found: list[str]) -> None:
    assert newer(ast.parse(text)) == found


def newer(tree: ast.AST) -> list[str]:
    """What of a module Python 3.8 would stop at as it runs; annotations are never evaluated there."""
    found = []
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                found += newer(child)
    if isinstance(tree, ast.Attribute) and tree.attr in NEWER:
        found.append(tree.attr)
    if isinstance(tree, ast.Subscript) and isinstance(tree.value, ast.Name) and tree.value.id in GENERIC_SINCE:
        found.append(f"{tree.value.id}[]")
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "zip":
        found += [f"zip({keyword.arg}=)" for keyword in tree.keywords]
    return found
