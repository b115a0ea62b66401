"""Keras files: looked at as data, loaded in safe mode, flattened in float32, checked to compute what they did."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from toolkit.core import Model
from toolkit.errors import InputError, UnsupportedError
from toolkit.schema import Component
from toolkit.sources import archive, code, h5_operations, hdf5, legacy, saved
from toolkit.sources.checked import check_complete, check_same, check_weights
from toolkit.sources.signature import meaning_of, signature

Side = Annotated[int, Field(ge=1)]

__all__ = ["Keras", "flattened", "meaning_of"]


class Keras(Component):
    """A trained Sequential or functional model, nested or flat: `.keras` or `.h5` of Keras 3 or Keras 2 (tf_keras)."""

    suffixes: ClassVar[tuple[str, ...]] = (".keras", ".h5", ".hdf5")
    kind: ClassVar[str] = "keras"

    head: Literal["auto", "logits", "softmax", "sigmoid", "sigmoids", "embedding", "regression"] = "auto"
    """What the output means; auto looks at its last activation."""
    input_shape: tuple[Side, Side] | None = None
    """Height and width in pixels, where the model leaves them open."""
    allow_code: tuple[str, ...] = ()
    """Modules that may be imported for layers of one's own; the command line's --allow-code."""

    def load(self, path: Path) -> Model:
        """The model in `path`, flat, in float32. Raises InputError or UnsupportedError with the reason."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        form = saved.form_of(path)
        allowed = code.allow(self.allow_code)
        found = archive.check(path, allowed) if form == ".keras" else hdf5.check(path, allowed)
        if found.legacy:
            return legacy.load(path, found, allowed, head=self.head, input_shape=self.input_shape)
        values = hdf5.check_weights(str(path), archive.weights(path)) if form == ".keras" else None
        code.register(found.config, allowed)
        return flattened(str(path), _load(path, found), self.head, self.input_shape, values=values)


def flattened(
    where: str, loaded: Any, head: str, input_shape: tuple[int, int] | None, *, values: int | None = None
) -> Model:
    """A Keras 3 model as a flat float32 one with equal outputs; how equal is in its notes.

    values: how many weight values its file holds, where that is known.
    """
    from toolkit.engine import agree
    from toolkit.engine.augment_layers import passes_through
    from toolkit.engine.flatten import flatten

    _check_graph(where, loaded)
    if values is not None:
        check_complete(where, values, loaded)
    check_weights(where, loaded.weights)
    flat = flatten(loaded, input_shape)
    precision = agree.coarsest([getattr(layer, "compute_dtype", None) for layer in loaded._flatten_layers()])
    found = check_same(where, agree.keras_answer(loaded), flat, loaded.inputs, precision)
    what = "made flat" if precision == "float32" else f"made flat, and float32 from {precision}"
    notes = [f"{what}: {found}"]
    dropped = sorted(layer.name for layer in loaded._flatten_layers() if passes_through(type(layer).__name__))
    if dropped:
        notes.append(f"augmentation left out, it does nothing in inference: {', '.join(dropped)}")
    ends = signature(flat, [tensor.name for tensor in loaded.inputs], _output_names(loaded), head)
    return Model("keras", flat, ends, notes=tuple(notes))


def _load(path: Path, found: saved.Saved) -> Any:
    import keras

    try:
        if found.form == ".h5" and h5_operations.has_operations(found.config):
            return h5_operations.load(path, found.config)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever Keras makes of a file that is not sound
        lines = str(error).strip().splitlines() or [type(error).__name__]
        problem = f"cannot be loaded by Keras {keras.__version__}: {lines[0][:200]}"
        fix = None if path.suffix == ".keras" else "save it with model.save('name.keras')"
        raise InputError(str(path), problem, fix) from error


def _check_graph(where: str, model: Any) -> None:
    import keras

    if not isinstance(model, keras.Model):
        raise UnsupportedError(where, f"holds a {type(model).__name__}, not a model", "save a model that calls it")
    for inner in [model, *model._flatten_layers()]:
        if isinstance(inner, keras.Model) and not isinstance(inner, keras.Sequential | keras.Function):
            place = "" if inner is model else f", layer {inner.name!r},"
            problem = f"holds a {type(inner).__name__}{place} whose graph cannot be followed"
            raise UnsupportedError(where, problem, "rebuild it as a functional or Sequential model")
    if not model.built or not model.inputs:
        raise InputError(where, "was saved before it knew its input shape", "call it once, then save it")


def _output_names(model: Any) -> list[str]:
    """Names of the layers the outputs come from, with a number where one layer gives several."""
    names: list[str] = []
    for tensor in model.outputs:
        name = str(tensor._keras_history.operation.name)
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names
