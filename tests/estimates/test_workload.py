"""Layers of files: operations and bytes counted by hand, and against the counts of the whole file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.estimates.small import network
from toolkit.errors import InputError, UnsupportedError
from toolkit.estimates.workload import read
from toolkit.exporters import file_cost


@pytest.mark.parametrize(("int8", "width"), [(False, 4), (True, 1)])
def test_tflite_layers_have_the_operations_and_bytes_of_a_hand_count(tmp_path: Path, int8: bool, width: int) -> None:
    conv, depthwise, pool, dense, softmax = read(network(tmp_path / "net.tflite", int8=int8))
    assert (conv.kind, conv.operations) == ("convolution", 8 * 8 * 4 * 3 * 3 * 3)
    assert (depthwise.kind, depthwise.operations) == ("depthwise", 4 * 4 * 4 * 3 * 3)
    assert (pool.kind, pool.operations, pool.macs) == ("other", 4 * 4 * 4, 0)
    assert (dense.kind, dense.operations) == ("dense", 12)
    assert (softmax.kind, softmax.operations) == ("other", 3)
    # input, weights and output in the file's type, biases of 4 bytes in both
    assert conv.bytes == width * (8 * 8 * 3 + 4 * 27 + 8 * 8 * 4) + 4 * 4
    assert {layer.arithmetic for layer in (conv, depthwise, pool, dense, softmax)} == {"int8" if int8 else "float32"}


def test_tflite_layers_add_up_to_the_macs_of_the_file(tmp_path: Path) -> None:
    path = network(tmp_path / "net.tflite", int8=True)
    assert sum(layer.macs for layer in read(path)) == file_cost.tflite_count(path)[1]


def onnx_net(path: Path, batch: int | str = 1, size: int | str = 8, groups: int = 1) -> Path:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.ones((4, 4 // groups, 3, 3), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1], group=groups),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4, size, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(kernel, "w"), numpy_helper.from_array(np.ones((4, 2), np.float32), "d")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize("batch", [1, "n"])
def test_onnx_layers_leave_out_what_is_fused_and_take_a_free_batch_as_one(tmp_path: Path, batch: int | str) -> None:
    conv, pool, dense = read(onnx_net(tmp_path / "net.onnx", batch))
    assert (conv.operator, conv.kind, conv.operations) == ("Conv", "convolution", 8 * 8 * 4 * 4 * 9)
    assert conv.bytes == 4 * (8 * 8 * 4 + 4 * 4 * 9 + 8 * 8 * 4)
    assert (pool.operator, pool.kind, pool.operations) == ("GlobalAveragePool", "other", 8 * 8 * 4)
    assert (dense.operator, dense.kind, dense.operations) == ("Gemm", "dense", 8)


def test_onnx_convolution_with_a_group_for_each_channel_is_depthwise(tmp_path: Path) -> None:
    conv = read(onnx_net(tmp_path / "net.onnx", groups=4))[0]
    assert (conv.kind, conv.operations) == ("depthwise", 8 * 8 * 4 * 9)


def test_free_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="free size"):
        read(onnx_net(tmp_path / "net.onnx", size="h"))


def test_size_that_the_graph_computes_of_constants_is_worked_out(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["half"], ["sizes"], to=TensorProto.INT64),  # no shape inference looks through it
        helper.make_node("Pad", ["x", "sizes"], ["padded"]),
        helper.make_node("Relu", ["padded"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, None, None])],
        [numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.float32), "half")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    assert [(layer.operator, layer.operations) for layer in read(tmp_path / "net.onnx")][-1] == ("Relu", 3 * 6 * 6)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_damaged_file_is_refused_in_a_line(tmp_path: Path, suffix: str) -> None:
    whole = network(tmp_path / "net.tflite", int8=True) if suffix == ".tflite" else onnx_net(tmp_path / "net.onnx")
    (tmp_path / f"cut{suffix}").write_bytes(whole.read_bytes()[:200])
    with pytest.raises(InputError, match=rf"cut\{suffix}: is not a readable \{suffix} file"):
        read(tmp_path / f"cut{suffix}")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither a \.tflite nor an \.onnx"):
        read(tmp_path / "model.keras")


def test_onnx_layers_between_quantizers_compute_in_int8(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def quantizers(name: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]),
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_d"]),
        ]

    nodes = [
        *quantizers("x"),
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["w_d"]),
        helper.make_node("Conv", ["x_d", "w_d"], ["c"], name="conv"),
        *quantizers("c"),
        helper.make_node("Softmax", ["c_d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])],
        [
            numpy_helper.from_array(np.ones((2, 3, 1, 1), np.int8), "w"),
            numpy_helper.from_array(np.float32(0.1), "scale"),
            numpy_helper.from_array(np.int8(0), "zero"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "net.onnx")
    conv, softmax = read(tmp_path / "net.onnx")
    assert (conv.operator, conv.arithmetic, conv.operations) == ("Conv", "int8", 4 * 4 * 2 * 3)
    assert conv.bytes == 3 * 16 + 2 * 3 + 2 * 16  # input, weights and output of one byte each
    assert softmax.operator == "Softmax"
