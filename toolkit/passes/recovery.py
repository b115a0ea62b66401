"""The corrections of a `quantize` pass: engine.recover for the scheme that is asked for, on the calibration split.

Images are read as often as the corrections need them; a batch of them is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.core import ACTIVATION_BITS, STATIC, LayerChange, Model, PassContext, Progress, QuantSpec, Statistics
from toolkit.passes import calibration

if TYPE_CHECKING:
    from toolkit.engine.recover import Data, Target

WEIGHT_BITS = {"weight_int4": 4}  # by scheme; 8 for the others


@dataclass(frozen=True)
class Corrected:
    """The prepared, corrected graph; its ranges and what is worth a warning of them, for static schemes; the rows."""

    graph: Any
    statistics: Statistics | None
    notes: tuple[calibration.Note, ...]
    changes: tuple[LayerChange, ...]


def correct(
    model: Model, prepared_graph: Any, context: PassContext, quant: QuantSpec, *, corrections: Collection[str]
) -> Corrected:
    """A corrected graph for a Keras model and its prepared form. Layers of another scheme stay as they are."""
    from toolkit.engine.expected import norm_statistics
    from toolkit.engine.recover import recover

    notes: list[tuple[calibration.Note, ...]] = [()]
    found = recover(
        prepared_graph,
        corrections,
        target=_target(prepared_graph, quant),
        data=_data(prepared_graph, context, quant, notes),
        norms=norm_statistics(model.graph),
        seed=context.seed,
        watch=lambda text: context.emit(Progress(f"  {text}")),
    )
    changes = tuple(LayerChange(step.layer, step.before, step.after, step.reason) for step in found.steps)
    return Corrected(found.graph, found.statistics if quant.scheme in STATIC else None, notes[-1], changes)


def _target(prepared_graph: Any, quant: QuantSpec) -> Target:
    from toolkit.engine.recover import Target

    others = _apart(prepared_graph, quant)
    names = [str(layer.name) for layer in prepared_graph.layers if layer.name not in others]
    return Target(
        weight_bits=WEIGHT_BITS.get(quant.scheme, 8),
        activation_bits=ACTIVATION_BITS.get(quant.scheme),
        flavour=quant.flavour,
        granularity=quant.granularity,
        layers=names if others else None,
    )


def _apart(prepared_graph: Any, quant: QuantSpec) -> set[str]:
    """Layers of another scheme, with the activations that are one operator with them."""
    from toolkit.engine.stored import chosen, stored

    if not quant.layers:
        return set()
    tensors = stored(prepared_graph)
    return {tensors.graph.calls[index].name for index in chosen(tensors, tuple(dict(quant.layers)))}


def _data(
    prepared_graph: Any, context: PassContext, quant: QuantSpec, notes: list[tuple[calibration.Note, ...]]
) -> Data | None:
    """The calibration split as engine.recover takes it; notes: gets those of each calibration."""
    from toolkit.engine.recover import Data

    if context.calibration is None or not len(context.calibration):
        return None
    split = context.calibration

    def calibrate(graph: Any) -> Statistics:
        if quant.scheme not in STATIC:
            return Statistics()
        statistics, own = calibration.statistics_of(graph, context, quant)
        notes.append(own)
        return statistics

    return Data(lambda: calibration.images_of(prepared_graph, split), calibrate)
