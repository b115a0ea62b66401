"""What a file that takes pixels does with them before its network: channel order, `x * scale + offset`.

The caller decodes, crops and resizes; the rest of the preprocessing contract is inside. How it is written into a file
is `tflite_intake` and `onnx_intake`: in front of a graph that is converted, and calibrated, as without it, so that
nothing else of the file changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from toolkit.core import Kind, Model, Preprocessing, TensorSpec
from toolkit.errors import UnsupportedError

if TYPE_CHECKING:
    from toolkit.core import Array

CHANNELS = (1, 3)
PREFIX = "edgekit_intake"  # of the names of what is added: how a file that takes pixels is known again


@dataclass(frozen=True)
class Intake:
    """scale, offset: one value for each channel of the network's input. flip: that input is BGR, and pixels are RGB."""

    name: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    flip: bool

    @property
    def identity(self) -> bool:
        """Whether pixels are the network's input as they are."""
        return not self.flip and set(self.scale) == {1.0} and set(self.offset) == {0.0}

    def pixels(self, example: Mapping[str, Array], *, axis: int) -> dict[str, Array]:
        """The pixels nearest to an example of the network's input. axis: of its channels."""
        import numpy as np

        rows = np.moveaxis(example[self.name], axis, -1)
        values = (rows - np.asarray(self.offset)) / np.asarray(self.scale)
        pixels = values.round().clip(0, 255).astype(np.uint8)
        return {self.name: np.ascontiguousarray(np.moveaxis(pixels[..., ::-1] if self.flip else pixels, -1, axis))}


def refusal(kind: Kind) -> str | None:
    """Why no intake can be put in front of a model of this kind, or None."""
    if kind == "keras":
        return None
    return f"embed_preprocessing needs a Keras model: a source of kind {kind} keeps the inputs it came with"


def of(model: Model, inputs: Sequence[TensorSpec], where: str) -> Intake:
    """The intake of a model; raises UnsupportedError where pixels are not what its input is made of."""
    where = f"{where}.embed_preprocessing"
    if len(inputs) != 1:
        raise UnsupportedError(where, f"the model has {len(inputs)} inputs, and one image is described", "leave it out")
    (spec,) = inputs
    channels = spec.shape[1 if spec.layout == "NCHW" else -1] if len(spec.shape) == 4 else None
    if channels not in CHANNELS or spec.dtype != "float32":
        problem = f"input {spec.name!r} is {list(spec.shape)} {spec.dtype}, not a gray or colour image in float32"
        raise UnsupportedError(where, problem, "leave it out")
    wanted = model.preprocessing
    if any(len(values) not in (1, channels) for values in (wanted.scale, wanted.offset)):
        problem = f"the preprocessing has {len(wanted.scale)} scales and {len(wanted.offset)} offsets"
        raise UnsupportedError(where, f"{problem}, the input {channels} channels", "give one, or one for each channel")
    if (wanted.color == "gray") != (channels == 1):
        raise UnsupportedError(
            where, f"the preprocessing gives {wanted.color} images, the input has {channels} channels"
        )
    scale, offset = (each * channels if len(each) == 1 else each for each in (wanted.scale, wanted.offset))
    return Intake(spec.name, scale, offset, wanted.color == "bgr")


def outside(preprocessing: Preprocessing) -> Preprocessing:
    """What is left to the caller of a file that takes pixels."""
    color: Literal["gray", "rgb"] = "gray" if preprocessing.color == "gray" else "rgb"
    return replace(preprocessing, color=color, scale=(1.0,), offset=(0.0,))
