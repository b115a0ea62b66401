"""An .onnx graph whose real tensors are float16, but for the nodes that must stay float32, with Casts between.

Its ends stay float32. A Q/DQ pair takes the types around it: integers and scales are the same in both forms, and
weights are the values of their integers, which float16 rounds to the same integers. Written file against float32-typed
graph: `verify`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.errors import UnsupportedError
from toolkit.exporters import onnx_qdq
from toolkit.exporters.onnx_file import File
from toolkit.exporters.onnx_scan import FLOAT16_MAX, Locate, layer_of

if TYPE_CHECKING:
    from toolkit.core import Array

FLOAT, FLOAT16 = 1, 10  # TensorProto
SUFFIXES = {FLOAT: "_float32", FLOAT16: "_float16"}
BRANCHING = ("If", "Loop", "Scan")


def narrowed(proto: Any, wide: Collection[str]) -> Any:
    """A new ModelProto; wide: names of the nodes that stay float32.

    Raises UnsupportedError for operators with graphs of their own.
    """
    for node in proto.graph.node:
        if node.op_type in BRANCHING:
            raise UnsupportedError(node.name, f"{node.op_type} is not written in float16", "use scheme float32")
    split = _each_reader_its_own(proto, wide)
    return _Narrowing(File(split), _types(File(split), wide)).proto()


def takes_float16(node: Any, version: int) -> bool:
    """Whether an operator has a float16 form at all, and makes no real tensor of an attribute."""
    import onnx

    schema = onnx.defs.get_schema(node.op_type, version)
    made = any("tensor(float16)" in output.types for output in schema.outputs)
    return made and node.op_type not in ("ConstantOfShape", "RandomNormal", "RandomUniform")


def version_of(proto: Any) -> int:
    """The graph's version of ONNX's own operator set."""
    return int(next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")))


def _each_reader_its_own(proto: Any, wide: Collection[str]) -> Any:
    """The graph with a second DequantizeLinear where one is read in both types."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    file, outputs = File(made), {value.name for value in made.graph.output}
    for node in [node for node in file.nodes if node.op_type == "DequantizeLinear"]:
        name = node.output[0]
        readers = file.consumers.get(name, [])
        ends = [reader for reader in readers if reader.name in wide]
        if ends and (len(ends) < len(readers) or name in outputs):
            other = onnx.NodeProto()
            other.CopyFrom(node)
            other.name, other.output[0] = node.name + SUFFIXES[FLOAT], name + SUFFIXES[FLOAT]
            made.graph.node.append(other)
            for reader in ends:
                reader.input[:] = [other.output[0] if each == name else each for each in reader.input]
    return made


def _types(file: File, wide: Collection[str]) -> dict[str, int]:
    """Node -> the type it computes in."""
    version = version_of(file.proto)
    found = {
        node.name: FLOAT if node.name in wide or not takes_float16(node, version) else FLOAT16 for node in file.nodes
    }
    outputs = {value.name for value in file.proto.graph.output}
    for node in file.nodes:
        if node.op_type == "DequantizeLinear":
            kinds = {found[reader.name] for reader in file.consumers.get(node.output[0], [])} or {FLOAT}
            found[node.name] = FLOAT if kinds == {FLOAT} or node.output[0] in outputs else FLOAT16
    for node in file.nodes:
        if node.op_type == "QuantizeLinear":
            maker = file.producers.get(node.input[0])
            readers = [found[reader.name] for reader in file.consumers.get(node.output[0], [])]
            if node.input[0] in file.constants:  # weights
                found[node.name] = FLOAT16 if FLOAT16 in readers else FLOAT
            else:
                found[node.name] = found[maker.name] if maker is not None else FLOAT
    return found


@dataclass
class _Narrowing:
    """The work on one graph: nodes and constants that were added so far."""

    file: File
    types: dict[str, int]
    casts: dict[tuple[str, int], Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)

    def proto(self) -> Any:
        import onnx

        made = onnx.ModelProto()
        made.CopyFrom(self.file.proto)
        graph = made.graph
        for node in graph.node:
            if node.op_type != "Constant":
                node.input[:] = [self._read(node, index, name) for index, name in enumerate(node.input)]
            kind = self.types[node.name]
            for attribute in node.attribute if node.op_type == "Cast" else ():
                if attribute.name == "to" and attribute.i in (FLOAT, FLOAT16):
                    attribute.i = kind
        self._end(graph)
        graph.node.extend(self.casts.values())
        graph.initializer.extend(self.constants.values())
        onnx_qdq.clean(made)
        return made

    def _read(self, node: Any, index: int, name: str) -> str:
        """The name under which a node reads this input in its own type."""
        import onnx

        kind = self.types[node.name]
        if not name or self.file.inferred.get(name, (0, None))[0] not in (FLOAT, FLOAT16):
            return name
        formal = onnx.defs.get_schema(node.op_type, version_of(self.file.proto)).inputs
        if "tensor(float16)" not in formal[min(index, len(formal) - 1)].types:
            kind = FLOAT
        if name in self.file.constants:
            return self._constant(node, index, name) if kind == FLOAT16 else name
        if self._natural(name) == kind:
            return name
        return self._cast(name, kind)

    def _natural(self, name: str) -> int:
        """The type a tensor is computed in; the graph's inputs are float32."""
        maker = self.file.producers.get(name)
        return FLOAT if maker is None else self.types[maker.name]

    def _cast(self, name: str, kind: int) -> str:
        import onnx

        result = name + SUFFIXES[kind]
        if (name, kind) not in self.casts:
            self.casts[name, kind] = onnx.helper.make_node("Cast", [name], [result], f"{result}_Cast", to=kind)
        return result

    def _constant(self, node: Any, index: int, name: str) -> str:
        import onnx

        weights = index == 0 and node.op_type == "QuantizeLinear"
        result = name + ("_integers" if weights else "") + SUFFIXES[FLOAT16]
        if result not in self.constants:
            values = on_grid(self.file, node) if weights else self.file.values(name)
            tensor = onnx.numpy_helper.from_array(in_float16(node, index, values), result)
            self.constants[result] = tensor
        return result

    def _end(self, graph: Any) -> None:
        """Outputs computed in float16 are cast to the float32 that the file gives."""
        import onnx

        for value in graph.output:
            maker = self.file.producers.get(value.name)
            if maker is None or value.type.tensor_type.elem_type != FLOAT or self.types[maker.name] == FLOAT:
                continue
            inner = value.name + SUFFIXES[FLOAT16]
            for node in (*graph.node, *self.casts.values()):
                node.input[:] = [inner if name == value.name else name for name in node.input]
                node.output[:] = [inner if name == value.name else name for name in node.output]
            self.casts[value.name, 0] = onnx.helper.make_node("Cast", [inner], [value.name], f"{inner}_Cast", to=FLOAT)


def in_float16(node: Any, index: int, values: Any) -> Array:
    """A constant as this node reads it: bounds of a Clip end at the largest float16."""
    import numpy as np

    if node.op_type == "Clip" and index > 0:
        values = np.clip(values, -FLOAT16_MAX, FLOAT16_MAX)
    return np.asarray(values, np.float16)


def integers_of(file: File, quantize: Any) -> Array:
    """What a QuantizeLinear makes of constants."""
    import numpy as np

    values, scale, zero = (file.values(name) for name in quantize.input[:3])
    if values is None or scale is None or zero is None:
        raise UnsupportedError(quantize.name, "quantizes constants with scales that are none")
    steps = values.astype(np.float64) / _along(scale, quantize, values.ndim)
    limits = np.iinfo(zero.dtype)
    return np.asarray(np.clip(np.rint(steps), limits.min, limits.max).astype(zero.dtype))


def on_grid(file: File, quantize: Any) -> Array:
    """The values of the integers that a QuantizeLinear makes of constants."""
    import numpy as np

    integers, scale = integers_of(file, quantize), file.values(quantize.input[1])
    return np.asarray(integers * _along(np.asarray(scale), quantize, integers.ndim))


def _along(scale: Array, node: Any, rank: int) -> Array:
    axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
    return scale.astype("float64").reshape([-1 if scale.ndim and i == axis % rank else 1 for i in range(rank)])


# ---------------------------------------------------------------- read back


def verify(file: File, twin: File, locate: Locate) -> None:
    """Hold a written file to the graph typed float32: the same nodes, integers the same, other constants rounded.

    Raises UnsupportedError naming the layer whose constant is another.
    """
    import numpy as np

    own = {node.name: node for node in file.nodes}
    for node in twin.nodes:
        if node.op_type == "Constant":
            continue
        found = own.get(node.name)
        if found is None or (found.op_type, len(found.input)) != (node.op_type, len(node.input)):
            raise UnsupportedError(layer_of(twin, node, locate), f"node {node.name} is not in the written file")
        for index, (name, there) in enumerate(zip(node.input, found.input, strict=True)):
            wanted, values = twin.values(name), file.values(there)
            if wanted is None:
                continue
            if node.op_type == "QuantizeLinear" and index == 0:
                same = values is not None and np.array_equal(integers_of(twin, node), integers_of(file, found))
            else:
                rounded = wanted if values is None or values.dtype == wanted.dtype else in_float16(node, index, wanted)
                same = values is not None and np.array_equal(values, rounded, equal_nan=True)
            if not same:
                problem = f"tensor {there} of the written file is not what the float32-typed form has"
                raise UnsupportedError(layer_of(twin, node, locate), problem)
