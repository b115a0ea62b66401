"""What a converter and a written file are fed: single examples, as the file names and lays out its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolkit.core import Dataset, ExportContext, Layout, Model, Progress, Signature, TensorSpec
from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.core import Array

CHANNELS_FIRST = (0, 3, 1, 2)  # NHWC -> NCHW


def fixed_inputs(model: Model, size: tuple[int, int] | None, where: str) -> tuple[TensorSpec, ...]:
    """The model's inputs with batch 1 and no open dimension: open heights and widths take `size`.

    Raises:
        InputError: a dimension is open and `size` is not given, or `size` contradicts the model.
    """
    specs = []
    for spec, (given, dtype) in zip(model.signature.inputs, _written(model), strict=True):
        shape = _fixed(given, size, f"{where}: input `{spec.name}`", spec.layout)
        specs.append(TensorSpec(spec.name, shape, dtype, spec.meaning, spec.layout))
    if size and not any(len(spec.shape) == 4 and _sides(spec) == tuple(size) for spec in specs):
        fixed = ", ".join(f"{spec.name} {spec.shape[1:]}" for spec in specs)
        raise InputError(f"{where}.input_shape", f"{size} contradicts the model's inputs ({fixed})", "leave it out")
    return tuple(specs)


def _written(model: Model) -> list[tuple[tuple[int | None, ...], str]]:
    """Shape and type of each input: a Keras graph's own (a pass may have changed it), a file's signature's."""
    if model.kind == "keras":
        return [(tuple(tensor.shape), str(tensor.dtype)) for tensor in model.graph.inputs]
    return [(spec.shape, spec.dtype) for spec in model.signature.inputs]


def _sides(spec: TensorSpec) -> tuple[int | None, ...]:
    return spec.shape[2:] if spec.layout == "NCHW" else spec.shape[1:3]


def _fixed(shape: tuple[int | None, ...], size: tuple[int, int] | None, where: str, layout: Layout) -> tuple[int, ...]:
    sizes: dict[int, int] = {0: 1}
    if len(shape) == 4 and size:
        sizes |= dict(zip((2, 3) if layout == "NCHW" else (1, 2), size, strict=True))
    fixed = [sizes.get(axis) if axis == 0 or length is None else length for axis, length in enumerate(shape)]
    if None in fixed:
        fix = "give `input_shape` (height, width)" if len(shape) == 4 else "fix the shape in the model"
        raise InputError(where, f"the model leaves its shape {shape} open", fix)
    return tuple(length for length in fixed if length is not None)


def in_layout(spec: TensorSpec, layout: Layout) -> TensorSpec:
    """The spec of an NHWC image as a file of `layout` takes it; anything else as it is."""
    if layout != "NCHW" or spec.layout != "NHWC" or len(spec.shape) != 4:
        return spec
    shape = tuple(spec.shape[axis] for axis in CHANNELS_FIRST)
    return TensorSpec(spec.name, shape, spec.dtype, spec.meaning, "NCHW")


def as_keras(example: dict[str, Array], inputs: tuple[TensorSpec, ...]) -> list[Array]:
    """An example of a file's inputs as the Keras model takes it: in order, channels last."""
    back = (0, 2, 3, 1)  # NCHW -> NHWC
    return [example[spec.name].transpose(back) if spec.layout == "NCHW" else example[spec.name] for spec in inputs]


def calibration(context: ExportContext, inputs: tuple[TensorSpec, ...]) -> Iterator[dict[str, Array]]:
    """Each calibration example, by input name in the order of `inputs`, which say shape, type and layout.

    Raises:
        InputError: there is no calibration data, or an example lacks an input, has another shape or holds NaN.
    """
    data = calibration_set(context)
    for i, (identity, example) in enumerate(_examples(data, inputs)):
        context.emit(Progress(f"calibrating on {identity}", i / len(data)))
        yield example


def probe(context: ExportContext, inputs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """One example to run a written file on: the first of calibration, or seeded noise in 0..1."""
    import numpy as np

    if context.calibration is not None:
        return next(example for _, example in _examples(calibration_set(context), inputs))
    generator = np.random.default_rng(0)
    return {spec.name: generator.random([length or 1 for length in spec.shape]).astype(spec.dtype) for spec in inputs}


def calibration_set(context: ExportContext) -> Dataset:
    """The calibration split; raises InputError when there is none."""
    if context.calibration is None or len(context.calibration) == 0:
        raise InputError("calibration", "int8 needs images to find the ranges of activations", "give a calibration set")
    return context.calibration


def _examples(data: Dataset, inputs: tuple[TensorSpec, ...]) -> Iterator[tuple[str, dict[str, Array]]]:
    for batch in data.batches(1):
        identity = batch.ids[0]
        yield identity, {spec.name: _example(batch.inputs.get(spec.name), spec, identity) for spec in inputs}


def _example(array: Array | None, spec: TensorSpec, identity: str) -> Array:
    import numpy as np

    where = f"calibration: {identity}"
    if array is None:
        raise InputError(where, f"has no input `{spec.name}`", "name the data's inputs as the model does")
    if spec.layout == "NCHW":
        array = np.transpose(array, CHANNELS_FIRST)
    if array.shape != spec.shape:
        raise InputError(where, f"input `{spec.name}` has shape {array.shape}, the file takes {spec.shape}")
    if not np.isfinite(array).all():
        raise InputError(where, f"input `{spec.name}` holds NaN or infinity", "remove the image from the data")
    return np.ascontiguousarray(array, dtype=spec.dtype)


def signature_of(model: Model, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Signature:
    """A file's signature as read from it, with the meanings the model gives the same names."""
    known = {spec.name: spec for spec in (*model.signature.inputs, *model.signature.outputs)}
    read = [
        tuple(TensorSpec(s.name, s.shape, s.dtype, known[s.name].meaning, s.layout) for s in specs)
        for specs in (inputs, outputs)
    ]
    return Signature(*read)
