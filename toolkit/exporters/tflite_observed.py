"""What the tensors of a float .tflite file hold for single images, to find them again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from toolkit.errors import UnsupportedError
from toolkit.exporters.observed import keeping
from toolkit.exporters.tflite_file import File, Tensor

if TYPE_CHECKING:
    from toolkit.core import Array


def computed(file: File) -> dict[str, Tensor]:
    """The float32 tensors of a file that are no constants, inputs first; raises where names do not tell them apart."""
    tensors = [tensor for _, tensor in file.inputs]
    tensors += [tensor for operator in file.operators for tensor in operator.outputs]
    found: dict[str, Tensor] = {}
    for tensor in tensors:
        if found.setdefault(tensor.name, tensor) is not tensor:
            raise UnsupportedError("tflite", f"two tensors of the file are called {tensor.name!r}", "convert it anew")
    return {name: tensor for name, tensor in found.items() if tensor.dtype == "float32" and tensor.data is None}


def values(content: bytes, examples: Iterable[Mapping[str, Array]], names: Collection[str]) -> dict[str, Array]:
    """These tensors' values for each example, one after the other along the first axis."""
    import numpy as np

    from toolkit.engine.foreign import tflite_ends

    interpreter = keeping(content)
    inputs = {name: detail["index"] for name, detail in tflite_ends(interpreter)[0].items()}
    indexes = {str(item["name"]): int(item["index"]) for item in interpreter.get_tensor_details() if item["name"]}
    found: dict[str, list[Array]] = {name: [] for name in names}
    for example in examples:
        for name, array in example.items():
            interpreter.set_tensor(inputs[name], array)
        interpreter.invoke()
        for name, rows in found.items():
            rows.append(np.atleast_1d(interpreter.get_tensor(indexes[name])))
    return {name: np.concatenate(rows) for name, rows in found.items()}
