"""Whether the images of a calibration were enough, and like those that come: what the ranges leave out of other images,
how far they move with half as many images and with others, and what that does at the output.

Ranges as in engine.ranges; the network simulated as in engine.simulate. No file is written, no range changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from toolkit.checks.diagnosis import CLIPPED
from toolkit.core import ACTIVATION_BITS, STATIC, Dataset, Model, Progress
from toolkit.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.sensitivity import Gated

Range = tuple[float, float]
MATTERS_DB = 1.5  # at the output: a quarter of a bit; less is within what other images say
UNLIKE = (
    4.0  # times the share outside that chance gives: of n values alike the next one lies beyond all with 2 / (n + 1)
)
LEAST = 1e-9  # of a range's width
LEAST_IMAGES = 4
# Images the simulated network answers on, where there are as many: of confident probabilities one in eight is above the
# step they are held to, and on 16 images of ten classes chance moved the output by 2.2 dB, on 64 by 0.7
JUDGED = 64


@dataclass(frozen=True)
class TensorCoverage:
    """One stored tensor. outside: share of its values beyond the range, on the other images.

    half_steps, other_steps: how far the end that moves most does, in steps of its integers, where the range is found on
    half of the images, or on the others.
    """

    layer: str
    low: float
    high: float
    step: float
    outside: float
    half_steps: float
    other_steps: float


@dataclass(frozen=True)
class CalibrationCheck:
    """images: of the calibration; others: the disjoint sample, and how many. tensors: worst first.

    sqnr_db: of the simulated network's logits against the float one's on `judged` of the others, with the ranges it
    has; half_db, other_db: with those of half the images, and of the others. key: so that --resume knows what it has.
    """

    stage: str
    images: int
    other: str
    others: int
    judged: int
    sqnr_db: float
    half_db: float
    other_db: float
    advice: str
    tensors: tuple[TensorCoverage, ...]
    key: str = ""

    @property
    def enough(self) -> bool:
        """Whether neither half of the images nor others change what counts at the output."""
        return max(self.sqnr_db - self.half_db, abs(self.other_db - self.sqnr_db)) < MATTERS_DB

    @property
    def half_steps(self) -> float:
        """Median over tensors."""
        return median(row.half_steps for row in self.tensors)

    @property
    def other_steps(self) -> float:
        """Median over tensors."""
        return median(row.other_steps for row in self.tensors)

    @property
    def outside(self) -> float:
        """Mean over tensors."""
        return sum(row.outside for row in self.tensors) / len(self.tensors)


def refusal(model: Model) -> str | None:
    """Why a model's calibration cannot be checked, None where it can."""
    if model.kind != "keras":
        return f"is a {model.kind} model, which shows no layers"
    if not set(model.quant.schemes) & set(STATIC):
        return f"is {model.quant.scheme}, which needs no calibration"
    if model.statistics is None or any(found.how == "learned" for found in model.statistics.ranges.values()):
        return "has ranges that were learned in training"
    return None


def check(
    model: Model,
    calibration: Dataset,
    others: Dataset,
    *,
    stage: str = "",
    judged: int = JUDGED,
    emit: Callable[[Progress], None] = lambda progress: None,
) -> CalibrationCheck:
    """A static model's calibration against a disjoint sample of, at most, the same size.

    judged: images of the others that the simulated network answers on, no part of that sample; at most a third of them.
    """
    from toolkit.engine.prepare import prepare
    from toolkit.engine.stored import stored
    from toolkit.passes.calibration import images_of

    why = refusal(model)
    if why or model.statistics is None:
        raise UnsupportedError(stage or "calibration", why or "has no ranges")
    if min(len(calibration), len(others)) < LEAST_IMAGES:
        problem = f"needs {LEAST_IMAGES} images, and as many others, to be checked"
        raise InputError("calibration", problem, "give more images")
    graph, judged = prepare(model.graph).graph, min(judged, len(others) // 3)
    count = min(len(calibration), len(others) - judged)
    own = {name: (found.low, found.high) for name, found in model.statistics.ranges.items()}
    emit(Progress(f"calibrating {stage} on half of its images, and on {count} others", keep=True))
    half = _found(graph, _part(images_of(graph, calibration), 0, len(calibration) // 2), model)
    other = _found(graph, _part(images_of(graph, others), judged, count), model)
    tensors = stored(graph)
    names = [tensors.names[edge] for edge in tensors.needed()]
    rows = [_row(name, own[name], half[1][name], other, model) for name in names if name in own and name in other[1]]
    if not rows:
        raise UnsupportedError(stage or "calibration", "has ranges of none of its tensors", "quantize it anew")
    images = _joined(_part(images_of(graph, others), 0, judged))
    own_db, half_db, other_db = (_sqnr(graph, {**own, **found}, images, model) for found in ({}, half[1], other[1]))
    worst = tuple(sorted(rows, key=lambda row: (-row.outside, -row.other_steps)))
    sizes = (len(calibration), others.name, count, judged)
    advice = _advice(worst, (own_db, half_db, other_db), sizes)
    return CalibrationCheck(stage, *sizes, own_db, half_db, other_db, advice, worst)


Found = tuple[Any, dict[str, Range]]  # what was collected, and the ranges chosen of it


def _found(graph: Any, batches: Iterator[Mapping[str, Array]], model: Model) -> Found:
    from toolkit.engine.calibrate import calibrate

    quant = model.quant
    collected = calibrate(graph, batches, histograms=True)
    ranges = collected.ranges(
        quant.ranges, quant.percentile, bits={name: _bits(name, model) for name in collected.tensors}
    )
    return collected, {name: (item.low, item.high) for name, item in ranges.items()}


def _row(name: str, own: Range, half: Range, other: Found, model: Model) -> TensorCoverage:
    low, high = min(own[0], 0.0), max(own[1], 0.0)  # integers hold 0
    step = max(high - low, LEAST) / (2 ** _bits(name, model) - 1)
    seen = other[0].tensors[name]
    outside = seen.outside(low, high) if seen.histogram is not None else 0.0
    moved = [max(abs(min(a, 0.0) - low), abs(max(b, 0.0) - high)) / step for a, b in (half, other[1][name])]
    return TensorCoverage(name, own[0], own[1], step, outside, *moved)


def _bits(name: str, model: Model) -> int:
    schemes = dict(model.quant.layers)
    return ACTIVATION_BITS.get(schemes.get(name.split(":", 1)[0], model.quant.scheme), 8)


def _sqnr(graph: Any, ranges: Mapping[str, Range], images: Mapping[str, Array], model: Model) -> float:
    """Of the logits, with every layer quantized by these ranges."""
    import numpy as np

    from toolkit.checks.layers import bounded
    from toolkit.engine.numeric import difference
    from toolkit.engine.sensitivity import Asked, Gated

    quant = model.quant
    left = {name for name, scheme in quant.layers if scheme != quant.scheme}
    asked = Asked(8, ACTIVATION_BITS.get(quant.scheme, 8), quant.flavour, quant.granularity, left)
    gated: Gated = Gated(graph, ranges, asked)
    reference = gated.answers(images, np.zeros(gated.count))
    return bounded(difference(reference, gated.answers(images, gated.gates(None)), model.head).logits_sqnr_db)


def _part(batches: Iterator[Mapping[str, Array]], start: int, count: int) -> Iterator[Mapping[str, Array]]:
    """So many images alone, from that place on."""
    for batch in batches:
        size = len(next(iter(batch.values())))
        taken = {name: array[max(start, 0) : max(start + count, 0)] for name, array in batch.items()}
        if len(next(iter(taken.values()))):
            yield taken
        start -= size
        if start + count <= 0:
            return


def _joined(batches: Iterator[Mapping[str, Array]]) -> Mapping[str, Array]:
    import numpy as np

    parts = list(batches)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _advice(
    rows: tuple[TensorCoverage, ...], decibels: tuple[float, float, float], sizes: tuple[int, str, int, int]
) -> str:
    """One sentence: what moves, and whether that matters."""
    images, other, count, _ = sizes
    full, half, others = decibels
    steps = [median(row.half_steps for row in rows), median(row.other_steps for row in rows)]
    by_half = f"with half of them ranges move by {_steps(steps[0])} (median) and the output {_changes(half - full)}"
    by_others = f"with {count} others ({other}) by {_steps(steps[1])} and it {_changes(others - full)}"
    worst = max(rows, key=lambda row: row.outside)
    if worst.outside > max(CLIPPED, UNLIKE * 2 / (images + 1)) and others - full >= MATTERS_DB:
        told = (
            f"{worst.layer} clips {100 * worst.outside:.2g}% of its values on the {other} split, whose own ranges win"
        )
        return f"{told} {others - full:.1f} dB: calibrate on images like those it will see"
    if max(full - half, abs(others - full)) >= MATTERS_DB:
        return f"take more than {images} images: {by_half}, {by_others}"
    return f"{images} images are enough: {by_half}, {by_others}"


def _changes(decibels: float) -> str:
    return f"{'loses' if decibels < 0 else 'wins'} {abs(decibels):.1f} dB"


def _steps(number: float) -> str:
    return f"{number:.1f} step{'' if number == 1 else 's'}"
