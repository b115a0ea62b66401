"""What the shipped profiles quote, as a test of the estimates: each latency predicted with itself left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolkit.devices import DeviceProfile, load_device, shipped
from toolkit.estimates.architectures import MODELS
from toolkit.estimates.fit import Knowledge, Observation, learn
from toolkit.estimates.roofline import NINE_OF_TEN, observation, processor_of
from toolkit.hardware import Published

DIGITS = 3  # of a share in the table of factors.py


@dataclass(frozen=True)
class Predicted:
    """A published latency and its estimate, of the others alone."""

    device: str
    processor: str
    item: Published
    milliseconds: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """Estimate over published."""
        return self.milliseconds / self.item.milliseconds

    @property
    def within(self) -> bool:
        """Whether the published latency lies in the estimate's range."""
        return self.low <= self.item.milliseconds <= self.high


def quoted() -> list[tuple[DeviceProfile, Published]]:
    """Every published latency of a network whose layers are known, of the shipped profiles."""
    profiles = [load_device(name) for name in shipped("devices")]
    return [(profile, item) for profile in profiles for item in profile.published if item.model in MODELS]


def left_out(known: Sequence[tuple[DeviceProfile, Published]], *, devices: bool = False) -> tuple[Predicted, ...]:
    """Each predicted by a fit to all others, shares of the families of processors included.

    devices: all figures of its device are left out with it, as of a device of which nothing was published.
    """
    seen = [observation(*pair) for pair in known]
    groups = [profile.name if devices else str(i) for i, (profile, _) in enumerate(known)]
    learned = {
        group: learn(Knowledge(shares={}), [each for each, of in zip(seen, groups, strict=True) if of != group])
        for group in dict.fromkeys(groups)
    }
    return tuple(
        _predicted(profile, item, each, learned[group])
        for (profile, item), each, group in zip(known, seen, groups, strict=True)
    )


def _predicted(profile: DeviceProfile, item: Published, place: Observation, known: Knowledge) -> Predicted:
    spent = known.time(place.place, place.layers)
    middle, reach = math.exp(spent.log_ms), math.exp(NINE_OF_TEN * known.width(spent))
    name = processor_of(profile, item.processor).name
    return Predicted(profile.name, name, item, middle, middle / reach, middle * reach)


def shares(known: Sequence[tuple[DeviceProfile, Published]]) -> dict[str, tuple[float, float]]:
    """Of each kind of layer and family of processors that the published latencies tell of: share, width of its log."""
    learned = learn(Knowledge(shares={}), [observation(*pair) for pair in known])
    if learned.covariance is None:
        return {}
    widths = learned.covariance.diagonal() ** 0.5
    found = {
        key[0]: (round(math.exp(learned.mean[key]), DIGITS), round(float(width), 2))
        for key, width in zip(learned.keys, widths, strict=True)
        if len(key) == 1 and width < 0.95 * Knowledge(shares={}).prior(key)[1]  # the others were not told of
    }
    return dict(sorted(found.items()))


def table(rows: Sequence[Predicted]) -> Iterator[str]:
    """The table of docs/devices.md, in Markdown."""
    yield "| device | processor | network | arithmetic | published, ms | estimate, ms | range | ratio |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        cells = (
            f"`{row.device}`",
            row.processor,
            row.item.model,
            row.item.arithmetic,
            f"{row.item.milliseconds:.3g}",
            f"{row.milliseconds:.3g}",
            f"{row.low:.3g} .. {row.high:.3g}{'' if row.within else ' (outside)'}",
            f"{row.ratio:.2f}",
        )
        yield f"| {' | '.join(cells)} |"


def summary(rows: Sequence[Predicted], strangers: Sequence[Predicted]) -> str:
    """The errors in words: of figures left out alone, and with all others of their device."""
    alone = f"Of {len(rows)} published latencies, each left out of the fit, {_errors(rows)}."
    return f"{alone} With all figures of its device left out, {_errors(strangers)}."


def _errors(rows: Sequence[Predicted]) -> str:
    errors = sorted(abs(math.log(row.ratio)) for row in rows)
    median = math.exp(errors[len(errors) // 2])
    nine = math.exp(errors[max(0, math.ceil(0.9 * len(errors)) - 1)])
    within = sum(row.within for row in rows)
    half = f"half were within a factor {median:.2f} of their estimate and nine of ten within {nine:.2f}"
    return f"{half}; {within} lay in their range"
