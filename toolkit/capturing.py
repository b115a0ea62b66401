"""`edgekit device capture`: a device is asked what it is, and its profile written and checked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import runs
from toolkit.capture import Machine, ask
from toolkit.captured import RUNTIMES, Reached, found, install, profile_text
from toolkit.devices import DeviceProfile, DeviceRuntime, load_device, open_session, registered, safe_name
from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.tensorrt.detection import Detected

# before it is asked, nothing is known of a device; what a profile cannot be without
NOTHING = DeviceRuntime(use="litert", formats=("tflite",), schemes=("float32",))


@dataclass(frozen=True)
class Captured:
    """What was written, and what the device said."""

    path: Path
    machine: Machine
    reached: Reached
    system: Detected | None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        machine = asdict(replace(self.machine, flags=frozenset()))
        del machine["flags"]
        return {"profile": str(self.path), "runtimes": found(self.machine, self.reached), **machine}

    def lines(self) -> Iterator[str]:
        """What was written, what the device did not say, and what to do next."""
        yield f"{self.path}: {self.machine.model or 'a device of unknown model'}, {self.machine.system}"
        yield from (f"  not found out: {line}" for line in self.machine.missing)
        yield from (f"  not found out: {line}" for line in (self.system.missing if self.system else ()))
        if not found(self.machine, self.reached) and not self.system:
            yield f"  no runtime was found there. Fix: {install(self.machine, self.reached.transport)}"
        where = "" if self.reached.transport == "local" else f" --{self.reached.transport} ..."
        yield f"next: edgekit device show {self.path}; edgekit bench FILE --device {self.path}{where}"


def capture(*, out: Path, ssh: str | None = None, adb: str | None = None, python: str | None = None) -> Captured:
    """Ask the device at `ssh` or `adb`, or this machine, and write its profile to a new file `out`."""
    if ssh and adb:
        raise InputError("device capture", "--ssh and --adb were both given", "give the one that reaches it")
    if out.exists():
        raise InputError(str(out), "is there already", "name another file, or remove it")
    if out.suffix != ".toml" or not out.parent.is_dir():
        problem = "is no name of a .toml file" if out.suffix != ".toml" else "its folder does not exist"
        raise InputError(str(out), problem, "give --out FOLDER/NAME.toml")
    transport, host = ("ssh", ssh) if ssh else ("adb", adb) if adb else ("local", "")
    known = tuple(line[0] for line in RUNTIMES.values() if registered("runtimes", line[0]))
    reached = Reached(transport, python or (sys.executable if transport == "local" else "python3"), known)
    name = safe_name(out.stem)
    profile = DeviceProfile(name=name, transport=transport, python=reached.python, arch="any", runtimes=(NOTHING,))
    with closing(open_session(profile.at(host or ""))) as session:
        machine = ask(session, python=reached.python)
        system = _nvidia(session) if machine.tegra or machine.gpu else None
    text = profile_text(machine, name, reached, system=system)
    runs.write_atomically(out, text.encode())
    load_device(out)  # what was written is a profile, or this says what of it is wrong
    return Captured(out, machine, reached, system)


def _nvidia(session: Any) -> Detected:
    from toolkit.engines import detect

    return detect(session)
