"""A file that counts only once it is proven: written under a temporary name, renamed when all checks passed."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import Artifact, Model, Scheme, Signature
from toolkit.errors import InputError, UnavailableError, UnsupportedError

if TYPE_CHECKING:
    from toolkit.core import Array

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`; takes its name on success and is removed on any error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        ours = str(error.filename) in map(str, (path.parent, temporary, path))
        if not ours and error.errno not in FULL:
            raise
        fix = "free some space" if error.errno in FULL else "choose another folder"
        raise UnavailableError(str(path), f"cannot be written: {error.strerror or error}", fix) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def artifact(  # the fields of an Artifact
    path: Path, *, format: str, scheme: Scheme, signature: Signature, notes: tuple[str, ...], pixels: bool = False
) -> Artifact:
    """The Artifact of a finished file."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Artifact(path.stem, path, format, scheme, len(content), digest, signature, notes, pixels)


def require_sound(model: Model) -> None:
    """Raise for a model no file can be made of: NaN in its weights, or layers that compute in 16 bits."""
    if model.kind != "keras":
        return  # its source ran it, and what is written of it runs again
    from toolkit.engine import freeze

    if weight := freeze.nonfinite_weight(model.graph):
        *scopes, name = weight.split("/")
        raise InputError(
            scopes[-1] if scopes else name,
            f"its weight `{name}` holds NaN or infinity",
            "train or load the model again",
        )
    if reduced := freeze.reduced_precision_layer(model.graph):
        fix = "load the model with the float32 policy; ask for 16-bit weights with scheme float16"
        raise UnsupportedError(reduced, "the layer computes in 16-bit floating point (a mixed-precision policy)", fix)


def require_finite(outputs: Mapping[str, Array], model: Model, example: Sequence[Array]) -> None:
    """Raise when an output of the one proof run holds NaN or infinity.

    example: the inputs it ran on, in the order and layout of the model, to find the layer where it starts.
    """
    import numpy as np

    for name, values in outputs.items():
        if not np.isfinite(np.asarray(values, dtype=np.float64)).all():
            problem = f"output `{name}` of the written file is NaN or infinite on the first image it ran"
            raise UnsupportedError(origin(model, name, example), problem, "look for a division by zero or an overflow")


def origin(model: Model, output: str, example: Sequence[Array]) -> str:
    """The layer behind an output that is NaN or infinite: where it starts in the Keras model, else the output's own.

    Of a model without layers the output itself.
    """
    if model.kind != "keras":
        return output
    from toolkit.engine import freeze

    names = [spec.name for spec in model.signature.outputs]
    layer = freeze.nonfinite_layer(model.graph, example)
    return layer or freeze.output_layer(model.graph, names.index(output))


def locator(model: Model) -> Callable[[str], str | None]:
    """From a name in a converted file to the Keras layer behind it; the name itself where there are no layers."""
    if model.kind != "keras":
        return lambda name: name or None
    from toolkit.engine.freeze import layer_of

    return lambda name: layer_of(name, model.graph)


def frozen(model: Model, shapes: Sequence[tuple[int | None, ...]]) -> Any:
    """A Keras graph or a SavedModel as one graph of constants for inputs of these shapes, for the converters."""
    if model.kind == "keras":
        from toolkit.engine.freeze import freeze

        return freeze(model.graph, shapes)
    from toolkit.engine.saved import freeze_saved

    inputs, outputs = ([spec.name for spec in end] for end in (model.signature.inputs, model.signature.outputs))
    return freeze_saved(model.graph, inputs, outputs, shapes)
