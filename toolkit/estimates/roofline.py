"""The latency of a file on a device that is not there, estimated from its layers and the device's profile.

Its range is where nine of ten latencies should lie, as far as the model of fit.py is right; docs/devices.md shows how
far published latencies were from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolkit.core import Interval, Measurement
from toolkit.devices import DeviceProfile
from toolkit.errors import InputError, UnsupportedError
from toolkit.estimates.architectures import MODELS, layers_of
from toolkit.estimates.fit import Knowledge, Observation, Place, keys_of, learn
from toolkit.estimates.workload import Kind, Layer
from toolkit.hardware import Efficiency, Processor, Published
from toolkit.registry import suggest

NINE_OF_TEN = 1.645  # standard deviations to each side (normal distribution)
RANGE = "range: nine of ten, by the spread of published latencies"


@dataclass(frozen=True)
class LayerTime:
    """One layer's part. limit: "compute" or "memory"."""

    name: str
    operator: str
    kind: Kind
    milliseconds: float
    limit: str


@dataclass(frozen=True)
class Estimate:
    """Milliseconds of one inference, likeliest and range. based_on: what its shares of the ceiling come from."""

    milliseconds: float
    low: float
    high: float
    processor: str
    threads: int
    based_on: str
    layers: tuple[LayerTime, ...]

    def measurements(self, subject: str, device: str) -> tuple[Measurement, ...]:
        """As a number of a run: estimated, with its range."""
        how = {
            "method": "roofline of its layers",
            "processor": self.processor,
            "threads": self.threads,
            "efficiency": self.based_on,
            "limited by memory": f"{100 * self.share_of('memory'):.0f}% of the time",
        }
        span = Interval(self.low, self.high, 0.0, RANGE)
        return (Measurement(subject, "latency_p50_ms", self.milliseconds, "ms", "estimated", device, span, how),)

    def lines(self, subject: str, device: str) -> Iterator[str]:
        """For a person."""
        span = f"({self.low:.3g} .. {self.high:.3g})"
        yield f"{subject} on {device}: {self.milliseconds:.3g} ms  {span}  [estimated]"
        yield f"how: roofline of {len(self.layers)} layers on {self.threads} x {self.processor}; {self.based_on}"
        for kind in dict.fromkeys(layer.kind for layer in self.layers):
            spent = sum(layer.milliseconds for layer in self.layers if layer.kind == kind)
            yield f"  {kind:<12} {100 * spent / self.milliseconds:3.0f}% of the time"
        yield f"  limited by memory: {100 * self.share_of('memory'):.0f}% of the time"

    def share_of(self, limit: str) -> float:
        """Share of the time in layers with that limit."""
        return sum(layer.milliseconds for layer in self.layers if layer.limit == limit) / self.milliseconds


def estimate(
    profile: DeviceProfile, layers: Sequence[Layer], *, threads: int | None = None, processor: str = ""
) -> Estimate:
    """The roofline of layers on a profile's processor, the first one by default, with the profile's own threads.

    Raises UnsupportedError where the profile has no numbers to compute from, or the processor no such arithmetic.
    """
    chosen = processor_of(profile, processor)
    place = Place(profile.name, chosen, profile.bandwidth_gb_s, threads or profile.measure.threads)
    lacking = sorted({layer.arithmetic for layer in layers if place.peak(layer.arithmetic) is None})
    if lacking:
        problem = f"its {chosen.name} computes no {' or '.join(lacking)}, as the profile has it"
        raise UnsupportedError(profile.name, problem, f"it computes {', '.join(chosen.macs_per_cycle)}")
    if not layers:
        raise UnsupportedError(profile.name, "the file has no operator that computes")
    known, based_on = knowledge(profile)
    spent = known.time(place, layers)
    middle, reach = math.exp(spent.log_ms), math.exp(NINE_OF_TEN * known.width(spent))
    times = tuple(
        LayerTime(layer.name, layer.operator, layer.kind, ms, "memory" if limited else "compute")
        for layer, (ms, limited) in zip(layers, spent.layers, strict=True)
    )
    return Estimate(middle, middle / reach, middle * reach, chosen.name, place.cores, based_on, times)


def processor_of(profile: DeviceProfile, name: str = "") -> Processor:
    """A profile's processor of that name, the first one for ""; raises where it has none."""
    if not profile.processors:
        problem = "its profile has no [[processors]], so nothing can be estimated"
        raise UnsupportedError(profile.name, problem, "add one: cores, clock_ghz, macs_per_cycle")
    known = {item.name: item for item in profile.processors}
    if name and name not in known:
        raise InputError(f"{profile.name}: processor", f"no such one, got {name!r}", suggest(name, known))
    return known[name] if name else profile.processors[0]


def knowledge(profile: DeviceProfile) -> tuple[Knowledge, str]:
    """What is known of a device's shares, and in words what it was learned from: its calibration, else what others
    published of it, else what they published of devices alike."""
    if profile.efficiency:
        sources = dict.fromkeys(item.source for item in profile.efficiency)
        return calibrated(profile), f"calibrated: {'; '.join(sources)}"
    seen = [observation(profile, item) for item in profile.published if item.model in MODELS]
    if seen:
        return learn(
            Knowledge(), seen
        ), f"{len(seen)} latenc{'y' if len(seen) == 1 else 'ies'} that others published of it"
    return Knowledge(), "latencies that others published of other devices"


def observation(profile: DeviceProfile, item: Published) -> Observation:
    """A published latency as the fit takes it: with all cores, where nothing is said of threads."""
    setup = f"{item.source}, {item.runtime}, {item.threads} threads"
    place = Place(profile.name, processor_of(profile, item.processor), profile.bandwidth_gb_s, item.threads, setup)
    return Observation(place, layers_of(item.model, item.arithmetic), item.milliseconds)


def calibrated(profile: DeviceProfile) -> Knowledge:
    """The profile's own shares, each known as well as its spread says."""
    import numpy as np

    found = dict(own_shares(profile, profile.efficiency))
    keys = tuple(found)
    widths = np.array([width for _, width in found.values()])
    mean = {key: value for key, (value, _) in found.items()}
    return Knowledge(keys, mean, np.diag(widths**2))


def own_shares(
    profile: DeviceProfile, given: Sequence[Efficiency]
) -> Iterator[tuple[tuple[str, ...], tuple[float, float]]]:
    """(parameter, (log factor, width)): all of a share in the device's own factor, the others at rest."""
    for item in given:
        place = Place(profile.name, processor_of(profile, item.processor), profile.bandwidth_gb_s)
        family, device, own, setup = keys_of(place, share_name(item))
        usual = Knowledge().value(family)
        yield family, (usual, 0.0)
        yield from ((key, (0.0, 0.0)) for key in (device, setup))
        yield own, (math.log(item.share) - usual, math.log(item.spread) / NINE_OF_TEN)


def share_name(item: Efficiency) -> str:
    """As `fit.keys_of` names what a share is of."""
    return item.layers if item.layers == "memory" else f"{item.layers}/{item.arithmetic or 'float32'}"
