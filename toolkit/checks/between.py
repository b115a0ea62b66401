"""Two files of one model beside each other, layer by layer: where they first differ, and which leaves the model.

A .tflite and an .onnx file have no tensor in common but those of the model's layers, which each is matched to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checks.divergence import FLOAT_DB, ROUNDING, Divergence, first_diverging
from toolkit.checks.layers import TOGETHER, LayerError, bounded, finite, looked_into

if TYPE_CHECKING:
    from toolkit.core import Array


@dataclass(frozen=True)
class Gap:
    """One layer in both files. sqnr_db: of the second against the first; rows: of each file against the model."""

    layer: str
    sqnr_db: float
    largest: float
    rows: tuple[LayerError, LayerError]


@dataclass(frozen=True)
class Between:
    """layers: in both files. first: the first that differs by more than the schemes explain; None where none does.

    at_fault: files that leave the model there or before, each with the layer where it does; none where what the schemes
    explain has grown.
    """

    files: tuple[str, str]
    images: int
    layers: int
    worst: Gap
    first: Gap | None
    at_fault: tuple[tuple[str, str], ...] = ()

    def sentence(self) -> str:
        """Where they part, and who is at fault."""
        both = f"{self.files[0]} and {self.files[1]}"
        if self.first is None:
            return (
                f"{both}: no layer diverges; of {self.layers} layers {self.worst.layer} differs most{_said(self.worst)}"
            )
        named = " and ".join(f"{file}, from {layer} on" for file, layer in self.at_fault)
        blame = f"at fault: {named}" if named else "what their schemes explain has grown to this"
        return f"{both} first differ at {self.first.layer}{_said(self.first)}; {blame}"


def _said(gap: Gap) -> str:
    return f" ({gap.sqnr_db:.1f} dB, by up to {gap.largest:.3g})"


def between(
    paths: tuple[Path, Path], schemes: tuple[str, str], model: Any, images: Mapping[str, Array]
) -> Between | None:
    """Compare two files on the first images; None where they have no layer in common. Others as of `layer_errors`."""
    from toolkit.engine.numeric import sqnr_db

    some = {name: array[:TOGETHER] for name, array in images.items()}
    sides = [looked_into(path, model, some) for path in paths]
    known = [{found.edge: found.tensor for found in replay.matches} for _, replay, _ in sides]
    rows = [{row.layer: row for row in errors.rows} for _, _, errors in sides]
    graph, gaps = sides[0][1].graph, []
    for edge, tensor in known[0].items():
        name = graph.calls[edge.call].name
        if edge not in known[1] or edge in graph.inputs or not all(name in own for own in rows):
            continue
        one, other = sides[0][1].carried[tensor], sides[1][1].carried[known[1][edge]]
        other = other.reshape(one.shape)
        largest = finite(float(abs(one - other).max()))
        gaps.append(Gap(name, bounded(sqnr_db(one, other)), largest, (rows[0][name], rows[1][name])))
    if not gaps:
        return None
    strays = [first_diverging(side[2].rows, scheme) for side, scheme in zip(sides, schemes, strict=True)]
    first = next((gap for gap in gaps if _apart(gap, schemes, strays)), None)
    names = (paths[0].name, paths[1].name)
    worst = min(gaps, key=lambda gap: gap.sqnr_db)
    fault = () if first is None else tuple(_at_fault(first, names, strays))
    return Between(names, len(next(iter(some.values()))), len(gaps), worst, first, fault)


def _apart(gap: Gap, schemes: Sequence[str], strays: Sequence[Divergence | None]) -> bool:
    """Files of floats must be alike; of others, a layer is apart where one of the two has left the model."""
    if all(scheme in FLOAT_DB for scheme in schemes):
        least = min(FLOAT_DB[scheme] for scheme in schemes)
        return gap.sqnr_db < least and gap.largest > ROUNDING * max(row.fed for row in gap.rows)
    return any(_left(row, found) for row, found in zip(gap.rows, strays, strict=True))


def _at_fault(gap: Gap, names: Sequence[str], strays: Sequence[Divergence | None]) -> Iterator[tuple[str, str]]:
    for name, row, found in zip(names, gap.rows, strays, strict=True):
        if found is not None and _left(row, found):
            yield name, found.layer


def _left(row: LayerError, found: Divergence | None) -> bool:
    return found is not None and found.row.place <= row.place
