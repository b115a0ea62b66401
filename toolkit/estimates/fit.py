"""How much of a processor's ceiling layers reach, learned from latencies: one log-normal model for all devices.

A layer takes max(operations / (share x peak), bytes / (share x bandwidth)) (Williams et al., "Roofline", 2009). The
log of a share is a sum: of its kind of layer and arithmetic on that family of processors, of the device, of both
together, and of the setup that was timed (its runtime, version and threads: who publishes seldom says all). All are
normal with the widths below, so that few latencies move a share a little and many move it far; what they leave open
becomes the range of an estimate (maximum a posteriori by Gauss-Newton, and Laplace's approximation around it).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit.estimates.factors import SHARES
from toolkit.estimates.workload import Layer
from toolkit.hardware import Arithmetic, Processor

if TYPE_CHECKING:
    from toolkit.core import Array

Key = tuple[str, ...]
# a share before anything is known, and the width of its log: 8% to 110% of a peak, 22% to 110% of a bandwidth
COMPUTE = (0.3, 0.8)
MEMORY = (0.5, 0.5)
# what reads each value for one product or none: dot-product instructions, which a peak counts, add over channels
SHALLOW = (0.1, 0.8)
# widths of the other factors: with them about nine of ten published latencies, left out, fall within their range
DEVICE = 0.4  # of a device: clocks and memory that the profile does not tell
OWN = 0.3  # of a device for one kind of layer
SETUP = 0.5  # of what was timed there
MODEL = 0.3  # of what a model's latency differs by, whatever is known of the device
ROUNDS = 40
SETTLING = 10  # rounds after which steps are halved: a layer at the edge of both limits would keep a fit swinging
CLOSE = 1e-3  # largest step of a log share that no longer counts, next to errors of tens of percent


@dataclass(frozen=True)
class Place:
    """Where layers run: a processor of a device, with so many threads."""

    device: str
    processor: Processor
    bandwidth_gb_s: float | None
    threads: int | None = None
    setup: str = ""  # whose latency it is; "" for the user's own

    @property
    def family(self) -> str:
        """Processors whose software is alike; that of microcontrollers is CMSIS-NN, with vector instructions or not."""
        if "helium" in self.processor.isa:
            return "helium"
        return "mcu" if self.processor.name.startswith("Cortex-M") else self.processor.kind

    @property
    def cores(self) -> int:
        """Cores that compute: as many as threads on a CPU, all of anything else."""
        return min(self.threads or self.processor.cores, self.processor.cores)

    def peak(self, arithmetic: Arithmetic) -> tuple[Arithmetic, float] | None:
        """What these layers are computed in there, and operations a millisecond; None where it has no such kernels.

        float16 is computed in float32 where the processor has no other, and float32 in float16 on what has that alone.
        """
        other: dict[Arithmetic, Arithmetic] = {"float16": "float32", "float32": "float16"}
        rates = self.processor.macs_per_cycle
        used = arithmetic if arithmetic in rates else other.get(arithmetic, arithmetic)
        if used not in rates:
            return None
        return used, rates[used] * self.processor.clock_ghz * 1e6 * self.cores


@dataclass(frozen=True)
class Observation:
    """One model's latency somewhere."""

    place: Place
    layers: tuple[Layer, ...]
    milliseconds: float


@dataclass(frozen=True)
class Spent:
    """Where the time of one model goes. shares: parameter -> share of the time that it scales."""

    log_ms: float
    shares: Mapping[Key, float]
    layers: tuple[tuple[float, bool], ...]  # milliseconds, and whether memory limits it


@dataclass(frozen=True)
class Knowledge:
    """Log factors: mean and covariance of those that latencies spoke of, the prior of all others."""

    keys: tuple[Key, ...] = ()
    mean: Mapping[Key, float] = field(default_factory=dict)
    covariance: Array | None = None
    shares: Mapping[str, tuple[float, float]] = field(default_factory=lambda: SHARES)

    def prior(self, key: Key) -> tuple[float, float]:
        """Mean and width of a log factor before any latency."""
        if len(key) == 1:
            kind = key[0].split("/")[1]
            usual = {"memory": MEMORY, "depthwise": SHALLOW, "other": SHALLOW}.get(kind, COMPUTE)
            share, width = self.shares.get(key[0], usual)
            return math.log(share), width
        return 0.0, {"device": DEVICE, "setup": SETUP}.get(key[1], OWN)

    def value(self, key: Key) -> float:
        """A log factor as it is known now."""
        return self.mean.get(key, self.prior(key)[0])

    def time(self, place: Place, layers: Sequence[Layer]) -> Spent:
        """The likeliest time of layers somewhere."""
        rates = {key: self._rate(place, *key) for key in {(layer.kind, layer.arithmetic) for layer in layers}}
        memory = keys_of(place, "memory")
        moved = (place.bandwidth_gb_s or math.inf) * 1e6 * math.exp(sum(map(self.value, memory)))  # bytes a millisecond
        spent: dict[tuple[Key, ...], float] = {}
        each = []
        for layer in layers:
            rate, keys = rates[layer.kind, layer.arithmetic]
            computing, moving = layer.operations / rate, layer.bytes / moved
            limited = moving > computing
            each.append((max(computing, moving), limited))
            of = memory if limited else keys
            spent[of] = spent.get(of, 0.0) + each[-1][0]
        total = sum(spent.values())
        shares: dict[Key, float] = {}
        for keys, ms in spent.items():
            shares |= {key: shares.get(key, 0.0) + ms / total for key in keys}
        return Spent(math.log(total), shares, tuple(each))

    def _rate(self, place: Place, kind: str, arithmetic: Arithmetic) -> tuple[float, tuple[Key, ...]]:
        """Operations a millisecond of such layers, and the parameters that scale it."""
        found = place.peak(arithmetic)
        if found is None:
            raise ValueError(f"{place.processor.name} has no {arithmetic} rate")
        keys = keys_of(place, f"{kind}/{found[0]}")
        return found[1] * math.exp(sum(map(self.value, keys))), keys

    def width(self, spent: Spent) -> float:
        """Width of the log of an estimate: what its factors leave open, and what models differ by."""
        return math.hypot(self._open(spent.shares), MODEL)

    def spread(self, keys: Sequence[Key]) -> float:
        """Width of the log of a share that is made of these factors."""
        return self._open(dict.fromkeys(keys, 1.0))

    def _open(self, weights: Mapping[Key, float]) -> float:
        """Width of a weighted sum of log factors."""
        variance = sum((part * self.prior(key)[1]) ** 2 for key, part in weights.items() if key not in self.mean)
        if self.covariance is not None:
            import numpy as np

            row = np.array([weights.get(key, 0.0) for key in self.keys])
            variance += float(row @ self.covariance @ row)
        return math.sqrt(variance)


def keys_of(place: Place, what: str) -> tuple[Key, Key, Key, Key]:
    """The parameters whose logs add up to a share. what: "memory", or kind and arithmetic."""
    where = f"{place.device}, {place.processor.name}"
    return (f"{place.family}/{what}",), (where, "device"), (where, "own", what), (where, "setup", place.setup)


def learn(known: Knowledge, seen: Iterable[Observation]) -> Knowledge:
    """`known`, which is a prior, after these latencies."""
    import numpy as np

    seen = tuple(seen)
    if not seen:
        return known
    keys = tuple(sorted({key for each in seen for key in _reachable(known, each)}))
    prior = np.array([known.prior(key) for key in keys])
    theta = prior[:, 0].copy()
    precision = np.diag(1 / prior[:, 1] ** 2)
    for turn in range(ROUNDS):
        now = Knowledge(keys, dict(zip(keys, theta, strict=True)), None, known.shares)
        times = [now.time(each.place, each.layers) for each in seen]
        slope = np.array([[-spent.shares.get(key, 0.0) for key in keys] for spent in times])
        left = np.array([math.log(each.milliseconds) - t.log_ms for each, t in zip(seen, times, strict=True)])
        hessian = precision + slope.T @ slope / MODEL**2
        step = np.linalg.solve(hessian, slope.T @ left / MODEL**2 - precision @ (theta - prior[:, 0]))
        short = np.clip(step, -0.5, 0.5)  # what limits a layer changes on the way
        theta = theta + (short if turn < SETTLING else short / 2)
        if float(np.abs(step).max()) < CLOSE:
            break
    return Knowledge(keys, dict(zip(keys, map(float, theta), strict=True)), np.linalg.inv(hessian), known.shares)


def _reachable(known: Knowledge, each: Observation) -> set[Key]:
    """Parameters that the latency could speak of."""
    found: set[Key] = set()
    for layer in each.layers:
        peak = each.place.peak(layer.arithmetic)
        found |= set(keys_of(each.place, f"{layer.kind}/{peak[0] if peak else layer.arithmetic}"))
    return found | (set(keys_of(each.place, "memory")) if each.place.bandwidth_gb_s else set())
