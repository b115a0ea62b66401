"""Rows of real and made profiles matched to the operators of the file, and those that cannot be left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.checks.speed_nets import Lite, Onnx
from toolkit.checks.speed_graph import read_graph
from toolkit.checks.speed_match import match


def rows(*kinds: str) -> list[dict[str, Any]]:
    return [{"name": f"{i:02d} {kind}", "kind": kind, "share": 0.1, "by": "delegate"} for i, kind in enumerate(kinds)]


CONV, DEPTHWISE = "Convolution (NHWC, QC8) IGEMM", "Convolution (NHWC, QC8) DWConv"


def test_operators_of_xnnpack_are_the_files_in_order(tmp_path: Path) -> None:
    net = Lite("float32").op("QUANTIZE", "in", "int8").conv("a").op("ADD", "plus", "int8").depthwise("b")
    graph = read_graph(net.conv("c", kernel=1).write(tmp_path / "m.tflite"))
    said = rows("Convert (NC, F32, QS8)", CONV, "Add (ND)", "Copy (NC)", DEPTHWISE, "Fully Connected (NC, QS8) GEMM")
    found = match(graph, said, [[0, 1, 2, 3, 4]])
    assert [row.place for row in found] == [0, 1, 2, None, 3, 4]  # the copy is XNNPACK's own


def test_rows_stay_apart_where_the_counts_do_not_agree(tmp_path: Path) -> None:
    """Rows of several pieces that bear one name are added up by the profiler."""
    graph = read_graph(Lite().conv("a").conv("b").conv("c").write(tmp_path / "m.tflite"))
    assert [row.place for row in match(graph, rows(CONV, CONV), [[0, 1, 2]])] == [None, None]
    assert [row.place for row in match(graph, rows(CONV, DEPTHWISE, CONV), [[0, 1, 2]])] == [None, None, None]
    assert [row.place for row in match(graph, rows(CONV, CONV, CONV), [[0, 1, 2]])] == [0, 1, 2]
    assert [row.place for row in match(graph, rows(CONV, CONV), [[2], [0, 1]])] == [0, 1]  # the largest piece's


def test_operators_of_litert_itself_have_their_place(tmp_path: Path) -> None:
    graph = read_graph(Lite().conv("a").depthwise("b").write(tmp_path / "m.tflite"))
    own = {"name": "01 DEPTHWISE_CONV_2D", "kind": "DEPTHWISE_CONV_2D", "share": 0.5, "by": "built-in", "operator": 1}
    found = match(graph, [*rows(CONV), own], [[0]])
    assert [row.place for row in found] == [0, 1]


def test_operators_that_benchmark_model_names_are_known_by_their_tensor(tmp_path: Path) -> None:
    graph = read_graph(Lite().conv("a").depthwise("b").conv("c").write(tmp_path / "m.tflite"))
    said = [{"name": "b", "kind": "DEPTHWISE_CONV_2D", "share": 0.5, "by": "built-in"}, *rows(CONV, CONV)]
    assert [row.place for row in match(graph, said, [[0], [2]])] == [1, 0, 2]


def test_places_of_a_packed_file_leave_out_what_unpacks_it(tmp_path: Path) -> None:
    from tests.sparse_net import Net
    from toolkit.exporters import tflite_packed

    dense = tmp_path / "dense.tflite"
    dense.write_bytes(Net(0.8, same="never").content())
    before = read_graph(dense)
    packed = tmp_path / "packed.tflite"
    packed.write_bytes(tflite_packed.pack(dense.read_bytes())[0])
    graph = read_graph(packed)
    assert [node.operator for node in graph.nodes] == [node.operator for node in before.nodes]
    assert graph.runs_as is not None and len(graph.runs_as) == len(graph.nodes) < max(graph.runs_as) + 1
    last = max(graph.runs_as)
    node = graph.here(last)
    assert node is not None and node.operator == "MEAN"
    unpacking = next(place for place in range(last) if place not in graph.runs_as)
    assert graph.here(unpacking) is None


def test_nodes_of_onnx_runtime_are_known_by_node_and_by_tensor(tmp_path: Path) -> None:
    path = Onnx().conv("a", integer=False).node("Relu", "r").conv("b", integer=False).write(tmp_path / "m.onnx")
    graph = read_graph(path)
    names = ["a_node", "r_nchwc", "fused b_node", "b_node_quant_token_12", "ReorderOutput_token_3"]
    said = [{"name": name, "kind": "Conv", "share": 0.2, "by": "CPU"} for name in names]
    places = {node.name: node.place for node in graph.nodes}
    found = [row.place for row in match(graph, said)]
    assert found == [places["a_node"], places["a_node"], places["b_node"], places["b_node"], None]
