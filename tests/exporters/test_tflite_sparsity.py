"""Packed arrays: hand-worked ones, and LiteRT's own converter of formats as the other opinion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import format_converter_wrapper_pybind11 as litert
from ai_edge_litert import schema_py_generated as schema

from toolkit.exporters.tflite_sparsity import packed, parameters, unpacked

Kind = litert.TfLiteDimensionType
MATRIX = np.array([[0, 7, 0, 5], [0, 0, 0, 0], [3, 0, 0, -1]], np.float32)


def by_litert(
    array: Any, order: list[int], sparse: list[int], blocks: list[int], of: list[int]
) -> tuple[Any, list[Any]]:
    """(values, metadata: two lists a level) as LiteRT stores an array; sparse: axes that are compressed."""
    formats = [Kind.TF_LITE_DIM_SPARSE_CSR if i in sparse else Kind.TF_LITE_DIM_DENSE for i in range(array.ndim)]
    converter = litert.FormatConverterFp32(list(array.shape), order, formats, blocks, of)
    converter.DenseToSparse(np.ascontiguousarray(array).ravel())
    return np.array(converter.GetData(), np.float32), list(converter.GetDimMetadata())


def as_parameters(order: list[int], metadata: list[Any], sparse: list[int], of: list[int]) -> Any:
    levels = []
    for place, axis in enumerate(order):
        first, second = metadata[2 * place], metadata[2 * place + 1]
        if axis not in sparse:
            levels.append(schema.DimensionMetadataT(format=0, denseSize=first[0]))
            continue
        vectors = [schema.Int32VectorT(values=np.array(list(each), "<i4")) for each in (first, second)]
        levels.append(schema.DimensionMetadataT(format=1, arraySegments=vectors[0], arrayIndices=vectors[1]))
    return schema.SparsityParametersT(traversalOrder=order, blockMap=of or None, dimMetadata=levels)


def test_matrix_is_packed_row_by_row() -> None:
    form = packed(MATRIX)
    assert form.values.tolist() == [7, 5, 3, -1]
    assert form.segments.tolist() == [0, 2, 2, 4]
    assert form.indexes.tolist() == [1, 3, 0, 3]
    assert form.size_bytes == 4 * 4 + 4 + 4 + 160


def test_array_of_zeros_keeps_one_value_and_comes_back() -> None:
    form = packed(np.zeros((2, 3), np.int8))
    assert (form.values.tolist(), form.segments.tolist()) == ([0], [0, 1, 1])
    assert not unpacked(form.values, form.shape, parameters(form, schema)).any()


@pytest.mark.parametrize(
    ("rows", "inputs", "kinds"), [(2, 200, (3, 3)), (9, 300, (2, 2)), (99, 8, (2, 3)), (6, 70_000, (1, 1))]
)
def test_index_vectors_are_as_narrow_as_their_numbers_allow(rows: int, inputs: int, kinds: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(rows, inputs)).astype(np.float32)
    array[rng.uniform(size=array.shape) < 0.5] = 0
    last = parameters(packed(array), schema).dimMetadata[-1]
    assert (last.arraySegmentsType, last.arrayIndicesType) == kinds
    limits = {3: 2**8, 2: 2**16, 1: 2**31}
    for kind, vector in ((kinds[0], last.arraySegments), (kinds[1], last.arrayIndices)):
        assert vector.values.max() < limits[kind]
        assert kind == 3 or vector.values.max() >= limits[kind + 1]


@pytest.mark.parametrize("seed", range(8))
def test_packed_form_is_what_litert_makes_of_the_array(seed: int) -> None:
    rng = np.random.default_rng(seed)
    array = rng.normal(size=rng.integers(1, 9, size=rng.integers(2, 5))).astype(np.float32)
    array[rng.uniform(size=array.shape) < rng.uniform(0.2, 0.9)] = 0
    array.flat[0] = 1.0
    form, last = packed(array), array.ndim - 1
    values, metadata = by_litert(array, list(range(array.ndim)), [last], [], [])
    assert form.values.tolist() == values.tolist()
    assert form.segments.tolist() == list(metadata[2 * last])
    assert form.indexes.tolist() == list(metadata[2 * last + 1])
    np.testing.assert_array_equal(unpacked(form.values, array.shape, parameters(form, schema)), array)


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_axes_and_blocks_as_litert_packs_them_is_read(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = [4, 2, 8, 12][: rng.integers(2, 5)]
    array = rng.normal(size=shape).astype(np.float32)
    array[rng.uniform(size=shape) < 0.8] = 0
    order = [int(axis) for axis in rng.permutation(len(shape))]
    sparse = [int(axis) for axis in np.flatnonzero(rng.uniform(size=len(shape)) < 0.6)]
    of = sorted(int(axis) for axis in np.flatnonzero(rng.uniform(size=len(shape)) < 0.5))
    whole = order + [len(shape) + number for number in range(len(of))]
    values, metadata = by_litert(array, whole, sparse, [2] * len(of), of)
    found = unpacked(values, shape, as_parameters(whole, metadata, sparse, of))
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "change",
    [
        lambda last: setattr(last.arraySegments, "values", np.full(5, 3)),
        lambda last: setattr(last.arraySegments, "values", np.array([0, 9, 2, 3, 4])),
        lambda last: setattr(last.arrayIndices, "values", last.arrayIndices.values[:-1]),
    ],
)
def test_damaged_index_vectors_are_no_array_of_zeros(change: Any) -> None:
    form = packed(np.diag(np.arange(1.0, 5.0, dtype=np.float32)))
    sparsity = parameters(form, schema)
    change(sparsity.dimMetadata[-1])
    with pytest.raises(ValueError, match="contradict each other"):
        unpacked(form.values, form.shape, sparsity)
