"""Lines of tegrastats, Jetson's own monitor, in the shapes JetPack 4 to 7 write.

Rails come as `NAME 1200/1180` (JetPack 4), `NAME 1200mW/1180mW` (5, 6), and with one value or three on Thor (7): the
first is the moment's, the second the average since tegrastats started. They may be below zero (Thor's VDD_GPU at rest).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# names that are rails: POM_* of Nano, VDD_* and VIN* of the others, bare ones of AGX Xavier. Without the list, `RAM
# 1234/7620MB` would be one
RAIL = re.compile(
    r"(?<![\w@])(?P<name>(?:VDD|VIN|POM|VDDQ)\w*|GPU|CPU|SOC|CV|VDDRQ|SYS5V) "
    r"(?P<now>-?\d+(?:\.\d+)?)(?P<unit>mW|W)?(?:/(?P<mean>-?\d+(?:\.\d+)?)(?:mW|W)?)?(?:/-?\d+(?:\.\d+)?(?:mW|W)?)?(?=\s|$)"
)
GPU_LOAD = re.compile(r"GR3D_FREQ (?P<percent>\d+)%")
GPU_CLOCK = re.compile(r"GR3D_FREQ (?:\d+%)?@\[?(?P<mhz>\d+)")
HEAT = re.compile(r"(?<!\S)(?P<name>[A-Za-z]\w*)@(?P<degrees>-?\d+(?:\.\d+)?)C(?=[\s/]|$)")
MEMORY = re.compile(r"(?<!\w)RAM (?P<used>\d+)/(?P<total>\d+)MB")
ABSENT_HEAT = -256.0  # what JetPack 4 and 5 print for a sensor whose part is off


@dataclass(frozen=True)
class Reading:
    """One rail. mean_mw: tegrastats's own average since it started, None where it gives none."""

    now_mw: float
    mean_mw: float | None = None


@dataclass(frozen=True)
class Sample:
    """One line. What a JetPack does not print is None, or not there."""

    rails: Mapping[str, Reading]
    gpu_percent: float | None = None
    gpu_mhz: float | None = None
    celsius: Mapping[str, float] | None = None
    used_mib: int | None = None
    total_mib: int | None = None

    @property
    def hottest(self) -> float | None:
        """The highest temperature, in degrees Celsius; not PMIC's, which reads 100 or 50 whatever it is."""
        return max((value for name, value in (self.celsius or {}).items() if name != "PMIC"), default=None)


def sample(line: str) -> Sample | None:
    """What one line says, or None where it is no line of tegrastats."""
    memory = MEMORY.search(line)
    if memory is None:
        return None
    load, clock = GPU_LOAD.search(line), GPU_CLOCK.search(line)
    return Sample(
        rails=dict(_rails(line)),
        gpu_percent=float(load["percent"]) if load else None,
        gpu_mhz=float(clock["mhz"]) if clock else None,
        celsius={item["name"]: float(item["degrees"]) for item in HEAT.finditer(line) if _there(item["degrees"])},
        used_mib=int(memory["used"]),
        total_mib=int(memory["total"]),
    )


def samples(text: str) -> tuple[Sample, ...]:
    """Every line of tegrastats in the text; a last line cut short by its end is left out where it lacks rails."""
    found = [item for line in text.splitlines() if (item := sample(line)) is not None]
    if len(found) > 1 and found[-1].rails.keys() != found[0].rails.keys():
        found.pop()
    return tuple(found)


def command(interval_ms: int, seconds: int) -> list[str]:
    """Sample for so long, then end. Not `--stop`, which ends whatever tegrastats anyone started."""
    return ["timeout", "-s", "INT", str(seconds), "tegrastats", "--interval", str(interval_ms)]


def _rails(line: str) -> Iterator[tuple[str, Reading]]:
    for item in RAIL.finditer(line):
        scale = 1000.0 if item["unit"] == "W" else 1.0
        mean = float(item["mean"]) * scale if item["mean"] else None
        yield item["name"], Reading(float(item["now"]) * scale, mean)


def _there(degrees: str) -> bool:
    return float(degrees) > ABSENT_HEAT
