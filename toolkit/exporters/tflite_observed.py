"""What the tensors of a float .tflite file hold: on a few images, to find them again, and over a split, for ranges."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from toolkit.errors import UnsupportedError
from toolkit.exporters.tflite_file import File, Tensor

if TYPE_CHECKING:
    from toolkit.core import Array

Bounds = tuple[float, float]


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

    rows = list(_runs(content, examples, names))
    return {name: np.concatenate([np.atleast_1d(row[name]) for row in rows]) for name in names}


def ranges(content: bytes, examples: Iterable[Mapping[str, Array]], names: Collection[str]) -> dict[str, Bounds]:
    """Least and greatest value of these tensors over all examples."""
    found = dict.fromkeys(names, (float("inf"), float("-inf")))
    for row in _runs(content, examples, names):
        for name, array in row.items():
            low, high = found[name]
            found[name] = min(low, float(array.min())), max(high, float(array.max()))
    return found


def _runs(
    content: bytes, examples: Iterable[Mapping[str, Array]], names: Collection[str]
) -> Iterator[dict[str, Array]]:
    from toolkit.engine.foreign import tflite_ends

    interpreter = _interpreter(content)
    inputs = {name: detail["index"] for name, detail in tflite_ends(interpreter)[0].items()}
    indexes = {str(item["name"]): int(item["index"]) for item in interpreter.get_tensor_details() if item["name"]}
    for example in examples:
        for name, array in example.items():
            interpreter.set_tensor(inputs[name], array)
        interpreter.invoke()
        yield {name: interpreter.get_tensor(indexes[name]) for name in names}


def _interpreter(content: bytes) -> Any:
    """An interpreter that keeps what every operator computes."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that tensors are kept, which is what is wanted
        interpreter = Interpreter(
            model_content=content,
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    interpreter.allocate_tensors()
    return interpreter
