"""Runs without pause inside a run: energy where a sensor tells power, what is reused and what is forgotten."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.warm_device import Warm
from toolkit import runs
from toolkit.core import Artifact, Budget, Measurement, MeasureSpec, Signature
from toolkit.devices import DeviceProfile, DeviceRuntime
from toolkit.plan import Check
from toolkit.staged import NONE
from toolkit.timing import Timing

LITERT = DeviceRuntime(use="litert", formats=("tflite",), schemes=("float32",))
BOARD = DeviceProfile(name="board", arch="any", runtimes=(LITERT,))
FILES = {name: Artifact(name, Path(name), "tflite", "float32", 1, name, Signature((), ())) for name in ("a", "b")}
WATTS = {"sensor": "INA226", "kind": "power", "samples": 20, "rate_hz": 10.0, "seconds": 2.0, "milliwatts": 500.0}


def board(**more: Any) -> Warm:
    """A device that answers 2,000 times, each in a millisecond."""
    return Warm(np.array([(at * 1_000_000, 1_000_000) for at in range(2000)], np.int64), **more)


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    manifest = runs.Manifest("r", "running", "", {}, 0, {"cpu": "x"}, {})
    return runs.Run.create(tmp_path / "run", manifest, b"")


def timing(run: runs.Run, device: Warm, said: list[str], profile: DeviceProfile = BOARD, **spec: Any) -> Timing:
    measure = MeasureSpec(processes=0, **spec)
    checks = [Check(name, profile, "litert", "xnnpack", measure, Budget()) for name in FILES]
    return Timing(
        run=run,
        profile=profile,
        session=device,  # type: ignore[arg-type]
        checks=checks,
        artifacts=FILES,
        staged=NONE,
        version=lambda use: "2.3",
        recording=threading.Lock(),
        emit=lambda progress: None,
        warn=said.append,
    )


def numbers(run: runs.Run) -> dict[tuple[str, str], Measurement]:
    return {(m.subject, m.name): m for m in run.manifest.measurements}


def test_energy_of_an_image_stands_in_the_manifest(run: runs.Run) -> None:
    said = list[str]()
    device = board(energy={**WATTS, "millijoules": 1000.0}, idle={"milliwatts": 100.0})
    timing(run, device, said, sustained_seconds=2).run_without_pause()
    found = numbers(run)
    for name in FILES:
        assert found[name, "energy_per_inference_mj"].value == 0.5  # 1000 mJ / 2000
        assert found[name, "energy_per_inference_net_mj"].value == 0.4  # less 100 mW x 2 s
        assert found[name, "sustained_p50_ms"].value == 1.0
    assert [job["seconds"] for job in device.jobs] == [2.0, 2.0]
    assert not said


def test_device_without_a_sensor_of_power_is_named_once(run: runs.Run) -> None:
    said = list[str]()
    timing(run, board(), said, sustained_seconds=2).run_without_pause()
    assert [line for line in said if "power" in line] == [
        "board: energy was not measured: no sensor of power can be read there"
    ]
    assert ("a", "energy_per_inference_mj") not in numbers(run)


def test_sensor_that_was_lost_is_named(run: runs.Run) -> None:
    said = list[str]()
    device = board(energy={**WATTS, "millijoules": 1.0}, lost={"INA226": "Remote I/O error"})
    timing(run, device, said, sustained_seconds=2).run_without_pause()
    assert said == ["board: INA226 was lost on the way: Remote I/O error"]
    assert ("a", "energy_per_inference_mj") not in numbers(run)


def test_same_files_are_not_run_again_and_other_lengths_are(run: runs.Run) -> None:
    device, said = board(), list[str]()
    for seconds, jobs in ((2, 2), (2, 2), (3, 4)):
        timing(run, device, said, sustained_seconds=seconds).take_latency()  # forgets latencies, not these
        timing(run, device, said, sustained_seconds=seconds).run_without_pause()
        assert len(device.jobs) == jobs
        assert numbers(run)["a", "sustained_p50_ms"].how["minutes"] == round(seconds / 60, 3)


def test_run_that_asks_for_none_forgets_those_of_before(run: runs.Run) -> None:
    said = list[str]()
    timing(run, board(), said, sustained_seconds=2).run_without_pause()
    timing(run, board(), said).run_without_pause()
    assert not run.manifest.measurements and not run.manifest.stages


def test_file_that_is_made_anew_is_run_again(run: runs.Run) -> None:
    device = board()
    timing(run, device, [], sustained_seconds=2).run_without_pause()
    run.forget(("a",))
    timing(run, device, [], sustained_seconds=2).run_without_pause()
    assert len(device.jobs) == 4


def test_device_without_python_is_named_and_the_run_goes_on(run: runs.Run) -> None:
    said, device = list[str](), board()
    timing(run, device, said, BOARD.model_copy(update={"python": ""}), sustained_seconds=2).run_without_pause()
    assert said == ["board: nothing is run without pause, which needs Python there"] and not device.jobs
