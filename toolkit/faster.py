"""Why files are no faster: what `checks.speed_rules` finds, put to the files of a run, of `bench` and of `inspect`.

A runtime's profile of each file lies in the run's `samples/`; everything else is read from the files, so that a run can
be explained anew without measuring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from toolkit import pruning, runs
from toolkit.checks import shares
from toolkit.checks.latency import TIMEOUT_S, job
from toolkit.checks.shares import Profile
from toolkit.checks.speed import CLEAN, NO_GAIN, Finding, Speed, SpeedLayer
from toolkit.checks.speed_graph import Graph, read_graph
from toolkit.checks.speed_match import match
from toolkit.checks.speed_rules import LITERT, Seen, cores_of, findings
from toolkit.checks.zeros import Zeros, zeros_of
from toolkit.core import Artifact, Measurement, MeasureSpec, Progress, Session
from toolkit.devices import DeviceProfile, load_device, open_session
from toolkit.errors import EdgekitError
from toolkit.estimates import roofline
from toolkit.estimates.workload import ESTIMATED

if TYPE_CHECKING:
    from toolkit.plan import Check

HERE = "this-machine"
COMPARED = ("latency_p5_ms", "latency_p50_ms")
KEPT = 60  # layers in the manifest: more than anybody reads, and what a page has room for
SHOWN = 12  # layers on a terminal
NUMBERS = (2, 3, 4)  # columns of the table
EMULATED = "it is imitated, and its times say nothing of the device"
FULL = 0.95  # of the reference's time: nothing was won
LESS = 0.8  # of the reference's MACs: something should have been


# ---------------------------------------------------------------- of a run


def profile_files(
    artifacts: Sequence[Artifact],
    session: Session,
    spec: MeasureSpec,
    device: DeviceProfile,
    *,
    runtimes: Mapping[str, tuple[str, str]],
    samples: Path,
    emit: Callable[[Progress], None],
) -> None:
    """Have each file's layers timed on its device, and keep what the runtime tells in `samples`.

    A runtime that tells nothing is no error.
    """
    for artifact in artifacts:
        emit(Progress(f"layers of {artifact.name} on {device.name}"))
        found = _profiled(artifact, session, spec, device, runtimes[artifact.name])
        runs.write_atomically(_file(samples, artifact.name, device.name), TypeAdapter(Profile).dump_json(found))


def _profiled(
    artifact: Artifact, session: Session, spec: MeasureSpec, device: DeviceProfile, runtime: tuple[str, str]
) -> Profile:
    none = Profile(artifact.name, artifact.sha256, device.name, *runtime, spec.threads)
    if device.emulated:
        return replace(none, why=EMULATED)
    if "tensorrt" in runtime:
        return replace(none, why="an engine is built for it, which takes minutes; `edgekit bench --layers` does it")
    try:
        with session.alone():
            return shares.profiled(artifact, session, spec, device, runtime=runtime)
    except EdgekitError as error:
        return replace(none, why=str(error))


def explain(run: runs.Run, checks: Sequence[Check], artifacts: Mapping[str, Artifact]) -> None:
    """Say of each file on each device why it is no faster, in the manifest."""
    found = []
    with Asking() as asking:
        for check in checks:
            artifact, device = artifacts[check.artifact], check.device
            stored = _stored(run.folder / "samples", artifact, check)
            asked = (check.runtime, check.delegate, check.measure.threads)
            speed = explained(artifact, device, asked, profile=stored, asking=asking)
            if speed is not None:
                more = tuple(no_gain(run.manifest.measurements, artifact, device, artifacts.values()))
                found.append(replace(speed, findings=(*more, *speed.findings)))
    run.update(speeds=tuple(found))


def _stored(samples: Path, artifact: Artifact, check: Check) -> Profile | None:
    """What was kept of this very file, as the check runs it."""
    path = _file(samples, artifact.name, check.device.name)
    with suppress(OSError, ValidationError):
        found = TypeAdapter(Profile).validate_json(path.read_bytes())
        if (found.sha256, found.runtime, found.delegate) == (artifact.sha256, check.runtime, check.delegate):
            return found
    return None


def _file(samples: Path, artifact: str, device: str) -> Path:
    return samples / f"{artifact}@{device}.layers.json"


def no_gain(
    known: Iterable[Measurement], artifact: Artifact, device: DeviceProfile, others: Iterable[Artifact]
) -> Iterator[Finding]:
    """That a file takes as long as a float file of the same format, though it has fewer bits or fewer MACs.

    First beside that of the same network, then beside the original's: what pruning won may hide what quantization lost.
    """
    index = {(item.subject, item.name, item.device): item for item in known}
    own = _best(index, artifact.name, device.name)

    def less(other: Artifact) -> float:
        found = [index.get((subject, "macs", "")) for subject in (artifact.name, other.name)]
        return found[0].value / found[1].value if found[0] and found[1] and found[1].value else 1.0

    beside = [other for other in others if other.format == artifact.format and other.scheme == "float32"]
    for other in sorted(beside, key=lambda other: (less(other) != 1.0, not other.name.startswith("original"))):
        before, share = _best(index, other.name, device.name), less(other)
        if other.name == artifact.name or own is None or before is None:
            continue
        if own.source != "measured" or before.source != "measured" or own.value < FULL * before.value:
            continue
        if share > 1.0 or (artifact.scheme == "float32" and share > LESS):
            continue  # as much work or more, by the same arithmetic
        ratio = own.value / before.value
        text = f"it takes {own.value:.3g} ms at best, {other.name} {before.value:.3g} ms: {ratio:.2f} times as long"
        text += f" with {100 * share:.0f}% of the MACs" if share <= LESS else ""
        advice = (
            f"see what follows for why; for speed alone {other.name} is {'better' if FULL * ratio > 1 else 'as good'}"
        )
        yield Finding(NO_GAIN, text, advice, "measured", "both timed on the device, interleaved", whole=True)
        return


def _best(index: Mapping[tuple[str, str, str], Measurement], subject: str, device: str) -> Measurement | None:
    """What compares files on a machine where others work too: the best process's fifth percentile, else its median."""
    found = (index.get((subject, name, device)) for name in COMPARED)
    return next((item for item in found if item), None)


# ---------------------------------------------------------------- one file on one device


class Asking:
    """Reads files, and asks this machine's LiteRT what XNNPACK takes of them; a session is opened for the first."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._known: dict[str, tuple[tuple[tuple[int, ...], ...], str] | None] = {}
        self._read: dict[str, tuple[Graph, Zeros]] = {}

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *error: object) -> None:
        if self._session is not None:
            self._session.close()

    def pieces(self, artifact: Artifact) -> tuple[tuple[tuple[int, ...], ...], str] | None:
        """(pieces, who says so), or None where LiteRT is not here, or does not run the file."""
        if artifact.sha256 not in self._known:
            self._known[artifact.sha256] = self._asked(artifact)
        return self._known[artifact.sha256]

    def read(self, artifact: Artifact) -> tuple[Graph, Zeros]:
        """The file's graph and its zeros, read once for all devices."""
        if artifact.sha256 not in self._read:
            self._read[artifact.sha256] = (read_graph(artifact.path), zeros_of(artifact.path))
        return self._read[artifact.sha256]

    def _asked(self, artifact: Artifact) -> tuple[tuple[tuple[int, ...], ...], str] | None:
        try:
            if self._session is None:
                self._session = open_session(load_device(HERE))
            asked = job("taken", artifact, self._session, MeasureSpec(), ("litert", "xnnpack"))
            found = self._session.run(asked, timeout_s=TIMEOUT_S)
        except EdgekitError:
            return None
        version = found.get("versions", {}).get("litert", "")
        return tuple(map(tuple, found.get("pieces", ()))), f"LiteRT {version} on this machine".replace("  ", " ")


def explained(
    artifact: Artifact,
    device: DeviceProfile,
    asked: tuple[str, str, int],
    *,
    profile: Profile | None = None,
    asking: Asking,
) -> Speed | None:
    """What is found of a file; asked: (runtime, delegate, threads). None for one that is not read."""
    runtime, delegate, threads = asked
    try:
        graph, zeros = asking.read(artifact)
    except EdgekitError:
        return None
    pieces, who = (profile.pieces, f"LiteRT on {device.name}") if profile else (None, "")
    if pieces is None and artifact.format == "tflite" and (runtime, delegate) == ("litert", "xnnpack"):
        pieces, who = asking.pieces(artifact) or (None, "")
    timed_there = profile is not None and profile.layers and not device.emulated
    rows = match(graph, profile.layers, pieces or ()) if profile and timed_there else ()
    estimate, why = _estimate(graph, device, threads)
    timed, limits = _timed(graph, estimate)
    seen = Seen(
        artifact,
        graph,
        device,
        runtime,
        delegate,
        threads,
        rows,
        pieces,
        who,
        estimate,
        zeros,
        timed,
        limits,
        pruning.multiple_of(device),
        pruning.has_amx(device),
    )
    layers = _layers(seen)
    return Speed(
        artifact.name,
        artifact.sha256,
        device.name,
        runtime,
        delegate,
        threads,
        findings(seen),
        layers[:KEPT],
        len(layers),
        _how(profile, device, seen),
        why or _based(estimate),
    )


def _estimate(graph: Graph, device: DeviceProfile, threads: int) -> tuple[roofline.Estimate | None, str]:
    """The roofline of a file there, or why there is none."""
    if not device.processors:
        return None, f"the profile of {device.name} has no processors to estimate from"
    if device.processors[0].vela:
        return None, "Vela's estimate is of the whole file"
    if graph.scheme not in ESTIMATED:
        return None, f"what {graph.scheme} is computed in depends on the runtime"
    if not graph.work:
        return None, "the sizes of its tensors are known only once it runs"
    try:
        return roofline.estimate(device, tuple(graph.work.values()), threads=threads), ""
    except EdgekitError as error:
        return None, error.problem


def _timed(graph: Graph, estimate: roofline.Estimate | None) -> tuple[dict[int, float], dict[int, str]]:
    """Shares and limits of the estimate's layers, by place."""
    if estimate is None or not estimate.milliseconds:
        return {}, {}
    pairs = list(zip(graph.work, estimate.layers, strict=False))
    total = sum(layer.milliseconds for layer in estimate.layers) or 1.0
    shares_ = {place: layer.milliseconds / total for place, layer in pairs}
    return shares_, {place: layer.limit for place, layer in pairs}


def _based(estimate: roofline.Estimate | None) -> str:
    return f"roofline on {estimate.threads} x {estimate.processor}; {estimate.based_on}" if estimate else ""


def _how(profile: Profile | None, device: DeviceProfile, seen: Seen) -> str:
    if profile is None:
        return f"no layer was timed on {device.name}"
    if not profile.layers or device.emulated:
        return f"no layer was timed: {EMULATED if device.emulated else profile.why}"
    cores = cores_of(device)
    told = f"{profile.how}; timed with {profile.threads} of {cores} cores" if cores else profile.how
    apart = sum(row.place is None for row in seen.rows)
    rest = "row is" if apart == 1 else "rows are"
    return f"{told}; {apart} {rest} of no one operator of the file" if apart else told


def _layers(seen: Seen) -> tuple[SpeedLayer, ...]:
    """Every layer that was timed or has work to do, the largest first."""
    graph, known = seen.graph, seen.graph.by_place
    rows = {row.place: row for row in seen.rows if row.place is not None}
    found = [
        SpeedLayer(
            known[place].name,
            known[place].operator,
            seen.share([place]),
            seen.timed.get(place),
            graph.work[place].macs / graph.macs if place in graph.work and graph.macs else None,
            _by(seen, rows[place].by if place in rows else ""),
            seen.limits.get(place, ""),
        )
        for place in dict.fromkeys([*graph.work, *rows])
        if place in known
    ]
    found += [SpeedLayer(r.name, r.kind, r.share, by=_by(seen, r.by)) for r in seen.rows if r.place is None]
    return tuple(sorted(found, key=_size))


def _size(layer: SpeedLayer) -> tuple[float, float]:
    return -(layer.measured or 0.0), -(layer.estimated or layer.macs or 0.0)


def _by(seen: Seen, by: str) -> str:
    if seen.runtime not in LITERT:
        return by
    return {"delegate": "XNNPACK", "built-in": "LiteRT"}.get(by, by)


# ---------------------------------------------------------------- of `bench` and of `inspect`


def benched(
    artifacts: Sequence[Artifact],
    device: DeviceProfile,
    profiles: Sequence[Profile],
    known: Sequence[Measurement],
) -> list[dict[str, Any]]:
    """What `edgekit bench --layers` adds, of files whose layers it timed."""
    by_name = {profile.artifact: profile for profile in profiles}
    found = []
    with Asking() as asking:
        for artifact in artifacts:
            profile = by_name[artifact.name]
            asked = (profile.runtime, profile.delegate, profile.threads)
            speed = explained(artifact, device, asked, profile=profile, asking=asking)
            if speed is not None:
                more = tuple(no_gain(known, artifact, device, artifacts))
                found.append(asdict(replace(speed, findings=(*more, *speed.findings))))
    return found


def inspected(path: Path, name: str) -> Speed | None:
    """What can be told of a file on a device before it runs there; None for what no runtime of it takes."""
    from toolkit.inspection import FORMATS, read_artifact

    device = load_device(name)
    if path.suffix.lower() not in FORMATS:
        return None
    artifact = read_artifact(path)
    try:
        runtime = device.runtime_for(artifact.format, artifact.scheme)
    except EdgekitError:
        return None
    asked = (runtime.use, runtime.delegates[0] if runtime.delegates else "none", device.measure.threads)
    with Asking() as asking:
        return explained(artifact, device, asked, asking=asking)


def as_speed(found: Mapping[str, Any]) -> Speed:
    """What `benched` gave, once more as itself."""
    speed: Speed = TypeAdapter(Speed).validate_python(found)
    return speed


def lines(found: Iterable[Speed]) -> Iterator[str]:
    """For a person: each file's findings, and its largest layers. Names of files and layers may hold anything."""
    yield from (line if line.isprintable() else repr(line)[1:-1] for line in _lines(found))


def _lines(found: Iterable[Speed]) -> Iterator[str]:
    for speed in found:
        yield f"{speed.artifact} on {speed.device} ({speed.runtime}, {speed.delegate}): why it is no faster"
        yield from (f"  {finding.sentence} [{_shown_by(finding)}]" for finding in speed.findings)
        if not speed.findings:
            yield f"  {CLEAN}"
        if speed.layers:
            yield from _table(speed)


def _shown_by(finding: Finding) -> str:
    return f"{finding.shown_by}: {finding.evidence}"


def _cut(text: str, longest: int = 44) -> str:
    """Its end, which tells one layer from another."""
    return text if len(text) <= longest else f"..{text[2 - longest :]}"


def _table(speed: Speed) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("layer", "operator", "measured", "estimated", "MACs", "by", "limit")]
    for layer in speed.layers[:SHOWN]:
        numbers = (
            "" if each is None else f"{100 * each:.1f}%" for each in (layer.measured, layer.estimated, layer.macs)
        )
        rows.append((_cut(layer.name), _cut(layer.operator, 24), *numbers, layer.by, layer.limit))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    filled = [i for i in range(len(widths)) if any(row[i] for row in rows[1:])]
    for row in rows:
        cells = (row[i].rjust(widths[i]) if i in NUMBERS else row[i].ljust(widths[i]) for i in filled)
        yield f"  {'  '.join(cells)}".rstrip()
    if speed.layer_count > SHOWN:
        yield f"  ... and {speed.layer_count - SHOWN} more; --json has the {min(speed.layer_count, KEPT)} largest"
    yield f"  measured: {speed.how}"
    yield f"  estimated: {speed.estimated_by}"
