"""Statistics of a model's prepared graph on the calibration split, found once for all passes of a run, and what is
worth a warning about them.

Page: ai.google.dev/edge/litert, "Post-training quantization" (size of a representative dataset).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.core import ACTIVATION_BITS, Dataset, PassContext, Progress, QuantSpec, Statistics
from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.calibrate import Calibration

FEW = 100  # images: LiteRT's guide asks for 100 to 500
GENERAL = "the calibration"  # what a note is about that is about no layer
NAMED = 5  # classes or layers that a warning lists


@dataclass(frozen=True)
class Note:
    """Worth a warning. layer: which one it is about, or GENERAL."""

    layer: str
    text: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.text}"


def data_of(context: PassContext, where: str) -> Dataset:
    """The calibration split; raises InputError where there is none."""
    if context.calibration is None or not len(context.calibration):
        raise InputError(where, "there is no calibration split", "set data.splits.calibration")
    return context.calibration


def calibration_of(prepared_graph: Any, context: PassContext, *, histograms: bool) -> Calibration:
    """What the tensors of a prepared graph take on the calibration split, from `context.memory` if it is there.

    One with histograms serves every method, so it also answers where none were asked for.
    """
    from toolkit.engine.calibrate import batch_size, calibrate

    data = data_of(context, "calibration")
    key = f"calibration {_fingerprint(prepared_graph)} {data.fingerprint}"
    known: Calibration | None = context.memory.get(key)
    if known is not None and (known.has_histograms or not histograms):
        return known

    def watch(images: int) -> None:
        context.emit(Progress(f"  calibrating: {images} of {len(data)} images", images / len(data)))

    batches = _batches(prepared_graph, data, batch_size(prepared_graph))
    found = calibrate(prepared_graph, batches, histograms=histograms, watch=watch)
    context.memory[key] = found
    return found


def statistics_of(prepared_graph: Any, context: PassContext, quant: QuantSpec) -> tuple[Statistics, tuple[Note, ...]]:
    """Ranges by the method that is asked for, on the calibration split; the notes are in the statistics, too."""
    from toolkit.engine.calibrate import needs_histograms

    data = data_of(context, "calibration")
    found = calibration_of(prepared_graph, context, histograms=needs_histograms(quant.ranges))
    schemes = dict(quant.layers)
    bits = {name: ACTIVATION_BITS.get(schemes.get(name.split(":")[0], quant.scheme), 8) for name in found.tensors}
    ranges = found.ranges(quant.ranges, quant.percentile, bits=bits)
    ends = {name: (item.low, item.high) for name, item in ranges.items()}
    notes = (*sample_notes(data), *_clipped(found, ends, quant), *overflow_notes(prepared_graph, _seen(found)))
    return Statistics(ranges, found.images, data.fingerprint, tuple(map(str, notes))), notes


def images_of(prepared_graph: Any, data: Dataset) -> Iterator[Mapping[str, Array]]:
    """The split's inputs, checked, in batches of a size that the graph's activations allow."""
    from toolkit.engine.calibrate import batch_size

    return _batches(prepared_graph, data, batch_size(prepared_graph))


def overflow_notes(prepared_graph: Any, ranges: Mapping[str, tuple[float, float]]) -> tuple[Note, ...]:
    """Layers whose numbers float16 does not have, on the images that these ranges are of."""
    from toolkit.engine.overflow import overflows

    return tuple(Note(item.layer, str(item)) for item in overflows(prepared_graph, ranges))


def float16_notes(prepared_graph: Any, context: PassContext) -> tuple[Note, ...]:
    """The same for a pass that needs no ranges otherwise; says so where there are no images to look at."""
    if context.calibration is None or not len(context.calibration):
        text = "without a calibration split activations were not compared with 65,504, where float16 ends"
        return (Note("the model", text),)
    return overflow_notes(prepared_graph, _seen(calibration_of(prepared_graph, context, histograms=False)))


def warn(notes: Iterable[Note], context: PassContext) -> None:
    """Say each of them in the log."""
    for note in notes:
        context.emit(Progress(f"warning: {note}", keep=True))


def sample_notes(data: Dataset) -> Iterator[Note]:
    """What the choice of images leaves open."""
    if len(data) < FEW:
        text = f"{len(data)} images; with fewer than about {FEW} the ranges depend on which images these are"
        yield Note(GENERAL, text)
    missing = _missing(data)
    if missing:
        some = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        yield Note(GENERAL, f"no image of {len(missing):,} of {len(data.classes):,} classes ({some})")


def _missing(data: Dataset) -> list[str]:
    """Classes, or labels, that no image shows."""
    import numpy as np

    labels = np.asarray(data.labels)
    if data.task == "classes":
        seen = set(labels.reshape(-1).tolist())
    elif data.task == "labels":
        seen = set(np.flatnonzero(labels.any(axis=0)).tolist())
    else:
        return []
    return [name for number, name in enumerate(data.classes) if number not in seen]


def _clipped(found: Calibration, ends: Mapping[str, tuple[float, float]], quant: QuantSpec) -> Iterator[Note]:
    """How much the ranges cut off; min-max cuts nothing."""
    if quant.ranges == "minmax" or not found.has_histograms:
        return
    shares = {name: found.tensors[name].outside(*own) for name, own in ends.items()}
    cut = sorted(((share, name) for name, share in shares.items() if share > 0), reverse=True)
    if cut:
        worst = ", ".join(f"{name} {share:.2%}" for share, name in cut[:NAMED])
        text = f"ranges by {quant.ranges} cut values off in {len(cut)} of {len(shares)} tensors, most in {worst}"
        yield Note(GENERAL, text)


def _seen(found: Calibration) -> dict[str, tuple[float, float]]:
    return {name: (item.low, item.high) for name, item in found.tensors.items()}


def _batches(graph: Any, data: Dataset, size: int) -> Iterator[Mapping[str, Array]]:
    """The split's inputs, each image fit for the graph."""
    shapes = {tensor.name: tuple(tensor.shape)[1:] for tensor in graph.inputs}
    for batch in data.batches(size):
        for name, shape in shapes.items():
            _check(batch.inputs.get(name), name, shape, batch.ids)
        yield batch.inputs


def _check(array: Array | None, name: str, shape: tuple[int | None, ...], ids: tuple[str, ...]) -> None:
    import numpy as np

    where = f"calibration: {ids[0]}"
    if array is None:
        raise InputError(where, f"has no input `{name}`", "name the data's inputs as the model does")
    given = array.shape[1:]
    if len(given) != len(shape) or any(side not in (None, own) for side, own in zip(shape, given, strict=True)):
        raise InputError(where, f"input `{name}` has shape {given}, the model takes {shape}")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0])
        problem = f"input `{name}` holds NaN or infinity"
        raise InputError(f"calibration: {ids[bad]}", problem, "remove the image from the data")


def _fingerprint(graph: Any) -> str:
    """What decides a graph's answers: its layers, how they hang together, their weights."""
    digest = hashlib.sha256(repr(graph.get_config()).encode())
    for weight in graph.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()
