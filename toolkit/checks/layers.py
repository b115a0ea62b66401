"""Error by layer in a delivered file: every tensor it computes beside the float model's, on a few images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checks.traced import opened
from toolkit.core import Dataset
from toolkit.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.replay import Match, Replay, Trace

IMAGES = 16  # enough for sums over whole tensors; one network's SQNR moved by less than 0.5 dB beyond
TOGETHER = 4  # images whose tensors are in memory at once
FAULT_DB = 15.0  # two bits and a half: MobileNetV2's depthwise layers, with uneven channels, lose up to 12
LARGEST = 3.4e38  # of float32, about
DECIBELS = 200.0  # float32 itself ends near 150 dB; no error at all is written as this


@dataclass(frozen=True)
class LayerError:
    """One tensor of a file, and the layer (of the prepared graph) it is. layers: fused into it, with that one.

    sqnr_db: against the float model's tensor, with all errors before it. alone_db: against the float layer run on the
    file's own inputs of it: the layer's own. lost_db: how much less that is than 8 bits over the layer's values, or the
    step that a rule gives it, would have. saturated: share of values that the float layer has beyond the ends of the
    tensor's integers. scale: one number for the tensor, 0 for floats. low, high: of its values. operator: as the file
    has it. misread: the layer before it whose scale does not fit what this operator stores (a bias, or integers it only
    passes on). place: in the file's order, from 0. largest: difference from the float layer on the file's own inputs;
    apart: share of values that differ so by more than a hundredth of the layer's range; fed: largest of those inputs.
    omitted: of the layers, one without which the float layers give what the file has.
    """

    layer: str
    layers: tuple[str, ...]
    operator: str
    tensor: str
    dtype: str
    sqnr_db: float
    alone_db: float
    lost_db: float
    low: float
    high: float
    saturated: float
    scale: float
    zero_point: int
    misread: str = ""
    place: int = 0
    largest: float = 0.0
    apart: float = 0.0
    fed: float = 0.0
    omitted: str = ""


@dataclass(frozen=True)
class Culprit:
    """layer: at fault. row: where it shows. faulty: it loses what 8 bits do not explain."""

    layer: str
    row: LayerError
    faulty: bool


@dataclass(frozen=True)
class LayerErrors:
    """rows: one a layer, in the file's order. unmatched: tensors that are inside a layer, or of no layer. kernels_db:
    SQNR of the first answers of the runtime as it is delivered, against those of its plain kernels; None where it has
    none."""

    rows: tuple[LayerError, ...]
    images: int
    unmatched: int
    kernels_db: float | None = None

    def worst_first(self) -> tuple[LayerError, ...]:
        """By each layer's own error."""
        return tuple(sorted(self.rows, key=lambda row: row.alone_db))

    def culprit(self) -> Culprit | None:
        """The layer most likely at fault: the one that loses most where one loses too much, else the worst."""
        if not self.rows:
            return None
        wrong = max(self.rows, key=lambda row: row.lost_db)
        row = wrong if wrong.lost_db >= FAULT_DB else self.worst_first()[0]
        return Culprit(row.misread or row.layer, row, faulty=row.lost_db >= FAULT_DB)


def layer_errors(path: Path, model: Any, images: Mapping[str, Array]) -> LayerErrors:
    """Errors of a .tflite or .onnx file against a Keras graph.

    model: the float graph the file was written from. images: float32, channels last, by input name.
    Raises UnsupportedError for a file whose tensors are not that graph's at all.
    """
    return looked_into(path, model, images)[2]


def looked_into(path: Path, model: Any, images: Mapping[str, Array]) -> tuple[Any, Replay, LayerErrors]:
    """The traced file, the replay with the tensors of its last images, and the errors; as `layer_errors`."""
    from toolkit.engine.prepare import prepare
    from toolkit.engine.replay import Replay

    file = opened(path)
    replay, count = Replay(prepare(model).graph), len(next(iter(images.values())))
    kernels: float | None = None
    for start in range(0, count, TOGETHER):
        some = {name: array[start : start + TOGETHER] for name, array in images.items()}
        trace = file.trace(some)
        replay.add(trace)
        kernels = kernels if start else _kernels(file, some, trace)
    ends = {replay.graph.calls[edge.call].name for edge in replay.graph.inputs}
    if not any(found.layer not in ends for found in replay.matches):
        fix = "name the trained model that the file was written from"
        raise UnsupportedError(str(path), "none of its tensors is one of the model's layers", fix)
    steps = _steps(replay)
    rows = _by_layer([_row(file, each, i, replay, steps.get(each.edge)) for i, each in enumerate(replay.matches)])
    return file, replay, LayerErrors(rows, count, len(file.tensors) - len(replay.matches), kernels)


def _kernels(file: Any, images: Mapping[str, Array], trace: Trace) -> float | None:
    from toolkit.engine.numeric import sqnr_db

    answers = file.answers(images)
    if answers is None or not trace.outputs:
        return None
    return bounded(sqnr_db(trace.values[trace.outputs[0]], answers))


def take_images(data: Dataset, count: int = IMAGES) -> dict[str, Array]:
    """The first images of a split, by input name."""
    import numpy as np

    batch = next(iter(data.batches(min(count, len(data)))), None)
    if batch is None:
        raise InputError("data", "has no image", "give images")
    return {name: np.asarray(array, np.float32) for name, array in batch.inputs.items()}


def _steps(replay: Replay) -> dict[Any, float]:
    """Of tensors whose scale is a rule's, which may be wider than their values need: softmax and the like have a step.

    0 is the file's own: of those that have another tensor's (pooling, joined ones).
    """
    from toolkit.engine.replay import STEPS
    from toolkit.engine.stored import stored

    tensors = stored(replay.model)
    prescribed = {edge: (high - low) / STEPS for edge, (low, high) in tensors.fixed.items()}
    shared = {edge for edge, source in tensors.source.items() if edge != source or source in tensors.shared}
    return dict.fromkeys(shared, 0.0) | prescribed


def _row(file: Any, found: Match, place: int, replay: Replay, step: float | None) -> LayerError:
    sums, known = replay.errors[found.tensor, found.edge], file.tensors[found.tensor]
    possible = sums.possible_db(0.0 if step is None else step or known.scale)
    return LayerError(
        layer=found.layer,
        layers=found.layers,
        operator=found.kind,
        tensor=known.name,
        dtype=known.dtype,
        sqnr_db=bounded(sums.sqnr_db),
        alone_db=bounded(sums.alone_db),
        lost_db=max(0.0, bounded(possible) - bounded(sums.alone_db)),
        low=finite(sums.low),
        high=finite(sums.high),
        saturated=sums.saturated,
        scale=known.scale,
        zero_point=known.zero_point,
        misread=_misread(file, found, replay),
        place=place,
        largest=finite(sums.largest),
        apart=sums.apart / sums.count if sums.count else 0.0,
        fed=finite(sums.fed),
        omitted=_omitted(found, replay),
    )


def _omitted(found: Match, replay: Replay) -> str:
    from toolkit.engine.omitted import omitted
    from toolkit.engine.replay import NEAR_DB

    sums = replay.errors[found.tensor, found.edge]
    return omitted(replay, found) if len(found.layers) > 1 and bounded(sums.alone_db) < NEAR_DB else ""


def _misread(file: Any, found: Match, replay: Replay) -> str:
    """The layer whose scale an operator's own numbers contradict, where its weights are the model's."""
    key = file.contradicts(found.tensor, _largest_weight(found, replay.model))
    return next((each.layer for each in replay.matches if each.tensor == key), "") if key is not None else ""


def _largest_weight(found: Match, model: Any) -> float:
    import numpy as np

    kernels = [layer.kernel for name in found.layers if hasattr(layer := model.get_layer(name), "kernel")]
    return max((float(np.abs(np.asarray(kernel)).max()) for kernel in kernels), default=0.0)


def _by_layer(rows: Sequence[LayerError]) -> tuple[LayerError, ...]:
    """One row a layer: of its tensors (a value, then the same rounded) the worst, with what is left at its end."""
    worst: dict[str, LayerError] = {}
    for row in rows:
        known = worst.get(row.layer)
        chosen = row if known is None or row.alone_db < known.alone_db else known
        worst[row.layer] = replace(chosen, sqnr_db=row.sqnr_db)
    return tuple(worst.values())


def bounded(value: float) -> float:
    """Decibels that any reader of JSON takes."""
    return max(-DECIBELS, min(DECIBELS, value)) if not math.isnan(value) else -DECIBELS


def finite(value: float) -> float:
    """A number that any reader of JSON takes: the largest of float32 for what is none."""
    return value if math.isfinite(value) else math.copysign(LARGEST, value)
