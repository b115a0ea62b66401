"""`edgekit device calibrate`: a copy of a profile, with what its processor reached in the user's own measurements."""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import runs
from toolkit.devices import DeviceProfile, find, load_device, shipped
from toolkit.digest import file_sha256
from toolkit.errors import InputError, UnsupportedError
from toolkit.estimates import workload
from toolkit.estimates.calibrate import Calibration, Timed, as_toml, calibrate

LATENCY = "latency_p50_ms"


@dataclass(frozen=True)
class Calibrated:
    """What was learned, where it was written, and what of the measurements could not be used and why."""

    found: Calibration
    path: Path
    left_out: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield from self.found.lines()
        yield from (f"left out: {text}" for text in self.left_out)
        yield f"written: {self.path}; use it as --device {self.path}"

    def as_dict(self) -> dict[str, Any]:
        """As data."""
        return {**self.found.as_dict(), "left_out": list(self.left_out), "profile": str(self.path)}


def calibrate_profile(
    device: str, sources: Sequence[Path], *, out: Path, models: Path | None = None, processor: str = ""
) -> Calibrated:
    """Learn from run directories, or from what `edgekit bench --json` printed, and write the profile's copy to `out`.

    models: folder of the files that were timed, for such output; its own folder by default. Nothing is written over,
    and nothing among the shipped profiles.
    """
    if out.exists():
        raise InputError(str(out), "is there already", "name a new file")
    if out.suffix != ".toml" or out.resolve().parent in {path.parent for path in shipped("devices").values()}:
        raise InputError(str(out), "is no place for a profile of your own", "name a .toml file of another folder")
    profile = load_device(device)
    left_out: list[str] = []
    timed = [item for source in sources for item in _timed(source, profile, models or source.parent, left_out)]
    if not timed:
        told = f": {'; '.join(left_out)}" if left_out else ""
        fix = f"measure files there: edgekit bench FILE --device {profile.name} --json"
        raise InputError("--from", f"holds no latency measured on {profile.name} that can be used{told}", fix)
    count = f"{len(timed)} latenc{'y' if len(timed) == 1 else 'ies'} measured by Edgekit"
    found = calibrate(profile, timed, source=f"{count} ({', '.join(item.name for item in timed)})", processor=processor)
    _write(out, find("devices", device).read_text(encoding="utf-8"), profile, found)
    return Calibrated(found, out, tuple(left_out))


def _write(out: Path, text: str, profile: DeviceProfile, found: Calibration) -> None:
    """The profile's own text with the shares behind it, once it reads as a profile."""
    named = "" if "name" in tomllib.loads(text) else f'name = "{profile.name}"\n'  # its file gave it that
    content = f"{named}{text.rstrip()}\n\n# Learned by `edgekit device calibrate`.\n{as_toml(found.efficiency)}"
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        tried = Path(folder) / out.name
        tried.write_text(content, encoding="utf-8")
        load_device(tried)
    runs.write_atomically(out, content.encode())


def _timed(source: Path, profile: DeviceProfile, models: Path, left_out: list[str]) -> Iterator[Timed]:
    """Latencies of a source that were measured on this device, with the layers of their files."""
    for row, path, sha256 in _rows(source, models):
        if row["name"] != LATENCY or row["device"] != profile.name:
            continue
        if row["source"] != "measured":
            left_out.append(f"{row['subject']} is {row['source']}")
            continue
        try:
            if not path.is_file():
                raise InputError(str(path), "no such file", "name its folder with --models")
            if sha256 and file_sha256(path) != sha256:
                raise InputError(str(path), "is not the file that was timed (sha256 differs)")
            layers = workload.read(path)
        except (InputError, UnsupportedError) as error:
            left_out.append(f"{row['subject']} {error.problem}")
            continue
        yield Timed(row["subject"], layers, float(row["value"]), int(row["how"].get("threads", 1)))


def _rows(source: Path, models: Path) -> Iterator[tuple[dict[str, Any], Path, str]]:
    """(measurement, file, sha256 of what was timed) of a run directory, or of the JSON that `bench` prints."""
    if source.is_dir():
        manifest = runs.read(source)
        files = {record.name: record.artifact(source) for record in manifest.artifacts}
        for item in manifest.measurements:
            if item.subject in files:
                yield {**vars(item)}, files[item.subject].path, files[item.subject].sha256
        return
    try:
        said = json.loads(source.read_text(encoding="utf-8"))
        rows = [{**row, "how": dict(row["how"])} for row in said["measurements"]]
        hashes = {str(name): str(digest) for name, digest in said.get("files", {}).items()}
        needed = [[row[key] for key in ("subject", "name", "value", "source", "device")] for row in rows]
    except FileNotFoundError:
        raise InputError(str(source), "no such file or run directory") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f"is neither a run directory nor what `edgekit bench --json` prints ({type(error).__name__})"
        raise InputError(str(source), problem) from error
    for row, (subject, *_) in zip(rows, needed, strict=True):
        yield row, models / str(subject), hashes.get(str(subject), "")
