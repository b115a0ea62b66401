"""The weights of a delivered file, as it stores them: the kernels of convolutions and dense layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.exporters import onnx_file, onnx_scan, tflite_file, tflite_scan

if TYPE_CHECKING:
    from toolkit.core import Array


@dataclass(frozen=True)
class Weight:
    """values: integers or floats; axis: of its output channels; bits: that one of them takes."""

    values: Array
    axis: int
    bits: int

    @property
    def channels(self) -> Array:
        """A row for each output channel."""
        import numpy as np

        return np.moveaxis(self.values, self.axis, 0).reshape(self.values.shape[self.axis], -1)


def weights_of(path: Path) -> list[Weight]:
    """Of a .tflite or .onnx file, each once."""
    return _of_tflite(path) if path.suffix == ".tflite" else _of_onnx(path)


def _of_tflite(path: Path) -> list[Weight]:
    found = {}
    for _, tensor, axis in tflite_scan.weights(tflite_file.read(path)):
        if tensor.data is not None and tensor.data.size:
            bits = 4 if tensor.dtype == "int4" else 8 * tensor.data.itemsize
            found[tensor.name] = Weight(tensor.data, axis, bits)
    return list(found.values())


def _of_onnx(path: Path) -> list[Weight]:
    file = onnx_file.read(path)
    made = {name: node for node in file.nodes for name in node.output}
    found = {}
    for node in file.nodes:
        if node.op_type in onnx_scan.WEIGHTED and (array := constant(file, made, node.input[1])) is not None:
            found[node.input[1]] = Weight(array, onnx_scan.weight_axis(node), 8 * array.itemsize)
    return [weight for weight in found.values() if weight.values.size and weight.values.ndim > 1]


def constant(file: onnx_file.File, made: dict[str, Any], name: str) -> Array | None:
    """A constant, through the Q/DQ pairs and casts before it."""
    while (node := made.get(name)) is not None and node.op_type in (*onnx_scan.QUANTIZERS, "Cast"):
        name = node.input[0]
    return file.values(name)
