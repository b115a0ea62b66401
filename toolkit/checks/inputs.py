"""Whether a model gets its images as it was trained to: scale, mean, order of channels, layout, numbers of the labels.

Witnesses: the probability that the labelled class gets, image by image; and the first layer that remembers what it was
trained on (a BatchNormalization's moving mean and variance). Other ways to present the images are tried on some of
them; what looks better is tried on others, and is told only where it is clearly better there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from toolkit.checks.presented import Given, Way, remedy, said

if TYPE_CHECKING:
    from toolkit.core import Array, Meaning
    from toolkit.engine.moments import Observed

What = Literal["scale", "color", "layout", "labels", "values"]
IMAGES = (48, 256)  # at least and at most that are looked at
LEAST = 16  # fewer can tell nothing
PIXELS = 4 << 20  # of all of them: some seconds of a MobileNet
SCREENED = 32  # of those: to choose what is tried again on the others; each of ten ways costs as much, so no more
SURE = 3.5  # standard errors: one in 4,000 by chance, for a handful of comparisons
MATERIAL = 0.02  # of probability: less is no mistake of preprocessing
FAR = 0.01  # distance of nothing amiss: a mean moved by a seventh of its deviation; five clean networks: up to 0.04
NEARER = (0.6, 0.8)  # share of the distance that is left: alone, and where the answers are clearly surer as well
MOST_TIMES = 0.01  # more is not worth a number
DRAWS = 1000  # of images with replacement, all of which must say that another way is nearer
SHIFTS = (0, 1, -1)
LABELS_GAIN = 0.1  # of probability, that other numbers of the labels must win
PER_CLASS = 8  # images of each class, before labels are taken for permuted
FLAT = 1.0  # standard deviation of an image's pixels: less shows nothing
FLAT_SHARE = 0.05


@dataclass(frozen=True)
class Tried:
    """One way to present the images, on `images` of them.

    right: mean probability of the labelled class (of other heads a score in 0..1). top1: share decided as labelled.
    distance: of the witness layer's inputs from what it was trained on. None: not to be had.
    """

    way: str
    images: int
    right: float | None = None
    top1: float | None = None
    confidence: float | None = None
    distance: float | None = None


@dataclass(frozen=True)
class Mismatch:
    """Something wrong between data and model: what, in words with numbers, and the line that mends it."""

    what: What
    text: str
    fix: str

    def __str__(self) -> str:
        return f"{self.text}. Fix: {self.fix}"


@dataclass(frozen=True)
class InputsCheck:
    """images: looked at. layer: the witness, "" where the model has none. tried: what was, the first as it is.

    key: of model, images and settings, so that --resume knows what it has.
    """

    images: int
    layer: str = ""
    tried: tuple[Tried, ...] = ()
    findings: tuple[Mismatch, ...] = ()
    key: str = ""


def images_for(height: int, width: int) -> int:
    """How many images of this size are looked at."""
    return int(min(max(PIXELS // max(height * width, 1), IMAGES[0]), IMAGES[1]))


def examine(
    now: Given,
    labels: Array | None,
    head: Meaning,
    observe: Callable[[Array], Observed],
    *,
    key: str = "data.preprocess",
) -> InputsCheck:
    """What is wrong with the inputs, if anything. observe: the model's answers and moments on inputs (n, ...).

    labels: of these images, as `head` has them; None for none. Deterministic: the same images give the same answer.
    """
    if len(now.pixels) < LEAST:
        return InputsCheck(len(now.pixels), findings=tuple(_values(now)))
    trial = _Trial(now, labels, head, observe)
    best, finalists = trial.search()
    renumbered = _renumbered(trial.all(best))
    before = _renumbered(trial.all(Way())) if best.changes else None
    reached = renumbered.right if renumbered else trial.all(best).decided() or 0.0
    if before is not None and before.right > reached + MATERIAL:  # labels explain more than another way to present
        best, finalists = _Trial(now, before.labels, head, trial.ask).search()
        renumbered, trial = before, _Trial(now, before.labels, head, trial.ask)
    found = [*_values(now), *_presented(trial, best, key), *([renumbered.finding] if renumbered else [])]
    tried = tuple(trial.all(way).row(way) for way in dict.fromkeys((Way(), *finalists, best)))
    layer = trial.all(Way()).observed.expected
    return InputsCheck(len(now.pixels), layer[0].layer if layer else "", tried, tuple(found))


@dataclass(frozen=True)
class _Seen:
    """Answers to one way of presenting some images."""

    observed: Observed
    labels: Array | None
    head: Meaning

    @cached_property
    def table(self) -> Array | None:
        """Probabilities, (n, classes), where classes are told apart."""
        import numpy as np

        from toolkit.engine import numeric

        if self.head not in numeric.HEADS:
            return None
        found = numeric.probabilities(self.observed.outputs, self.head)
        return np.nan_to_num(np.clip(found, 0, 1))

    def right(self, shift: int = 0) -> Array | None:
        """Of each image the score in 0..1 that its label gives, if labels are `shift` above the model's numbers."""
        import numpy as np

        if self.labels is None:
            return None
        if self.table is not None:
            numbers = (np.asarray(self.labels, np.int64) - shift) % self.table.shape[1]
            return np.take_along_axis(self.table, numbers[:, None], axis=1)[:, 0]
        return _score(self.observed.outputs, np.asarray(self.labels, np.float64), self.head)

    @cached_property
    def confidence(self) -> Array | None:
        return None if self.table is None else self.table.max(axis=1)

    def decided(self, shift: int = 0) -> float | None:
        import numpy as np

        if self.table is None or self.labels is None:
            return None
        return float(np.mean(self.table.argmax(axis=1) == (self.labels - shift) % self.table.shape[1]))

    @cached_property
    def distance(self) -> float | None:
        return None if not self.observed.expected else float(_draws(self.observed, 0)[0])

    def row(self, way: Way) -> Tried:
        right, sure = self.right(), self.confidence
        means = (None if each is None else float(each.mean()) for each in (right, sure))
        return Tried(way.name, len(self.observed.outputs), next(means), self.decided(), next(means), self.distance)


class _Trial:
    """The images, in two parts, and what the model said to them in each way so far."""

    def __init__(self, now: Given, labels: Array | None, head: Meaning, observe: Callable[[Array], Observed]) -> None:
        self.now, self.labels, self.head, self.ask = now, labels, head, observe
        count = len(now.pixels)
        self.first = slice(0, min(SCREENED, (count + 1) // 2))
        self.rest = slice(self.first.stop, count)
        self._seen: dict[tuple[Way, int], _Seen] = {}

    def search(self) -> tuple[Way, list[Way]]:
        """(what is clearly the best way, what was tried on all images)."""
        base = Way()
        forms = [base, *self.now.forms()]
        bases = {base, self._leading(forms), self._nearest(forms)}
        turned = [turn for each in sorted(bases, key=str) for turn in self.now.turns(each)]
        every = [way for way in dict.fromkeys([*forms, *turned]) if way != base]
        better = [way for way in every if self._worth(way)]
        by_right = sorted(better, key=self._rank)[:3]
        by_distance = sorted(better, key=lambda way: self.early(way).distance or 0.0)[:2]
        parts = {Way(way.form) for way in (*by_right, *by_distance) if way.form and way.changes > 1}
        finalists = sorted({*by_right, *by_distance, *parts}, key=lambda way: (way.changes, self._rank(way)))
        best = base
        for way in finalists:
            if self.evidence(way, best) is not None:
                best = way
        return best, finalists

    def early(self, way: Way) -> _Seen:
        """On the images that choose what is worth another look."""
        return self._look(way, self.first)

    def late(self, way: Way) -> _Seen:
        """On those that judge it."""
        return self._look(way, self.rest)

    def all(self, way: Way) -> _Seen:
        """On all."""
        from toolkit.engine.moments import joined

        parts = (self.early(way), self.late(way))
        return _Seen(joined([each.observed for each in parts]), self.labels, self.head)

    def evidence(self, way: Way, other: Way) -> _Evidence | None:
        """What shows that one way is clearly better than another, None where it is not."""
        one, two = self.late(way), self.late(other)
        ratio, always = _nearer(one.observed, two.observed)
        always = always and (two.distance or 0.0) >= FAR  # as near as in training is near enough
        shift = self._shift(one, two)
        right = one.right(shift), two.right(shift)
        z = gain = 0.0
        if right[0] is not None and right[1] is not None:
            z, gain = _paired(right[0], right[1])
            if z >= SURE and gain >= MATERIAL:
                return _Evidence(float(right[1].mean()), float(right[0].mean()), z, ratio, len(right[0]))
        surer = 0.0
        if one.confidence is not None and two.confidence is not None:
            surer = _paired(one.confidence, two.confidence)[0]
        limit = NEARER[1] if surer >= SURE else NEARER[0]
        if ratio is not None and ratio <= limit and always and z > -SURE / 2:
            return _Evidence(None, None, 0.0, ratio, len(one.observed.outputs))
        return None

    def _look(self, way: Way, part: slice) -> _Seen:
        known = (way, part.start)
        if known not in self._seen:
            labels = None if self.labels is None else self.labels[part]
            self._seen[known] = _Seen(self.ask(self.now.inputs(way, part)), labels, self.head)
        return self._seen[known]

    def _rank(self, way: Way) -> tuple[float, float]:
        seen = self.early(way)
        scores = [right.mean() for shift in self._shifts(seen) if (right := seen.right(shift)) is not None]
        return -max(scores, default=0.0), seen.distance or 0.0

    def _leading(self, ways: list[Way]) -> Way:
        return min(ways, key=lambda way: (self._rank(way), way.changes))

    def _nearest(self, ways: list[Way]) -> Way:
        return min(ways, key=lambda way: (self.early(way).distance or 0.0, way.changes))

    def _worth(self, way: Way) -> bool:
        """Whether a second look may show anything: better on the first images by one witness at least."""
        mine, base = self._rank(way), self._rank(Way())
        return mine[0] < base[0] or mine[1] < NEARER[1] * base[1]

    def _shifts(self, seen: _Seen) -> tuple[int, ...]:
        return SHIFTS if seen.table is not None and seen.table.shape[1] > 2 else (0,)

    def _shift(self, *seen: _Seen) -> int:
        """How far labels are above the model's numbers, as the best of these answers has it."""
        means = {
            shift: max((float(right.mean()) for each in seen if (right := each.right(shift)) is not None), default=0.0)
            for shift in self._shifts(seen[0])
        }
        return max(means, key=lambda shift: (means[shift], shift == 0))


@dataclass(frozen=True)
class _Evidence:
    """before, after: mean probability of the labelled class; None where the witness layer alone tells."""

    before: float | None
    after: float | None
    z: float
    ratio: float | None
    images: int

    def words(self, layer: str) -> str:
        told = []
        if self.before is not None and self.after is not None:
            words = f"the labelled class then gets {self.after:.2f} instead of {self.before:.2f}"
            told.append(f"{words} of the probability ({self.z:.0f} standard errors)")
        if self.ratio is not None and self.ratio <= NEARER[1]:
            times = "over 100" if self.ratio < MOST_TIMES else f"{1 / self.ratio:.1f}"
            told.append(f"the inputs of {layer} are then {times} times nearer to those it was trained on")
        return f"on {self.images} images " + ", and ".join(told)


def _presented(trial: _Trial, best: Way, key: str) -> Iterator[Mismatch]:
    """What the best way differs in."""
    evidence = trial.evidence(best, Way()) if best.changes else None
    if evidence is None:
        return
    expected = trial.late(best).observed.expected
    what: What = "scale" if best.form else "color" if best.reversed else "layout"
    text = f"{said(best, trial.now)}: {evidence.words(expected[0].layer if expected else '')}"
    yield Mismatch(what, text, remedy(best, trial.now, key))


@dataclass(frozen=True)
class _Renumbered:
    """Other numbers of the labels, under which a share of `right` decisions is right."""

    finding: Mismatch
    labels: Array
    right: float


def _renumbered(seen: _Seen) -> _Renumbered | None:
    """Whether the numbers of the labels are others than the model's: each another, or all by one."""
    import numpy as np

    if seen.table is None or seen.labels is None or seen.table.shape[1] < 3:
        return None
    usual, classes, labels = _usual(seen), seen.table.shape[1], np.asarray(seen.labels)
    if len({(label - own) % classes for label, own in usual.items()}) > 1:
        moved = np.array([usual.get(int(label), -1) for label in labels])
        rest, decided = slice(1, None, 2), seen.table.argmax(axis=1)  # the other half chose
        one, two = (moved == decided)[rest].astype(float), (labels == decided)[rest].astype(float)
        if _clearly(one, two):
            words = [f"{label} is the model's {own}" for label, own in usual.items() if own != label]
            some = ", ".join(words[:4]) + (", ..." if len(words) > 4 else "")
            told = f"{_percent(one.mean())} of {len(one)} images then are right instead of {_percent(two.mean())}"
            text = f"classes are in another order than the model's (class {some}): {told}"
            fix = "list the classes in the model's order; model.classes has that checked"
            return _Renumbered(Mismatch("labels", text, fix), moved, float(one.mean()))
    scores = {shift: right for shift in SHIFTS if (right := seen.right(shift)) is not None}
    best = max(scores, key=lambda shift: (float(scores[shift].mean()), shift == 0))
    if not best or not _clearly(scores[best], scores[0]):
        return None
    side, reached = "above" if best > 0 else "below", seen.decided(best) or 0.0
    told = f"{_percent(reached)} of {len(labels)} images then are right instead of {_percent(seen.decided())}"
    text = f"labels are one {side} the model's numbers of the classes: {told}"
    fix = "number the classes as the model does: one of the two has a background class 0"
    return _Renumbered(Mismatch("labels", text, fix), (labels - best) % classes, reached)


def _clearly(one: Array, two: Array) -> bool:
    z, gain = _paired(one, two)
    return z >= SURE and gain >= LABELS_GAIN


def _usual(seen: _Seen) -> dict[int, int]:
    """Class of the data -> what the model mostly decides there, on every second image; {} where two share one, or there
    are too few images to tell."""
    import numpy as np

    if seen.table is None or seen.labels is None or len(seen.labels) < PER_CLASS * seen.table.shape[1]:
        return {}
    counts = np.zeros((seen.table.shape[1],) * 2, np.int64)
    np.add.at(counts, (np.asarray(seen.labels)[::2], seen.table.argmax(axis=1)[::2]), 1)
    found = {int(label): int(counts[label].argmax()) for label in np.flatnonzero(counts.sum(axis=1))}
    return found if len(set(found.values())) == len(found) else {}


def _values(now: Given) -> Iterator[Mismatch]:
    """Images that show nothing."""
    spread = now.pixels.std(axis=(1, 2, 3))
    top = float(now.pixels.max())
    if not now.is_float and top <= 1 and max(now.affine[0]) <= 0.1:
        text = (
            f"images are nearly black: no pixel is above {top:g} of 255; 0..1 seems to have been saved as whole numbers"
        )
        yield Mismatch("values", text, "save images as uint8 pixels of 0..255")
        return
    flat = int((spread < FLAT).sum()) if now.known else int((spread == 0).sum())
    if flat > FLAT_SHARE * len(spread):
        text = f"{flat} of {len(spread)} images are of one colour, and show nothing"
        yield Mismatch("values", text, "look at the images: how they were decoded or saved")


def _paired(one: Any, two: Any) -> tuple[float, float]:
    """(standard errors, mean) of the difference, image by image."""
    gap = one - two
    mean, spread = float(gap.mean()), float(gap.std(ddof=1)) if len(gap) > 1 else math.inf
    if spread == 0:
        return math.copysign(math.inf, mean) if mean else 0.0, mean
    return mean / (spread / math.sqrt(len(gap))), mean


def _nearer(one: Observed, two: Observed) -> tuple[float | None, bool]:
    """(ratio of the witness layer's distances, whether the first is nearer in every draw of images)."""
    if not one.expected:
        return None, False
    mine, other = _draws(one, DRAWS), _draws(two, DRAWS)
    return float(mine[0] / max(other[0], 1e-9)), bool((mine < other).all())


def _draws(observed: Observed, count: int) -> Any:
    """Distance of the first layer that remembers: on all images, then on `count` draws of them with replacement."""
    import numpy as np

    from toolkit.engine.moments import distances

    images = len(observed.outputs)
    drawn = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), count)
    return distances(observed.first(), np.concatenate([np.ones((1, images)), drawn]))[:, 0]


def _score(outputs: Array, labels: Array, head: Meaning) -> Array | None:
    """In 0..1, of heads that decide no class."""
    import numpy as np

    table = np.nan_to_num(np.asarray(outputs, np.float64).reshape(len(outputs), -1))
    wanted = labels.reshape(len(labels), -1)
    if head == "embedding" or table.shape != wanted.shape:
        return None
    if head == "sigmoids":
        held, other = wanted > 0, wanted <= 0
        sides = [
            (np.where(mask, score, 0).sum(axis=1), mask.sum(axis=1))
            for mask, score in ((held, table), (other, 1 - table))
        ]
        shares = [np.where(count > 0, total / np.maximum(count, 1), 0.5) for total, count in sides]
        found: Array = np.mean(shares, axis=0)
        return found
    usual = np.median(np.abs(wanted - np.median(wanted, axis=0))) or 1.0
    near: Array = np.exp(-np.abs(table - wanted).mean(axis=1) / usual)
    return near


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.0f}%"
