"""Which operators are left out of int8, on graphs of one of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from toolkit.exporters import tensorrt_placing
from toolkit.exporters.onnx_file import File


def conv(outputs: int, inputs: int, kernel: tuple[int, ...], *, groups: int = 1, first: bool = False) -> File:
    """A graph with one convolution, behind a Relu unless it is the first."""
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    given = "x" if first else "r"
    nodes = [] if first else [make("Relu", ["x"], ["r"], "relu")]
    nodes.append(make("Conv", [given, "w"], ["y"], "conv", group=groups, kernel_shape=kernel))
    weight = onnx.numpy_helper.from_array(np.zeros((outputs, inputs, *kernel), np.float32), "w")
    ends = [info("x", 1, [1, inputs * groups, 8, 8])], [info("y", 1, None)]
    graph = onnx.helper.make_graph(nodes, "g", *ends, [weight])
    return File(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))


@pytest.mark.parametrize(
    ("file", "gains"),
    [
        (conv(16, 16, (3, 3)), True),
        (conv(32, 3, (3, 3), first=True), True),  # a stem
        (conv(8, 8, (3, 3)), False),
        (conv(8, 8, (3, 3), first=True), True),
        (conv(12, 3, (3, 3), first=True), False),  # neither is a multiple of 8
        (conv(16, 12, (1, 3)), False),  # not square
        (conv(24, 12, (3, 3)), True),
        (conv(64, 1, (3, 3), groups=64), True),  # depthwise
        (conv(64, 1, (1, 1), groups=64), False),
        (conv(12, 1, (3, 3), groups=12), False),
    ],
)
def test_convolutions_that_fill_no_tile_are_left_out(file: File, gains: bool) -> None:
    kept, spared = tensorrt_placing.chosen(file, {"conv"}, ())
    assert ("conv" in kept, "conv" in spared) == (gains, not gains)
    assert tensorrt_placing.chosen(file, {"conv"}, {"conv"})[0] == {"conv"}  # asked for by name


@pytest.mark.parametrize(
    ("rows", "inner", "columns", "words"),
    [
        (1, 64, 64, "matrix and a vector"),
        (8, 64, 1, "matrix and a vector"),
        (8, 8, 64, "8 inputs and 64 outputs"),
        (8, 64, 10, "64 inputs and 10 outputs"),
        (8, 64, 64, ""),
        (None, 64, 64, ""),
    ],
)
@pytest.mark.parametrize("transposed", [True, False])
def test_products_that_fill_no_tile_are_left_out(
    rows: int | None, inner: int, columns: int, words: str, transposed: bool
) -> None:
    shape = (columns, inner) if transposed else (inner, columns)
    weight = onnx.numpy_helper.from_array(np.zeros(shape, np.float32), "w")
    info = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"], "gemm", transB=int(transposed))
    graph = onnx.helper.make_graph(
        [node], "g", [info("x", 1, [rows or "batch", inner])], [info("y", 1, None)], [weight]
    )
    spared = tensorrt_placing.chosen(File(onnx.helper.make_model(graph)), {"gemm"}, ())[1]
    assert words in spared.get("gemm", "")
    assert bool(words) == ("gemm" in spared)
