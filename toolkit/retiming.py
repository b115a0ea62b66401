"""Files of two runs timed on one device in one job, in turn: what a slow state does to one it does to the other.

Each round times a fresh process of both files, close together, the first to go changing from round to round. The ratio
of a typical round has the interval of order statistics that a typical process has (engine/latency.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from toolkit import compat, registry
from toolkit.checks.installed import absent_here, installed
from toolkit.checks.latency import job, limit_s
from toolkit.compare import Comparison, Judgement, Retimed
from toolkit.core import Artifact, Interval, MeasureSpec, Progress, Session
from toolkit.devices import DeviceProfile, load_device, open_session, reached
from toolkit.digest import file_sha256
from toolkit.errors import InputError, UnavailableError, UnsupportedError
from toolkit.plan import REFERENCE
from toolkit.report.numbers import TIMES
from toolkit.runs import ArtifactRecord, Manifest

CONFIDENCE = 0.95
ROUNDS = 20  # of which five on either side may have been disturbed
SECONDS = 0.5
WARMUP_SECONDS = 0.2
Emit = Callable[[Progress], None]


@dataclass
class _Pair:
    """One file of both runs, and what each round gave, in nanoseconds."""

    before: Artifact
    after: Artifact
    runtime: tuple[str, str]
    medians: list[tuple[float, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.after.name

    @property
    def same(self) -> bool:
        return self.before.sha256 == self.after.sha256


def retime(  # the command's options, one by one
    comparison: Comparison,
    before: tuple[Path, Manifest],
    after: tuple[Path, Manifest],
    *,
    tolerance: float,
    device: str = "this-machine",
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    emit: Emit = lambda progress: None,
    **places: Any,
) -> Comparison:
    """The comparison with every file that both runs delivered timed here. tolerance: what is no change, as a share.

    places: ssh, adb, as `devices.reached` takes them.
    """
    (profile,) = reached([load_device(device)], **places)
    if not profile.measurable or not profile.python:
        why = f"give {profile.where}" if profile.needs_host else "name another device"
        raise UnavailableError(profile.name, "cannot be timed on from here", why)
    if profile.emulated:
        problem = f"is imitated ({profile.emulated}): how long a file takes there says nothing of the device"
        raise UnsupportedError(profile.name, problem, "name a device that is there")
    pairs, refused = _pairs(before, after, profile)
    spec = profile.measure.model_copy(update={"seconds": seconds, "warmup_seconds": WARMUP_SECONDS})
    with closing(open_session(profile)) as session:
        unlike = [pair for pair in pairs if not pair.same]
        for pair in unlike:
            _require(profile, pair.runtime[0], session)
            for each in (pair.before, pair.after):
                compat.require_read(each.path, profile.name, pair.runtime[0], None)
                session.push(each.path)
        with session.alone():
            _time(unlike, session, spec, rounds, emit)
    made = tuple(_judged(pair, profile.name, len(unlike), tolerance) for pair in pairs)
    timed = {each.subject for each in made}
    changes = tuple(
        replace(change, judgement="not compared", reason="timed in turn instead")
        if change.name in TIMES and change.device == profile.name and change.subject in timed
        else change
        for change in comparison.measurements
    )
    return replace(comparison, measurements=changes, retimed=made, not_retimed=refused)


def _time(pairs: Sequence[_Pair], session: Session, spec: MeasureSpec, rounds: int, emit: Emit) -> None:
    if pairs:
        words = f"timing {len(pairs)} file{'s' * (len(pairs) != 1)} of both runs in turn, {rounds} rounds"
        emit(Progress(words, keep=True))
    for number in range(rounds):
        for pair in pairs:
            emit(Progress(f"timing {pair.name}, round {number + 1}", number / rounds))
            ordered = (pair.before, pair.after) if number % 2 == 0 else (pair.after, pair.before)
            first, second = (_process(each, session, spec, pair.runtime) for each in ordered)
            pair.medians.append((first, second) if number % 2 == 0 else (second, first))


def _process(artifact: Artifact, session: Session, spec: MeasureSpec, runtime: tuple[str, str]) -> float:
    asked = job("bench", artifact, session, spec, runtime)
    return float(median(session.run(asked, timeout_s=limit_s(runtime, spec))["samples_ns"]))


def _judged(pair: _Pair, device: str, pairs: int, tolerance: float) -> Retimed:
    if pair.same:
        return Retimed(pair.name, device, None, None, 1.0, None, 0, "same", same=True)
    ratio, interval, judgement = judge_ratios([two / one for one, two in pair.medians], pairs, tolerance)
    one, two = (median(each) / 1e6 for each in zip(*pair.medians, strict=True))
    return Retimed(pair.name, device, one, two, ratio, interval, len(pair.medians), judgement)


def judge_ratios(ratios: Sequence[float], pairs: int, tolerance: float) -> tuple[float, Interval, Judgement]:
    """The typical ratio, its interval, at 95% for all pairs together, and what it says. tolerance: as a share."""
    from toolkit.engine.latency import processes_needed, typical_interval
    from toolkit.engine.statistics import bonferroni

    confidence = bonferroni(CONFIDENCE, max(1, pairs))
    found = typical_interval(ratios, confidence)
    interval = Interval(found.low, found.high, found.confidence, f"order statistics of {len(ratios)} rounds")
    if not found.enough:
        problem = f"{len(ratios)} cannot tell {pairs} files apart at 95%"
        raise InputError("--rounds", problem, f"ask for {processes_needed(confidence)} or more")
    judgement: Judgement = "unclear"
    if found.low > 1 + tolerance:
        judgement = "worse"
    elif found.high < 1 - tolerance:
        judgement = "better"
    elif found.low >= 1 - tolerance and found.high <= 1 + tolerance:
        judgement = "same"
    return median(ratios), interval, judgement


# ---------------------------------------------------------------- which files


def _pairs(
    before: tuple[Path, Manifest], after: tuple[Path, Manifest], profile: DeviceProfile
) -> tuple[list[_Pair], dict[str, str]]:
    """Files of both runs by their name, and why others are not timed."""
    old, new = ({each.name: each for each in _delivered(manifest)} for _, manifest in (before, after))
    refused = {name: "is in one run alone" for name in {**old, **new} if not (name in old and name in new)}
    found: list[_Pair] = []
    for name in (name for name in old if name in new):
        one, two = _checked(before[0], old[name]), _checked(after[0], new[name])
        try:
            runtime = profile.runtime_for(two.format, two.scheme)
            profile.runtime_for(one.format, one.scheme)
        except UnsupportedError as error:
            refused[name] = str(error)
            continue
        if not getattr(registry.load("runtimes", runtime.use), "timed", True):
            refused[name] = f"{runtime.use} on this machine says nothing of {profile.name}'s speed"
            continue
        found.append(_Pair(one, two, (runtime.use, runtime.delegates[0] if runtime.delegates else "none")))
    return found, refused


def _delivered(manifest: Manifest) -> Iterator[ArtifactRecord]:
    return (record for record in manifest.artifacts if record.variant != REFERENCE)


def _checked(folder: Path, record: ArtifactRecord) -> Artifact:
    """The file, which must be the one that the manifest speaks of."""
    artifact = record.artifact(folder)
    if not artifact.path.is_file():
        raise InputError(str(artifact.path), "is not there", "take the run's artifacts along with its manifest")
    if file_sha256(artifact.path) != record.sha256:
        raise InputError(str(artifact.path), "is not the file that the run judged", "run it again")
    return artifact


def _require(profile: DeviceProfile, runtime: str, session: Session) -> None:
    if profile.needs_host:
        installed(session, profile, runtime)
    absent = absent_here(runtime) if profile.transport == "local" else None
    if absent:
        raise UnavailableError(profile.name, *absent)
