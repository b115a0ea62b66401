"""Which tensors of a converted file are which layers' outputs: found by what they hold on a few images.

Names do not tell after a converter has fused operators. Tensors of equal values have equal ranges, so it does not
matter which of several layers with the same output is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.core import Array

# of the largest value: far above what float32 kernels differ by (1e-6 a layer), far below an 8-bit step (4e-3)
TOLERANCE = 2e-4


def match(tensors: Mapping[str, Array], layers: Mapping[str, Array]) -> dict[str, tuple[str, ...]]:
    """For each tensor the layers' outputs of the same values, in the layers' order; tensors with none are left out.

    Values are compared in the order they are stored in, so a reshaped output is equal too.
    """
    import numpy as np

    flat = {name: np.asarray(values, np.float32).ravel() for name, values in layers.items()}
    found = {}
    for name, values in tensors.items():
        own = np.asarray(values, np.float32).ravel()
        limit = TOLERANCE * float(np.abs(own).max(initial=0.0))
        same = tuple(layer for layer, other in flat.items() if _equal(own, other, limit))
        if same:
            found[name] = same
    return found


def _equal(own: Array, other: Array, limit: float) -> bool:
    import numpy as np

    if own.size != other.size or not own.size or abs(float(own[0]) - float(other[0])) > limit:
        return False
    return bool(np.abs(own - other).max() <= limit)


def layer_values(graph: Any, examples: Sequence[Sequence[Array]]) -> dict[str, Array]:
    """What every layer of a flat Keras model gives on these examples, one after the other along the first axis.

    Keyed as Statistics are: "layer", then "layer:1", "layer:2", ... for further outputs and calls. Other than float
    tensors are left out.
    """
    import keras
    import numpy as np

    tensors = output_tensors(graph)
    every = keras.Model(list(graph.inputs), list(tensors.values()))
    results = [[np.asarray(values) for values in every(list(arrays), training=False)] for arrays in examples]
    joined = (np.concatenate([np.atleast_1d(values) for values in each]) for each in zip(*results, strict=True))
    return {name: values for name, values in zip(tensors, joined, strict=True) if values.dtype.kind == "f"}


def output_tensors(graph: Any) -> dict[str, Any]:
    """The Keras tensors of a flat model by the names that Statistics give them, in the order of computation."""
    from toolkit.engine.graph import walk
    from toolkit.engine.stored import edge_names

    nodes = graph._nodes_by_depth  # as in `walk`
    tensors = [tensor for depth in sorted(nodes, reverse=True) for node in nodes[depth] for tensor in node.outputs]
    return dict(zip(edge_names(walk(graph)).values(), tensors, strict=True))
