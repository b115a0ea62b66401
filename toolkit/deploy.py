"""`deploy`: a bundle to a device: pushed, checked by hash, tried there, and only then made current by one rename.

Whatever goes wrong before that rename (a full disk, a cut connection, a wrong answer) leaves the old version current,
and what was begun is removed, now or by the next deployment.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit import reference, runs
from toolkit.bundle import MANIFEST, MICRO, REFERENCE, Bundle, Packed, pack, read_manifest, require_readable
from toolkit.checks.installed import installed
from toolkit.contract import contract_path, read_contract_file
from toolkit.core import Progress, Session
from toolkit.deployed import Deployed, Record, State
from toolkit.devices import DeviceProfile, load_device, open_session, reached, safe_name
from toolkit.errors import EdgekitError, GateError, InputError, StageError, UnavailableError, UnsupportedError
from toolkit.parts import Part
from toolkit.reference import Smoke

KEPT = 3  # versions that stay: the current one, and what --rollback can go back to
Emit = Callable[[Progress], None]


@dataclass(frozen=True)
class Deployment:
    """What is now current on a device. before: what was; switched: whether that changed."""

    device: str
    folder: str
    version: str
    before: str
    switched: bool
    artifact: str
    archive: str
    smoke: Smoke | None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "smoke": reference.as_dict(self.smoke) if self.smoke else None}

    def lines(self) -> Iterator[str]:
        """For people."""
        done = "is now current" if self.switched else "was current already"
        yield f"{self.device}: {self.artifact} {done}: {self.folder}/current -> versions/{self.version}"
        if self.switched:
            yield f"  current until now: {self.before or 'nothing'}"
        yield f"  smoke test: {self.smoke.line() if self.smoke else 'left out'}"
        yield from (f"  note: {note}" for note in self.notes)


@dataclass(frozen=True)
class Place:
    """Where to: root is a folder of the device, "" for `edgekit` in its home folder; name: of the deployment."""

    profile: DeviceProfile
    root: str
    name: str


def deploy(
    run: Path,
    artifact: str | None = None,
    *,
    device: str,
    ssh: Sequence[str] = (),
    adb: Sequence[str] = (),
    into: str = "",
    name: str = "",
    keep: int = KEPT,
    allow_failed: bool = False,
    smoke: bool = True,
    card: Sequence[str] = (),
    emit: Emit = lambda progress: None,
) -> Deployment:
    """Put a run's file, with all that belongs to it, on a device and make it current there.

    Raises GateError for a file with a failed gate (unless `allow_failed`), and where its answers there are not those
    of here; the old version then stays. smoke: false leaves that test out. keep: versions that stay there.
    """
    (profile,) = reached([load_device(device)], ssh, adb)
    if any(runtime.use == MICRO for runtime in profile.runtimes):
        fix = f"pack it with `edgekit bundle {run} --device {device}` and build what is in {MICRO}/ into the program"
        raise UnsupportedError(profile.name, "is a microcontroller, whose program holds the file", fix)
    packed = pack(run, artifact, profile=profile, card=card, allow_failed=allow_failed, emit=emit)
    _require_fit(profile, packed.bundle)
    _require_python(profile, smoke)
    place = _place(profile, into, name or safe_name(packed.bundle.name))
    with _working(place, emit) as work:
        state = work.shelf.look()
        if smoke:
            work.find_runtime(packed)
        if state.current.endswith(f"-{packed.sha256[:12]}"):
            sound = work.sound(state, packed)
            if sound is None:
                return work.again(state, packed, smoke=smoke)
            state = sound
        return work.replace(state, packed, smoke=smoke, keep=keep)


def roll_back(
    *,
    device: str,
    name: str,
    ssh: Sequence[str] = (),
    adb: Sequence[str] = (),
    into: str = "",
    smoke: bool = True,
    emit: Emit = lambda progress: None,
) -> Deployment:
    """Make current what was current before; its files are checked and tried first. name: of the deployment."""
    (profile,) = reached([load_device(device)], ssh, adb)
    place = _place(profile, into, name)
    _require_python(profile, smoke)
    with _working(place, emit) as work:
        return work.back(work.shelf.look(), smoke=smoke)


def name_of(run: Path) -> str:
    """What a run's deployments are called, where no name is given."""
    return safe_name(runs.read(run).name)


class _Work:
    """One deployment over one connection."""

    def __init__(self, place: Place, session: Session, shelf: Deployed, scratch: Path, emit: Emit) -> None:
        self.place, self.session, self.shelf, self.scratch, self.emit = place, session, shelf, scratch, emit
        self.device = place.profile.name

    def find_runtime(self, packed: Packed) -> None:
        """The runtime is there and new enough for the file, or nothing is sent."""
        profile, bundle = self.place.profile, packed.bundle
        runtime = profile.runtime_for(bundle.format, bundle.scheme)
        require_readable(packed.path, profile, runtime, installed(self.session, profile, runtime.use))

    def replace(self, state: State, packed: Packed, *, smoke: bool, keep: int) -> Deployment:
        """A new version, made current."""
        version = state.next(packed.sha256)
        archive = self.scratch / "bundle.tar"
        archive.write_bytes(packed.archive)
        steps = 4 if smoke else 3
        self.emit(Part.of(f"sending {len(packed.archive):,} bytes to {self.device}", 1, steps))
        pushed = self.session.push(archive)
        try:
            self.emit(Part.of("unpacking it there, and checking every file by hash", 2, steps))
            incoming = self.shelf.unpack(state, pushed, len(packed.archive), packed.folder)
            self.shelf.verify(incoming, _hashes(packed))
            if smoke:
                self.emit(Part.of(f"smoke test of {packed.bundle.artifact} on {self.device}", 3, steps))
            tried = self._try(incoming, packed.bundle, packed.files) if smoke else None
            self.emit(Part.of("making it current", steps, steps))
            self.shelf.keep(state, incoming, self._record(state, packed, version, tried))
            self.shelf.switch(state, version)
        except BaseException:
            self.shelf.drop(state, (f".incoming.{pushed.rpartition('/')[2]}", f"versions/{version}"))
            raise
        self._tidy(state, version, keep)
        return self._deployment(state, version, packed.bundle, packed.sha256, smoke=tried, switched=True)

    def sound(self, state: State, packed: Packed) -> State | None:
        """None where what is current there is whole; else the state without it, to deploy anew from."""
        try:
            self.shelf.verify(state.path(state.current), _hashes(packed))
        except (StageError, UnavailableError) as error:
            previous = ""
            with suppress(EdgekitError):
                previous = self.shelf.record(state, state.current).previous
            self.emit(Progress(f"warning: what is current there is damaged and is replaced: {error}", keep=True))
            return replace(state, current=previous)
        return None

    def again(self, state: State, packed: Packed, *, smoke: bool) -> Deployment:
        """It is current already, and whole: only tried."""
        if smoke:
            self.emit(Progress(f"smoke test of {packed.bundle.artifact} on {self.device}", keep=True))
        tried = self._try(state.path(state.current), packed.bundle, packed.files) if smoke else None
        return self._deployment(state, state.current, packed.bundle, packed.sha256, smoke=tried, switched=False)

    def back(self, state: State, *, smoke: bool) -> Deployment:
        """The version before the current one, made current."""
        if not state.current:
            problem = f"nothing is deployed in {state.base}"
            raise InputError(self.device, problem, "give the --name and --into of the deployment")
        version = self.shelf.record(state, state.current).previous
        if version not in state.versions:
            gone = f"and {version} before it is gone" if version else "and nothing was before it"
            raise InputError(self.device, f"{state.current} is current in {state.base}, {gone}", "deploy another run")
        folder, record = state.path(version), self.shelf.record(state, version)
        content = self.shelf.read(f"{folder}/{MANIFEST}")
        bundle = read_manifest(content, f"{self.device}: {folder}/{MANIFEST}")
        self.shelf.verify(folder, bundle.files)
        tried = None
        if smoke:
            wanted = [n for n in bundle.files if n.startswith(f"{REFERENCE}/") or n == f"{bundle.file}.json"]
            self.emit(Progress(f"smoke test of {bundle.artifact} on {self.device}", keep=True))
            tried = self._try(folder, bundle, self.shelf.fetch(folder, wanted, bundle.files))
        self.shelf.switch(state, version)
        return self._deployment(state, version, bundle, record.archive, smoke=tried, switched=True)

    def _try(self, folder: str, bundle: Bundle, files: Mapping[str, bytes]) -> Smoke:
        """What the file in this folder answers there, by its reference; GateError where that is something else."""
        from toolkit.checks import inference

        here = self.scratch / "bundle"
        (here / REFERENCE).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (here / name).write_bytes(content)
        contract = read_contract_file(contract_path(here / bundle.file))
        artifact, expected = bundle.as_artifact(contract, here / bundle.file), reference.read(here / REFERENCE)
        runtime = self.place.profile.runtime_for(bundle.format, bundle.scheme)
        images = [here / REFERENCE / name for name in expected.images]
        answer = inference.run(
            artifact,
            _InPlace(self.session, {artifact.path: f"{folder}/{bundle.file}"}),
            runtime=runtime.use,
            delegate=runtime.delegates[0] if runtime.delegates else "none",
            prepared=reference.inputs(artifact, contract, images, self.scratch / "inputs"),
            folder=self.scratch / "outputs",
            threads=1,
            emit=self.emit,
        )
        version, head = answer.versions.get(runtime.use, ""), contract.outputs[0].meaning
        found = reference.compare(answer, expected, here / REFERENCE, head=head, version=version)
        if not found.passed:
            problem = f"{bundle.artifact} does not answer there as it does here: {found.line()}"
            fix = "look at the runtime's version and delegate there; the old version stays current"
            raise GateError(self.device, problem, fix)
        return found

    def _record(self, state: State, packed: Packed, version: str, tried: Smoke | None) -> Record:
        bundle = packed.bundle
        return Record(
            schema=1,
            version=version,
            archive=packed.sha256,
            artifact=bundle.artifact,
            sha256=bundle.sha256,
            device=self.device,
            deployed=datetime.now(UTC).isoformat(timespec="seconds"),
            previous=state.current,
            smoke=reference.as_dict(tried) if tried else None,
            allowed=tuple(f"{v.gate} on {v.device}" for v in bundle.verdicts if v.outcome == "FAIL"),
        )

    def _tidy(self, state: State, version: str, keep: int) -> None:
        """Remove what --rollback would not come to within `keep` versions; nothing where a record cannot be read."""
        chain, name = [version], state.current
        try:
            while name in state.versions and len(chain) < keep and name not in chain:
                chain.append(name)
                name = self.shelf.record(state, name).previous
        except EdgekitError as error:
            self.emit(Progress(f"warning: no old version is removed: {error}", keep=True))
            return
        self.shelf.drop(state, [f"versions/{each}" for each in state.versions if each not in chain])

    def _deployment(
        self, state: State, version: str, bundle: Bundle, archive: str, *, smoke: Smoke | None, switched: bool
    ) -> Deployment:
        notes = list(bundle.notes)
        emulated = self.place.profile.emulated
        if emulated:
            notes.append(f"{self.device} is emulated ({emulated})")
        return Deployment(
            device=self.device,
            folder=state.base,
            version=version,
            before=state.current,
            switched=switched,
            artifact=bundle.artifact,
            archive=archive,
            smoke=smoke,
            notes=tuple(notes),
        )


class _InPlace:
    """A session in which some files are on the device already: their paths there."""

    def __init__(self, session: Session, there: Mapping[Path, str]) -> None:
        self._session, self._there = session, there

    def push(self, path: Path) -> str:
        return self._there.get(path) or self._session.push(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@contextmanager
def _working(place: Place, emit: Emit) -> Iterator[_Work]:
    """A connection, and the device for oneself: two deployments at once would clean up each other's beginnings."""
    profile = place.profile
    temporary = tempfile.TemporaryDirectory(prefix="edgekit-")
    with temporary as scratch, closing(open_session(profile)) as session, session.alone():
        shelf = Deployed(session, profile.name, place.root, place.name, profile.python)
        yield _Work(place, session, shelf, Path(scratch), emit)


def _place(profile: DeviceProfile, into: str, name: str) -> Place:
    if into and (not into.startswith("/") or not into.isprintable()):
        raise InputError("--into", f"is no whole path of the device, got {into!r}", "give one like /opt/models")
    if name != safe_name(name) or len(name) > 100:
        raise InputError("--name", f"must be letters, digits, '.', '_' or '-', got {name!r}")
    return Place(profile, into.rstrip("/") if into.strip("/") else into, name)


def _require_fit(profile: DeviceProfile, bundle: Bundle) -> None:
    """The file itself fits where the profile says how much room there is."""
    if profile.storage_kib is not None and bundle.size_bytes > 1024 * profile.storage_kib:
        problem = f"{bundle.artifact} has {bundle.size_bytes / 1024:,.0f} KiB, it has room for {profile.storage_kib:,}"
        raise InputError(profile.name, problem, "deliver a smaller file")


def _require_python(profile: DeviceProfile, smoke: bool) -> None:
    if smoke and not profile.python:
        raise UnsupportedError(profile.name, "has no Python, which the smoke test needs", "--no-smoke leaves it out")


def _hashes(packed: Packed) -> dict[str, str]:
    """Of every file, the manifest too."""
    import hashlib

    return {name: hashlib.sha256(content).hexdigest() for name, content in packed.files.items()}
