"""The same model gives the same file in another process: `--resume` and the content store rest on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolkit.core import ExportContext, Model, QuantSpec
from toolkit.exporters import onnx_file, tflite_file
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.tflite import TFLite

SCHEMES = ("float32", "float16", "int8")
SCRIPT = """
import importlib.util, sys
from pathlib import Path
def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
nets = load("nets", sys.argv[1])
here = load("here", sys.argv[2])
here.export_all(nets.as_model(nets.classifier()), nets.Images, Path(sys.argv[3]))
"""


def export_all(model: Model, images: Callable[..., Any], folder: Path) -> None:
    """Every scheme to both formats."""
    context = ExportContext(images(model.signature.inputs))
    for scheme in SCHEMES:
        for exporter in (TFLite(), ONNX()):
            quantized = replace(model, quant=QuantSpec(scheme))  # type: ignore[arg-type]
            exporter.export(quantized, folder / f"{scheme}{exporter.suffix}", context)


@pytest.fixture(scope="module")
def folders(
    classifier_model: Model, images: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    export_all(classifier_model, lambda inputs: images(classifier_model), here)
    conftest = Path(__file__).with_name("conftest.py")
    command = [sys.executable, "-c", SCRIPT, str(conftest), __file__, str(there)]
    root = Path(__file__).parents[2]
    subprocess.run(command, check=True, cwd=root, env={"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"})
    return here, there


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tflite_file_is_the_same_in_another_process(folders: tuple[Path, Path], scheme: str) -> None:
    first, second = (folder / f"{scheme}.tflite" for folder in folders)
    assert tflite_file.canonical_hash(first) == tflite_file.canonical_hash(second)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_onnx_file_is_the_same_in_another_process(folders: tuple[Path, Path], scheme: str) -> None:
    first, second = (folder / f"{scheme}.onnx" for folder in folders)
    assert onnx_file.canonical_hash(first) == onnx_file.canonical_hash(second)
    assert first.read_bytes() == second.read_bytes()


def test_canonical_hash_tells_files_apart(folders: tuple[Path, Path]) -> None:
    for suffix, of in ((".tflite", tflite_file.canonical_hash), (".onnx", onnx_file.canonical_hash)):
        assert len({of(folders[0] / f"{scheme}{suffix}") for scheme in SCHEMES}) == len(SCHEMES)


def test_canonical_hash_ignores_inner_names_but_not_a_weight(folders: tuple[Path, Path], tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    source, path = folders[0] / "float32.onnx", tmp_path / "changed.onnx"
    proto = onnx.load(str(source))
    inner = proto.graph.node[0].output[0]
    for node in proto.graph.node:
        node.input[:] = ["renamed" if name == inner else name for name in node.input]
        node.output[:] = ["renamed" if name == inner else name for name in node.output]
    onnx.save(proto, str(path))
    assert onnx_file.canonical_hash(path) == onnx_file.canonical_hash(source)
    tensor = proto.graph.initializer[0]
    values = np.array(numpy_helper.to_array(tensor))
    values.flat[0] += 1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, str(path))
    assert onnx_file.canonical_hash(path) != onnx_file.canonical_hash(source)


def test_tflite_canonical_hash_sees_a_scale_but_not_a_name(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source, path = folders[0] / "int8.tflite", tmp_path / "changed.tflite"
    model = tflite_file.parse(source.read_bytes())
    graph = model.subgraphs[0]
    inner = next(t for i, t in enumerate(graph.tensors) if i not in (*graph.inputs, *graph.outputs))
    inner.name = b"renamed"
    path.write_bytes(tflite_file.pack(model))
    assert tflite_file.canonical_hash(path) == tflite_file.canonical_hash(source)
    scaled = next(t for t in graph.tensors if t.quantization is not None and t.quantization.scale is not None)
    scaled.quantization.scale = [2 * scale for scale in scaled.quantization.scale]
    path.write_bytes(tflite_file.pack(model))
    assert tflite_file.canonical_hash(path) != tflite_file.canonical_hash(source)
