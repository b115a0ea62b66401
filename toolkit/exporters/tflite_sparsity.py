"""Sparse tensors as a .tflite file stores them: values that are not zero, and where they belong.

Format: SparsityParameters of LiteRT's schema.fbs, after the tensor algebra compiler (Kjolstad et al. 2017, TACO): a
tensor's axes in an order of traversal, each dense, or compressed as the rows of a CSR matrix are; a block is a dense
axis more, behind the others. Written here is the one form that OpenVINO reads too: all axes in their own order, the
last one compressed; read are all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.core import Array

DENSE, COMPRESSED = 0, 1  # schema.fbs, DimensionType
# schema.fbs, SparseIndexVector: type of the union, largest number, class
INDEXES = ((3, 2**8 - 1, "Uint8Vector"), (2, 2**16 - 1, "Uint16Vector"), (1, 2**31 - 1, "Int32Vector"))
WIDTHS = {"Uint8Vector": 1, "Uint16Vector": 2, "Int32Vector": 4}
TABLES = 160  # bytes: flatbuffer tables of the parameters, of the tensor and of the operator that unpacks it


@dataclass(frozen=True)
class Packed:
    """values: those of an array that are not zero, in order; indexes: where on the last axis each belongs.

    segments: where each row of the last axis begins in these two, and where the last one ends.
    """

    shape: tuple[int, ...]
    values: Array
    segments: Array
    indexes: Array

    @property
    def size_bytes(self) -> int:
        """What the file stores of it."""
        numbers = (self.segments, self.indexes)
        return int(self.values.nbytes) + sum(WIDTHS[_kind(array)[2]] * len(array) for array in numbers) + TABLES


def packed(array: Array) -> Packed:
    """An array with its last axis compressed; of zeros alone the first one is kept."""
    import numpy as np

    rows = array.reshape(-1, array.shape[-1])
    kept = rows != 0
    kept[0, 0] |= not kept.any()  # a buffer without bytes would be no constant
    segments = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    return Packed(array.shape, rows[kept], segments, np.nonzero(kept)[1])


def parameters(form: Packed, schema: Any) -> Any:
    """The SparsityParametersT of a packed array."""
    dimensions = [schema.DimensionMetadataT(format=DENSE, denseSize=length) for length in form.shape[:-1]]
    last = schema.DimensionMetadataT(format=COMPRESSED)
    last.arraySegmentsType, last.arraySegments = _vector(form.segments, schema)
    last.arrayIndicesType, last.arrayIndices = _vector(form.indexes, schema)
    return schema.SparsityParametersT(traversalOrder=list(range(len(form.shape))), dimMetadata=[*dimensions, last])


def unpacked(values: Array, shape: Sequence[int], sparsity: Any) -> Array:
    """The dense array of stored values and the SparsityParametersT of any file: any axes dense or compressed."""
    import numpy as np

    order, rank = [int(axis) for axis in sparsity.traversalOrder], len(shape)
    blocks = [] if sparsity.blockMap is None else [int(axis) for axis in sparsity.blockMap]
    levels = dict(zip(order, _indexes(sparsity.dimMetadata), strict=True))
    for number, axis in enumerate(blocks):
        size = int(sparsity.dimMetadata[order.index(rank + number)].denseSize)
        levels[axis] = levels[axis] * size + levels[rank + number]
    found = np.zeros(tuple(shape), values.dtype)
    found[tuple(levels[axis] for axis in range(rank))] = values[: len(levels[0])]
    return found


def _indexes(levels: Sequence[Any]) -> list[Array]:
    """At each level the index of every stored value, in the order of storage."""
    import numpy as np

    places = np.zeros(1, np.int64)  # of each entry so far, among those of its level
    found: list[Array] = []
    for level in levels:
        if level.format == DENSE:
            counts = np.full(len(places), int(level.denseSize))
            inside = np.tile(np.arange(int(level.denseSize)), len(places))
            after = np.repeat(places, counts) * int(level.denseSize) + inside
        else:
            segments = np.asarray(level.arraySegments.values, np.int64)
            if segments[0] or segments[-1] != len(level.arrayIndices.values) or (np.diff(segments) < 0).any():
                raise ValueError("index vectors of a sparse tensor contradict each other")
            counts = segments[places + 1] - segments[places]
            starts = np.repeat(segments[places] - np.cumsum(counts) + counts, counts)
            after = starts + np.arange(int(counts.sum()))
            inside = np.asarray(level.arrayIndices.values, np.int64)[after]
        found = [*(np.repeat(index, counts) for index in found), inside]
        places = after
    return found


def _vector(array: Array, schema: Any) -> tuple[int, Any]:
    code, _, name = _kind(array)
    return code, getattr(schema, f"{name}T")(values=array.astype({1: "u1", 2: "<u2", 4: "<i4"}[WIDTHS[name]]))


def _kind(array: Array) -> tuple[int, int, str]:
    """The smallest kind of index vector that holds an array's numbers."""
    largest = int(array.max()) if len(array) else 0
    return next(kind for kind in INDEXES if largest <= kind[1])
