"""Runtimes declare what is true: the worker has their file, the version is that of the installed package."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from toolkit import registry
from toolkit.runtimes.litert import LiteRT
from toolkit.runtimes.onnxruntime import ONNXRuntime
from toolkit.runtimes.openvino import OpenVINO
from toolkit.runtimes.tensorrt import TensorRT
from toolkit.runtimes.tflite_micro import TFLiteMicro
from toolkit.runtimes.tflite_runtime import TFLiteRuntime
from toolkit.transports.local import WORKER


@pytest.mark.parametrize("runtime", [LiteRT, ONNXRuntime])
def test_version_is_the_installed_one(runtime: Any) -> None:
    assert runtime().version() == metadata.version(runtime.package)


def test_absent_package_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert TFLiteRuntime().version() is None
    assert OpenVINO().version() is None
    assert TensorRT().version() is None
    assert TFLiteMicro().version() is None


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        ({"tensorrt": "10.3.0"}, "10.3.0"),
        ({"tensorrt-cu12": "10.15.1"}, "10.15.1"),
        ({"tensorrt-cu13": "11.4.1", "tensorrt-cu12": "10.15.1"}, "11.4.1"),
        ({}, None),
    ],
)
def test_tensorrt_is_found_under_the_names_of_its_wheels(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], found: str | None
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    assert TensorRT().version() == found


def test_onnx_runtime_is_found_under_the_name_of_its_gpu_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "onnxruntime-gpu":
            raise metadata.PackageNotFoundError(name)
        return "1.31.1"

    monkeypatch.setattr(metadata, "version", version)
    assert ONNXRuntime().version() == "1.31.1"


@pytest.mark.parametrize("name", sorted(registry.FAMILIES["runtimes"]))
def test_worker_has_the_runtime(name: str) -> None:
    runtime = registry.load("runtimes", name)
    assert (WORKER / f"{runtime.worker}.py").is_file()
    assert f'"{name}": "{runtime.worker}"' in (WORKER / "__main__.py").read_text()
