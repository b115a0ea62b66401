"""A .tflite file as data: operators, tensors, types and quantization; reading, signing and a canonical hash.

Format: the flatbuffer schema of LiteRT (schema.fbs), through the object interface that ai-edge-litert ships.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.exporters import tflite_sparsity

if TYPE_CHECKING:
    from toolkit.core import Array

ALIGNMENT = 16  # bytes; schema.fbs asks it of every buffer (force_align)
FURTHER_CODES = 127  # schema.fbs: stands for every code from here on
SIGNATURE_KEY = "serving_default"
STORED = {
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "INT8": "i1",
    "UINT8": "u1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "BOOL": "?",
}


@dataclass(frozen=True)
class Tensor:
    """dtype: lower case, as numpy names it. scales, zero_points: one value, or one for each slice along `axis`.

    data: the values of a constant, None for anything computed. sparse: stored packed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0
    data: Array | None = None
    sparse: bool = False


@dataclass(frozen=True)
class Operator:
    """kind: the built-in operator's name, or "CUSTOM:" and the custom one's. Absent optional inputs are None."""

    kind: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class File:
    """inputs, outputs: (name in the signature, tensor), in the order of the graph.

    unpacking: operators that unpack sparse constants, which are left out of `operators`: their constants stand dense
    where they are read.
    """

    operators: tuple[Operator, ...]
    inputs: tuple[tuple[str, Tensor], ...]
    outputs: tuple[tuple[str, Tensor], ...]
    unpacking: int = 0


def read(path: Path) -> File:
    """Everything a check needs to know of a file. Operators of all subgraphs, in order; the first one's ends."""
    return load(path.read_bytes())


def load(content: bytes) -> File:
    """The same, of a file's bytes."""
    model = parse(content)
    graphs = [[_tensor(tensor, model) for tensor in graph.tensors] for graph in model.subgraphs]
    codes = kinds(model)
    operators = [
        _operator(operator, codes[operator.opcodeIndex], tensors)
        for graph, tensors in zip(model.subgraphs, graphs, strict=True)
        for operator in graph.operators or []
    ]
    dense = _unpacked(operators) if "DENSIFY" in codes else operators
    return File(tuple(dense), *_ends(model, graphs[0]), len(operators) - len(dense))


def _unpacked(operators: Sequence[Operator]) -> list[Operator]:
    """Operators without those that unpack a constant; who read their outputs read the constants, dense."""
    dense: dict[int, Tensor] = {}
    for operator in operators:
        if operator.kind == "DENSIFY" and (packed := operator.inputs[0]) is not None and packed.sparse:
            output = operator.outputs[0]  # its scales are what counts
            dense[id(output)] = replace(output, name=packed.name, data=packed.data, sparse=True)
    left = (op for op in operators if id(op.outputs[0]) not in dense)
    return [replace(op, inputs=tuple(tensor and dense.get(id(tensor), tensor) for tensor in op.inputs)) for op in left]


def ends(model: Any) -> tuple[tuple[tuple[str, Tensor], ...], tuple[tuple[str, Tensor], ...]]:
    """Inputs and outputs of a ModelT, as `File` has them."""
    return _ends(model, [_tensor(tensor, model) for tensor in model.subgraphs[0].tensors])


def _ends(model: Any, tensors: list[Tensor]) -> tuple[tuple[tuple[str, Tensor], ...], tuple[tuple[str, Tensor], ...]]:
    first, signature = model.subgraphs[0], (model.signatureDefs or [None])[0]
    maps = (signature.inputs, signature.outputs) if signature else ([], [])
    return _named(maps[0], first.inputs, tensors), _named(maps[1], first.outputs, tensors)


def sign(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The same model with a signature that names its inputs and outputs, in the order they stand in.

    Also puts two things of TensorFlow 2.21's converter right: buffers are aligned as the format asks, and a
    per-tensor scale that was written once for each channel is written once.
    """
    schema = generated()
    model = parse(content)
    graph = model.subgraphs[0]
    ends = [_maps(schema, names, list(of)) for names, of in ((inputs, graph.inputs), (outputs, graph.outputs))]
    signature = schema.SignatureDefT(*ends, signatureKey=SIGNATURE_KEY.encode(), subgraphIndex=0)
    model.signatureDefs = [signature]
    for pair in (*ends[0], *ends[1]):
        graph.tensors[pair.tensorIndex].name = pair.name
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        _write_scale_once(tensor.quantization)
    return pack(model)


def with_unique_names(content: bytes) -> bytes:
    """The same model with a name of its own for every tensor of its first graph; its ends keep theirs."""
    model = parse(content)
    graph = model.subgraphs[0]
    ends = [*map(int, graph.inputs), *map(int, graph.outputs)]
    taken = {text(graph.tensors[index].name) for index in ends}
    changed = False
    for index, tensor in enumerate(graph.tensors):
        name = text(tensor.name)
        if index in ends:
            continue
        if not name or name in taken:
            tensor.name, changed = f"{name}#{index}".encode(), True
        taken.add(text(tensor.name))
    return pack(model) if changed else content


def is_signed(content: bytes) -> bool:
    """Whether the file names its inputs and outputs in a signature."""
    return bool(parse(content).signatureDefs)


def constant_indexes(content: bytes) -> set[int]:
    """Numbers of the tensors of the first graph that hold constants."""
    model = parse(content)
    stored = [buffer.data is not None and len(buffer.data) > 0 for buffer in model.buffers]
    return {number for number, tensor in enumerate(model.subgraphs[0].tensors) if stored[tensor.buffer]}


def canonical_hash(path: Path) -> str:
    """SHA-256 over operators with their options, tensors, quantization and ends: all that decides what a file computes.

    Free of names inside the graph, of the order of tensors and buffers, of padding and of metadata.
    """
    file = read(path)
    seen: dict[int, int] = {}
    digest = hashlib.sha256()
    for name, tensor in file.inputs:
        digest.update(f"{name}>{_describe(tensor, seen)}\n".encode())
    for operator in file.operators:
        ends = [_describe(t, seen) if t else "-" for t in (*operator.inputs, None, *operator.outputs)]
        digest.update(f"{operator.kind}{operator.options}{ends}\n".encode())
    for name, tensor in file.outputs:
        digest.update(f"{name}<{_describe(tensor, seen)}\n".encode())
    return digest.hexdigest()


def _describe(tensor: Tensor, seen: dict[int, int]) -> str:
    """A tensor without its name: its number in order of first use, type, shape, quantization, constant values."""
    first = id(tensor) not in seen
    number = seen.setdefault(id(tensor), len(seen))
    if not first:
        return f"#{number}"
    values = hashlib.sha256(tensor.data.tobytes()).hexdigest() if tensor.data is not None else ""
    scales = struct.pack(f"<{len(tensor.scales)}f", *tensor.scales).hex()
    return f"#{number}:{tensor.dtype}{tensor.shape}{scales}{tensor.zero_points}{tensor.axis}{values}"


# ---------------------------------------------------------------- schema objects


def generated() -> Any:
    """The generated classes of schema.fbs."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def parse(content: bytes) -> Any:
    """A file's ModelT, to be changed and packed again; constants that lie behind the flatbuffer are taken into it."""
    import numpy as np

    model = generated().ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # schema.fbs: 0 and 1 say that there is none
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack(model: Any) -> bytes:
    """The bytes of a ModelT, each operator's code also where older readers and OpenVINO look for it (schema.fbs)."""
    import flatbuffers  # type: ignore[import-untyped]

    for code in model.operatorCodes:  # ai-edge-quantizer leaves it 0 in those it adds, which is ADD
        code.deprecatedBuiltinCode = min(code.builtinCode, FURTHER_CODES)
    for buffer in model.buffers:
        buffer.__class__ = _aligned_buffer()
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@cache
def _aligned_buffer() -> type:
    """BufferT whose bytes start at a multiple of ALIGNMENT: the generated one leaves them where they fall."""
    schema = generated()

    class Aligned(schema.BufferT):  # type: ignore[misc, name-defined]
        def Pack(self, builder: Any) -> int:  # noqa: N802  (name of the generated method)
            data = None
            if self.data is not None and len(self.data):
                builder.StartVector(1, len(self.data), ALIGNMENT)
                builder.head -= len(self.data)
                builder.Bytes[builder.head : builder.head + len(self.data)] = bytes(self.data)
                data = builder.EndVector()
            schema.BufferStart(builder)
            if data is not None:
                schema.BufferAddData(builder, data)
            schema.BufferAddOffset(builder, self.offset)
            schema.BufferAddSize(builder, self.size)
            return int(schema.BufferEnd(builder))

    return Aligned


def _maps(schema: Any, names: Sequence[str], indexes: Sequence[int]) -> list[Any]:
    return [schema.TensorMapT(name.encode(), int(index)) for name, index in zip(names, indexes, strict=True)]


def _write_scale_once(quantization: Any) -> None:
    if quantization is None or quantization.scale is None or len(quantization.scale) < 2:
        return
    if len(quantization.zeroPoint) == 1 and len(set(map(float, quantization.scale))) == 1:
        quantization.scale = quantization.scale[:1]


def _tensor(tensor: Any, model: Any) -> Tensor:
    quantization = tensor.quantization
    scales, zeros = _list(quantization and quantization.scale), _list(quantization and quantization.zeroPoint)
    kind = types()[tensor.type]
    shape = tuple(int(n) for n in _list(tensor.shape))
    return Tensor(
        text(tensor.name),
        shape,
        kind.lower(),
        tuple(float(s) for s in scales),
        tuple(int(z) for z in zeros),
        int(quantization.quantizedDimension) if quantization else 0,
        constant(tensor, model),
        tensor.sparsity is not None,
    )


def constant(tensor: Any, model: Any) -> Array | None:
    """The values of a constant TensorT, dense however the file has them; None for anything computed."""
    import numpy as np

    stored, kind = model.buffers[tensor.buffer].data, types()[tensor.type]
    shape = tuple(int(n) for n in _list(tensor.shape))
    if stored is None or len(stored) == 0:
        return None
    raw = np.asarray(stored, dtype=np.uint8)
    if tensor.sparsity is not None and kind in STORED:
        return tflite_sparsity.unpacked(raw.view(STORED[kind]), shape, tensor.sparsity)
    if kind == "INT4":
        return _nibbles(raw)[: prod(shape)].reshape(shape)
    return raw.view(STORED[kind]).reshape(shape) if kind in STORED else raw


def _nibbles(raw: Array) -> Array:
    """4-bit integers with sign as int8: two a byte, the lower half first (schema.fbs, TensorType.INT4)."""
    import numpy as np

    pairs = np.stack([raw << 4, raw & 0xF0], axis=-1).astype(np.uint8).view(np.int8)
    values: Array = pairs.ravel() >> 4
    return values


def kinds(model: Any) -> list[str]:
    """Of each operator code of a ModelT, the name that `Operator.kind` has."""
    found = []
    for code in model.operatorCodes:
        # files up to 2020 keep the number in the 8-bit field
        kind = _enum("BuiltinOperator")[max(code.builtinCode, code.deprecatedBuiltinCode)]
        found.append(f"CUSTOM:{text(code.customCode)}" if kind == "CUSTOM" else kind)
    return found


def types() -> dict[int, str]:
    """Names of the numbers that a TensorT has as its type."""
    return _enum("TensorType")


def _operator(operator: Any, kind: str, tensors: list[Tensor]) -> Operator:
    return Operator(
        kind,
        tuple(tensors[i] if i >= 0 else None for i in _list(operator.inputs)),
        tuple(tensors[i] for i in _list(operator.outputs)),
        tuple(_options(operator.builtinOptions)) + tuple(_options(operator.builtinOptions2)),
    )


def _options(options: Any) -> Iterator[tuple[str, str]]:
    for key, value in sorted(vars(options).items()) if options is not None else ():
        yield key, str(_list(value) if hasattr(value, "__len__") and not isinstance(value, bytes) else value)


def _named(maps: Any, indexes: Any, tensors: list[Tensor]) -> tuple[tuple[str, Tensor], ...]:
    """(name, tensor) in the graph's order; two names of one tensor stay in the signature's order."""
    left = [(text(pair.name), int(pair.tensorIndex)) for pair in maps]
    named = []
    for index in indexes:
        pair = next((pair for pair in left if pair[1] == index), (tensors[index].name, int(index)))
        if pair in left:
            left.remove(pair)
        named.append((pair[0], tensors[index]))
    return tuple(named)


@cache
def _enum(name: str) -> dict[int, str]:
    return {value: key for key, value in vars(getattr(generated(), name)).items() if isinstance(value, int)}


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)


def text(value: bytes | str | None) -> str:
    """A name of a ModelT, which is bytes where it was read and may be text where it was set."""
    return value.decode() if isinstance(value, bytes) else value or ""
