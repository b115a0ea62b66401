"""What is wrong with a delivered file, layer by layer, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checks import divergence
from toolkit.checks.divergence import Divergence
from toolkit.checks.layers import IMAGES as IMAGES  # noqa: PLC0414  (how many, where nobody says)
from toolkit.checks.layers import Culprit, LayerError, bounded, layer_errors
from toolkit.core import ACTIVATION_BITS, STATIC, Model, Progress, QuantSpec
from toolkit.errors import UnsupportedError

if TYPE_CHECKING:
    from toolkit.core import Array

CLIPPED = 0.001  # share of a tensor beyond its range that is worth another calibration: ten times what 99.99% cut
WINS_DB = 1.0  # what a layer must win back to be worth a mix: less is within what other images say


@dataclass(frozen=True)
class Sensitive:
    """One layer: SQNR of the logits, and share of the original's decisions, with it alone quantized and with all
    others; gain_db: what leaving it in float wins back of all. agreement is None where nothing is decided."""

    layer: str
    alone_db: float
    alone_agreement: float | None
    rest_db: float
    rest_agreement: float | None
    gain_db: float


@dataclass(frozen=True)
class Diagnosis:
    """errors: of the file's layers, worst first. sensitive: of a simulation, the layer that wins most back first.

    all_db, all_agreement: of that simulation with every layer quantized; None where none was made. advice: which layer
    is likely at fault, and what to do. first: the first layer that leaves tolerance, in the file's order. builds_up:
    the layer from which on the error of all together is too large. kernels_db: SQNR of the file's answers in its
    runtime as it is delivered, against the plain kernels that were looked into; None where it does not run there.
    """

    artifact: str
    images: int
    culprit: str
    faulty: bool
    advice: str
    errors: tuple[LayerError, ...]
    unmatched: int = 0
    sensitive: tuple[Sensitive, ...] = ()
    all_db: float | None = None
    all_agreement: float | None = None
    scheme: str = ""
    first: Divergence | None = None
    builds_up: str = ""
    kernels_db: float | None = None

    @property
    def floats(self) -> bool:
        """Whether the file computes in floats: nothing is lost by rounding to integers."""
        return self.scheme in divergence.FLOAT_DB

    def diverging(self) -> str:
        """The first layer that leaves tolerance, with its statistics; or that none does, and where error builds up."""
        if self.first is not None:
            return divergence.sentence(self.first, self.scheme)
        told = "no layer diverges"
        if self.builds_up:
            told += f": each is as near as its scheme allows, and together they end too far from {self.builds_up} on"
        if self.kernels_db is not None and self.kernels_db < divergence.held_db(self.scheme):
            told += (
                f"; but the runtime's optimized kernels answer otherwise than its plain ones ({self.kernels_db:.1f} dB)"
            )
        return told


def diagnose(
    path: Path,
    model: Model,
    images: Mapping[str, Array],
    *,
    sensitivity: bool = True,
    emit: Callable[[Progress], None] = lambda progress: None,
) -> Diagnosis:
    """The diagnosis of one file against the Keras model it was written from, which says how it is quantized."""
    if model.kind != "keras":
        fix = "diagnose a file that was written from a Keras model"
        raise UnsupportedError(str(path), f"its source is a {model.kind} model, which shows no layers", fix)
    emit(Progress(f"error by layer of {path.name}", keep=True))
    found = layer_errors(path, model.graph, images)
    culprit = found.culprit()
    if culprit is None:
        raise UnsupportedError(str(path), "none of its tensors is one of the model's layers")
    first = divergence.first_diverging(found.rows, model.quant.scheme)
    drift = divergence.builds_up(found.rows, model.quant.scheme)
    if first is not None and model.quant.scheme in divergence.FLOAT_DB:
        culprit = Culprit(first.layer, first.row, faulty=True)
    rows, every = _sensitive(model, images, path.suffix, emit) if sensitivity else ((), None)
    made = Diagnosis(
        artifact=path.name,
        images=found.images,
        culprit=culprit.layer,
        faulty=culprit.faulty,
        advice="",
        errors=found.worst_first(),
        unmatched=found.unmatched,
        sensitive=rows,
        all_db=None if every is None else every[0],
        all_agreement=None if every is None else every[1],
        scheme=model.quant.scheme,
        first=first,
        builds_up=drift.layer if drift else "",
        kernels_db=found.kernels_db,
    )
    if made.floats:
        return replace(made, advice=_of_floats(made))
    return replace(made, advice=_advice(culprit, rows, model.quant, path.suffix))


def _of_floats(made: Diagnosis) -> str:
    """One sentence of a file that rounds nothing to integers: it computes the model, or something else."""
    if made.first is not None:
        return f"{made.first.layer} does not compute what the model's layer does: write the file anew, from this model"
    worst = made.errors[0]
    return f"{made.diverging()}: the worst, {worst.layer}, keeps {worst.alone_db:.0f} dB"


def _sensitive(
    model: Model, images: Mapping[str, Array], suffix: str, emit: Callable[[Progress], None]
) -> tuple[tuple[Sensitive, ...], tuple[float, float | None] | None]:
    """Rows, and (SQNR, agreement) of all layers quantized; nothing for schemes that round no integers."""
    quant = model.quant
    if quant.scheme in ("float32", "float16"):
        return (), None
    from toolkit.engine.prepare import prepare
    from toolkit.engine.sensitivity import Asked, sensitivity

    bits = ACTIVATION_BITS.get(quant.scheme)
    ranges = None
    if model.statistics is not None:
        ranges = {name: (found.low, found.high) for name, found in model.statistics.ranges.items()}

    def tell(text: str, fraction: float) -> None:
        emit(Progress(text, fraction))

    graph = prepare(model.graph).graph
    weight_bits, left = 4 if quant.scheme == "weight_int4" else 8, _left(graph, quant, suffix)
    asked = Asked(weight_bits, bits, quant.flavour, quant.granularity, left)
    result = sensitivity(graph, ranges, images, head=model.head, asked=asked, emit=tell)
    rows = tuple(
        Sensitive(
            row.layer,
            bounded(row.alone.sqnr_db),
            _known(row.alone.agreement),
            bounded(row.rest.sqnr_db),
            _known(row.rest.agreement),
            bounded(row.gain_db),
        )
        for row in result.most_first()
    )
    return rows, (bounded(result.all.sqnr_db), _known(result.all.agreement))


def _left(graph: Any, quant: QuantSpec, suffix: str) -> set[str]:
    """Layers that the file does not compute as the rest: of another scheme, and softmax in ONNX where nobody asks."""
    from toolkit.engine.graph import walk
    from toolkit.engine.stored import activation

    schemes = dict(quant.layers)
    softmax = {call.name for call in walk(graph).calls if activation(call) == "softmax"} if suffix == ".onnx" else set()
    return {name for name, scheme in schemes.items() if scheme != quant.scheme} | (softmax - set(schemes))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _advice(culprit: Culprit, sensitive: tuple[Sensitive, ...], quant: QuantSpec, suffix: str) -> str:
    """One sentence: the layer, what shows it, what to do."""
    row, name = culprit.row, culprit.layer
    if culprit.faulty and row.misread:
        return (
            f"{name} is likely at fault: its scale in the file contradicts what {row.layer}, which reads it, stores "
            "(the file itself is wrong: write it anew)"
        )
    shown = f"its own error is {row.alone_db:.1f} dB"
    if row.saturated > CLIPPED:
        shown += f", {100 * row.saturated:.2g}% of its values lie beyond its range"
        return f"{name} is likely at fault: {shown}; calibrate another way (ranges), on images like those it will see"
    if culprit.faulty:
        what = "its weights share one scale" if quant.granularity == "per_tensor" else "its weights or scale are off"
        remedy = 'granularity = "per_channel"' if quant.granularity == "per_tensor" else "corrections, or write it anew"
        shown += f", {row.lost_db:.0f} dB more than 8 bits explain"
        return f"{name} is likely at fault: {shown}: {what}; {remedy}, or {_mix(name, quant, suffix)}"
    most = sensitive[0] if sensitive else None
    if most is not None and most.gain_db >= WINS_DB:
        mix = _mix(most.layer, quant, suffix)
        return f"{most.layer} costs most: left in float it wins back {most.gain_db:.1f} dB; {mix}"
    if sensitive:
        told = f"the worst is {name} ({shown}), and no single one wins back {WINS_DB:g} dB"
        return f"no layer stands out: {told}; train it to be quantized (qat)"
    return f"{name} is the worst: {shown}; {_mix(name, quant, suffix)}"


def _mix(name: str, quant: QuantSpec, suffix: str) -> str:
    finer = suffix == ".tflite" and quant.scheme == STATIC[0] and quant.flavour == "asymmetric"  # ONNX has no int16x8
    scheme = "int16x8" if finer else "float32"
    other = f' or "{scheme}"' if scheme != "float32" else ""
    return f'layers = {{ {name} = "float32"{other} }}'
