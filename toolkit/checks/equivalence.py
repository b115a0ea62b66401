"""Which models of a run answer alike: original, stages and files on every device, two by two, on the same images.

Decisions tell what users see; SQNR of the logits and the largest difference tell more, since every image counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from toolkit.checks.parity import DECIBEL_LIMIT

if TYPE_CHECKING:
    from toolkit.core import Array

MOST_SUBJECTS = 32  # 496 pairs: a table of more is read by nobody; the first ones stay
MOST_NUMBERS = 2**24  # outputs whose differences are taken, of all subjects together: 128 MiB in double precision
FLOATS = ("float32", "float16")
# What sound files keep to, measured on seven files (docs/deploy.md): floats 115 dB between kernels, integers 15 dB
FLOATS_DB, INTEGERS_DB = 40.0, 12.0
FLIPPED = 0.01  # share of decisions that files which compute in floats may change: ties, and what is nearly one


@dataclass(frozen=True)
class Subject:
    """What answered. device, scheme: "" for a model in Keras. stage: the model a file was written from."""

    name: str
    device: str = ""
    runtime: str = ""
    scheme: str = ""
    stage: str = ""

    @property
    def title(self) -> str:
        """As a reader names it."""
        return f"{self.name} on {self.device}" if self.device else self.name


@dataclass(frozen=True)
class Pair:
    """Two subjects by their place. images: with usable outputs of both. agree: of all images, those decided alike.

    agree is None where nothing is decided, max_abs and sqnr_db (of the logits; the first is the signal) where no image
    is usable. unexpected: why the two should be nearer than they are, "" where nothing speaks for it.
    """

    first: int
    second: int
    images: int
    agree: int | None
    max_abs: float | None
    sqnr_db: float | None
    unexpected: str = ""


@dataclass(frozen=True)
class Equivalence:
    """images: of each subject. numbers: images whose outputs were subtracted, the first of them. left_out: subjects
    beyond those a table holds."""

    head: str
    images: int
    numbers: int
    subjects: tuple[Subject, ...]
    pairs: tuple[Pair, ...]
    left_out: int = 0

    def unexpected(self) -> tuple[Pair, ...]:
        """Pairs that should be nearer than they are."""
        return tuple(pair for pair in self.pairs if pair.unexpected)

    def sentence(self, pair: Pair) -> str:
        """One unexpected difference in words."""
        first, second = self.subjects[pair.first], self.subjects[pair.second]
        numbers = [] if pair.agree is None else [f"alike on {pair.agree} of {self.images} images"]
        numbers.append("no usable answer" if pair.sqnr_db is None else f"SQNR {pair.sqnr_db:.1f} dB")
        more = f"by more than {second.scheme} explains: {', '.join(numbers)}"
        return f"{second.title} differs from {first.title}, {pair.unexpected}, {more}"

    def strays(self) -> tuple[str, ...]:
        """Files that are further from the model they were written from than their scheme explains."""
        both = ((self.subjects[pair.first], self.subjects[pair.second]) for pair in self.unexpected())
        return tuple(dict.fromkeys(file.name for model, file in both if _of_model(model, file)))


@dataclass(frozen=True)
class _Known:
    """One subject's answers: of all images the decisions, of the first ones raw outputs and logits."""

    decided: Array | None
    raw: Array
    logits: Array


def compare(subjects: Sequence[Subject], head: str, read: Callable[[Subject], Array | None]) -> Equivalence | None:
    """All pairs; None for fewer than two subjects. read: outputs of one, (images, ...), all of the same images;
    None leaves it out.

    A subject whose outputs have another shape than the first one's is left out too.
    """
    kept: list[Subject] = []
    known: list[_Known] = []
    shape: tuple[int, ...] = ()
    rows = 0
    for subject in subjects[:MOST_SUBJECTS]:
        outputs = read(subject)
        if outputs is None:
            continue
        if not kept:
            shape, rows = outputs.shape, _rows(outputs.shape, min(len(subjects), MOST_SUBJECTS))
        if outputs.shape == shape and len(outputs):
            kept.append(subject)
            known.append(_known(outputs, rows, head))
    if len(kept) < 2:
        return None
    pairs = tuple(_pair(i, j, kept, known) for i, j in combinations(range(len(kept)), 2))
    return Equivalence(head, shape[0], rows, tuple(kept), pairs, len(subjects) - len(kept))


def _rows(shape: Sequence[int], subjects: int) -> int:
    return min(shape[0], max(1, MOST_NUMBERS // (subjects * max(1, math.prod(shape[1:])))))


def _known(outputs: Array, rows: int, head: str) -> _Known:
    import numpy as np

    from toolkit.engine import numeric

    decided = None
    if head in numeric.HEADS:
        decided = numeric.decisions(outputs, head)[:, None]
    elif head == numeric.LABELS:
        decided = numeric.label_decisions(outputs)
    raw = np.asarray(outputs[:rows], np.float64).reshape(len(outputs[:rows]), -1)
    with np.errstate(invalid="ignore", divide="ignore"):  # images with NaN are left out of every pair
        logits = numeric.as_logits(raw, head) if head in (*numeric.HEADS, numeric.LABELS) else raw
    return _Known(decided, raw, logits)


def _pair(i: int, j: int, subjects: Sequence[Subject], known: Sequence[_Known]) -> Pair:
    import numpy as np

    from toolkit.engine import numeric

    first, second = known[i], known[j]
    agree = None
    if first.decided is not None and second.decided is not None:
        agree = int(np.count_nonzero(((first.decided == second.decided) & (first.decided >= 0)).all(axis=1)))
    usable = np.flatnonzero(np.isfinite(first.raw).all(axis=1) & np.isfinite(second.raw).all(axis=1))
    images = len(usable)
    most, sqnr = None, None
    if images:
        most = float(np.abs(first.raw[usable] - second.raw[usable]).max())
        decibels = numeric.sqnr_db(first.logits[usable], second.logits[usable])
        sqnr = max(-DECIBEL_LIMIT, min(DECIBEL_LIMIT, decibels))
    flipped = 0 if first.decided is None or agree is None else len(first.decided) - agree
    many = first.decided is not None and flipped > max(1.0, FLIPPED * len(first.decided))
    return Pair(i, j, images, agree, most, sqnr, _why(subjects[i], subjects[j], sqnr, many=many))


def _why(first: Subject, second: Subject, sqnr: float | None, *, many: bool) -> str:
    """Why two should be alike, where they should and are not. many: decisions that changed."""
    floats = {first.scheme or "float32", second.scheme or "float32"} <= set(FLOATS)
    least = FLOATS_DB if floats else INTEGERS_DB
    if sqnr is not None and sqnr >= least and not (floats and many):
        return ""
    if first.name == second.name:
        return "the same file"
    if _of_model(first, second):
        return "the model it was written from"
    return "another file of the same model" if floats and first.stage and first.stage == second.stage else ""


def _of_model(first: Subject, second: Subject) -> bool:
    return not first.device and not first.stage and second.stage == first.name
