"""`edgekit engine`: an ONNX file becomes a TensorRT engine on the device that will run it; its record comes with it.

trtexec builds where it is found, the worker's Python builder where it is not. An engine is code for one TensorRT on one
GPU: nothing is built for a device from afar, and no engine is loaded whose record does not fit the device.
"""

from __future__ import annotations

import secrets
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from toolkit.checks.zeros import zeros_of
from toolkit.core import Completed, Measurement, Progress, Session
from toolkit.devices import DeviceProfile, load_device, open_session, reached, shipped
from toolkit.engine_timing import TimedWith, measure_engine
from toolkit.errors import InputError, UnavailableError, UnsupportedError
from toolkit.tensorrt import dla, inspector, jetson, records, request, trtexec, trtexec_output
from toolkit.tensorrt.detection import COMMANDS, Detected, detected
from toolkit.tensorrt.types import BuildSpec, EngineRecord, ShapeRange, Target
from toolkit.tensorrt.versions import parse
from toolkit.worker.trt_layers import sparse_words

BUILD_S = 3600.0  # on a Jetson Nano a build takes many minutes
PROBE_S = 120.0
Emit = Callable[[Progress], None]


@dataclass(frozen=True)
class Built:
    """An engine that lies here, what is known of it, and what was measured of it on its device."""

    engine: Path
    record: EngineRecord
    device: str
    missing: tuple[str, ...]
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "engine": str(self.engine),
            "device": self.device,
            "record": asdict(self.record),
            "missing": list(self.missing),
            "notes": list(self.notes),
            "measurements": [asdict(measurement) for measurement in self.measurements],
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        from toolkit.measuring import measurement_lines

        target = self.record.target
        where = f"{target.device or self.device}, compute capability {target.compute_capability or 'unknown'}"
        yield f"{self.engine}: TensorRT {target.tensorrt}, {where}, built by {self.record.builder}"
        yield f"  beside it {records.record_path(self.engine).name}; it loads on no other version or GPU"
        if self.record.precision:
            yield "  layers  " + ", ".join(f"{count} {name}" for name, count in self.record.precision.items())
        for title, items in (("on GPU", self.record.on_gpu), ("warning", self.record.warnings), ("note", self.notes)):
            yield from (f"  {title}  {item}" for item in items)
        yield from (f"  not known  {item}" for item in self.missing)
        if self.measurements:
            yield from measurement_lines({"measurements": [asdict(item) for item in self.measurements]})


def build_engine(
    onnx: Path,
    *,
    device: str,
    out: Path | None = None,
    ssh: Sequence[str] = (),
    asked: request.Asked | None = None,
    builder: Literal["auto", "trtexec", "python"] = "auto",
    timed: TimedWith | None = None,
    emit: Emit = lambda progress: None,
) -> Built:
    """Build on the device, fetch the engine and its record, and time it there.

    timed: how; None builds alone. Raises InputError for a file that TensorRT refuses or a device that is another than
    the profile says, UnavailableError where there is neither trtexec nor TensorRT for Python.
    """
    out = out or Path(f"{onnx.stem}.{load_device(device).name}.engine")
    proto = _read(onnx)
    with _opened(device, ssh, timed, emit) as (profile, session, system):
        engine = _Maker(session, profile, system, onnx, emit).make(proto, asked or request.Asked(), builder, out)
        return _timed(engine, out, profile, session, system, timed, emit)


def load_engine(
    path: Path,
    *,
    device: str,
    ssh: Sequence[str] = (),
    allow: Sequence[str] = (),
    timed: TimedWith | None = None,
    emit: Emit = lambda progress: None,
) -> Built:
    """Time an engine that was built before, where it fits the device; refused with the command that builds it anew.

    timed: how; None only finds out whether it fits.
    allow: sha256 of engines that others built and the user trusts: an engine is code.
    """
    with _opened(device, ssh, timed, emit) as (profile, session, system):
        rebuild = records.rebuild_command(path, device=device, host=profile.host)
        version = system.trtexec_version or system.target.tensorrt
        record = records.check(path, replace(system.target, tensorrt=version), allow=allow, rebuild=rebuild)
        engine = OnDevice(session.push(path), record.spec, record, system.trtexec, version)
        return _timed(engine, path, profile, session, system, timed, emit)


@contextmanager
def _opened(
    device: str, ssh: Sequence[str], timed: TimedWith | None, emit: Emit
) -> Iterator[tuple[DeviceProfile, Session, Detected]]:
    (profile,) = reached([load_device(device)], ssh)
    with closing(open_session(profile)) as session:
        emit(Progress(f"looking at {profile.name}", keep=True))
        system = detect(session, allow_sudo=bool(timed and timed.allow_sudo))
        _require_same(profile, system)
        yield profile, session, system


def _timed(  # noqa: PLR0917  (what `_opened` gave, handed on)
    engine: OnDevice,
    out: Path,
    profile: DeviceProfile,
    session: Session,
    system: Detected,
    timed: TimedWith | None,
    emit: Emit,
) -> Built:
    found: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = system.notes
    if timed is not None:
        emit(Progress(f"timing {out.name} on {profile.name}", keep=True))
        with session.alone():
            found, told = measure_engine(
                session, system, engine, name=out.name, device=profile, spec=engine.spec, timed=timed
            )
        notes = (*notes, *told)
    return Built(out, engine.record, profile.name, system.missing, found, notes)


def build_by_options(
    onnx: Path,
    *,
    batch: str | None,
    shapes: Sequence[str],
    workspace_mib: int | None,
    fp16: bool,
    dla_core: int | None,
    sparse: bool,
    level: int | None,
    timing_cache: str | None,
    seconds: float,
    power_seconds: float,
    allow_sudo: bool,
    allow_engine: Sequence[str],
    device: str,
    ssh: Sequence[str],
    emit: Emit,
    **options: Any,
) -> Built:
    """`build_engine`, or `load_engine` for an .engine, as the command line calls them."""
    timed = TimedWith(seconds, power_seconds, allow_sudo) if seconds > 0 else None
    if onnx.suffix.lower() == ".engine":
        wishes = (
            batch,
            shapes,
            workspace_mib,
            fp16,
            dla_core is not None,
            sparse,
            level is not None,
            timing_cache,
            options["out"],
        )
        if any(wishes):
            problem = "is built already, and options of a build change nothing"
            raise InputError(str(onnx), problem, "leave them out, or give the .onnx file")
        return load_engine(onnx, device=device, ssh=ssh, allow=allow_engine, timed=timed, emit=emit)
    asked = request.Asked(
        batches=parsed_batches(batch),
        shapes=parsed_shapes(shapes),
        workspace_mib=workspace_mib,
        fp16=fp16,
        dla_core=dla_core,
        sparse=sparse,
        optimization_level=level,
        timing_cache=timing_cache or "",
    )
    return build_engine(onnx, device=device, ssh=ssh, asked=asked, timed=timed, emit=emit, **options)


def detect(session: Session, *, allow_sudo: bool = False) -> Detected:
    """What the device is, by asking a few programs of it that only read; allow_sudo: as root, without a password."""
    mark = f"--{secrets.token_hex(8)}"  # nothing that a program says begins a line so
    asked = {name: jetson.as_root(command) if _needs_root(command, allow_sudo) else list(command)
             for name, command in COMMANDS.items()}  # fmt: skip
    parts = [
        f"{shlex.join(command)} 2>probe; c=$?; printf '\\n{mark} {index} %s\\n' $c; cat probe; printf '\\n{mark}\\n'"
        for index, command in enumerate(asked.values())
    ]
    found = session.execute(["sh", "-c", "\n".join(parts)], timeout_s=PROBE_S).stdout
    return detected(dict(zip(asked, _answers(found, mark), strict=True)))


def _needs_root(command: Sequence[str], allow_sudo: bool) -> bool:
    return allow_sudo and command[0] in ("nvpmodel", "jetson_clocks")


def _answers(text: str, mark: str) -> Iterator[Completed]:
    """What each program said, in order: its output, its exit code, its errors."""
    for part in text.split(f"\n{mark}\n")[:-1]:
        said, _, rest = part.partition(f"\n{mark} ")
        head, _, errors = rest.partition("\n")
        yield Completed(int(head.split()[1]), said, errors)


def _read(path: Path) -> Any:
    """The ModelProto of a file; InputError for what is none."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise InputError(str(path), "no such file")
    try:
        return onnx.load(str(path), format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise InputError(str(path), "is no ONNX file", "export the model with the exporter tensorrt") from error


def _require_accepted(path: Path, proto: Any, target: Target) -> None:
    """What TensorRT refuses is known before anything is sent and built."""
    from toolkit.tensorrt.lint import lint

    refused = lint(proto, target=target).of("refused")
    if refused:
        where = f"; {len(refused) - 1} more" if len(refused) > 1 else ""
        problem = f"TensorRT {target.tensorrt} would refuse it: {refused[0].what}{where}"
        raise UnsupportedError(path.name, problem, f"edgekit inspect {path} --for tensorrt={target.tensorrt}")


def _require_two_of_four(path: Path) -> None:
    """Sparse kernels are of no use to a file without 2:4."""
    if not zeros_of(path).two_of_four:
        problem = "no layer of it has two zeros in every four input channels"
        raise InputError(f"{path.name} --sparse", problem, 'sparsify with pattern = "2:4" before, or leave it out')


def _require_same(profile: DeviceProfile, system: Detected) -> None:
    """The device must be what its profile says, as far as both say something."""
    capability = profile.compute_capability
    found = system.target.compute_capability
    named = system.profile and profile.name in shipped("devices") and system.profile != profile.name
    if named or (capability and found and capability != found):
        actual = system.target.device or "another device"
        problem = f"the device there is {actual}, compute capability {found or 'unknown'}"
        fix = f"use --device {system.profile}" if system.profile else "use the profile of that device"
        raise InputError(profile.name, problem, fix)


@dataclass(frozen=True)
class OnDevice:
    """An engine as it lies on the device, for measuring."""

    remote: str
    spec: BuildSpec
    record: EngineRecord
    trtexec: str
    version: str


@dataclass(frozen=True)
class _Maker:
    session: Session
    profile: DeviceProfile
    system: Detected
    onnx: Path
    emit: Emit

    def make(self, proto: Any, asked: request.Asked, builder: str, out: Path) -> OnDevice:
        """Build, fetch, record."""
        graph = request.graph_of(proto)
        if asked.sparse:
            _require_two_of_four(self.onnx)
        by_trtexec = self._builder(builder) == "trtexec"
        version = self.system.trtexec_version if by_trtexec else self._python_version()
        _require_accepted(self.onnx, proto, replace(self.system.target, tensorrt=version))
        shared = self.system.target.memory_mib if self.system.target.l4t else None
        spec = request.build_spec(graph, version, asked, memory_mib=shared)
        refused = dla.refusals(spec, graph.inputs, board=self.system.profile or self.profile.name, version=version)
        if refused:
            raise UnsupportedError("--dla", "; ".join(refused), "build for the GPU, or change what is named")
        self.emit(Progress(f"building with TensorRT {version} on {self.profile.name}; it may take minutes", keep=True))
        remote_onnx = self.session.push(self.onnx)
        if by_trtexec:
            made = self._by_trtexec(spec, remote_onnx, version, quantized=graph.quantized)
        else:
            made = self._by_python(spec, remote_onnx)
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            fetched = Path(folder) / "engine"
            self.session.pull(made.remote, fetched)
            record = EngineRecord(
                engine_sha256=records.sha256_of(fetched),
                onnx_sha256=records.sha256_of(self.onnx),
                target=replace(self.system.target, tensorrt=version),
                spec=spec,
                builder="trtexec" if by_trtexec else "python",
                flags=made.flags,
                precision=made.precision,
                on_gpu=made.on_gpu,
                warnings=made.warnings,
                edgekit=_version(),
            )
            _keep(fetched, out)
        records.write(out, record)
        records.remember(record.engine_sha256)
        own = self.system.trtexec_version  # an engine loads in its own TensorRT alone
        times = self.system.trtexec if own and parse(own).release == parse(version).release else ""
        return OnDevice(made.remote, spec, record, times, version)

    def _builder(self, wanted: str) -> str:
        if wanted == "python" or (wanted == "auto" and not self.system.trtexec):
            return "python"
        if not self.system.trtexec:
            places = ", ".join(trtexec.PLACES)
            raise UnavailableError(self.profile.name, f"no trtexec is there (looked at {places})", "install it")
        return "trtexec"

    def _python_version(self) -> str:
        try:
            found = self.session.run({"kind": "info", "runtime": "tensorrt"}, timeout_s=PROBE_S)
        except UnavailableError as error:
            problem = f"neither trtexec nor TensorRT for Python is there: {error.problem}"
            raise UnavailableError(self.profile.name, problem, "install TensorRT on the device") from error
        return str(found["versions"]["tensorrt"])

    def _by_trtexec(self, spec: BuildSpec, onnx: str, version: str, *, quantized: bool) -> _Made:
        engine, layers = f"{self.session.folder()}/built.engine", f"{self.session.folder()}/layers.json"
        newer = parse(version).numbers >= (8, 6)  # before, trtexec lists layers in a timed run only
        command = trtexec.build_command(
            self.system.trtexec, spec, onnx=onnx, engine=engine, version=version, layer_info=layers if newer else ""
        )
        done = self.session.execute(command, timeout_s=BUILD_S)
        log = trtexec_output.read_log(f"{done.stdout}\n{done.stderr}")
        if done.returncode or not log.passed:
            raise UnsupportedError(self.onnx.name, "; ".join(trtexec_output.errors_in_words(log)), _LINT)
        found = self._layers(layers) if newer else ()
        shown = tuple(part.replace(f"{self.session.folder()}/", "") for part in command[1:])
        placed = dla.placement(f"{done.stdout}\n{done.stderr}")
        on_gpu = placed.on_gpu if spec.dla_core is not None else ()
        told = log.warnings
        if spec.sparse:
            said = sparse_words(f"{done.stdout}\n{done.stderr}")
            told = (*told, *(said or ["2:4: trtexec does not say which layers use sparse kernels"]))
        if spec.dla_core is not None:
            told = (*told, *placed.reasons, *dla.doubts(version, quantized=quantized), dla.loadables(placed))
        return _Made(engine, shown, inspector.precision(found), on_gpu, tuple(filter(None, told)))

    def _layers(self, remote: str) -> tuple[inspector.Layer, ...]:
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            path = Path(folder) / "layers.json"
            self.session.pull(remote, path)
            return inspector.layers(path.read_text(errors="replace"))

    def _by_python(self, spec: BuildSpec, onnx: str) -> _Made:
        engine = f"{self.session.folder()}/built.engine"
        job = {"kind": "build", "runtime": "tensorrt", "model": onnx, "name": self.onnx.name, "engine": engine}
        found = self.session.run({**job, "build": asdict(spec)}, timeout_s=BUILD_S)
        told = tuple(found.get("warnings", ()))
        return _Made(
            engine, tuple(found.get("flags", ())), found.get("precision", {}), tuple(found.get("on_gpu", ())), told
        )


@dataclass(frozen=True)
class _Made:
    remote: str
    flags: tuple[str, ...]
    precision: Mapping[str, int]
    on_gpu: tuple[str, ...]
    warnings: tuple[str, ...]


_LINT = "see what TensorRT would say: edgekit inspect MODEL.onnx --for tensorrt"


def _keep(source: Path, out: Path) -> None:
    """Whole or not at all."""
    import shutil

    partial = out.with_name(f"{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        partial.replace(out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UnavailableError(str(out), f"cannot be written: {error.strerror}", "choose another --out") from error


def _version() -> str:
    from toolkit import __version__

    return __version__


def parsed_shapes(texts: Sequence[str]) -> dict[str, ShapeRange]:
    """`input=1x3x32x32,4x3x32x32,8x3x32x32` (least, usual, most) or one shape for all three; by input."""
    found: dict[str, ShapeRange] = {}
    for text in texts:
        name, _, shapes = text.rpartition("=")
        try:
            sizes = [tuple(int(size) for size in shape.split("x")) for shape in shapes.split(",")]
        except ValueError:
            sizes = []
        if not name or len(sizes) not in (1, 3):
            problem = f"got {text!r}"
            raise InputError("--shapes", problem, "give NAME=LEAST,USUAL,MOST, each as 1x3x224x224")
        found[name] = ShapeRange(*(sizes * 3 if len(sizes) == 1 else sizes))
    return found


def parsed_batches(text: str | None) -> tuple[int, int, int] | None:
    """`1,4,8` (least, usual, most) or one number for all three."""
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not 0 < numbers[0] <= numbers[1] <= numbers[2]:
        raise InputError("--batch", f"got {text!r}", "give LEAST,USUAL,MOST, such as 1,4,8")
    return numbers[0], numbers[1], numbers[2]
