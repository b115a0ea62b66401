"""A device's own shares of its ceiling, learned from latencies that were measured on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.devices import DeviceProfile
from toolkit.errors import InputError
from toolkit.estimates.architectures import MODELS
from toolkit.estimates.fit import Knowledge, Observation, Place, keys_of, learn
from toolkit.estimates.roofline import NINE_OF_TEN, estimate, observation, processor_of
from toolkit.estimates.workload import KINDS, Layer
from toolkit.hardware import Efficiency, Processor

MEMORY = "memory"


@dataclass(frozen=True)
class Timed:
    """One file's latency, measured on the device. name: of the file, for messages."""

    name: str
    layers: tuple[Layer, ...]
    milliseconds: float
    threads: int


@dataclass(frozen=True)
class Calibration:
    """efficiency: for the profile. before, after: of each file, the estimate over the measured latency."""

    efficiency: tuple[Efficiency, ...]
    timed: tuple[Timed, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]

    def lines(self) -> Iterator[str]:
        """For a person: what each file's estimate was and is, and the shares."""
        for item, was, now in zip(self.timed, self.before, self.after, strict=True):
            yield f"{item.name}: measured {item.milliseconds:.3g} ms; estimate was {was:.2f} x that, now {now:.2f} x"
        for share in self.efficiency:
            what = share.layers if share.arithmetic is None else f"{share.layers} {share.arithmetic}"
            reach = f"{100 * share.share / share.spread:.0f} .. {100 * share.share * share.spread:.0f}%"
            yield f"  {what:<20} {100 * share.share:3.0f}% of the ceiling ({reach})"

    def as_dict(self) -> dict[str, Any]:
        """As data."""
        return {
            "efficiency": [share.model_dump(mode="json") for share in self.efficiency],
            "files": [
                {"name": item.name, "milliseconds": item.milliseconds, "threads": item.threads, "before": b, "after": a}
                for item, b, a in zip(self.timed, self.before, self.after, strict=True)
            ],
        }


def calibrate(profile: DeviceProfile, timed: Sequence[Timed], *, source: str, processor: str = "") -> Calibration:
    """Shares of a processor, from what others published of the device and these latencies.

    Raises InputError for a profile that is calibrated already: its measurements would be forgotten.
    """
    if profile.efficiency:
        fix = "start from the profile it was made of, with all measurements"
        raise InputError(profile.name, "is calibrated already", fix)
    chosen = processor_of(profile, processor)
    seen = [observation(profile, item) for item in profile.published if item.model in MODELS]
    seen += [Observation(_place(profile, chosen, item.threads), item.layers, item.milliseconds) for item in timed]
    learned = learn(Knowledge(), seen)
    found = tuple(_shares(profile, chosen, learned, source))
    told = profile.model_copy(update={"efficiency": found})
    before, after = (tuple(_ratios(each, timed, chosen.name)) for each in (profile, told))
    return Calibration(found, tuple(timed), before, after)


def _place(profile: DeviceProfile, processor: Processor, threads: int | None = None) -> Place:
    return Place(profile.name, processor, profile.bandwidth_gb_s, threads)


def _shares(profile: DeviceProfile, processor: Processor, learned: Knowledge, source: str) -> Iterator[Efficiency]:
    """Each kind of layer in each arithmetic of the processor, and memory: what all factors together make of it."""
    place = _place(profile, processor)
    kinds: list[tuple[Any, Any]] = [(kind, arithmetic) for arithmetic in processor.macs_per_cycle for kind in KINDS]
    if profile.bandwidth_gb_s is not None:
        kinds.append((MEMORY, None))
    for layers, arithmetic in kinds:
        keys = keys_of(place, layers if arithmetic is None else f"{layers}/{arithmetic}")
        yield Efficiency(
            layers=layers,
            arithmetic=arithmetic,
            processor=processor.name,
            share=math.exp(sum(map(learned.value, keys))),
            spread=math.exp(NINE_OF_TEN * learned.spread(keys)),
            source=source,
        )


def _ratios(profile: DeviceProfile, timed: Sequence[Timed], processor: str) -> Iterator[float]:
    for item in timed:
        found = estimate(profile, item.layers, threads=item.threads, processor=processor)
        yield found.milliseconds / item.milliseconds


def as_toml(efficiency: Sequence[Efficiency]) -> str:
    """The shares as tables of a profile."""
    tables = []
    for item in efficiency:
        arithmetic = "" if item.arithmetic is None else f'arithmetic = "{item.arithmetic}"\n'
        tables.append(
            f'[[efficiency]]\nlayers = "{item.layers}"\n{arithmetic}processor = {_quoted(item.processor)}\n'
            f"share = {item.share:.4g}\nspread = {max(1.0, item.spread):.4g}\nsource = {_quoted(item.source)}\n"
        )
    return "\n".join(tables)


def _quoted(text: str) -> str:
    """A TOML basic string."""
    import json

    return json.dumps(text, ensure_ascii=False)
