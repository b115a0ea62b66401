"""An ONNX graph as the linter reads it: who computes what, constants, types and shapes, and what nodes are called.

Format: onnx.ai, "Open Neural Network Exchange Intermediate Representation".
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

STANDARD = ("", "ai.onnx")
FLOATS = (1, 10, 11, 16)  # TensorProto.FLOAT, FLOAT16, DOUBLE, BFLOAT16
TYPED = ("value_float", "value_floats", "value_int", "value_ints")  # other forms of a Constant's value


@dataclass(frozen=True)
class Graph:
    """A parsed file (an onnx.ModelProto) with the indexes that rules need. Nodes inside branches are not looked at."""

    proto: Any
    _read: dict[str, Any] = field(default_factory=dict, repr=False)  # values of constants

    @cached_property
    def nodes(self) -> list[Any]:
        return list(self.proto.graph.node)

    @cached_property
    def constants(self) -> dict[str, Any]:
        """Name -> TensorProto of every initializer and Constant."""
        found = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant":
                value = _constant(node)
                found |= {node.output[0]: value} if value is not None else {}
        return found

    @cached_property
    def ordered(self) -> list[Any]:
        """The nodes, each after those it reads; raises graphlib.CycleError where there is no such order."""
        makers = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        reads = {i: {makers[name] for name in node.input if name in makers} for i, node in enumerate(self.nodes)}
        return [self.nodes[index] for index in TopologicalSorter(reads).static_order()]

    @cached_property
    def _folded(self) -> set[str]:
        """Tensors that follow from constants alone."""
        found = {"", *self.constants}
        for node in self.ordered:
            if node.input and found.issuperset(node.input):
                found.update(node.output)
        return found

    @cached_property
    def producers(self) -> dict[str, Any]:
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found[name].append(node)
        return dict(found)

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The network's inputs, without constants that are listed among them; name -> ValueInfoProto."""
        stored = {tensor.name for tensor in self.proto.graph.initializer}
        return {value.name: value for value in self.proto.graph.input if value.name not in stored}

    @cached_property
    def outputs(self) -> set[str]:
        return {value.name for value in self.proto.graph.output}

    @cached_property
    def types(self) -> dict[str, int]:
        """Tensor -> element type (onnx.TensorProto), as far as it can be inferred, by TensorRT's rule: that of a scale
        is the type its DequantizeLinear gives, in every operator set."""
        found = {name: value.type.tensor_type.elem_type for name, value in self._values.items()}
        found |= {name: tensor.data_type for name, tensor in self.constants.items()}
        for node in self.ordered:
            if node.op_type == "DequantizeLinear" and len(node.input) > 1:
                found[node.output[0]] = found.get(node.input[1], 0)
            elif node.op_type not in ("Cast", "Constant", "QuantizeLinear"):
                given = next((found[name] for name in node.input if found.get(name) in FLOATS), 0)
                found |= {name: given for name in node.output if given and found.get(name) in FLOATS}
        return found

    @cached_property
    def _values(self) -> dict[str, Any]:
        """Tensor -> ValueInfoProto after shape inference; what the file itself says where that fails."""
        import onnx

        try:
            graph = onnx.shape_inference.infer_shapes(self.proto).graph
        except Exception:  # of a file that is no valid ONNX; what can be told of it is told
            graph = self.proto.graph
        return {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return max((entry.version for entry in self.proto.opset_import if entry.domain in STANDARD), default=0)

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """A tensor's shape, None for a free dimension; None altogether where it is not known."""
        if name in self.constants:
            return tuple(self.constants[name].dims)
        value = self._values.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        return tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)

    def values(self, name: str) -> Array | None:
        """The values of a constant; None for what is computed or cannot be read."""
        from onnx import numpy_helper

        if name not in self._read:
            tensor = self.constants.get(name)
            try:
                self._read[name] = None if tensor is None else numpy_helper.to_array(tensor)
            except (ValueError, TypeError, KeyError, OSError):  # cut short, of no known type, or in a file that is gone
                self._read[name] = None
        found: Array | None = self._read[name]
        return found

    def is_constant(self, name: str) -> bool:
        """Whether a tensor follows from constants alone."""
        return name in self._folded

    def where(self, node: Any) -> str:
        """A node in words."""
        return f"{node.op_type} {node.name}" if node.name else f"{node.op_type} that gives {_first(node.output)}"


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """The value of a node's attribute."""
    from onnx import helper

    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def type_name(kind: int) -> str:
    """FLOAT16, INT8, ...: as the format calls it."""
    import onnx

    known = kind in onnx.TensorProto.DataType.values()
    return str(onnx.TensorProto.DataType.Name(kind)) if known else f"type {kind}"


def _constant(node: Any) -> Any:
    import numpy as np
    from onnx import numpy_helper

    value = attribute(node, "value")
    if value is not None:
        return value
    for name in TYPED:
        found = attribute(node, name)
        if found is not None:
            return numpy_helper.from_array(np.asarray(found, np.float32 if "float" in name else np.int64))
    return None


def _first(names: Any) -> str:
    return str(next(iter(names), "nothing"))
