"""Why a file is no faster on a device: findings with what shows each, and layers with measured and estimated shares.

Nothing is said that neither the file, nor the runtime, nor a clock, nor an estimate shows, and each finding says which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

ShownBy = Literal["measured", "runtime", "file", "estimated", "rule"]
CLEAN = "nothing stands out"
NO_GAIN = "no gain"  # the rule that a clock has the first word on
ONE_LAYER, WEIGHTS_ALONE = "one layer", "weights alone"  # true of sound files too: news where nothing was won
UNKNOWN = 0.5  # what a finding of unknown share may explain: between those that are known to matter and those not
NAMED, KINDS = 3, 4  # layers and kinds in a sentence


@dataclass(frozen=True)
class Finding:
    """One thing that takes time.

    rule: short name of what was looked for. text: what is so. advice: what to do, as an imperative. shown_by: a clock,
    the runtime itself, the file, an estimate, or a rule of the runtime's source; evidence: which. layers: the first
    ones of `count`. share: of the time, as measured; estimated: as estimated; None where neither is known.
    whole: it is of the file as a whole.
    """

    rule: str
    text: str
    advice: str
    shown_by: ShownBy
    evidence: str
    layers: tuple[str, ...] = ()
    count: int = 0
    share: float | None = None
    estimated: float | None = None
    whole: bool = False

    @property
    def weight(self) -> float:
        """What it may explain of the time, to put the strongest first."""
        if self.share is not None:
            return self.share
        if self.whole:
            return 1.0
        return UNKNOWN if self.estimated is None else self.estimated

    @property
    def shown_share(self) -> str:
        """`67% of the time`; "" where it is not known."""
        if self.share is not None:
            return f"{100 * self.share:.0f}% of the time"
        return f"about {100 * self.estimated:.0f}% of the time, estimated" if self.estimated is not None else ""

    @property
    def sentence(self) -> str:
        """What is so and how much it is, then what to do."""
        told = f"{self.text} ({self.shown_share})" if self.shown_share else self.text
        return f"{told}. {self.advice[:1].upper()}{self.advice[1:]}"


@dataclass(frozen=True)
class SpeedLayer:
    """One layer. measured, estimated: shares of the time. macs: share of the file's. by: what computed it.

    limit: what the estimate says it is limited by, "compute" or "memory".
    """

    name: str
    operator: str
    measured: float | None = None
    estimated: float | None = None
    macs: float | None = None
    by: str = ""
    limit: str = ""


@dataclass(frozen=True)
class Speed:
    """One file on one device. sha256: of that file. how: what the measured shares are of, or why there are none.

    estimated_by: what the estimated shares are of, or why there are none. layers: the largest first, of `layer_count`.
    """

    artifact: str
    sha256: str
    device: str
    runtime: str
    delegate: str
    threads: int
    findings: tuple[Finding, ...]
    layers: tuple[SpeedLayer, ...] = ()
    layer_count: int = 0
    how: str = ""
    estimated_by: str = ""

    @property
    def no_gain(self) -> bool:
        """Whether the clock says that nothing was won."""
        return any(finding.rule == NO_GAIN for finding in self.findings)


def named(names: Sequence[str]) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def several(count: int, what: str) -> str:
    """`1 operator`, `2 operators`."""
    return f"{count} {what}{'s' * (count != 1)}"


def counted(kinds: Iterable[str]) -> str:
    """`17 DEPTHWISE_CONV_2D, 2 SOFTMAX`, the most frequent first."""
    ranked = Counter(kinds).most_common()
    shown = ", ".join(f"{count} {kind}" for kind, count in ranked[:KINDS])
    return f"{shown} and others" if len(ranked) > KINDS else shown


def strongest(found: Iterable[Speed]) -> list[tuple[Speed, str]]:
    """Of each file on each device that keeps something from being faster, one sentence; files that are no faster come
    first, then what may explain most.

    That a file is no faster is told together with what may be why.
    """
    told = [(speed, speed.findings if speed.no_gain else _unusual(speed.findings)) for speed in found]
    telling = [(speed, kept) for speed, kept in told if kept]
    telling.sort(key=lambda each: (not each[0].no_gain, -each[1][0].weight))
    return [(speed, _told(kept)) for speed, kept in telling]


def _unusual(found: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(each for each in found if each.rule not in (ONE_LAYER, WEIGHTS_ALONE))


def _told(found: Sequence[Finding]) -> str:
    first, *others = found
    if first.rule != NO_GAIN:
        return first.sentence
    why = others[0].sentence if others else "nothing else stands out"
    return f"{first.text}; {why}"
