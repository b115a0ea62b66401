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
# widths of the other factors: with them about nine of ten published latencies, left out, fall within their range
DEVICE = 0.4  # of a device: clocks and memory that the profile does not tell
OWN = 0.3  # of a device for one kind of layer
SETUP = 0.5  # of what was timed there
MODEL = 0.2  # of what a model's latency differs by, whatever is known of the device
ROUNDS = 30
CLOSE = 1e-6  # largest step of a log share that still counts as moving


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
            share, width = self.shares.get(key[0], MEMORY if key[0].endswith("/memory") else COMPUTE)
            return math.log(share), width
        return 0.0, {"device": DEVICE, "setup": SETUP}.get(key[1], OWN)

    def value(self, key: Key) -> float:
        """A log factor as it is known now."""
        return self.mean.get(key, self.prior(key)[0])

    def time(self, place: Place, layers: Sequence[Layer]) -> Spent:
        """The likeliest time of layers somewhere."""
        spent: dict[Key, float] = {}
        each = []
        for layer in layers:
            found = place.peak(layer.arithmetic)
            if found is None:
                raise ValueError(f"{place.processor.name} has no {layer.arithmetic} rate")
            arithmetic, peak = found
            keys = keys_of(place, f"{layer.kind}/{arithmetic}")
            ms, limited = layer.operations / (peak * math.exp(sum(map(self.value, keys)))), False
            if place.bandwidth_gb_s is not None:
                memory = keys_of(place, "memory")
                moving = layer.bytes / (place.bandwidth_gb_s * 1e6 * math.exp(sum(map(self.value, memory))))
                if moving > ms:
                    ms, keys, limited = moving, memory, True
            each.append((ms, limited))
            for key in keys:
                spent[key] = spent.get(key, 0.0) + ms
        total = sum(ms for ms, _ in each)
        return Spent(math.log(total), {key: ms / total for key, ms in spent.items()}, tuple(each))

    def width(self, spent: Spent) -> float:
        """Width of the log of an estimate: what its factors leave open, and what models differ by."""
        variance = sum((share * self.prior(key)[1]) ** 2 for key, share in spent.shares.items() if key not in self.mean)
        if self.covariance is not None:
            import numpy as np

            row = np.array([spent.shares.get(key, 0.0) for key in self.keys])
            variance += float(row @ self.covariance @ row)
        return math.sqrt(variance + MODEL**2)


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
    for _ in range(ROUNDS):
        now = Knowledge(keys, dict(zip(keys, theta, strict=True)), None, known.shares)
        times = [now.time(each.place, each.layers) for each in seen]
        slope = np.array([[-spent.shares.get(key, 0.0) for key in keys] for spent in times])
        left = np.array([math.log(each.milliseconds) - t.log_ms for each, t in zip(seen, times, strict=True)])
        hessian = precision + slope.T @ slope / MODEL**2
        step = np.linalg.solve(hessian, slope.T @ left / MODEL**2 - precision @ (theta - prior[:, 0]))
        theta = theta + np.clip(step, -0.5, 0.5)  # what limits a layer changes on the way, so steps stay short
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
