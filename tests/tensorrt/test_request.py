"""What is asked of a builder: the graph's own precision by version, shapes where they are free, shared memory."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.errors import InputError, UnsupportedError
from toolkit.tensorrt.request import Asked, Graph, build_spec, graph_of
from toolkit.tensorrt.types import ShapeRange

STATIC = {"image": (1, 3, 8, 8)}
FREE = {"image": (0, 3, 8, 8)}


@pytest.mark.parametrize(
    ("version", "quantized", "half", "expected"),
    [
        ("8.2.1", False, False, (False, False, False)),
        ("8.5.2", True, False, (False, False, True)),
        ("8.6.2", False, True, (False, True, False)),
        ("10.3.0", True, True, (True, False, False)),
        ("10.3.0", False, False, (True, False, False)),
        ("11.4.1", True, True, (True, False, False)),
    ],
)
def test_permissions_are_those_the_graph_asks_for(
    version: str, quantized: bool, half: bool, expected: tuple[bool, bool, bool]
) -> None:
    spec = build_spec(Graph(quantized, half, STATIC), version, Asked())
    assert (spec.strongly_typed, spec.fp16, spec.int8) == expected


def test_fp16_is_for_weakly_typed_builders_alone() -> None:
    graph = Graph(True, False, STATIC)
    assert build_spec(graph, "8.5.2", Asked(fp16=True)).fp16
    with pytest.raises(InputError, match="takes its types from the graph"):
        build_spec(graph, "10.3.0", Asked(fp16=True))


def test_int8_beside_float16_types_needs_tensorrt_10() -> None:
    with pytest.raises(UnsupportedError, match='rest = "float32"'):
        build_spec(Graph(True, True, STATIC), "8.6.2", Asked())


@pytest.mark.parametrize(("memory", "workspace"), [(None, 1024), (8192, 1024), (2048, 512), (100, 64)])
def test_workspace_is_a_quarter_of_shared_memory_and_no_more_than_a_gibibyte(
    memory: int | None, workspace: int
) -> None:
    assert build_spec(Graph(False, False, STATIC), "10.3.0", Asked(), memory_mib=memory).workspace_mib == workspace
    asked = Asked(workspace_mib=300)
    assert build_spec(Graph(False, False, STATIC), "10.3.0", asked, memory_mib=memory).workspace_mib == 300


def test_free_batch_takes_its_range_and_whole_shapes_win() -> None:
    graph = Graph(False, False, {**FREE, "mask": (0, 0)})
    own = ShapeRange((1, 4), (2, 4), (4, 4))
    spec = build_spec(graph, "10.3.0", Asked(batches=(1, 2, 4), shapes={"mask": own}))
    assert spec.shapes == {"image": ShapeRange((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)), "mask": own}


@pytest.mark.parametrize(
    ("inputs", "asked", "problem"),
    [
        (FREE, Asked(), r"free dimensions \(\?x3x8x8\).*give --batch"),
        ({"image": (1, 3, 0, 0)}, Asked(batches=(1, 1, 1)), "give --shapes image="),
        (STATIC, Asked(batches=(1, 2, 4)), "no input of this file has a free batch"),
        (STATIC, Asked(shapes={"image": ShapeRange((1,), (1,), (1,))}), "has no free dimensions"),
        (FREE, Asked(shapes={"other": ShapeRange((1,), (1,), (1,))}), "it is for image"),
    ],
)
def test_shapes_that_do_not_fit_the_file_are_refused(inputs: Any, asked: Asked, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        build_spec(Graph(False, False, inputs), "10.3.0", asked)


def test_graph_is_read_from_the_file() -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    image = helper.make_tensor_value_info("image", kinds.FLOAT, ["n", 3, 8, 8])
    out = helper.make_tensor_value_info("out", kinds.FLOAT16, ["n", 3, 8, 8])
    constant = helper.make_tensor("unused", kinds.FLOAT, [1], [1.0])
    cast = helper.make_node("Cast", ["image"], ["out"], to=kinds.FLOAT16)
    graph = helper.make_graph([cast], "g", [image], [out], [constant])
    assert graph_of(helper.make_model(graph)) == Graph(False, True, {"image": (0, 3, 8, 8)})
