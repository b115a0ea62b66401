"""A runtime is looked for on its device before anything is sent there: is it installed, and as new as plans rely on?"""

from __future__ import annotations

import re

from toolkit import registry
from toolkit.core import Session
from toolkit.devices import DeviceProfile
from toolkit.errors import UnavailableError

IMPORT_S = 120.0  # to import a runtime on a slow device


def installed(session: Session, profile: DeviceProfile, runtime: str) -> str:
    """The runtime's version there; UnavailableError, with the command that installs it, where it is missing or too old.

    Too old: older than the version its profile speaks of, which plans rely on; or than what the worker can drive.
    """
    answer = session.run({"kind": "info", "runtime": runtime, "name": runtime}, timeout_s=IMPORT_S)
    version = str(answer["versions"].get(runtime, ""))
    stated = next((known.version for known in profile.runtimes if known.use == runtime and known.version), "")
    if stated and version and _numbers(version) < _numbers(stated):
        problem = f"has {runtime} {version}, too old: its profile speaks of {stated}"
        update = answer.get("newer") or "update it there"
        raise UnavailableError(profile.name, problem, f"{update}; or set version in the profile to what is there")
    return version


def absent_here(runtime: str) -> tuple[str, str] | None:
    """What is wrong and what to do where the runtime's package is not installed on this machine; None where it is."""
    kind = registry.load("runtimes", runtime)
    if kind().version() is not None:
        return None
    extra = getattr(kind, "extra", "")  # of Edgekit, where the package is no plain dependency
    return f"{kind.package} is not installed here", f"pip install '{extra}'" if extra else f"pip install {kind.package}"


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
