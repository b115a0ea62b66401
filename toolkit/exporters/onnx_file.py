"""An .onnx file as data: its ends, its constants, who computes what; and a canonical hash.

Format: onnx.ai, "Open Neural Network Exchange Intermediate Representation".
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import TensorSpec

if TYPE_CHECKING:
    from toolkit.core import Array

GENERATED = re.compile(r"__\d+(?=$|:)")  # tf2onnx.utils.make_name and ONNX Runtime's GenerateNodeArgName


@dataclass(frozen=True)
class File:
    """A parsed file (an onnx.ModelProto) with the indexes that checks need."""

    proto: Any

    @property
    def nodes(self) -> list[Any]:
        return list(self.proto.graph.node)

    @cached_property
    def constants(self) -> dict[str, Any]:
        """Name -> TensorProto of every initializer and Constant."""
        found = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                found[node.output[0]] = node.attribute[0].t
        return found

    @cached_property
    def producers(self) -> dict[str, Any]:
        """Tensor name -> the node that computes it."""
        return {name: node for node in self.nodes for name in node.output}

    @cached_property
    def consumers(self) -> dict[str, list[Any]]:
        """Tensor name -> the nodes that read it."""
        found = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                found[name].append(node)
        return dict(found)

    @cached_property
    def depths(self) -> dict[str, int]:
        """Tensor name -> nodes on the longest path to it, for a graph in order."""
        found: dict[str, int] = {}
        for node in self.nodes:
            depth = 1 + max((found.get(name, 0) for name in node.input), default=0)
            found |= dict.fromkeys(node.output, depth)
        return found

    @cached_property
    def inferred(self) -> dict[str, tuple[int, tuple[int | None, ...] | None]]:
        """Tensor name -> (TensorProto type, shape or None), as far as both can be inferred."""
        import onnx

        graph = onnx.shape_inference.infer_shapes(self.proto).graph
        found: dict[str, tuple[int, tuple[int | None, ...] | None]] = {}
        for value in (*graph.value_info, *graph.input, *graph.output):
            kind = value.type.tensor_type
            sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
            found[value.name] = kind.elem_type, sizes if kind.HasField("shape") else None
        return found | {name: (each.data_type, tuple(each.dims)) for name, each in self.constants.items()}

    def values(self, name: str) -> Array | None:
        """The values of a constant, or None."""
        from onnx import numpy_helper

        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return tuple(_spec(value) for value in self.proto.graph.input if value.name not in self.constants)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return tuple(_spec(value) for value in self.proto.graph.output)


def read(path: Path) -> File:
    """Parse a file; its constants are inside it."""
    import onnx

    return File(onnx.load(str(path), format="protobuf"))


def sort_nodes(proto: Any) -> None:
    """Put the nodes of a graph in an order in which each comes after those it reads, as the format asks."""
    nodes = list(proto.graph.node)
    makers = {name: i for i, node in enumerate(nodes) for name in node.output}
    order = TopologicalSorter({i: [makers[n] for n in node.input if n in makers] for i, node in enumerate(nodes)})
    ordered = [nodes[i] for i in order.static_order()]
    del proto.graph.node[:]
    proto.graph.node.extend(ordered)


def split_sums(proto: Any) -> None:
    """Give a Conv with two biases an Add for the second: what tf2onnx 1.17 makes of a sum of images of one pixel."""
    import onnx

    graph, shape = proto.graph, "edgekit/channels_of_one_pixel"
    doubled = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose") and len(node.input) > 3]
    for node in doubled:
        result, alone, added = node.output[0], f"{node.output[0]}_alone", f"{node.output[0]}_added"
        reshape = onnx.helper.make_node("Reshape", [node.input.pop(), shape], [added], f"{node.name}_added")
        graph.node.extend([reshape, onnx.helper.make_node("Add", [alone, added], [result], node.name)])
        node.name, node.output[0] = f"{node.name}_alone", alone
    if doubled:
        graph.initializer.append(onnx.helper.make_tensor(shape, onnx.TensorProto.INT64, [4], [1, -1, 1, 1]))
        sort_nodes(proto)


def name_nodes(proto: Any) -> None:
    """Give each node a name of its own; what ONNX Runtime unrolls of a composed operator has none."""
    taken: set[str] = set()
    for number, node in enumerate(proto.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{number}"
        taken.add(node.name)


def settle(proto: Any) -> None:
    """Give generated names (`Conv__717:0`) numbers, and constants their places, in order of first use.

    tf2onnx and ONNX Runtime's constant folding number what they make, and name a constant that several layers
    share after one of them, differently from process to process; the nodes themselves keep their order.
    """
    graph = proto.graph
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return  # the branches of If and Loop read names from outside
    reads = Counter(name for node in graph.node for name in node.input)
    constants = {tensor.name for tensor in graph.initializer}
    ends = {value.name for value in (*graph.input, *graph.output)}
    numbers: dict[str, int] = {}

    def settled(name: str) -> str:
        if name in ends or not name:
            return name
        if name in constants and (reads[name] > 1 or GENERATED.search(name)):
            return f"constant__{numbers.setdefault(name, len(numbers))}"
        return GENERATED.sub(lambda found: f"__{numbers.setdefault(found[0], len(numbers))}", name)

    for node in graph.node:
        node.input[:] = map(settled, node.input)
        node.output[:] = map(settled, node.output)
        node.name = settled(node.name)
    for entry in (*graph.initializer, *graph.value_info):
        entry.name = settled(entry.name)
    used = {name: i for i, name in enumerate(name for node in graph.node for name in (*node.input, *node.output))}
    for stored in (graph.initializer, graph.value_info):
        stored.sort(key=lambda entry: used.get(entry.name, -1))


def canonical_hash(path: Path) -> str:
    """SHA-256 over operators with their attributes, constants, ends and operator set: what decides the results.

    Free of names inside the graph, of the order constants are stored in, and of metadata.
    """
    file = read(path)
    digest = hashlib.sha256()
    seen: dict[str, int] = {"": -1}
    for imported in sorted((entry.domain, entry.version) for entry in file.proto.opset_import):
        digest.update(f"{imported}\n".encode())
    for spec in file.inputs:
        digest.update(f"{spec}{_number(spec.name, seen)}\n".encode())
    for node in file.nodes:
        if node.op_type == "Constant" and node.output[0] in file.constants:
            continue
        inputs = [_describe(name, file, seen) for name in node.input]
        outputs = [_number(name, seen) for name in node.output]
        digest.update(f"{node.domain}{node.op_type}{sorted(_attributes(node))}{inputs}{outputs}\n".encode())
    for spec in file.outputs:
        digest.update(f"{spec}{_describe(spec.name, file, seen)}\n".encode())
    return digest.hexdigest()


def _number(name: str, seen: dict[str, int]) -> int:
    """Tensors by order of first use, whatever they are called."""
    return seen.setdefault(name, len(seen))


def _describe(name: str, file: File, seen: dict[str, int]) -> str:
    first = name not in seen
    number, values = _number(name, seen), file.values(name) if first else None
    if values is None:
        return f"#{number}"
    return f"#{number}:{values.dtype}{values.shape}{hashlib.sha256(values.tobytes()).hexdigest()}"


def _attributes(node: Any) -> Iterator[str]:
    for attribute in node.attribute:
        yield hashlib.sha256(attribute.SerializeToString(deterministic=True)).hexdigest()


def _spec(value: Any) -> TensorSpec:
    import onnx

    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    return TensorSpec(value.name, shape, str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)))
