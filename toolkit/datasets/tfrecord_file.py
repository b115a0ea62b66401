"""TFRecord files and the `tf.train.Example` in each record, read without TensorFlow.

A record is its length (uint64), the length's checksum, the data and its checksum; checksums are CRC-32C, rotated and
shifted (TensorFlow, `core/lib/io/record_writer.h` and `core/lib/hash/crc32c.h`; CRC-32C: RFC 3720, appendix B.4). An
Example maps names to lists of bytes, floats or integers (`core/example/feature.proto`), in protobuf's wire format.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.core import Array

Span = tuple[int, int]  # first byte, one past the last
_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
_ROW = 256  # bytes whose checksums are computed side by side, one row a lane
_BLOCK_BYTES = 16 * 2**20  # of records checked together
_HEAD, _FOOT = 12, 4  # bytes before and behind the data


def open_map(path: Path) -> mmap.mmap:
    """The file's bytes, not read until used."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError(str(path), f"cannot be read: {error}") from error


def record_spans(data: mmap.mmap, where: str) -> list[Span]:
    """Where each record's data stands. A wrong length makes all that follows unreadable, so it is an error."""
    spans: list[Span] = []
    at, size = 0, len(data)
    while at < size:
        head = data[at : at + _HEAD]
        start = at + _HEAD
        length = int.from_bytes(head[:8], "little")
        if len(head) < _HEAD or _masked(_crc(head[:8])) != int.from_bytes(head[8:], "little"):
            problem = f"record {len(spans)} at byte {at} has no valid length"
            raise InputError(where, problem, "give whole, uncompressed TFRecord files")
        if start + length + _FOOT > size:
            raise InputError(where, f"ends within record {len(spans)}", "get the file again: it is cut off")
        spans.append((start, start + length))
        at = start + length + _FOOT
    return spans


def damaged(data: mmap.mmap, spans: Sequence[Span]) -> list[int]:
    """Records whose data does not match its checksum."""
    found, block, size = [], [], 0
    for place, (start, end) in enumerate(spans):
        block.append(place)
        size += end - start
        if size >= _BLOCK_BYTES or place == len(spans) - 1:
            contents = [data[spans[i][0] : spans[i][1]] for i in block]
            stored = [int.from_bytes(data[spans[i][1] : spans[i][1] + _FOOT], "little") for i in block]
            computed = [_masked(int(crc)) for crc in crc32c(contents)]
            found += [i for i, one, other in zip(block, stored, computed, strict=True) if one != other]
            block, size = [], 0
    return found


# ---------------------------------------------------------------- checksums


def crc32c(contents: Sequence[bytes]) -> Array:
    """CRC-32C of each content: rows of 256 bytes side by side, then each content's rows one after another.

    The register is linear over GF(2): the checksum of a content is that of its first rows, advanced by the length of
    the rest, XOR that of the rest. Zeros in front change nothing while the register is 0, so that contents are padded
    in front and the register's start value is XORed into the first four bytes.
    """
    import numpy as np

    rows = [max(1, -(-len(content) // _ROW)) for content in contents]
    firsts = np.cumsum([0, *rows[:-1]])
    padded = np.zeros((sum(rows), _ROW), np.uint8)
    flat = padded.reshape(-1)
    for content, first, count in zip(contents, firsts, rows, strict=True):
        end = (int(first) + count) * _ROW
        flat[end - len(content) : end] = np.frombuffer(content, np.uint8)
        flat[end - len(content) : end - max(0, len(content) - 4)] ^= 0xFF
    table, jump = _tables()
    lanes = np.zeros(len(padded), np.uint32)
    for at in range(_ROW):
        lanes = table[(lanes ^ padded[:, at]) & 0xFF] ^ (lanes >> 8)
    register = lanes[firsts]
    for step in range(1, max(rows)):
        going = np.flatnonzero(np.array(rows) > step)
        register[going] = _advanced(register[going], jump) ^ lanes[firsts[going] + step]
    short = np.array([len(content) < 4 for content in contents])
    found: Array = register ^ np.uint32(0xFFFFFFFF)
    for place in np.flatnonzero(short).tolist():
        found[place] = _crc(contents[place])
    return found


def _advanced(register: Array, jump: Array) -> Array:
    """The register after a row of zeros."""
    low: Array = jump[0][register & 0xFF] ^ jump[1][(register >> 8) & 0xFF]
    high: Array = jump[2][(register >> 16) & 0xFF] ^ jump[3][register >> 24]
    advanced: Array = low ^ high
    return advanced


@cache
def _tables() -> tuple[Array, Array]:
    """(table of one byte's step; tables that advance each of the register's four bytes by a row of zeros)."""
    import numpy as np

    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    jump = np.stack([np.arange(256, dtype=np.uint32) << np.uint32(8 * byte) for byte in range(4)])
    for _ in range(_ROW):
        jump = table[jump & 0xFF] ^ (jump >> 8)
    return table, jump


@cache
def _table() -> tuple[int, ...]:
    return tuple(_tables()[0].tolist())


def _crc(content: bytes) -> int:
    """The same for a few bytes."""
    table, register = _table(), 0xFFFFFFFF
    for byte in content:
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# ---------------------------------------------------------------- tf.train.Example


def features(data: mmap.mmap | bytes, span: Span) -> dict[str, tuple[int, Span]]:
    """Name of each feature -> (1 bytes, 2 floats, 3 integers; where its list stands). Raises ValueError."""
    found: dict[str, tuple[int, Span]] = {}
    for field, inner in _fields(data, span):
        entries = _fields(data, inner) if field == 1 else ()
        for _, entry in entries:
            parts = dict(_fields(data, entry))
            kinds = list(_fields(data, parts[2])) if 2 in parts else []
            if 1 in parts and kinds:
                found[bytes(data[slice(*parts[1])]).decode()] = kinds[-1]
    return found


def bytes_list(data: mmap.mmap | bytes, span: Span) -> list[Span]:
    """Where each entry of a list of bytes stands."""
    return [inner for field, inner in _fields(data, span) if field == 1]


def float_list(data: mmap.mmap | bytes, span: Span) -> list[float]:
    """The numbers of a list of floats."""
    content = b"".join(bytes(data[slice(*inner)]) for _, inner in _fields(data, span))
    return list(struct.unpack(f"<{len(content) // 4}f", content))


def int64_list(data: mmap.mmap | bytes, span: Span) -> list[int]:
    """The numbers of a list of integers, packed or one by one."""
    found, at, end = [], *span
    while at < end:
        tag, at = _varint(data, at)
        stop = at
        if tag & 7 == 2:
            length, at = _varint(data, at)
            stop = at + length
        while True:
            if at < stop or tag & 7 == 0:
                number, at = _varint(data, at)
                found.append(number - (1 << 64) if number >> 63 else number)
            if at >= stop:
                break
    return found


def _fields(data: mmap.mmap | bytes, span: Span) -> Iterator[tuple[int, Span]]:
    """(field number, where its value stands) of one message."""
    at, end = span
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        elif kind == 0:
            length = _varint(data, at)[1] - at
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > end:
            raise ValueError("a field that ends behind its message")
        yield tag >> 3, (at, at + length)
        at += length


def _varint(data: mmap.mmap | bytes, at: int) -> tuple[int, int]:
    """(the number, the place behind it)."""
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number without an end")
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
