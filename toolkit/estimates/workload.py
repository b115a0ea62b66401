"""What a file asks of a processor, layer by layer: operations, bytes moved, and the arithmetic they are done in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, TypeVar

from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import tflite_file, tflite_scan
from toolkit.exporters.tflite_operators import EDGES
from toolkit.hardware import Arithmetic
from toolkit.sources import opening

T = TypeVar("T")
Kind = Literal["convolution", "depthwise", "dense", "other"]
KINDS: tuple[Kind, ...] = ("convolution", "depthwise", "dense", "other")
ESTIMATED = ("float32", "float16", "int8")  # schemes whose arithmetic the file itself settles
TFLITE_KINDS: dict[str, Kind] = {
    "CONV_2D": "convolution",
    "TRANSPOSE_CONV": "convolution",
    "CONV_3D": "convolution",
    "DEPTHWISE_CONV_2D": "depthwise",
    "FULLY_CONNECTED": "dense",
}
# change how values are addressed, not where they lie; an edge beside a constant is worked out once, when the file loads
FREE = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SHAPE"})
BYTES = {"float32": 4, "float16": 2, "int8": 1, "uint8": 1, "int16": 2, "int32": 4, "int64": 8, "bool": 1}


@dataclass(frozen=True)
class Layer:
    """One operator. operations: MACs of weighted ones, else values read or written, whichever are more.

    bytes: read and written, weights included.
    """

    name: str
    operator: str
    kind: Kind
    arithmetic: Arithmetic
    operations: int
    bytes: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates, 0 for what has no weights."""
        return 0 if self.kind == "other" else self.operations


def read(path: Path) -> tuple[Layer, ...]:
    """The layers of a .tflite or .onnx file that computes one image.

    Raises UnsupportedError for a scheme whose arithmetic the runtime chooses, and for shapes that are not fixed.
    """
    checked(path)
    if path.suffix.lower() == ".onnx":
        from toolkit.estimates.onnx_workload import read_onnx

        return readable(path, read_onnx)
    return readable(path, _tflite)


def checked(path: Path) -> None:
    """Raise InputError for what is no file of these formats."""
    suffix = path.suffix.lower()
    if suffix not in (".tflite", ".onnx"):
        raise InputError(str(path), "is neither a .tflite nor an .onnx file", "export the model first")
    opening.check_kind(path, f"a{'n' * (suffix == '.onnx')} {suffix} file")


def readable(path: Path, reader: Callable[[Path], T]) -> T:
    """What a reader makes of a file; InputError for content that is not of its format."""
    try:
        return reader(path)
    except InputError:
        raise
    except Exception as error:  # whatever a parser makes of bytes that are not its format
        what = f"{type(error).__module__}.{type(error).__name__}".removeprefix("builtins.")
        raise InputError(str(path), f"is not a readable {path.suffix} file ({what})") from error


def check_scheme(where: str, scheme: str) -> None:
    """Raise UnsupportedError for a scheme that no estimate is made of."""
    if scheme not in ESTIMATED:
        problem = f"is {scheme}: what its layers are computed in depends on the runtime, so no estimate is made"
        raise UnsupportedError(where, problem, f"measure it, or estimate a file that is {', '.join(ESTIMATED)}")


def _tflite(path: Path) -> tuple[Layer, ...]:
    file = tflite_file.read(path)
    check_scheme(str(path), tflite_scan.scheme_of(file))
    return tuple(layer for _, layer in placed(str(path), file))


def placed(where: str, file: tflite_file.File) -> Iterator[tuple[int, Layer]]:
    """(place in the file's operators, layer) of each that computes, whatever the scheme."""
    stored = {id(op.outputs[0]) for op in file.operators if op.kind == "DEQUANTIZE" and _constant(op.inputs[0])}
    weights = {id(operator): tensor for operator, tensor, _ in tflite_scan.weights(file)}
    for place, operator in enumerate(file.operators):
        output = operator.outputs[0]
        if operator.kind in FREE or (operator.kind in EDGES and id(output) in stored):
            continue
        moved = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor is not None]
        for tensor in moved:
            fixed(where, tensor.name, tensor.shape)
        weight = weights.get(id(operator))
        kind = TFLITE_KINDS.get(operator.kind, "other") if weight is not None else "other"
        if weight is None or kind == "other":
            operations = max(prod(tensor.shape) for tensor in moved)
        else:  # a transposed convolution applies its kernel at each input position
            where_at = operator.inputs[2] if operator.kind == "TRANSPOSE_CONV" else output
            operations = prod((where_at or output).shape[:-1]) * prod(weight.shape)
        arithmetic: Arithmetic = "int8" if output.dtype in ("int8", "uint8") else "float32"
        total = sum(prod(tensor.shape) * BYTES.get(tensor.dtype, 4) for tensor in moved)
        yield place, Layer(output.name, operator.kind, kind, arithmetic, operations, total)


def _constant(tensor: tflite_file.Tensor | None) -> bool:
    return tensor is not None and tensor.data is not None


def fixed(where: str, name: str, shape: tuple[int | None, ...]) -> None:
    """Raise UnsupportedError for a shape that is known only once the file runs."""
    if any(size is None or size < 0 for size in shape):
        raise UnsupportedError(where, f"tensor {name!r} has a free size, so its work is not known", "fix the shapes")
