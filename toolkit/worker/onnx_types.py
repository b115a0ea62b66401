"""Whether an .onnx file holds float16 and int8, without the onnx package: its protobuf fields are walked as they lie.

Field numbers: onnx.proto of ONNX. Numbers and names of anything else are skipped unread.
"""

from __future__ import annotations

import mmap
from typing import Any, Iterator, Set, Tuple

FLOAT16 = 10  # TensorProto.DataType
QUANTIZING = (b"QuantizeLinear", b"DequantizeLinear")
GRAPH, NODE, INITIALIZER, INPUT = 7, 1, 5, 11  # ModelProto.graph; GraphProto's own
OP_TYPE, ATTRIBUTE = 4, 5  # NodeProto
ATTRIBUTE_NUMBER, ATTRIBUTE_TENSOR = 3, 5  # AttributeProto.i (of a Cast: `to`), .t (of a Constant)
DATA_TYPE = 2  # TensorProto
NOTHING = (0, 0)  # the span of a message that is not there
VALUE_TYPE, TENSOR_TYPE, ELEM_TYPE = 2, 1, 1  # ValueInfoProto.type, TypeProto.tensor_type, Tensor.elem_type


def held(path: str) -> Set[str]:
    """{"int8"} for a file with Q/DQ, {"float16"} for one with half precision, both or neither.

    ValueError for what is no ONNX file.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            span = _message(view, 0, len(view), GRAPH)
            found = set(_graph(view, *span))
        except IndexError:
            span = NOTHING
        if span == NOTHING:
            raise ValueError("no ONNX file")
        return found


def _graph(view: Any, start: int, end: int) -> Iterator[str]:
    for field, value in _fields(view, start, end):
        if field == NODE:
            for name in _node(view, *value):
                yield name
        else:
            kind = _number(view, value, DATA_TYPE) if field == INITIALIZER else None
            if (_input_type(view, *value) if field == INPUT else kind) == FLOAT16:
                yield "float16"


def _node(view: Any, start: int, end: int) -> Iterator[str]:
    kind = b""
    for field, value in _fields(view, start, end):
        if field == OP_TYPE:
            kind = view[value[0] : value[1]]
            if kind in QUANTIZING:
                yield "int8"
    if kind not in (b"Cast", b"Constant"):  # the only ones whose attribute is a type, or a tensor
        return
    for field, value in _fields(view, start, end):
        if field != ATTRIBUTE:
            continue
        inner = dict(_fields(view, *value))
        constant = inner.get(ATTRIBUTE_TENSOR)
        written = _number(view, constant, DATA_TYPE) if constant else inner.get(ATTRIBUTE_NUMBER)
        if written == FLOAT16:
            yield "float16"


def _input_type(view: Any, start: int, end: int) -> Any:
    return _number(view, _message(view, *_message(view, start, end, VALUE_TYPE), TENSOR_TYPE), ELEM_TYPE)


def _number(view: Any, span: Tuple[int, int], wanted: int) -> Any:
    return next((value for field, value in _fields(view, *span) if field == wanted), None)


def _message(view: Any, start: int, end: int, wanted: int) -> Tuple[int, int]:
    return next((value for field, value in _fields(view, start, end) if field == wanted), NOTHING)


def _fields(view: Any, start: int, end: int) -> Iterator[Tuple[int, Any]]:
    """(field number, value): a number, or where a nested message begins and ends."""
    place = start
    while place < end:
        key, place = _varint(view, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(view, place)
            yield key >> 3, value
        elif wire == 2:
            length, place = _varint(view, place)
            if place + length > end:
                raise IndexError("a field that is longer than its message")
            yield key >> 3, (place, place + length)
            place += length
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        else:
            raise IndexError("no protobuf")


def _varint(view: Any, place: int) -> Tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = view[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise IndexError("no protobuf")
