"""What a pruned model should come to, and the cut that brings it there.

MACs, parameters and channels are foretold from the widths. The size of a file and its latency are not: the share of
the parameters or MACs that meets them is searched for by regula falsi, each trial a whole network, written and (where
the device is within reach) timed beside the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from toolkit.core import Delivered, Model, PassContext, Progress
from toolkit.errors import InputError, UnsupportedError

What = Literal["sparsity", "macs", "parameters", "size", "latency"]
TOLERANCE = 0.03  # share a result may miss its target by: about what rounding to 8 costs a small network
TRIALS = 8  # of a search: regula falsi on a nearly straight line is within a percent after two or three
WORDS: Mapping[What, str] = {
    "macs": "the MACs",
    "parameters": "the parameters",
    "size": "the size as a file",
    "latency": "the latency",
}


@dataclass(frozen=True)
class Target:
    """share: of the original's that should remain; None where `limit` (KiB or ms) says how much. device: it is on."""

    what: What
    share: float | None = None
    limit: float | None = None
    device: str = ""

    @property
    def delivered(self) -> bool:
        """Whether it is a property of the file, not of the graph."""
        return self.what in ("size", "latency")

    @property
    def words(self) -> str:
        """As the change of the whole model says it."""
        on = f" on {self.device}" if self.device else ""
        if self.limit is not None:
            return f"at most {self.limit:g} {'KiB' if self.what == 'size' else 'ms'}{on}"
        if self.what == "sparsity":
            return f"{1 - (self.share or 0):.1%} sparsity"
        return f"{self.share:.1%} of {WORDS[self.what]}{on}"


@dataclass(frozen=True)
class Cut:
    """Channels to remove, by group; the share of the original that this leaves, of what was asked (parameters or MACs,
    for a target of the file); goal: that share after the last step, where a search found it; found: what the file
    came to."""

    removals: Mapping[str, Sequence[int]]
    share: float
    goal: float | None = None
    found: str = ""


@dataclass(frozen=True)
class _Trial:
    cut: Cut
    value: float  # of what the target allows: 1 = just met
    said: str


def search(
    target: Target,
    original: Model,
    current: tuple[Model, float],
    make: Callable[[float], tuple[Cut, Model]],
    context: PassContext,
    *,
    guide: Target,
) -> Cut:
    """The widest cut of `current` whose file meets a target of size or latency; none where it does so as it is.

    guide: what shares are of. current: with its share of the original's. make(share): the cut that leaves about this
    share of them, and the model after it. UnsupportedError: the target is out of reach, and how near one comes, or the
    original meets it.
    InputError: nothing here writes files.
    """
    if context.deliver is None:
        raise InputError(f"prune.{target.what}", "nothing here can write and time files", "run it from a recipe")
    first, now = context.deliver([original, current[0]], target.device)
    over, above = current[1], _value(target, now, first)  # the least share that is known not to meet it, and its value
    if above <= 1:
        if _value(target, first, first) <= 1:
            problem = f"{target.words} is met already: the model as it came has {_said(target, first)}"
            raise UnsupportedError(f"prune.{target.what}", problem, "ask for less")
        return Cut({}, over, found=f"{_said(target, now)} ({now.source}; before: {_said(target, first)})")
    under, below = 0.0, 0.0
    best: _Trial | None = None
    known: dict[float, _Trial] = {}  # widths go in steps, so that several shares give one cut
    for number in range(TRIALS):
        share = _between(under, below, over, above)
        cut, model = make(share)
        if cut.share not in known:
            context.emit(Progress(f"  prune: trial {number + 1}, {cut.share:.1%} of {WORDS[guide.what]}", keep=True))
            beside, found = context.deliver([original, model], target.device)
            said = f"{_said(target, found)} ({found.source}; before: {_said(target, beside)})"
            known[cut.share] = _Trial(cut, _value(target, found, beside), said)
        trial = known[cut.share]
        if trial.value > 1:
            over, above = share, trial.value
            continue
        under, below = share, trial.value
        best = trial if best is None or trial.value > best.value else best
        if best.value >= 1 - TOLERANCE:
            break
    if best is None:
        nearest = min(known.values(), key=lambda trial: trial.value)
        problem = (
            f"{target.words} cannot be reached: {nearest.cut.share:.1%} of {WORDS[guide.what]} have {nearest.said}"
        )
        raise UnsupportedError(f"prune.{target.what}", problem, "ask for what can be reached, or lower round_to")
    return replace(best.cut, found=best.said)


def _between(under: float, below: float, over: float, above: float) -> float:
    """Where the line through the two ends is at the target, a little below so that it is met; never at an end."""
    share = under + (over - under) * (1 - TOLERANCE / 2 - below) / (above - below)
    margin = 0.05 * (over - under)
    return min(max(share, under + margin), over - margin)


def _amount(target: Target, found: Delivered) -> float:
    value = found.size_kib if target.what == "size" else found.milliseconds
    if value is None:
        raise InputError(f"prune.{target.what}", f"{target.device!r} gives no latency: {found.how}")
    return value


def _value(target: Target, found: Delivered, original: Delivered) -> float:
    """Of what the target allows; a share is one of the original as it was timed beside it."""
    limit = target.limit if target.limit is not None else (target.share or 0) * _amount(target, original)
    return _amount(target, found) / limit


def _said(target: Target, found: Delivered) -> str:
    if target.what == "size":
        return f"{found.size_kib:,.1f} KiB"
    span = f" ({found.range[0]:.3g} .. {found.range[1]:.3g})" if found.range else ""
    return f"{found.milliseconds:.3g} ms{span}"
