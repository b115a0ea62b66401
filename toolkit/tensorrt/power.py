"""Power and energy of an inference: which rail is the whole board, what was sampled, and when two are not comparable.

Rails as users' logs and board lists show them: VDD_IN (Orin Nano, Orin NX, Xavier NX, TX2), POM_5V_IN (Nano) and VIN
(Thor) are the input of the module or board; AGX Xavier and AGX Orin have none, only rails of parts. Not verified on a
device.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.errors import InputError, UnsupportedError
from toolkit.tensorrt.tegrastats import Sample

INPUT, PARTS = "input of the module", "sum of the module's parts, less than its input"
# rails by board, the first set that is all there is taken: (boards, rails, what they are)
TOTALS: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (("jetson-nano",), ("POM_5V_IN",), INPUT),
    (("jetson-tx2", "jetson-xavier-nx", "jetson-orin-nano", "jetson-orin-nx"), ("VDD_IN",), INPUT),
    (("jetson-agx-xavier",), ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), PARTS),
    (("jetson-agx-orin",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), PARTS),
    (("jetson-thor",), ("VIN",), INPUT),
    (("jetson-thor",), ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"), PARTS),
)
FEWEST = 10  # samples of a mean, a rule of our own: the error of the mean is then a third of one sample's
COVERED = 0.8  # of the run that the samples must lie in, a rule of our own
# ms one reading of the INA3221 averages over on Xavier and Orin, as NVIDIA's nvpower.sh sets it: 512 x 2 x 140 us x 3
SENSOR_MS = dict.fromkeys(
    ("jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin", "jetson-agx-xavier", "jetson-xavier-nx"), 430
)
MODE = "power_mode"
CLOCKS = "clocks"


@dataclass(frozen=True)
class Trace:
    """Power over time from one sensor, in mW, one value every interval_ms."""

    sensor: str
    rails: tuple[str, ...]
    meaning: str
    milliwatts: tuple[float, ...]
    interval_ms: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Energy:
    """Energy of one inference in mJ: of all the board took (gross), and of what it took beyond rest (net)."""

    gross_mj: float
    net_mj: float | None
    load_mw: float
    idle_mw: float | None
    inferences: int
    seconds: float
    sensor: str
    rails: tuple[str, ...]
    meaning: str
    interval_ms: float
    samples: int
    idle_samples: int
    notes: tuple[str, ...] = ()

    def how(self) -> dict[str, object]:
        """What must stand beside the number, as a measurement's `how`."""
        return {
            "sensor": self.sensor,
            "rails": " + ".join(self.rails),
            "rail_is": self.meaning,
            "sampling_ms": self.interval_ms,
            "samples": self.samples,
            "power_mw": round(self.load_mw, 1),
            "idle_mw": "not measured" if self.idle_mw is None else round(self.idle_mw, 1),
            "gross_mj": self.gross_mj,
            "net_mj": "not measured" if self.net_mj is None else self.net_mj,
        }


def tegrastats_trace(samples: Sequence[Sample], *, board: str, interval_ms: float) -> Trace:
    """The whole board's power from its rails.

    Args:
        board: name of its device profile, as `jetson.module` gives it.

    Raises:
        UnsupportedError: no rail of this board is known to be the whole, or none was read.
    """
    present = set.intersection(*(set(item.rails) for item in samples)) if samples else set()
    if not present:
        raise UnsupportedError("tegrastats", "no power rails in its output", "run it as root, outside a container")
    rails, meaning = _total(board, present)
    values = tuple(sum(item.rails[name].now_mw for name in rails) for item in samples)
    return Trace("tegrastats (INA3221)", rails, meaning, values, interval_ms, _notes(board, interval_ms))


def smi_trace(text: str, *, interval_ms: float) -> Trace:
    """Power of a discrete GPU from `smi_command`'s output: watts, one line each; the whole card, not the computer."""
    values = [float(line) * 1000 for line in map(str.strip, text.splitlines()) if re.fullmatch(r"\d+(?:\.\d+)?", line)]
    if not values:
        said = text.strip().splitlines()[0] if text.strip() else "nothing"
        raise UnsupportedError("nvidia-smi", f"no power reading, it says '{said}'", "use a GPU that has a power sensor")
    return Trace("nvidia-smi power.draw", ("board",), "the card, without its computer", tuple(values), interval_ms)


def smi_command(interval_ms: int, seconds: int, *, gpu: int = 0) -> list[str]:
    """Sample a discrete GPU's power for so long, then end."""
    query = ["nvidia-smi", f"--id={gpu}", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    return ["timeout", "-s", "INT", str(seconds), *query, f"--loop-ms={interval_ms}"]


def energy(load: Trace, *, seconds: float, inferences: int, idle: Trace | None = None) -> Energy:
    """Mean power under load x time / inferences, with and without the power at rest.

    Args:
        load: sampled while the inferences ran, in a run of its own.
        seconds: how long they ran.
        idle: the same sensor with nothing running; None leaves the net energy out.

    Raises:
        InputError: samples too few, or not of this run, or not of one sensor.
    """
    if inferences < 1 or not (math.isfinite(seconds) and seconds > 0):
        raise InputError("energy", f"{inferences} inferences in {seconds} s", "measure a run that did something")
    _enough(load, "under load")
    covered = len(load.milliwatts) * load.interval_ms / 1000 / seconds
    if not COVERED <= covered <= 1 / COVERED:
        problem = f"samples span {covered * seconds:.3g} s, the inferences {seconds:.3g} s"
        raise InputError("energy", problem, "sample while they run, and no longer")
    if idle is not None:
        _enough(idle, "at rest")
        if (idle.sensor, idle.rails) != (load.sensor, load.rails):
            raise InputError("energy", "rest and load were sampled by different sensors", "sample both alike")
    power = statistics.fmean(load.milliwatts)
    rest = statistics.fmean(idle.milliwatts) if idle else None
    if power <= 0:
        raise InputError("energy", f"mean power is {power:.0f} mW", "the sensor reads no power of this board")
    each = seconds / inferences  # mW x s = mJ
    below = (
        (f"power under load is not above that at rest: {power:.0f} and {rest:.0f} mW",)
        if rest and rest >= power
        else ()
    )
    return Energy(
        gross_mj=power * each,
        net_mj=None if rest is None else (power - rest) * each,
        load_mw=power,
        idle_mw=rest,
        inferences=inferences,
        seconds=seconds,
        sensor=load.sensor,
        rails=load.rails,
        meaning=load.meaning,
        interval_ms=load.interval_ms,
        samples=len(load.milliwatts),
        idle_samples=len(idle.milliwatts) if idle else 0,
        notes=(*load.notes, *below),
    )


def incomparable(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """Why two measurements cannot be set against each other, by their `how`; "" where power mode and clocks agree."""
    for key, name in ((MODE, "power mode"), (CLOCKS, "clocks")):
        old, new = str(before.get(key) or ""), str(after.get(key) or "")
        if old != new:
            if not old or not new:
                return f"the {name} of one run is not known, of the other it is {old or new}"
            return f"the {name}s differ: {old} and {new}" if key == MODE else f"the {name} differ: {old} and {new}"
    return ""


def _total(board: str, present: set[str]) -> tuple[tuple[str, ...], str]:
    named = [(rails, meaning) for boards, rails, meaning in TOTALS if any(_is(board, item) for item in boards)]
    found = next(((rails, meaning) for rails, meaning in named if set(rails) <= present), None)
    if found is not None:
        return found
    have = ", ".join(sorted(present))
    if not named:
        raise UnsupportedError("power", f"which rail of '{board}' is the whole board is not known; it has {have}", None)
    wanted = " or ".join(" + ".join(rails) for rails, _ in named)
    raise UnsupportedError("power", f"{board} should have {wanted}, tegrastats has {have}", "look which board it is")


def _is(board: str, family: str) -> bool:
    """jetson-orin-nano-8 is of the family jetson-orin-nano."""
    return board == family or board.startswith(f"{family}-")


def _notes(board: str, interval_ms: float) -> tuple[str, ...]:
    slow = next((period for family, period in SENSOR_MS.items() if _is(board, family)), 0)
    if interval_ms >= slow:
        return ()
    return (f"sampled every {interval_ms:g} ms a sensor that averages over {slow} ms: neighbours are not independent",)


def _enough(trace: Trace, where: str) -> None:
    if len(trace.milliwatts) < FEWEST:
        problem = f"{len(trace.milliwatts)} samples {where}, {FEWEST} are the fewest that say anything"
        raise InputError("energy", problem, "run for longer, or sample more often")
