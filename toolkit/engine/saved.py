"""A SavedModel's serving signature, as a function and as one graph without variables for the converters.

Page: tensorflow.org/guide/saved_model. Nothing here looks at what the model computes: `sources.savedmodel` does, first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

Shape = tuple[int | None, ...]
SERVING = "serving_default"


def signature_function(path: Path) -> Any:
    """The function behind the serving signature: keyword inputs, a table of outputs. It holds on to its model."""
    loaded = tf.saved_model.load(str(path))
    keys = list(loaded.signatures)
    function = loaded.signatures[SERVING if SERVING in keys else keys[0]]
    function.edgekit_model = loaded  # its variables live as long as the model they belong to
    return function


def freeze_saved(path: Path, inputs: Sequence[str], outputs: Sequence[str], shapes: Sequence[Shape]) -> Any:
    """The signature traced for inputs of `shapes` (batch first), float32, its variables turned into constants.

    Returns a ConcreteFunction whose inputs and outputs stand in the order of the names given.
    """
    function = signature_function(path)
    specs = [tf.TensorSpec(shape, tf.float32, name=f"input_{i}") for i, shape in enumerate(shapes)]

    def infer(*arrays: Any) -> list[Any]:
        found = function(**dict(zip(inputs, arrays, strict=True)))
        return [tf.identity(found[name]) for name in outputs]

    return convert_variables_to_constants_v2(tf.function(infer, autograph=False).get_concrete_function(*specs))
