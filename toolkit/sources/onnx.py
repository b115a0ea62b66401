"""`.onnx` files, as PyTorch and others write them: looked at as data, then run once. The file itself is the model.

Format: onnx.ai, "Open Neural Network Exchange Intermediate Representation", and its "External data" for large weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from toolkit.core import Kind, Meaning, Model, QuantSpec, Scheme, TensorSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.schema import Component
from toolkit.sources import opening, proven

Side = Annotated[int, Field(ge=1)]
STANDARD = ("", "ai.onnx")
PASSING = ("Reshape", "Flatten", "Identity", "Squeeze", "Cast", "DequantizeLinear", "QuantizeLinear", "Dropout")
MAX_NODES = 1_000_000  # the largest networks have some ten thousand
FLOAT = 1  # TensorProto.DataType of what Edgekit feeds
FLOAT16 = 10


class ONNX(Component):
    """A trained model as an .onnx file, such as torch.onnx.export writes (PyTorch): one graph of standard operators."""

    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    kind: ClassVar[Kind] = "onnx"

    head: Literal["auto", "logits", "softmax", "sigmoid", "sigmoids", "embedding", "regression"] = "auto"
    """What the output means; auto looks at its last operator."""
    input_shape: tuple[Side, Side] | None = None
    """Height and width in pixels, where the model leaves them open."""
    layout: Literal["auto", "NHWC", "NCHW"] = "auto"
    """Where the input's channels stand; auto looks at its shape."""

    def load(self, path: Path) -> Model:
        """The model in `path`. Raises InputError or UnsupportedError with the reason."""
        proto = read(path)
        constants = {tensor.name for tensor in proto.graph.initializer}
        inputs = [self._input(value, path) for value in proto.graph.input if value.name not in constants]
        if not inputs:
            raise InputError(str(path), "has no inputs")
        makers = {name: node for node in proto.graph.node for name in node.output}
        names = [value.name for value in proto.graph.output]
        found = [_meaning(name, makers) for name in names]
        model = proven.model("onnx", path, inputs, names, proven.chosen(self.head, found))
        return Model(model.kind, path, model.signature, quant=QuantSpec(_scheme(proto)))

    def _input(self, value: Any, path: Path) -> TensorSpec:
        where = f"{path}: input {value.name!r}"
        kind = value.type.tensor_type
        if kind.elem_type != FLOAT:
            import onnx

            dtype = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
            raise UnsupportedError(where, f"is {dtype}, and images are given as float32", "export it with float inputs")
        if not kind.HasField("shape"):
            raise InputError(where, "has no shape", "export it with the shape of its input")
        dims = tuple(int(dim.dim_value) if dim.dim_value > 0 else None for dim in kind.shape.dim)
        opening.require_batch(dims, where)
        layout = opening.layout_of(dims, self.layout, where)
        shape = opening.sized(dims, layout, self.input_shape, where)
        return TensorSpec(value.name, shape, "float32", "image" if len(shape) == 4 else "tensor", layout)


def read(path: Path) -> Any:
    """The ModelProto of a sound file, weights that lie beside it left there; nothing of it has run."""
    opening.check_kind(path, "an .onnx file")
    import onnx

    try:
        proto = onnx.load(str(path), format="protobuf", load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no public home that is the same in all its versions
        raise InputError(str(path), "is damaged or not an .onnx file", "export the model again") from error
    if not proto.graph.node or not proto.graph.output or not proto.opset_import:
        raise InputError(str(path), "holds no ONNX graph (no nodes, outputs or operator set)", "export the model again")
    _check_operators(path, proto)
    _check_external(path, proto)
    return proto


def _check_operators(path: Path, proto: Any) -> None:
    """Raise for operators of other domains than ONNX's own: what they do is in a library of somebody's."""
    own = {function.domain for function in proto.functions}
    for count, node in enumerate(_nodes(proto)):
        if node.domain not in STANDARD and node.domain not in own:
            problem = f"operator {node.domain}::{node.op_type} ({node.name or node.output[0]}) is not ONNX's own"
            raise UnsupportedError(str(path), problem, "export the model with standard operators")
        if count > MAX_NODES:
            raise InputError(str(path), f"has more than {MAX_NODES:,} nodes, as no trained model does")


def _nodes(proto: Any) -> Iterator[Any]:
    """Every node, those inside branches, loops and local functions too. Iterative: depth is the file's to choose."""
    pending = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while pending:
        node = pending.pop()
        yield node
        for attribute in node.attribute:
            pending += attribute.g.node
            for graph in attribute.graphs:
                pending += graph.node


def external(proto: Any) -> list[str]:
    """Places of the files beside an .onnx file that hold some of its weights."""
    import onnx

    stored = [*proto.graph.initializer]
    for node in _nodes(proto):
        for attribute in node.attribute:
            stored += [attribute.t, *attribute.tensors, *attribute.g.initializer]
    places = (
        entry.value
        for tensor in stored
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    )
    return list(dict.fromkeys(places))


def save_whole(proto: Any, folder: Path, target: Path) -> None:
    """Write a graph with the weights that lie beside it, in `folder`, inside it."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    load_external_data_for_model(proto, str(folder))
    onnx.save(proto, str(target))


def _check_external(path: Path, proto: Any) -> None:
    folder = path.parent.resolve()
    for place in external(proto):
        where = f"{path}: external data {place!r}"
        parts = PurePosixPath(place)
        target = (folder / place).resolve()
        if not place or parts.is_absolute() or "\\" in place or ".." in parts.parts or folder not in target.parents:
            raise InputError(where, "lies outside the model's folder", "keep weights beside the .onnx file")
        if not target.is_file():
            raise InputError(where, "no such file", "put it beside the .onnx file")
    total = sum((folder / place).stat().st_size for place in external(proto))
    if total + path.stat().st_size > opening.LARGEST:
        problem = f"with its external data it has {total / 2**30:.1f} GiB, and what is exported of it holds at most 2"
        raise InputError(str(path), problem)


def _meaning(name: str, makers: dict[str, Any]) -> Meaning:
    """What an output is, by the last operator before it that does more than reshape."""
    node = makers.get(name)
    while node is not None and node.op_type in PASSING and node.input:
        node = makers.get(node.input[0])
    return proven.of_operator(str(node.op_type)) if node is not None else "logits"


def _scheme(proto: Any) -> Scheme:
    """How the file's weights are stored already."""
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in proto.graph.node):
        return "int8"
    return "float16" if any(tensor.data_type == FLOAT16 for tensor in proto.graph.initializer) else "float32"
