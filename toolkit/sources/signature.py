"""The contract of a flat network: names, shapes and types of its ends, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.core import Layout, Meaning, Signature, TensorSpec

POOLS = ("globalaveragepooling2d", "globalmaxpooling2d")
UNIT = ("unitnormalization", "normalize")  # to length 1: the layer, and the operation of keras.ops


def signature(flat: Any, inputs: Sequence[str], outputs: Sequence[str], head: Meaning | str) -> Signature:
    """The ends of a flat Keras model under the names given. head: of the first output; "auto" looks at the graph."""
    return Signature(
        tuple(_input(tensor, name) for tensor, name in zip(flat.inputs, inputs, strict=True)),
        tuple(
            TensorSpec(name, tuple(tensor.shape), "float32", _head(tensor, "auto" if index else head))
            for index, (tensor, name) in enumerate(zip(flat.outputs, outputs, strict=True))
        ),
    )


def meaning_of(tensor: Any) -> Meaning:
    """What an output is, by the last operation before it.

    softmax, sigmoid (one or several), embedding (a vector made one long, or pooled features that no classifier reads),
    else logits. One linear unit may as well be a regression: nothing in a graph tells the two apart.
    """
    from toolkit.engine.heads import activation_name, last_operation

    operation = last_operation(tensor)
    name = activation_name(operation)
    if name == "softmax":
        return "softmax"
    if name == "sigmoid":
        return "sigmoid" if tensor.shape[-1] == 1 else "sigmoids"
    if name in UNIT or (name in POOLS and not _classifies(operation)):
        return "embedding"
    return "logits"


def _classifies(pool: Any) -> bool:
    """Whether the pooling reads a bare convolution, one channel a class, as fully convolutional networks end."""
    before = pool._inbound_nodes[-1].input_tensors[0]._keras_history.operation
    linear = getattr(getattr(before, "activation", None), "__name__", "linear") == "linear"
    return type(before).__name__ == "Conv2D" and linear


def _head(tensor: Any, head: Any) -> Meaning:
    found: Meaning = meaning_of(tensor) if head == "auto" else head
    return found


def _input(tensor: Any, name: str) -> TensorSpec:
    image = len(tensor.shape) == 4
    layout: Layout = "NHWC" if image else "none"
    return TensorSpec(name, tuple(tensor.shape), "float32", "image" if image else "tensor", layout)
