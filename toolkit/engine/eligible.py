"""Layers whose weights are chosen one by one, to be zero or to share values: which weight, and which layers stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.engine.surgery import rebuild
from toolkit.errors import InputError

Array = NDArray[Any]

# class of a layer -> its weight that is chosen from, as tensorflow-model-optimization has it (prune_registry.py)
KERNELS: Mapping[str, str] = {
    "Conv1D": "kernel",
    "Conv2D": "kernel",
    "Conv3D": "kernel",
    "Conv1DTranspose": "kernel",
    "Conv2DTranspose": "kernel",
    "Conv3DTranspose": "kernel",
    "Dense": "kernel",
    "SeparableConv1D": "pointwise_kernel",
    "SeparableConv2D": "pointwise_kernel",
}


def kernel_of(layer: Any) -> Any:
    """The weight of a layer whose values can be chosen one by one, or None."""
    names = (KERNELS[kind.__name__] for kind in type(layer).__mro__ if kind.__name__ in KERNELS)
    name = next(names, None)
    return getattr(layer, name) if name else None


def with_kernels(graph: Any, kernels: Mapping[str, Array]) -> Any:
    """A copy of a flat model, these layers with these weights for those of `kernel_of`."""
    new = {}
    for name, kernel in kernels.items():
        layer = graph.get_layer(name)
        old = kernel_of(layer)
        new[name] = [kernel if weight is old else np.array(weight) for weight in layer.weights]
    return rebuild(graph, new)


def sorted_out(
    graph: Any, protect: Sequence[str], reason: Callable[[Any, Any], str], *, idle: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """(layers that are chosen, the others that have weights to multiply with -> why they stay as they are).

    reason: layer and its kernel -> why it stays, "" where it does not. idle: what is said in front of the kind of a
    layer that has no such kernel. InputError for a pattern of `protect` (`*` and `?`) that no layer's name matches.
    """
    for wanted in protect:
        if not any(fnmatchcase(str(layer.name), wanted) for layer in graph.layers):
            fix = "see `edgekit inspect` for the names of the model's layers"
            raise InputError("protect", f"no layer is named like {wanted!r}", fix)
    chosen: list[str] = []
    whole: dict[str, str] = {}
    for layer in graph.layers:
        name, kernel = str(layer.name), kernel_of(layer)
        if kernel is None:
            if any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ())):
                whole[name] = f"{idle} {type(layer).__name__}"
            continue
        by = next((wanted for wanted in protect if fnmatchcase(name, wanted)), None)
        why = reason(layer, kernel) if by is None else f"protected by {by!r}"
        if why:
            whole[name] = why
        else:
            chosen.append(name)
    return tuple(chosen), whole
