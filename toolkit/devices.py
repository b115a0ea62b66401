"""Device profiles: what a device is and can run, as data. A new device is one TOML file and no code.

Hosts, users and serial numbers never stand in a profile: they belong to the command line or the user's own settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError

from toolkit import registry
from toolkit.core import MeasureSpec, Provenance, Scheme, Session, Transport
from toolkit.documents import Key, read_toml
from toolkit.errors import InputError, UnavailableError, UnsupportedError
from toolkit.hardware import Efficiency, Fact, Family, KernelFact, NoRuntime, Processor, Published
from toolkit.schema import Component, Reader


def _file_safe(name: str) -> str:
    if name != safe_name(name) or len(name) > 100:
        raise ValueError(f"must be letters, digits, '.', '_' or '-', from a letter or digit on, got {name!r}")
    return name


def _capability(number: str) -> str:
    if not re.fullmatch(r"(\d{1,2}\.\d)?", number):
        raise ValueError(f'must be two numbers with a point between them, as "8.7", got {number!r}')
    return number


PLACES = {
    "ssh": "USER@HOST",
    "adb": "SERIAL",
    "replay": "FOLDER",
}  # transport -> how its option calls where a device is
Name = Annotated[str, AfterValidator(_file_safe)]  # becomes part of file names
Capability = Annotated[str, AfterValidator(_capability)]
T = TypeVar("T")


class DeviceRuntime(Component):
    """One runtime of the device, and what it may be asked to do there."""

    use: str
    """Name of the runtime, as `edgekit list runtimes` has it."""
    formats: Annotated[tuple[str, ...], Field(min_length=1)]
    """File formats it is used for."""
    schemes: Annotated[tuple[Scheme, ...], Field(min_length=1)]
    """Quantization schemes it runs."""
    delegates: tuple[str, ...] = ()
    """What may compute for it, the first by default."""
    version: str = ""
    """Version the profile speaks of; empty for whatever is installed."""
    layout: Literal["NHWC", "NCHW"] | None = None
    """How files for it take images, where the exporter has a choice and the recipe makes none."""
    kernels: tuple[KernelFact, ...] = ()
    """What its kernels need of quantized files."""

    def needs(self, fact: str) -> KernelFact | None:
        """The fact of that name, where it holds of this version."""
        for known in self.kernels:
            fixed = known.before and self.version and _version(self.version) >= _version(known.before)
            if known.fact == fact and not fixed:
                return known
        return None


class DeviceProfile(Component):
    """A device: how it is reached, what it runs, what is known of it."""

    name: Name = ""
    """Short name for the command line and the report; the file's own name by default."""
    title: str = ""
    """Full name for people."""
    family: Family = ""
    """What kind of device it is, for `edgekit device list`."""
    transport: str = ""
    """How it is reached (`edgekit list transports`); empty when it can only be planned for."""
    python: str = "python3"
    """Python that has the runtimes there, where it is reached from another machine; "" where there is none."""
    benchmark_model: Annotated[str, Field(min_length=1)] = "benchmark_model"
    """TFLite's benchmark_model there: it times .tflite files where there is no Python."""
    arch: Annotated[str, Field(min_length=1)]
    """Processor architecture: "aarch64", "x86_64", or "any"."""
    compute_capability: Capability = ""
    """Of an NVIDIA GPU: "8.7" for Jetson Orin. Engines are built for one; empty where there is none."""
    dla_cores: Annotated[int, Field(ge=0, le=4)] = 0
    """NVIDIA's deep-learning accelerators beside the GPU."""
    notes: str = ""
    """What a user of the device should know."""
    memory_kib: Annotated[int, Field(gt=0)] | None = None
    """Memory a model may use, in KiB."""
    storage_kib: Annotated[int, Field(gt=0)] | None = None
    """Room for model files, in KiB."""
    measure: MeasureSpec = MeasureSpec()
    """How latency is measured here, where the recipe does not say."""
    emulated: str = ""
    """How it is imitated, where it is no device ("qemu-user, cortex-a72"): numbers from it are "emulated"."""
    processors: tuple[Processor, ...] = ()
    """What computes there, the one that files run on by default first."""
    bandwidth_gb_s: Annotated[float, Field(gt=0)] | None = None
    """Highest memory bandwidth, in GB/s, shared by all processors; its source stands with the facts."""
    published: tuple[Published, ...] = ()
    """Latencies that others published, with their source."""
    no_runtime: tuple[NoRuntime, ...] = ()
    """What computes there and nothing of Edgekit runs; `plan` says so."""
    efficiency: tuple[Efficiency, ...] = ()
    """What its processors reach, where that was calibrated (`edgekit device calibrate`)."""
    facts: tuple[Fact, ...] = ()
    """What else is known of the hardware."""
    runtimes: Annotated[tuple[DeviceRuntime, ...], Field(min_length=1)]
    """Runtimes, the preferred ones first."""

    _record: Path | None = PrivateAttr(default=None)  # folder that its sessions are written to
    _host: str = PrivateAttr(default="")  # where this one is: the command line's to say, never the profile's

    @property
    def host(self) -> str:
        """Where it is, as its transport takes it; "" where that was not said."""
        return self._host

    def at(self, host: str, transport: str = "") -> DeviceProfile:
        """The same profile of the device at this host, or of this serial number; transport: its own by default."""
        told: dict[str, str] = {"transport": transport} if transport else {}
        if transport == "replay":
            from toolkit.transports.replay import recorded_of

            told["emulated"] = recorded_of(Path(host))
        reached = self.model_copy(update=told)
        reached._host = host
        return reached

    def recorded(self, folder: Path) -> DeviceProfile:
        """The same profile, with what is done on the device written to a folder of its name."""
        reached = self.model_copy()
        reached._record = folder / self.name
        return reached

    @property
    def where(self) -> str:
        """The option that says where it is: "--ssh NAME=USER@HOST"."""
        return (
            f"--{'adb' if self.transport == 'adb' else 'ssh'} {self.name}={PLACES.get(self.transport, PLACES['ssh'])}"
        )

    @property
    def needs_host(self) -> bool:
        """Whether its transport has to be told where it is."""
        return bool(self.transport and getattr(registry.load("transports", self.transport), "needs_host", False))

    @property
    def measurable(self) -> bool:
        """Whether anything can be measured on it from here."""
        return bool(self.transport) and bool(self.host or not self.needs_host)

    @property
    def answers(self) -> bool:
        """Whether files can be asked for their answers there; without Python they are timed, and nothing else."""
        return self.measurable and bool(self.python)

    @property
    def provenance(self) -> Provenance:
        """What numbers got from it are: "measured", or "emulated" where it is imitated."""
        return "emulated" if self.emulated else "measured"

    @property
    def how(self) -> dict[str, str]:
        """What stands beside each such number: how the device was imitated, where it was."""
        return {"emulated": self.emulated} if self.emulated else {}

    def runtime_for(self, format: str, scheme: str, *others: str) -> DeviceRuntime:
        """The first runtime for such a file; raises UnsupportedError saying what the device can run.

        others: schemes that some of its layers have.
        """
        for runtime in self.runtimes:
            if format in runtime.formats and {scheme, *others} <= set(runtime.schemes):
                return runtime
        runs: dict[str, dict[str, None]] = {}  # formats -> schemes, of all runtimes that take them
        for item in self.runtimes:
            runs.setdefault("/".join(item.formats), {}).update(dict.fromkeys(item.schemes))
        able = "; ".join(f"{formats} as {', '.join(schemes)}" for formats, schemes in runs.items())
        mixed = f" with layers in {', '.join(others)}" if others else ""
        raise UnsupportedError(self.name, f"cannot run {scheme} {format} files{mixed}", f"it runs {able}")


def load_device(name_or_path: str | Path) -> DeviceProfile:
    """The profile at a path, or the shipped one of that name; raises InputError with a line for each mistake."""
    document = read_toml(find("devices", name_or_path))
    reader = Reader(document)
    reader.version()
    data = {key: value for key, value in document.data.items() if key != "schema"}
    data.setdefault("name", safe_name(Path(document.name).stem))
    profile = reader.read(DeviceProfile, data, also=("schema",))
    _check_names(data, reader)
    _check_processors(data, reader)
    reader.finish()
    if profile is None:
        raise InputError(document.name, "cannot be read")
    return profile


def open_session(profile: DeviceProfile) -> Session:
    """An open connection to the device; raises UnavailableError for one that nothing can be measured on."""
    if not profile.transport:
        problem = "has no transport, so nothing can be measured on it"
        raise UnavailableError(profile.name, problem, "use `edgekit plan`, or another device")
    if not profile.measurable:
        raise UnavailableError(profile.name, "nobody said where it is", f"give {profile.where}")
    build = registry.load("transports", profile.transport)
    told = {"python": profile.python} if profile.python else {}
    try:
        transport: Transport = build(host=profile.host, **told) if profile.host else build()
    except ValidationError as error:
        option, place = f"--{profile.transport}", PLACES.get(profile.transport, "HOST")
        what = "serial number" if profile.transport == "adb" else "host"
        raise InputError(option, f"no such {what} can be, got {profile.host!r}", f"give {place}") from error
    session = transport.open()
    if profile._record is None:
        return session
    from toolkit.transports.replay import RecordedSession

    try:
        return RecordedSession(session, profile._record, device=profile.name, place=profile.host)
    except BaseException:
        session.close()
        raise


def reached(
    profiles: Sequence[DeviceProfile],
    ssh: Sequence[str] = (),
    adb: Sequence[str] = (),
    replay: Sequence[str] = (),
    record: Path | None = None,
) -> list[DeviceProfile]:
    """The profiles, told where their devices are; each "DEVICE=HOST" (ssh), "DEVICE=SERIAL" (adb) or "DEVICE=FOLDER"
    (replay: of a recording, in the device's place), or the place alone where one device needs one. A device that
    is reached one of these ways, or by nothing, is reached as it is told. record: folder that recordings are made in.

    Raises InputError for a device that is not among them or needs no host, for a place that could be of several, and
    for a device of two places.
    """
    waiting = list(dict.fromkeys(profile.name for profile in profiles if profile.needs_host or not profile.transport))
    found: dict[str, tuple[str, str]] = {}
    for transport, items in (("ssh", ssh), ("adb", adb), ("replay", replay)):
        for item in items:
            name, place = _placed(item, f"--{transport}", waiting)
            if name in found:
                raise InputError(f"--{transport}", f"{name} is said to be at two places", "give one of them")
            found[name] = place, transport
    placed = [profile.at(*found[profile.name]) if profile.name in found else profile for profile in profiles]
    if record is None:
        return placed
    if not waiting:
        raise InputError(
            "--record", "no device of this command is reached from here", "name one (--device, --ssh, --adb)"
        )
    return [profile.recorded(record) if profile.host else profile for profile in placed]


def _placed(item: str, option: str, waiting: Sequence[str]) -> tuple[str, str]:
    """Of "DEVICE=PLACE", or of a place where one device waits for one: which device, and where."""
    name, given, place = item.rpartition("=")
    if not given and len(waiting) > 1:
        raise InputError(option, f"{item!r} could be any of {', '.join(waiting)}", f"give {waiting[0]}={item}")
    if (given and name not in waiting) or not waiting:
        problem = f"{name or item!r} is no device of this command that is reached so"
        fix = f"name one of {', '.join(waiting)}" if waiting else "name it: --device PROFILE (edgekit device list)"
        if not given:
            problem = f"no device of this command is reached from here, so nothing is at {item!r}"
        raise InputError(option, problem, fix)
    return name or waiting[0], place


def _version(text: str) -> tuple[int, ...]:
    """The numbers of a version, to be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _check_names(data: Mapping[str, Any], reader: Reader) -> None:
    """What the profile names is there; of its text, so that other mistakes hide none of these."""
    transport = data.get("transport") or ""
    if isinstance(transport, str) and transport and not registered("transports", transport):
        reader.unknown(("transport",), transport, "transport", registry.names("transports"))
    for index, runtime in _each(data.get("runtimes"), dict):
        use = runtime.get("use")
        if isinstance(use, str) and not registered("runtimes", use):
            reader.unknown(("runtimes", index, "use"), use, "runtime", registry.names("runtimes"))
        elif isinstance(use, str):
            _check_runtime(("runtimes", index), runtime, reader)


def _check_runtime(key: Key, runtime: Mapping[str, Any], reader: Reader) -> None:
    """It has the delegates, and takes the formats."""
    known = registry.load("runtimes", runtime["use"])
    delegates = getattr(known, "delegates", None)
    for position, delegate in _each(runtime.get("delegates"), str):
        if delegates is not None and delegate not in delegates:
            reader.unknown((*key, "delegates", position), delegate, "delegate of it", delegates)
    for position, format in _each(runtime.get("formats"), str):
        if format not in known.formats:
            problem = f"{runtime['use']} runs no {format!r} files"
            reader.wrong((*key, "formats", position), problem, f"it runs {', '.join(known.formats)}")


def _check_processors(data: Mapping[str, Any], reader: Reader) -> None:
    """What was published is of a processor that the profile has."""
    names = [each["name"] for _, each in _each(data.get("processors"), dict) if isinstance(each.get("name"), str)]
    for index, each in _each(data.get("published"), dict):
        processor = each.get("processor") or ""
        if isinstance(processor, str) and processor and processor not in names:
            reader.unknown(("published", index, "processor"), processor, "processor here", names)


def _each(values: Any, kind: type[T]) -> Iterator[tuple[int, T]]:
    """Those of an array that are what they should be, with their place; what else is there is a mistake of its own."""
    for place, value in enumerate(values if isinstance(values, list) else ()):
        if isinstance(value, kind):
            yield place, value


def registered(family: str, name: Any) -> bool:
    """Whether `name` is one of `family`; entry points, which take a while to list, are asked last."""
    return isinstance(name, str) and (name in registry.FAMILIES[family] or name in registry.names(family))


# ---------------------------------------------------------------- shipped files


def shipped(kind: str) -> dict[str, Path]:
    """Name -> file of the shipped "recipes" or "devices": a folder beside the package, in a checkout and in a wheel."""
    folder = Path(__file__).resolve().parent.parent / kind
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(kind: str, name_or_path: str | Path) -> Path:
    """A path if it exists, else the shipped file of that name; raises InputError for neither."""
    path, known = Path(name_or_path).expanduser(), shipped(kind)
    if path.is_file():
        return path
    name = str(name_or_path)
    if name in known:
        return _relative(known[name])
    if path.exists():
        return path  # a folder: reading it says so
    singular = kind.removesuffix("s")
    raise InputError(name, f"no such file, and no shipped {singular} of that name", registry.suggest(name, known))


def safe_name(text: str) -> str:
    """`text` with what a file name should not hold replaced by `-`."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in text)
    return kept.lstrip("._-") or "unnamed"


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
