"""`.tflite` files, float or quantized already: looked at as data, then run once. The file itself is the model.

Format: the flatbuffer schema of LiteRT (schema.fbs), through the object interface that ai-edge-litert ships.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from toolkit.core import Kind, Meaning, Model, QuantSpec, Scheme, TensorSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.schema import Component
from toolkit.sources import opening, proven

Side = Annotated[int, Field(ge=1)]
PASSING = ("RESHAPE", "SQUEEZE", "QUANTIZE", "DEQUANTIZE", "CAST")
EDGES = ("QUANTIZE", "DEQUANTIZE")
ENDS = ("float32", "int8", "uint8")


class TFLite(Component):
    """A trained model as a .tflite file: a float one can be quantized, a quantized one can be checked."""

    suffixes: ClassVar[tuple[str, ...]] = (".tflite",)
    kind: ClassVar[Kind] = "tflite"

    head: Literal["auto", "logits", "softmax", "sigmoid", "sigmoids", "embedding", "regression"] = "auto"
    """What the output means; auto looks at its last operator."""
    input_shape: tuple[Side, Side] | None = None
    """Height and width in pixels; a .tflite file has fixed ones, which they must be."""
    layout: Literal["auto", "NHWC", "NCHW"] = "auto"
    """Where the input's channels stand; auto looks at its shape."""

    def load(self, path: Path) -> Model:
        """The model in `path`. Raises InputError or UnsupportedError with the reason."""
        found = read(path)
        inputs = [self._input(name, tensor, path) for name, tensor in found.inputs]
        names = [name for name, _ in found.outputs]
        meanings = [_meaning(index, found) for index in found.graph.outputs]
        model = proven.model("tflite", path, inputs, names, proven.chosen(self.head, meanings))
        return Model(model.kind, path, model.signature, quant=found.quant)

    def _input(self, name: str, tensor: Any, path: Path) -> TensorSpec:
        where, dtype = f"{path}: input {name!r}", _dtype(tensor)
        if dtype not in ENDS:
            raise UnsupportedError(where, f"is {dtype}, and images are given as {', '.join(ENDS)}")
        written = tensor.shape if tensor.shape is not None else ()
        shape = tuple(int(size) for size in written)
        opening.require_batch(shape, where)
        layout = opening.layout_of(shape, self.layout, where)
        opening.sized(shape, layout, self.input_shape, where)
        return TensorSpec(name, shape, "float32", "image" if len(shape) == 4 else "tensor", layout)


class Read:
    """A parsed file: its first graph, the names of its ends in the graph's order, and how it is quantized."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.graph = model.subgraphs[0]
        self.kinds = [self._kind(operator) for operator in self.graph.operators or []]
        signature = (model.signatureDefs or [None])[0]
        self.inputs = self._ends(self.graph.inputs, signature and signature.inputs)
        self.outputs = self._ends(self.graph.outputs, signature and signature.outputs)

    def _kind(self, operator: Any) -> str:
        code = self.model.operatorCodes[operator.opcodeIndex]
        kind = _names("BuiltinOperator")[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return f"CUSTOM:{_text(code.customCode)}" if kind == "CUSTOM" else kind

    def _ends(self, indexes: Any, maps: Any) -> list[tuple[str, Any]]:
        named = {int(pair.tensorIndex): _text(pair.name) for pair in maps or []}
        tensors = self.graph.tensors
        return [(named.get(int(i)) or _text(tensors[i].name), tensors[i]) for i in indexes]

    @property
    def quant(self) -> QuantSpec:
        """What the file is already: float32 when nothing in it is quantized."""
        computed, stored = set(), set()
        for kind, operator in zip(self.kinds, self.graph.operators or [], strict=True):
            if kind not in EDGES:
                computed |= {_dtype(self.graph.tensors[i]) for i in operator.outputs}
            inside = [self.graph.tensors[i] for i in operator.inputs if i >= 0]
            stored |= {_dtype(tensor) for tensor in inside if self._constant(tensor)}
        scheme: Scheme = "int8" if computed & {"int8", "uint8", "int16"} else "float32"
        if scheme == "float32":
            scheme = "dynamic" if "int8" in stored else "float16" if "float16" in stored else "float32"
        io = _dtype(self.inputs[0][1])
        return QuantSpec(scheme, io=io if scheme == "int8" and io in ("int8", "uint8") else "float32")  # type: ignore[arg-type]

    def _constant(self, tensor: Any) -> bool:
        data = self.model.buffers[tensor.buffer].data
        return data is not None and len(data) > 0


def read(path: Path) -> Read:
    """A sound file of built-in operators with one image at a time; nothing of it has run."""
    opening.check_kind(path, "a .tflite file")
    from ai_edge_litert import schema_py_generated as schema

    try:
        found = Read(schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0))
        _check(path, found)
    except (struct.error, IndexError, TypeError, ValueError, KeyError, AttributeError, MemoryError) as error:
        raise InputError(str(path), "is a damaged .tflite file", "export the model again") from error
    return found


def _check(path: Path, found: Read) -> None:
    if not found.kinds or not found.inputs or not found.outputs:
        raise InputError(str(path), "holds no graph (no operators, inputs or outputs)", "export the model again")
    if len(found.model.subgraphs) > 1:
        raise UnsupportedError(str(path), f"holds {len(found.model.subgraphs)} graphs, and one is taken")
    for kind in found.kinds:
        if kind.startswith("CUSTOM:") or kind == "CUSTOM":
            name = kind.removeprefix("CUSTOM:")
            raise UnsupportedError(
                str(path), f"operator {name} is not built into TFLite", "convert it without custom operators"
            )
    names = [name for name, _ in (*found.inputs, *found.outputs)]
    if len(set(names)) < len(names):
        raise UnsupportedError(str(path), f"two of its ends have one name ({', '.join(names)})", "name them apart")


def _meaning(index: int, found: Read) -> Meaning:
    """What an output is, by the last operator before it that does more than reshape."""
    makers = {int(i): n for n, operator in enumerate(found.graph.operators) for i in operator.outputs}
    while (number := makers.get(int(index))) is not None:
        if found.kinds[number] not in PASSING:
            return proven.of_operator(found.kinds[number])
        index = found.graph.operators[number].inputs[0]
    return "logits"


def _dtype(tensor: Any) -> str:
    return _names("TensorType")[tensor.type].lower()


def _names(table: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {value: key for key, value in vars(getattr(schema, table)).items() if isinstance(value, int)}


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
