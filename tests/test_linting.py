"""`inspect --for tensorrt`: targets by version and by device, text and JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from toolkit.cli import cli
from toolkit.errors import InputError, UnsupportedError
from toolkit.linting import target_of
from toolkit.tensorrt.types import Target


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 convolution with a pair on its input and none on its weights."""
    constants = [
        numpy_helper.from_array(np.float32(0.05), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
        numpy_helper.from_array(np.ones((16, 16, 3, 3), np.float32), "weights"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="d"),
        helper.make_node("Conv", ["d", "weights"], ["y"], name="block/conv"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 16, *size))
        for name, size in (("x", (8, 8)), ("y", (6, 6)))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    path = tmp_path_factory.mktemp("linting") / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_target_is_what_the_options_say() -> None:
    assert target_of("tensorrt", None) is None
    assert target_of("tensorrt=8.5", None) == Target("8.5", "", "", "")
    assert target_of("tensorrt_rtx", None) == Target("", "", "", "", "tensorrt_rtx")
    orin = Target("10.3", "8.7", "jetson-orin-nano-8", "linux-aarch64")
    assert target_of(None, "jetson-orin-nano-8") == orin
    assert target_of("tensorrt=10.16", "jetson-orin-nano-8").tensorrt == "10.16"  # type: ignore[union-attr]


@pytest.mark.parametrize("asked", ["onnxruntime", "tensorrt=", "tensorrt=new", "tensorrt 8", ""])
def test_other_runtimes_have_no_linter(asked: str) -> None:
    if asked:
        with pytest.raises(InputError, match="--for"):
            target_of(asked, None)
    else:
        assert target_of(asked, None) is None


def test_device_without_tensorrt_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="raspberry-pi-4: has no TensorRT"):
        target_of("tensorrt", "raspberry-pi-4")


def test_inspect_without_for_says_nothing_of_tensorrt(file: Path) -> None:
    plain, both = invoke("inspect", file).output, invoke("inspect", file, "--for", "tensorrt").output
    assert both.startswith(plain)
    assert "TensorRT" not in plain
    assert "tensorrt" not in json.loads(invoke("inspect", file, "--json").stdout)


def test_text_names_the_layer_and_what_to_do(file: Path) -> None:
    text = invoke("inspect", file, "--for", "tensorrt=10.3").output
    assert "TensorRT 10.3: 0 of 1 convolutions in int8" in text
    assert "Not verified on a device." in text
    assert "Conv block/conv: computes in floating point: its input has Q/DQ and its weights have not." in text
    assert "why int8 is not faster:" in text
    assert "1 of 1 convolutions compute in floating point (1: its weights have no Q/DQ)" in text


def test_json_has_findings_pairs_and_counts(file: Path) -> None:
    found = json.loads(invoke("inspect", file, "--device", "jetson-nano", "--json").stdout)["tensorrt"]
    assert found["target"]["compute_capability"] == "5.3"
    assert {"no-int8", "opset"} <= {each["rule"] for each in found["findings"] if each["severity"] == "refused"}
    assert [(pair["tensor"], pair["fate"], pair["reformats"]) for pair in found["pairs"]] == [("x", "island", 2)]
    assert found["counts"]["convolutions"] == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.tflite", b"TFL3", "TensorRT reads .onnx files"),
        ("m.keras", b"PK", "TensorRT reads .onnx files"),
        ("m.onnx", b"not onnx at all", "m.onnx"),
        ("m.onnx", b"", "m.onnx"),
        ("no.onnx", None, "no such file"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    result = invoke("inspect", path, "--for", "tensorrt")
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
