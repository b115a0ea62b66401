"""The builder against NVIDIA's own TensorRT-RTX: its parser and builder run on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.fakes.network import network

SPEC = {"workspace_mib": 256}
FREE = {"x": [[1, 16, 8, 8], [2, 16, 8, 8], [4, 16, 8, 8]]}


@pytest.fixture
def rtx() -> Any:
    """TensorRT-RTX: the real parser and builder."""
    return pytest.importorskip("tensorrt_rtx")


@pytest.mark.parametrize(
    ("form", "spec", "precisions"),
    [
        ({}, {}, {"float32"}),
        ({"half": True}, {"fp16": True}, {"float16"}),
        ({"quantized": True}, {"int8": True}, {"int8", "float32"}),
        ({"quantized": True, "half": True}, {"int8": True, "fp16": True}, {"int8", "float16"}),
    ],
)
def test_rtx_builds_each_form(
    builder: Any, rtx: Any, tmp_path: Path, form: dict[str, Any], spec: dict[str, Any], precisions: set[str]
) -> None:
    file = network(tmp_path / "m.onnx", **form)
    plan, facts = builder.build(file, {**SPEC, **spec}, rtx, capabilities=("8.6", "8.9"))
    assert len(plan) > 10_000
    assert (facts["flavour"], facts["version"], facts["strongly_typed"]) == ("tensorrt_rtx", rtx.__version__, True)
    assert facts["flags"] == ["SM86", "SM89"]
    kinds = {kind for layer in facts["layers"] for kind in (*layer[2], *layer[3])}
    assert kinds <= precisions | {"float32"}
    assert precisions <= kinds


def test_rtx_computes_a_quantized_convolution_in_int8(builder: Any, rtx: Any, tmp_path: Path) -> None:
    from toolkit.tensorrt.inspector import Layer, convolutions

    file = network(tmp_path / "m.onnx", quantized=True)
    _, facts = builder.build(file, SPEC, rtx, capabilities=("8.9",))
    layers = [Layer(name, kind, tuple(ins), tuple(outs)) for name, kind, ins, outs in facts["layers"]]
    assert convolutions(layers) == {"int8": 1}


@pytest.mark.parametrize("form", [{}, {"half": True}, {"quantized": True}])
def test_rtx_builds_a_sparse_file_with_sparse_kernels_allowed(
    builder: Any, rtx: Any, tmp_path: Path, form: dict[str, Any]
) -> None:
    """It chooses its kernels on the GPU, and so does not say here which are sparse."""
    file = network(tmp_path / "m.onnx", sparse=True, **form)
    plan, facts = builder.build(file, {**SPEC, "sparse": True}, rtx, capabilities=("8.6",))
    assert len(plan) > 10_000
    assert facts["flags"][0] == "SPARSE_WEIGHTS"
    assert any(text.startswith("2:4: TensorRT-RTX") for text in facts["warnings"])


def test_rtx_builds_for_a_range_of_shapes_and_pixels(builder: Any, rtx: Any, tmp_path: Path) -> None:
    file = network(tmp_path / "m.onnx", batch="n", takes=2)
    _, facts = builder.build(file, {**SPEC, "shapes": FREE}, rtx, capabilities=("8.9",))
    assert facts["inputs"] == [["x", "UINT8", [-1, 16, 8, 8]]]


@pytest.mark.parametrize(
    ("spec", "capabilities", "words"),
    [
        ({"strongly_typed": False}, (), "strongly typed networks alone"),
        ({"fp16": True}, (), "float16 was asked for and the file holds none"),
        ({"timing_cache": "t.cache"}, (), "keeps no timing cache"),
        ({"dla_core": 0}, ("8.9",), "sees no DLA here"),
        ({}, ("8.7",), "builds for no SM87 on this computer, it builds for SM120.*SM75.*SM89"),
    ],
)
def test_rtx_refuses_what_it_cannot_do(
    builder: Any, rtx: Any, tmp_path: Path, spec: dict[str, Any], capabilities: tuple[str, ...], words: str
) -> None:
    with pytest.raises(builder.BuildError, match=words):
        builder.build(network(tmp_path / "m.onnx"), {**SPEC, **spec}, rtx, capabilities=capabilities)


def test_rtx_lists_why_asymmetric_files_are_refused(builder: Any, rtx: Any, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    file = network(tmp_path / "m.onnx", quantized=True)
    model = onnx.load(file)
    zero = next(item for item in model.graph.initializer if item.name == "z")
    zero.CopyFrom(numpy_helper.from_array(np.int8(3).reshape(()), "z"))
    onnx.save(model, file)
    with pytest.raises(builder.BuildError) as caught:
        builder.build(file, SPEC, rtx)
    assert caught.value.lines
    assert all("\n" not in line for line in caught.value.lines)
    assert "symmetric int8 alone" in str(caught.value)


def test_rtx_refuses_a_file_that_is_no_onnx(builder: Any, rtx: Any, tmp_path: Path) -> None:
    for content in (b"", b"not a model at all", b"\x00" * 5000):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(builder.BuildError, match=r"cannot read the file|builds no engine"):
            builder.build(str(tmp_path / "bad.onnx"), SPEC, rtx)
    with pytest.raises(builder.BuildError, match=r"cannot read the file"):
        builder.build(str(tmp_path / "absent.onnx"), SPEC, rtx)
