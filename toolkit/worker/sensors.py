"""What a device tells of itself while it works: clocks, temperatures, throttling, power.

Pages: Documentation/admin-guide/pm/cpufreq.rst, driver-api/thermal/sysfs-api.rst, hwmon/sysfs-interface.rst and
power/powercap/powercap.rst of the Linux kernel; "vcgencmd" in the Raspberry Pi documentation (get_throttled).
"""

from __future__ import annotations

import glob
import os
import subprocess
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

Read = Callable[[], float]
VCGENCMD_S = 2.0
# bits of vcgencmd get_throttled that hold now; those 16 higher say that it has happened since the start
THROTTLED = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}


class Sensors:
    """The sensors found here by name, and those that were lost on the way. root: of the file system, for tests."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self.readers: Dict[str, Tuple[str, Read]] = {}  # name -> (unit, how to read it)
        self.lost: Dict[str, str] = {}
        for find in (self._clocks, self._temperatures, self._cooling, self._throttled):
            for name, unit, read in find():
                try:
                    read()
                except (OSError, ValueError, subprocess.SubprocessError):
                    continue  # it is there by name only: no sensor
                self.readers[name] = (unit, read)

    def units(self) -> Dict[str, str]:
        """Every sensor's unit."""
        return {name: unit for name, (unit, _) in self.readers.items()}

    def sample(self) -> Dict[str, float]:
        """All values now; a sensor that fails is lost, told as such, and asked no more."""
        found: Dict[str, float] = {}
        for name, (_, read) in list(self.readers.items()):
            if name in self.lost:
                continue
            try:
                found[name] = read()
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                self.lost[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
        return found

    def _paths(self, pattern: str) -> List[str]:
        return sorted(glob.glob(os.path.join(self.root, pattern)))

    def _clocks(self) -> List[Tuple[str, str, Read]]:
        """One for each policy: cores that share a clock."""
        found: List[Tuple[str, str, Read]] = []
        for path in self._paths("sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq"):
            name = "clock:cpu%s" % path.split(os.sep)[-2].replace("policy", "")
            found.append((name, "MHz", _reader(path, 1e-3)))
        return found

    def _temperatures(self) -> List[Tuple[str, str, Read]]:
        found: List[Tuple[str, str, Read]] = []
        for path in self._paths("sys/class/thermal/thermal_zone*/temp"):
            folder = os.path.dirname(path)
            kind = text(os.path.join(folder, "type")) or os.path.basename(folder)
            name = "temperature:%s" % kind
            if name in [known for known, _, _ in found]:
                name += ":" + os.path.basename(folder).replace("thermal_zone", "")
            found.append((name, "C", _reader(path, 1e-3)))
        return found

    def _cooling(self) -> List[Tuple[str, str, Read]]:
        """The kernel's own brakes: a state above 0 is a clock held down."""
        found: List[Tuple[str, str, Read]] = []
        for path in self._paths("sys/class/thermal/cooling_device*/cur_state"):
            kind = text(os.path.join(os.path.dirname(path), "type"))
            if "cpu" in kind or "freq" in kind:
                found.append(("throttling:%s" % kind, "state", _reader(path, 1.0)))
        return found

    def _throttled(self) -> List[Tuple[str, str, Read]]:
        paths = self._paths("usr/bin/vcgencmd") + self._paths("opt/vc/bin/vcgencmd")
        return [("throttling:firmware", "bits", lambda: _vcgencmd(paths[0]))] if paths else []


def text(path: str) -> str:
    """A file's one line, or "" where it cannot be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _reader(path: str, scale: float) -> Read:
    def read() -> float:
        with open(path) as file:
            return float(file.read()) * scale

    return read


def _vcgencmd(path: str) -> float:
    """The bits that hold now: `throttled=0x50005` is 5."""
    said = subprocess.run(
        [path, "get_throttled"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=VCGENCMD_S, check=True
    )
    return float(int(said.stdout.decode().partition("=")[2], 16) & 0xF)


# ---------------------------------------------------------------- energy


class Meter:
    """Energy since `start`, in millijoules, from a counter (RAPL) or from power sampled as often as it is asked."""

    def __init__(self, name: str, read: Read, wrap: float = 0.0, power: bool = False) -> None:
        self.name, self.read, self.wrap, self.power = name, read, wrap, power
        self.joules_e3, self.last, self.samples = 0.0, 0.0, 0
        self.began = self.at = 0.0
        self.lost = ""  # why it cannot be read any more

    def start(self) -> None:
        """Count from now on."""
        self.joules_e3, self.samples = 0.0, 0
        self.began = self.at = time.monotonic()
        if not self.lost:
            self.last = self.read()

    def tick(self) -> None:
        """Read it again; one that fails is lost, and told as such."""
        if self.lost:
            return
        try:
            now, value = time.monotonic(), self.read()
        except (OSError, ValueError) as error:
            self.lost = str(error) or type(error).__name__
            return
        if self.power:  # trapezoid of milliwatts
            self.joules_e3 += (value + self.last) / 2 * (now - self.at)
        else:
            gone = value - self.last
            self.joules_e3 += gone + self.wrap if gone < 0 else gone
        self.last, self.at = value, now
        self.samples += 1

    def milliwatts(self) -> Optional[float]:
        """Mean power since `start`."""
        seconds = self.at - self.began
        return self.joules_e3 / seconds if self.samples and seconds > 0 else None


def meter(root: str = "/") -> Optional[Meter]:
    """The first sensor of power or energy that can be read here: RAPL's package, else a rail of hwmon (INA chips)."""
    for path in sorted(glob.glob(os.path.join(root, "sys/class/powercap/intel-rapl:?/energy_uj"))):
        wrap = text(os.path.join(os.path.dirname(path), "max_energy_range_uj"))
        name = "RAPL %s" % (text(os.path.join(os.path.dirname(path), "name")) or "package")
        found = Meter(name, _reader(path, 1e-3), wrap=float(wrap or 0) * 1e-3)
        if _works(found):
            return found
    for path in sorted(glob.glob(os.path.join(root, "sys/class/hwmon/hwmon*/power*_input"))):
        folder, rail = os.path.dirname(path), os.path.basename(path).replace("_input", "")
        label = text(os.path.join(folder, "%s_label" % rail)) or rail
        found = Meter("hwmon %s %s" % (text(os.path.join(folder, "name")), label), _reader(path, 1e-3), power=True)
        if _works(found):
            return found
    for path in sorted(glob.glob(os.path.join(root, "sys/class/hwmon/hwmon*/curr*_input"))):
        current = _reader(path, 1.0)  # mA; the INA3221 of a Jetson has volts beside it and no power
        folder, rail = os.path.dirname(path), os.path.basename(path).replace("_input", "").replace("curr", "in")
        volts = _reader(os.path.join(folder, "%s_input" % rail), 1e-3)
        label = text(os.path.join(folder, "%s_label" % rail)) or rail
        found = Meter("hwmon %s %s" % (text(os.path.join(folder, "name")), label), _product(current, volts), power=True)
        if _works(found):
            return found
    return None


def _product(current: Read, volts: Read) -> Read:
    return lambda: current() * volts()


def _works(found: Meter) -> bool:
    try:
        found.read()
    except (OSError, ValueError):
        return False
    return True


def described(found: Meter) -> Dict[str, Any]:
    """What was counted since `start`, and how."""
    seconds = found.at - found.began
    return {
        "sensor": found.name,
        "kind": "power, sampled" if found.power else "energy counter",
        "samples": found.samples,
        "rate_hz": found.samples / seconds if seconds else 0.0,
        "seconds": seconds,
        "millijoules": found.joules_e3,
        "milliwatts": found.milliwatts(),
    }
