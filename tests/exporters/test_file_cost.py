"""Parameters and MACs of files against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.exporters import file_cost

# conv1 3x3x1 of 12 on 4x4, conv2 3x3x12 of 16 on 4x4, dense 256 x 10; BatchNormalization is folded into conv1's bias
MACS = 16 * 9 * 12 + 16 * 9 * 12 * 16 + 256 * 10
PARAMETERS = (9 * 12 + 12) + (9 * 12 * 16 + 16) + (256 * 10 + 10)


def test_tflite_file_counts_as_its_network(digits_files: dict[str, Path]) -> None:
    assert file_cost.tflite_count(digits_files["tflite"]) == (PARAMETERS, MACS)


def test_onnx_file_counts_as_its_network(digits_files: dict[str, Path]) -> None:
    parameters, macs = file_cost.onnx_count(digits_files["onnx"])
    assert macs == MACS
    assert parameters == PARAMETERS


@pytest.mark.parametrize(("height", "macs"), [(8, 4 * 3 * 9 * 6 * 6), ("h", None)])
def test_open_height_is_not_guessed(tmp_path: Path, height: int | str, macs: int | None) -> None:
    kernel = numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "kernel")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, height, 8]), ("y", None))
    ]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "kernel"], ["y"])], "g", ends[:1], ends[1:], [kernel])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(tmp_path / "n"))
    assert file_cost.onnx_count(tmp_path / "n") == (4 * 3 * 9, macs)
