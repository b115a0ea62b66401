"""How an engine is timed on its device: what trtexec measures, each in a run of its own, and energy for an inference.

Computation on the GPU alone, end to end with transfers, throughput with several streams, and times by layer are four
runs, since each spoils the others; so is the run in which power is sampled. Pages: trtexec's README in NVIDIA/TensorRT;
jetson_clocks and tegrastats in the Jetson Linux Developer Guide.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import Completed, Measurement, Session
from toolkit.errors import EdgekitError, StageError
from toolkit.tensorrt import jetson, power, tegrastats, trtexec, trtexec_output
from toolkit.tensorrt.trtexec import TimingSpec

if TYPE_CHECKING:
    from toolkit.devices import DeviceProfile
    from toolkit.engines import OnDevice
    from toolkit.tensorrt.detection import Detected
    from toolkit.tensorrt.types import BuildSpec

MARGIN_S = 300.0  # beyond the timed seconds: loading an engine, creating CUDA's context
CLOCKS_S = 60.0
SLOWEST = 5  # layers that are listed
INTERVAL_MS = 100  # between power samples


@dataclass(frozen=True)
class TimedWith:
    """seconds: of each run. power_seconds: of the run in which power is sampled, and of rest before it; 0 for none.

    allow_sudo: clocks may be locked for the time of the measurement, by `sudo -n`; they are put back.
    """

    seconds: float = 3.0
    power_seconds: float = 15.0
    allow_sudo: bool = False


def measure_engine(
    session: Session,
    system: Detected,
    engine: OnDevice,
    *,
    name: str,
    device: DeviceProfile,
    spec: BuildSpec,
    timed: TimedWith,
) -> tuple[tuple[Measurement, ...], tuple[str, ...]]:
    """Everything that can be measured of an engine there, and in words what could not or is in doubt."""
    if not engine.trtexec:
        why = f"no trtexec of TensorRT {engine.version} on the device: nothing was timed"
        return (), (f"{why}. `edgekit bench` of the .onnx file times it through TensorRT's Python module",)
    shapes = {input_: item.usual for input_, item in spec.shapes.items()}
    asked = TimingSpec(seconds=timed.seconds, shapes=shapes, dla_core=spec.dla_core)
    how = {**system.how(), **device.how, "batch": next((shape[0] for shape in shapes.values()), 1)}
    with locked_clocks(session, system, timed.allow_sudo) as (clocks, told):
        runs = _Runs(session, engine, asked, subject=(name, device), how={**how, **clocks})
        found = [*runs.compute(), *runs.end_to_end(), *runs.throughput(), *runs.by_layer()]
        if timed.power_seconds:
            found += runs.energy(system, timed.power_seconds)
    return tuple(found), tuple(dict.fromkeys((*told, *runs.notes)))


class _Runs:
    """The runs of one engine; notes grow as they go."""

    def __init__(
        self,
        session: Session,
        engine: OnDevice,
        spec: TimingSpec,
        *,
        subject: tuple[str, DeviceProfile],
        how: Mapping[str, Any],
    ) -> None:
        self.session, self.engine, self.spec, self.how = session, engine, spec, how
        self.name, self.device, self.source = subject[0], subject[1].name, subject[1].provenance
        self.notes: list[str] = []

    def compute(self) -> Iterator[Measurement]:
        """Computation on the GPU alone."""
        yield from self._timed("compute", trtexec.compute_command, transfers=False)

    def end_to_end(self) -> Iterator[Measurement]:
        """With the copies to the device and back."""
        yield from self._timed("latency", trtexec.transfers_command, transfers=True)

    def _timed(self, what: str, command: Any, *, transfers: bool) -> Iterator[Measurement]:
        remote = f"{self.session.folder()}/{what}.json"
        asked = command(self.engine.trtexec, self.spec, times=remote, **self._which())
        log = self._run(asked, self.spec.seconds)
        samples = trtexec_output.timings(self._text(remote))
        self.notes += [*trtexec_output.doubts(log, samples), *trtexec_output.unmet(log, self.spec, transfers=transfers)]
        values = [item.latency_ms if transfers else item.compute_ms for item in samples]
        found = trtexec_output.spread(values)
        prefix = "latency" if transfers else "gpu_compute"
        estimator = f"all {found.count} samples of one run, transfers {'included' if transfers else 'excluded'}"
        rows = ((f"{prefix}_p50_ms", found.median, "ms"), (f"{prefix}_p99_ms", found.p99, "ms"))
        for name, value, unit in (*rows, (f"{prefix}_cv", found.cv, "")):
            yield self._measurement(name, value, unit, estimator)

    def throughput(self) -> Iterator[Measurement]:
        """Inferences a second, apart from any latency."""
        log = self._run(trtexec.throughput_command(self.engine.trtexec, self.spec, **self._which()), self.spec.seconds)
        if log.throughput_qps is None:
            self.notes.append("throughput was not measured: trtexec gave none")
        else:
            per_s = log.throughput_qps * float(self.how["batch"])
            yield self._measurement("throughput_per_s", per_s, "1/s", "trtexec, two streams, transfers included")

    def by_layer(self) -> Iterator[Measurement]:
        """The slowest layers, in their share of all layers' time: the profiler stands between them."""
        folder = self.session.folder()
        profile, layers = f"{folder}/profile.json", f"{folder}/profiled.json"
        which = self._which()
        self._run(
            trtexec.profile_command(self.engine.trtexec, self.spec, profile=profile, layer_info=layers, **which),
            self.spec.seconds,
        )
        found = trtexec_output.profile(self._text(profile))
        ranked = sorted(found.layers, key=lambda layer: layer.percent, reverse=True)
        for layer in ranked[:SLOWEST]:
            yield self._measurement(
                f"layer_share:{layer.name}", layer.percent / 100, "", f"profiler, {found.iterations} runs"
            )

    def energy(self, system: Detected, seconds: float) -> Iterator[Measurement]:
        """Energy of an inference from the board's own sensor, or a note why there is none."""
        try:
            found = self._sampled(system, seconds)
        except EdgekitError as error:
            if isinstance(error, StageError):
                raise
            self.notes.append(f"energy was not measured: {error}")
            return
        how = {**self.how, **found.how()}
        self.notes += found.notes
        rows = (("energy_per_inference_mj", found.gross_mj), ("energy_per_inference_net_mj", found.net_mj))
        for name, value in rows:
            if value is not None:
                yield Measurement(self.name, name, value, "mJ", self.source, self.device, None, how)

    def _sampled(self, system: Detected, seconds: float) -> power.Energy:
        sampler = Sampler(system)
        rest = self.session.execute(sampler.resting(int(seconds)), timeout_s=seconds + MARGIN_S)
        idle = sampler.trace(rest.stdout)
        log_path, times = f"{self.session.folder()}/power.log", f"{self.session.folder()}/power.json"
        longer = replace(self.spec, seconds=seconds)
        work = trtexec.compute_command(self.engine.trtexec, longer, times=times, **self._which())
        log = self._run(["sh", "-c", sampler.beside(work, log_path, int(seconds + MARGIN_S))], seconds)
        load = sampler.trace(self._text(log_path))
        inferences = len(trtexec_output.timings(self._text(times)))
        if not log.throughput_qps:
            raise StageError(self.name, "trtexec gave no throughput, so how long it ran is not known")
        ran = inferences / log.throughput_qps
        last = max(1, round(ran * 1000 / load.interval_ms))  # the timed inferences are the last thing that trtexec does
        return power.energy(
            replace(load, milliwatts=load.milliwatts[-last:]), seconds=ran, inferences=inferences, idle=idle
        )

    # ------------------------------------------------------------ small things

    def _which(self) -> dict[str, Any]:
        return {"engine": self.engine.remote, "version": self.engine.version}

    def _run(self, command: Sequence[str], seconds: float) -> trtexec_output.Log:
        done = self.session.execute(command, timeout_s=seconds + MARGIN_S)
        log = trtexec_output.read_log(f"{done.stdout}\n{done.stderr}")
        if done.returncode or not log.passed:
            raise StageError(self.name, "; ".join(trtexec_output.errors_in_words(log)))
        return log

    def _text(self, remote: str) -> str:
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            path = Path(folder) / "text"
            self.session.pull(remote, path)
            return path.read_text(errors="replace")

    def _measurement(self, name: str, value: float, unit: str, estimator: str) -> Measurement:
        how = {"runtime": "tensorrt", "version": self.engine.version, "tool": "trtexec", **self.how}
        return Measurement(
            self.name, name, value, unit, self.source, self.device, None, {**how, "estimator": estimator}
        )


class Sampler:
    """The power sensor that a device has: tegrastats on Jetson, nvidia-smi elsewhere."""

    def __init__(self, system: Detected) -> None:
        self.board = system.profile
        self.jetson = bool(system.target.l4t)

    def resting(self, seconds: int) -> list[str]:
        """Sample for so long with nothing running."""
        if self.jetson:
            return tegrastats.command(INTERVAL_MS, seconds)
        return power.smi_command(INTERVAL_MS, seconds)

    def beside(self, work: Sequence[str], log: str, longest_s: int) -> str:
        """A shell's text: sample into `log` while the work runs, no longer; its exit code is the work's."""
        sampling = shlex.join(self.resting(longest_s))
        return f"{sampling} > {shlex.quote(log)} & s=$!; {shlex.join(work)}; c=$?; kill $s; wait $s; exit $c"

    def trace(self, text: str) -> power.Trace:
        """The board's power over time."""
        if self.jetson:
            return power.tegrastats_trace(tegrastats.samples(text), board=self.board, interval_ms=INTERVAL_MS)
        return power.smi_trace(text, interval_ms=INTERVAL_MS)


@contextmanager
def locked_clocks(
    session: Session, system: Detected, allow_sudo: bool
) -> Iterator[tuple[dict[str, str], tuple[str, ...]]]:
    """A Jetson's clocks at their highest while the context lasts, where root may be used; then as they were.

    Gives what to say of them beside each number, and notes.
    """
    if not system.target.l4t:
        yield {}, ()
        return
    if not allow_sudo:
        yield {}, ("clocks were left as they are; --allow-sudo locks them while timing (jetson_clocks)",)
        return
    store, lock, restore = jetson.clocks_commands(f"{session.folder()}/clocks")
    stored = _as_root(session, store)
    locked = stored if stored.returncode else _as_root(session, lock)
    if locked.returncode:
        if locked is not stored:
            _as_root(session, restore)  # some may have been set
        lines = (locked.stderr or locked.stdout).strip().splitlines()
        yield {}, (f"clocks could not be locked: {lines[-1] if lines else 'no reason given'}",)
        return
    try:
        yield {"clocks": "locked"}, ("clocks were locked while timing, and put back",)
    finally:
        restored = _as_root(session, restore)
        if restored.returncode:
            said = (restored.stderr or restored.stdout).strip()
            raise StageError("jetson_clocks", f"the clocks could not be put back: {said}", "restart the device")


def _as_root(session: Session, command: Sequence[str]) -> Completed:
    return session.execute(jetson.as_root(command), timeout_s=CLOCKS_S)
