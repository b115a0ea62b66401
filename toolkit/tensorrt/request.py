"""What is to be asked of a builder for one ONNX file on one version of TensorRT: the file says its own precision.

From TensorRT 10 on networks are strongly typed, so that nothing but the graph's types is used. TensorRT 8 has no such
networks and takes permissions instead: int8 where the graph has Q/DQ pairs, float16 where it has float16 tensors or the
user allows it. Page: NVIDIA TensorRT documentation, "Working with Quantized Types", "Strongly Typed Networks".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.errors import InputError, UnsupportedError
from toolkit.tensorrt.types import BuildSpec, ShapeRange
from toolkit.tensorrt.versions import parse

STRONG = 10  # major version from which networks are strongly typed here; 9 had it first and was for large models
UNIFIED_SHARE = 0.25  # of a Jetson's whole memory, which its processor shares, as workspace at most
MOST_MIB = 1024  # of workspace: CNNs of edge devices need less


@dataclass(frozen=True)
class Graph:
    """What of an ONNX file matters to a builder. inputs: name -> shape, 0 where a dimension is free."""

    quantized: bool
    half: bool
    inputs: Mapping[str, tuple[int, ...]]

    @property
    def free(self) -> Mapping[str, tuple[int, ...]]:
        """The inputs that have free dimensions."""
        return {name: shape for name, shape in self.inputs.items() if 0 in shape}


@dataclass(frozen=True)
class Asked:
    """The user's own wishes for a build; None and empty where there are none.

    batches: least, usual and greatest batch, for files whose batch alone is free. fp16: a builder of TensorRT 8 may
    use float16 where it is faster. timing_cache: file on the device that outlives the build.
    """

    batches: tuple[int, int, int] | None = None
    shapes: Mapping[str, ShapeRange] | None = None
    workspace_mib: int | None = None
    fp16: bool = False
    dla_core: int | None = None
    sparse: bool = False
    optimization_level: int | None = None
    timing_cache: str = ""


def graph_of(proto: Any) -> Graph:
    """Read a ModelProto."""
    import onnx

    constants = {tensor.name for tensor in proto.graph.initializer}
    half = {tensor.data_type for tensor in proto.graph.initializer} | {
        value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)
    }
    casts = {attribute.i for node in proto.graph.node if node.op_type == "Cast" for attribute in node.attribute}  # `to`
    inputs = {
        value.name: tuple(max(0, dim.dim_value) for dim in value.type.tensor_type.shape.dim)
        for value in proto.graph.input
        if value.name not in constants
    }
    return Graph(
        quantized=any(node.op_type == "QuantizeLinear" for node in proto.graph.node),
        half=onnx.TensorProto.FLOAT16 in half | casts,
        inputs=inputs,
    )


def build_spec(graph: Graph, version: str, asked: Asked, *, memory_mib: int | None = None) -> BuildSpec:
    """The specification of a build; memory_mib: of a module whose GPU shares it with the processor.

    Raises:
        InputError: shapes are free and nobody said which, or said of an input that has none.
        UnsupportedError: what this version of TensorRT cannot do.
    """
    major = parse(version).numbers[0]
    strong = major >= STRONG
    if not strong and graph.quantized and graph.half:
        problem = "takes no int8 graph with float16 types: float16 scales came with TensorRT 10"
        raise UnsupportedError(f"TensorRT {version}", problem, 'export with rest = "float32", and allow --fp16')
    if strong and asked.fp16:
        problem = "takes its types from the graph, and --fp16 changes none"
        raise InputError(f"TensorRT {version}", problem, 'leave it out, and export with rest = "float16" or as float16')
    return BuildSpec(
        workspace_mib=asked.workspace_mib or _workspace(memory_mib),
        shapes=_shapes(graph, asked),
        strongly_typed=strong,
        fp16=not strong and (asked.fp16 or graph.half),
        int8=not strong and graph.quantized,
        dla_core=asked.dla_core,
        sparse=asked.sparse,
        optimization_level=asked.optimization_level,
        timing_cache=asked.timing_cache,
    )


def _workspace(memory_mib: int | None) -> int:
    return MOST_MIB if memory_mib is None else max(64, min(MOST_MIB, int(memory_mib * UNIFIED_SHARE)))


def _shapes(graph: Graph, asked: Asked) -> Mapping[str, ShapeRange]:
    given = dict(asked.shapes or {})
    for name in given:
        if name not in graph.free:
            problem = f"input {name!r} has no free dimensions"
            raise InputError("--shapes", problem, f"it is for {', '.join(graph.free) or 'no input of this file'}")
    for name, shape in graph.free.items():
        if name in given:
            continue
        known = shape[1:]
        if asked.batches is None or 0 in known or shape[0]:
            free = "x".join(str(size or "?") for size in shape)
            fix = f"give --shapes {name}=..." if 0 in known else "give --batch LEAST,USUAL,MOST"
            raise InputError(f"input {name!r}", f"has free dimensions ({free}), and an engine needs their range", fix)
        low, usual, high = asked.batches
        given[name] = ShapeRange((low, *known), (usual, *known), (high, *known))
    if asked.batches is not None and not graph.free:
        raise InputError("--batch", "no input of this file has a free batch", "export it with dynamic_batch = true")
    return given
