"""Keras 3 `.keras` files: looked at as data, loaded in safe mode, flattened, checked to compute what they did."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from toolkit.core import Layout, Meaning, Model, Signature, TensorSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array

Side = Annotated[int, Field(ge=1)]
TOLERANCE = 1e-4  # largest output difference after flattening, relative to the largest output; float32 itself: 1e-6


class Keras(Component):
    """A trained model saved by Keras 3 (`model.save("name.keras")`): Sequential or functional, nested or flat."""

    suffixes: ClassVar[tuple[str, ...]] = (".keras",)
    kind: ClassVar[str] = "keras"

    head: Literal["auto", "logits", "softmax", "sigmoid", "sigmoids", "embedding", "regression"] = "auto"
    """What the output means; auto looks at its last activation."""
    input_shape: tuple[Side, Side] | None = None
    """Height and width in pixels, where the model leaves them open."""
    allow_code: tuple[str, ...] = ()
    """Modules that may be imported for layers of one's own; the command line's --allow-code."""

    def load(self, path: Path) -> Model:
        """The model in `path`, flat, in float32. Raises InputError or UnsupportedError with the reason."""
        from toolkit.engine.flatten import flatten
        from toolkit.sources import archive

        archive.check(path)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        loaded = _load(path)
        _check_graph(path, loaded)
        _check_weights(path, loaded)
        flat = flatten(loaded, self.input_shape)
        _check_same(path, loaded, flat)
        return Model("keras", flat, self._signature(loaded, flat))

    def _signature(self, loaded: Any, flat: Any) -> Signature:
        inputs = tuple(
            _input(tensor, name) for tensor, name in zip(flat.inputs, [t.name for t in loaded.inputs], strict=True)
        )
        outputs = tuple(
            TensorSpec(name, tuple(tensor.shape), "float32", self._head(tensor, index))
            for index, (tensor, name) in enumerate(zip(flat.outputs, _output_names(loaded), strict=True))
        )
        return Signature(inputs, outputs)

    def _head(self, tensor: Any, index: int) -> Meaning:
        return meaning_of(tensor) if self.head == "auto" or index else self.head


def meaning_of(tensor: Any) -> Meaning:
    """What an output is, by the last activation before it: softmax, sigmoid (one or several), or logits."""
    from toolkit.engine.heads import activation_name, last_operation

    name = activation_name(last_operation(tensor))
    if name == "softmax":
        return "softmax"
    if name == "sigmoid":
        return "sigmoid" if tensor.shape[-1] == 1 else "sigmoids"
    return "logits"


def _load(path: Path) -> Any:
    import keras

    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever Keras makes of a file that is not sound
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(str(path), f"cannot be loaded by Keras {keras.__version__}: {lines[0][:200]}") from error


def _check_graph(path: Path, model: Any) -> None:
    import keras

    functional = isinstance(model, keras.Sequential | keras.Function)
    if not isinstance(model, keras.Model) or not functional:
        problem = f"holds a {type(model).__name__}, whose graph cannot be followed"
        raise UnsupportedError(str(path), problem, "rebuild it as a functional or Sequential model")
    if not model.built or not model.inputs:
        raise InputError(str(path), "was saved before it knew its input shape", "call it once, then save it")
    for layer in model._flatten_layers():
        if getattr(layer, "compute_dtype", "float32") not in ("float32", None) and layer.weights:
            problem = f"layer {layer.name!r} computes in {layer.compute_dtype}"
            raise UnsupportedError(str(path), problem, "save a float32 version of the model")


def _check_weights(path: Path, model: Any) -> None:
    import numpy as np

    for weight in model.weights:
        values = np.asarray(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int(np.count_nonzero(~np.isfinite(values)))
            problem = f"weight {weight.path!r} holds {bad} NaN or infinite values of {values.size}"
            raise InputError(str(path), problem, "train again, or load an earlier checkpoint")


def _check_same(path: Path, before: Any, after: Any) -> None:
    """Both give the same outputs on two random images, seeded: one in the range of pixels, one normalized."""
    import numpy as np

    rng = np.random.default_rng(0)
    inputs = [
        np.concatenate([rng.uniform(low, high, _shape(tensor)) for low, high in ((0.0, 255.0), (-1.0, 1.0))])
        for tensor in after.inputs
    ]
    inputs = [array.astype(np.float32) for array in inputs]
    for name, one, two in zip(_output_names(before), _answers(before, inputs), _answers(after, inputs), strict=True):
        for row, other in zip(one, two, strict=True):
            scale = max(float(np.abs(row).max()), 1e-6)
            if not np.abs(row - other).max() <= TOLERANCE * scale:
                problem = (
                    f"output {name!r} changed by {np.abs(row - other).max() / scale:.2g} of its range in flattening"
                )
                raise UnsupportedError(str(path), problem, "save the model without models inside it")


def _output_names(model: Any) -> list[str]:
    """Names of the layers the outputs come from, with a number where one layer gives several."""
    names: list[str] = []
    for tensor in model.outputs:
        name = str(tensor._keras_history.operation.name)
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def _answers(model: Any, inputs: list[Array]) -> list[Array]:
    import keras
    import numpy as np

    structure = (getattr(model, "_functional", None) or model)._inputs_struct  # `model.input` drops the list around one
    given = keras.tree.pack_sequence_as(structure, inputs)
    return [np.asarray(output) for output in keras.tree.flatten(model(given, training=False))]


def _shape(tensor: Any) -> tuple[int, ...]:
    return (1, *(64 if size is None else size for size in tensor.shape[1:]))


def _input(tensor: Any, name: str) -> TensorSpec:
    image = len(tensor.shape) == 4
    layout: Layout = "NHWC" if image else "none"
    return TensorSpec(name, tuple(tensor.shape), "float32", "image" if image else "tensor", layout)
