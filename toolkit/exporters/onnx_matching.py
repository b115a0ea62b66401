"""Which tensors of an .onnx file are outputs of which layers, told by their values: names do not survive fusion.

Both are run on two images. Tensors of equal values have equal ranges, so that it does not matter which of several equal
ones is found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.exporters.onnx_file import File
from toolkit.exporters.onnx_session import outputs_of

if TYPE_CHECKING:
    from toolkit.core import Array

CLOSE = 1e-4  # of a tensor's largest value: float32 sums in another order agree far better, an 8-bit step is 4e-3
Outputs = Mapping[str, "Array"]


def match(file: File, layers: Sequence[Outputs], examples: Sequence[Outputs]) -> dict[str, tuple[str, ...]]:
    """Tensor of the file -> names of the layers' outputs that hold the same values, the nearest first.

    layers: for each example, what every layer gives (batch first, channels last). examples: the file's inputs.
    """
    names = floats(file)
    seen = [outputs_of(file.proto, names, example) for example in examples]
    by_size: dict[int, list[str]] = defaultdict(list)
    for name, values in layers[0].items():
        by_size[values.size].append(name)
    found = {}
    for name in names:
        near = sorted(
            (error, key)
            for key in by_size[seen[0][name].size]
            if (error := max(_error(own[name], other[key]) for own, other in zip(seen, layers, strict=True))) <= CLOSE
        )
        if near:
            found[name] = tuple(key for _, key in near)
    return found


def layer_outputs(graph: Any, examples: Sequence[Sequence[Array]]) -> list[dict[str, Array]]:
    """What each layer of a flat Keras graph gives on each example, by its name as Statistics has it."""
    import keras
    import numpy as np

    from toolkit.engine.calibrate import float_tensors

    tensors = float_tensors(graph)
    whole = keras.Model(list(graph.inputs), list(tensors.values()))
    return [
        dict(zip(tensors, (np.asarray(value) for value in whole(list(images), training=False)), strict=True))
        for images in examples
    ]


def floats(file: File) -> list[str]:
    """Names of the computed tensors and inputs that hold real numbers, in the file's order."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(file.proto).graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    made = [spec.name for spec in file.inputs]
    made += [name for node in file.nodes if node.op_type != "Constant" for name in node.output if name]
    return [name for name in dict.fromkeys(made) if kinds.get(name) == onnx.TensorProto.FLOAT]


def _error(values: Array, layer: Array) -> float:
    """Largest difference in units of the largest value, in whichever layout fits best; infinite where none does."""
    import numpy as np

    largest = float(np.abs(layer).max(initial=0.0)) or 1.0
    errors = [float(np.abs(values - form).max(initial=0.0)) / largest for form in _forms(layer, values.shape)]
    return min(errors, default=float("inf"))


def _forms(layer: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """The layer's output as the file may lay it out; axes of length 1 come and go."""
    import numpy as np

    for form in (layer, np.moveaxis(layer, -1, 1) if layer.ndim > 2 else layer):
        if [length for length in form.shape if length != 1] == [length for length in shape if length != 1]:
            yield form.reshape(shape)
