"""`compare`: two run directories side by side, with what their samples/ and files add to their manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import compare as comparisons
from toolkit import runs
from toolkit.errors import InputError
from toolkit.paired_runs import paired
from toolkit.regressions import TOLERANCE, regressions, untold
from toolkit.report.numbers import plain


@dataclass(frozen=True)
class Compared:
    """What changed, what of it is worse for sure, and what could not be compared, each in a sentence."""

    comparison: comparisons.Comparison
    worse: tuple[str, ...]
    untold: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Built-in types only, fit for JSON."""
        return {**comparisons.as_dict(self.comparison), "worse": list(self.worse), "untold": list(self.untold)}

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield from comparisons.text(self.comparison).splitlines()
        yield from (f"worse: {line}" for line in self.worse)
        yield from (f"cannot be told: {line}" for line in self.untold)

    def markdown(self) -> Iterator[str]:
        """For a pull request."""
        yield from comparisons.markdown(self.comparison, self.worse, self.untold).splitlines()


def compare_runs(
    before: Path, after: Path, *, tolerance: float = TOLERANCE, bench: bool = False, ended: bool = False, **options: Any
) -> Compared:
    """Compare two run directories. tolerance: share of a size or a time that is no change.

    bench: time the files of both in turn; options: as `retiming.retime` takes them. ended: refuse, by an InputError,
    runs that have not: what one lacks is not seen to be worse.
    """
    one, two = ((_folder(path), runs.read(path)) for path in (before, after))
    unfinished = [(folder, _unfinished(manifest)) for folder, manifest in (one, two) if manifest.status != "done"]
    if ended and unfinished:
        folder, why = unfinished[0]
        raise InputError(str(folder), f"{why}: what is worse cannot be told", f"edgekit run --resume {folder}")
    found = paired(comparisons.compare(one[1], two[1]), one, two)
    if bench:
        from toolkit.retiming import retime

        found = retime(found, one, two, tolerance=tolerance, **options)
    missing = (f"{folder}: {why}" for folder, why in unfinished)
    return Compared(found, regressions(found, tolerance), (*missing, *untold(found)))


def _unfinished(manifest: runs.Manifest) -> str:
    return plain(
        f"the run has not ended, its status is {manifest.status}" + (manifest.error and f" ({manifest.error})")
    )


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent
