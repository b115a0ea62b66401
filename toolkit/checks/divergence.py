"""The first layer at which a delivered file leaves the model it was written from.

Tensors are compared in the file's order, each with what the float layer gives on the file's own inputs: what comes
after a broken layer is judged on what that layer gave it, and is not blamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.checks.equivalence import FLOATS, FLOATS_DB, INTEGERS_DB
from toolkit.checks.layers import FAULT_DB, LayerError

# A layer's own error that its scheme explains. Measured, the worst layer of sound files of six networks: float32 above
# 100 dB, float16 above 60 dB (11 bits of a weight: 77 dB); approximated activations, of libraries, end near 60 dB.
FLOAT_DB: dict[str, float] = {"float32": 60.0, "float16": 45.0}
FOUR_BITS_DB = 24.0  # what four bits fewer than the eight of `lost_db` cost: 6.02 dB each
ROUNDING = 1e-6  # of the largest input: what sums in another order leave where a layer gives nearly nothing


@dataclass(frozen=True)
class Divergence:
    """layer: the first that leaves tolerance. row: where it shows, with its statistics. place: among `compared` layers,
    from 1, in the file's order. others: how many more leave it, by their own error."""

    layer: str
    row: LayerError
    place: int
    compared: int
    others: int = 0


def held_db(scheme: str) -> float:
    """What the answers of a sound file keep, in all."""
    return FLOATS_DB if scheme in FLOATS else INTEGERS_DB


def in_order(rows: Sequence[LayerError]) -> tuple[LayerError, ...]:
    """As the file computes them."""
    return tuple(sorted(rows, key=lambda row: row.place))


def first_diverging(rows: Sequence[LayerError], scheme: str) -> Divergence | None:
    """The first row that its scheme does not explain; None where all are explained."""
    ordered = in_order(rows)
    strays = [place for place, row in enumerate(ordered) if diverges(row, scheme)]
    if not strays:
        return None
    row = ordered[strays[0]]
    return Divergence(row.omitted or row.misread or row.layer, row, strays[0] + 1, len(ordered), len(strays) - 1)


def diverges(row: LayerError, scheme: str) -> bool:
    """Whether a layer's own error is more than its scheme explains."""
    if scheme in FLOAT_DB:
        return row.alone_db < FLOAT_DB[scheme] and row.largest > ROUNDING * row.fed
    return row.lost_db >= FAULT_DB + (FOUR_BITS_DB if scheme == "weight_int4" else 0.0)


def builds_up(rows: Sequence[LayerError], scheme: str) -> LayerError | None:
    """The first tensor that is far from the float model's, with all errors before it, and stays so to the end."""
    least, found = held_db(scheme), None
    for row in reversed(in_order(rows)):
        if row.sqnr_db >= least:
            break
        found = row
    return found


def sentence(found: Divergence, scheme: str) -> str:
    """The layer and its statistics."""
    row = found.row
    told = [f"own error {row.alone_db:.1f} dB{_expected(row, scheme)}", f"differs by up to {row.largest:.3g}"]
    told.append(f"{100 * row.apart:.3g}% of its values by more than 1% of its range")
    told.append(f"values {row.low:.3g} to {row.high:.3g}")
    if row.scale:
        told.append(f"scale {row.scale:.4g}, zero point {row.zero_point}")
    if row.saturated:
        told.append(f"{100 * row.saturated:.2g}% beyond its integers")
    left_out = "; the file leaves it out" if row.omitted else ""
    more = f"; by their own error so do {found.others} after it" if found.others else ""
    where = f"layer {found.place} of {found.compared}, {row.operator} {row.tensor.partition(';')[0]}"
    return f"the first layer to diverge is {found.layer} ({where}){left_out}: {', '.join(told)}{more}"


def _expected(row: LayerError, scheme: str) -> str:
    if scheme in FLOAT_DB:
        return f", {scheme} keeps {FLOAT_DB[scheme]:g}"
    return f", {row.lost_db:.0f} more than 8 bits explain"
