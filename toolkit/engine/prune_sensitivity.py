"""How much each channel group matters, measured: the network's score with the weakest of its channels shut.

Curves as of Li et al. 2017 (arXiv:1608.08710, section 3.2 and figure 2), one group at a time, nothing retrained. They
tell how far a group can go, and the scores within it which channels: scaled so that they add up to the loss that was
measured, scores of different groups can be compared, and a global ranking is one of measured losses.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.engine.allocate import weakest
from toolkit.engine.groups import Group
from toolkit.engine.surgery import rebuild

Scores = NDArray[np.float64]
SHARES = (0.25, 0.5, 0.75)  # of a group's channels; between them losses are interpolated
TIE = 1e-6  # of the largest loss: what importance still says where no loss was seen


@dataclass(frozen=True)
class Curve:
    """shut: channels without which a group's network was scored; scores: what it reached, 0 shut first."""

    group: str
    size: int
    shut: tuple[int, ...]
    scores: tuple[float, ...]

    @property
    def losses(self) -> tuple[float, ...]:
        """What was lost, never less than with fewer channels shut."""
        lost = np.maximum.accumulate([self.scores[0] - score for score in self.scores])
        return tuple(float(max(loss, 0.0)) for loss in lost)


def curves(
    model: Any,
    groups: Sequence[Group],
    scores: Mapping[str, Scores],
    evaluate: Callable[[Any], float],
    *,
    told: Callable[[int, int], None] = lambda done, all_of_them: None,
) -> tuple[Curve, ...]:
    """One curve for each group that is not frozen and has two channels or more.

    evaluate: a model's score, larger is better. told(done, of): progress, in evaluations. The model is left as it is.
    """
    free = [group for group in groups if not group.frozen and group.size > 1]
    twin = rebuild(model, {})
    whole, found = evaluate(twin), []
    for number, group in enumerate(free):
        shut = tuple(dict.fromkeys(max(1, round(share * group.size)) for share in SHARES))
        values: list[float] = []
        for count in shut:
            told(number * len(SHARES) + len(values), len(free) * len(SHARES))
            kept = _shut(twin, group, weakest(scores[group.id], count))
            values.append(float(evaluate(twin)))
            for name, weights in kept.items():
                twin.get_layer(name).set_weights(weights)
        found.append(Curve(group.id, group.size, (0, *shut), (float(whole), *values)))
    return tuple(found)


def _shut(model: Any, group: Group, channels: NDArray[np.intp]) -> dict[str, list[Any]]:
    """Set all that some channels have to zero, in place; the weights as they were."""
    kept: dict[str, list[Any]] = {}
    for slot in group.slots:
        if slot.index >= 0:
            layer = model.get_layer(slot.layer)
            kept.setdefault(slot.layer, layer.get_weights())
            weights = layer.get_weights()
            np.moveaxis(weights[slot.index], slot.axis, 0)[slot.positions[channels].ravel()] = 0
            layer.set_weights(weights)
    return kept


def measured(scores: Mapping[str, Scores], found: Sequence[Curve]) -> dict[str, Scores]:
    """Scores scaled piece by piece, so that those of the k weakest channels add up to the loss without them.

    Beyond the last point a group's loss is taken to go on as in its last piece. Groups without a curve keep theirs.
    """
    top = max((curve.losses[-1] for curve in found), default=0.0) or 1.0
    scaled = dict(scores)
    for curve in found:
        own = scores[curve.group]
        order = np.argsort(own, kind="stable")
        ranked = own[order] + TIE * (own.max() or 1.0)
        out = np.empty_like(ranked)
        rate = 0.0
        for start, end, loss in zip(curve.shut, curve.shut[1:], np.diff(curve.losses), strict=False):
            rate = float(loss) / ranked[start:end].sum()
            out[start:end] = ranked[start:end] * rate
        out[curve.shut[-1] :] = ranked[curve.shut[-1] :] * rate
        values = np.empty_like(own)
        values[order] = out + TIE * top * ranked / ranked.sum()
        scaled[curve.group] = values
    return scaled


# ---------------------------------------------------------------- kept on disk


def key_of(model: Any, scores: Mapping[str, Scores], images: str) -> str:
    """Of all that curves depend on: the network, which channels are weakest, and the images they were scored on."""
    digest = hashlib.sha256(model.to_json().encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    for name, values in sorted(scores.items()):
        digest.update(name.encode() + np.argsort(values, kind="stable").tobytes())
    digest.update(json.dumps([images, SHARES]).encode())
    return digest.hexdigest()


def load(folder: Path, key: str) -> tuple[Curve, ...] | None:
    """Curves that were kept; None where there are none, or damaged ones."""
    try:
        rows = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        return tuple(Curve(row["group"], row["size"], tuple(row["shut"]), tuple(row["scores"])) for row in rows)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(folder: Path, key: str, found: Sequence[Curve]) -> None:
    """Write curves, whole or not at all; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{key}.{os.getpid()}.part"
    partial.write_text(json.dumps([asdict(curve) for curve in found]), encoding="utf-8")
    partial.replace(folder / f"{key}.json")
