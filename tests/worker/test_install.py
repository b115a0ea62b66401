"""What is missing or too old on a device is said in one line, with the command that installs it there."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from toolkit.transports.local import WORKER


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(WORKER))
    import install

    monkeypatch.setattr(install.sysconfig, "get_path", lambda name: "/nowhere")
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    return install


def on(monkeypatch: pytest.MonkeyPatch, machine: str, python: tuple[int, int]) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "version_info", (*python, 0))
    monkeypatch.setattr(platform, "python_version", lambda: f"{python[0]}.{python[1]}.0")


@pytest.mark.parametrize(
    ("runtime", "machine", "python", "words"),
    [
        ("litert", "aarch64", (3, 11), "/usr/bin/python3 -m pip install ai-edge-litert"),
        (
            "litert",
            "armv7l",
            (3, 11),
            'PyPI has no ai-edge-litert for armv7l; use = "tflite-runtime" in its profile, and there '
            "/usr/bin/python3 -m pip install tflite-runtime 'numpy<2'",
        ),
        (
            "tflite-runtime",
            "aarch64",
            (3, 12),
            "PyPI has tflite-runtime for Python 3.8 to 3.11, this is 3.12.0; "
            'use = "litert" in its profile, and there /usr/bin/python3 -m pip install ai-edge-litert',
        ),
        (
            "onnxruntime",
            "armv7l",
            (3, 11),
            "PyPI has no onnxruntime for armv7l; use another device, or another Python",
        ),
        (
            "litert",
            "riscv64",
            (3, 11),
            "PyPI has no ai-edge-litert for riscv64; use another device, or another Python",
        ),
    ],
)
def test_command_is_for_this_processor_and_python(
    install: Any, monkeypatch: pytest.MonkeyPatch, runtime: str, machine: str, python: tuple[int, int], words: str
) -> None:
    on(monkeypatch, machine, python)
    assert install.advice(runtime) == words


def test_system_python_that_may_not_be_changed_gets_an_environment(
    install: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on(monkeypatch, "aarch64", (3, 11))
    (tmp_path / "EXTERNALLY-MANAGED").write_text("")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    environment = Path("~/edgekit-env").expanduser()
    assert install.advice("litert") == (
        "/usr/bin/python3 -m venv ~/edgekit-env && ~/edgekit-env/bin/pip install ai-edge-litert, "
        f'with python = "{environment}/bin/python" in its profile'
    )
    monkeypatch.setattr(sys, "prefix", "/home/pi/venv")
    assert install.advice("litert") == "/usr/bin/python3 -m pip install ai-edge-litert"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'. An older version of this builtin might "
            "be supported. Are you using an old TFLite binary with a newer model?\nRegistration failed.\n",
            "it has no FULLY_CONNECTED of version 12",
        ),
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Load model failed: Unsupported model IR version: 11, max "
            "supported IR version: 10",
            "the file's IR version is 11, it reads up to 10",
        ),
        (
            "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. "
            "Opset 24 is under development and support for this is limited. The operator schemas may change. Current "
            "official support for domain ai.onnx is till opset 21.",
            "the file's operator set is 24, it reads up to 21",
        ),
        ("Unsupported data type 17 in tensor", "it has no tensors of type 17"),
        ("Model provided has model identifier 'not ', should be 'TFL3'", None),
    ],
)
def test_refusal_of_a_newer_file_is_told_from_any_other(install: Any, text: str, words: str | None) -> None:
    assert install.too_new(text) == words


def run(folder: Path, site: Path, job: dict[str, Any]) -> dict[str, Any]:
    request, result = folder / "job.json", folder / "result.json"
    request.write_text(json.dumps({"result": str(result), **job}))
    command = [sys.executable, "-S", str(WORKER), str(request)]  # -S: nothing installed but what stands in `site`
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run(command, env=environment, capture_output=True, check=False)
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def module(site: Path, name: str, text: str) -> None:
    path = site / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_missing_numpy_and_missing_runtime_are_told_apart(tmp_path: Path) -> None:
    job = {"kind": "info", "runtime": "onnxruntime"}
    found = run(tmp_path, tmp_path / "site", job)
    assert (found["kind"], found["error"]) == ("unavailable", "numpy is missing: No module named 'numpy'")
    module(tmp_path / "site", "numpy/__init__.py", "__version__ = '2.1.0'\nfloat32 = float16 = float64 = uint8 = 0\n")
    found = run(tmp_path, tmp_path / "site", job)
    assert found["error"] == "onnxruntime cannot be imported: No module named 'onnxruntime'"
    assert "pip install onnxruntime" in found["fix"]


def test_tflite_runtime_beside_numpy_2_asks_for_numpy_1(tmp_path: Path) -> None:
    site = tmp_path / "site"
    module(site, "numpy/__init__.py", "__version__ = '2.1.0'\n")
    module(site, "tflite_runtime/__init__.py", "__version__ = '2.14.0'\n")
    module(site, "tflite_runtime/interpreter.py", "raise SystemError('initialization of _interp failed')\n")
    job = {"kind": "bench", "runtime": "tflite-runtime", "model": "x", "seconds": 1, "warmup_seconds": 0}
    found = run(tmp_path, site, job)
    assert found["error"] == "tflite-runtime cannot be imported beside numpy 2.1.0, it wants numpy 1"
    assert found["fix"].endswith("-m pip install 'numpy<2'")


def test_runtime_older_than_the_worker_drives_is_refused(tmp_path: Path) -> None:
    site = tmp_path / "site"
    module(site, "numpy/__init__.py", "__version__ = '1.19.5'\n")
    module(site, "tflite_runtime/__init__.py", "__version__ = '2.5.0'\n")
    module(site, "tflite_runtime/interpreter.py", "")
    found = run(tmp_path, site, {"kind": "info", "runtime": "tflite-runtime"})
    assert found["kind"] == "unavailable"
    assert found["error"] == "tflite-runtime 2.5.0 is too old: the worker drives 2.8 and later (numpy 1.19.5)"


def test_file_newer_than_the_runtime_is_unavailable_and_says_what_of_it(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=99), tmp_path / "x.onnx")
    request, result = tmp_path / "job.json", tmp_path / "result.json"
    job = {"kind": "bench", "runtime": "onnxruntime", "model": str(tmp_path / "x.onnx")}
    request.write_text(json.dumps({**job, "seconds": 0.01, "warmup_seconds": 0, "result": str(result)}))
    subprocess.run([sys.executable, str(WORKER), str(request)], capture_output=True, check=False)
    found = json.loads(result.read_text())
    assert found["kind"] == "unavailable"
    assert "is too old for the file: the file's IR version is 99, it reads up to " in found["error"]
    assert "pip install --upgrade onnxruntime" in found["fix"]
