"""Sustained latency: quantiles of all samples, what it became, and what the sensors saw; by hand, on given times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.warm_device import Warm
from toolkit.checks import sustained
from toolkit.core import Artifact, Measurement, MeasureSpec, Signature
from toolkit.devices import DeviceProfile, DeviceRuntime
from toolkit.errors import UnavailableError

MS = 1_000_000
LITERT = DeviceRuntime(use="litert", formats=("tflite",), schemes=("float32",))
BOARD = DeviceProfile(name="board", arch="any", runtimes=(LITERT,))
FILE = Artifact("a.tflite", Path("a.tflite"), "tflite", "float32", 1, "0", Signature((), ()))


def slowed() -> Any:
    """Ten seconds: 1 ms an inference for five of them, then 2 ms."""
    fast = [(start * MS, MS) for start in range(5000)]
    return np.array(fast + [(5000 * MS + start * 2 * MS, 2 * MS) for start in range(2500)], np.int64)


def measure(session: Warm, folder: Path, profile: DeviceProfile = BOARD) -> tuple[dict[str, Measurement], Any]:
    found = sustained.measure(
        FILE,
        session,  # type: ignore[arg-type]
        MeasureSpec(),
        profile,
        runtime=("litert", "xnnpack"),
        minutes=1 / 6,
        samples=folder,
    )
    return {row.name: row for row in found.measurements}, found


def test_quantiles_are_of_all_samples_and_the_end_is_told(tmp_path: Path) -> None:
    rows, _ = measure(Warm(slowed()), tmp_path)
    assert rows["sustained_p50_ms"].value == 1.0  # 5,000 of 7,500
    assert rows["sustained_p90_ms"].value == 2.0
    assert rows["sustained_last_p50_ms"].value == 2.0
    assert rows["sustained_slowdown"].value == 2.0
    interval = rows["sustained_p90_ms"].interval
    assert interval is not None and interval.low <= 2.0 <= interval.high and interval.confidence == 0.95
    assert (rows["sustained_p50_ms"].source, rows["sustained_p50_ms"].how["samples"]) == ("measured", 7500)


def test_series_and_samples_are_kept(tmp_path: Path) -> None:
    _, found = measure(Warm(slowed()), tmp_path)
    assert [row["p50_ms"] for row in found.series] == [1.0] * 5 + [2.0] * 5
    assert [row["temperature:cpu"] for row in found.series] == [41.0 + i for i in range(10)]
    assert np.array_equal(np.load(tmp_path / "a.tflite@board.sustained.npy"), slowed())
    assert json.loads((tmp_path / "a.tflite@board.sustained.json").read_text())["units"]["temperature:cpu"] == "C"


def test_throttling_lost_sensors_and_absent_ones_are_told(tmp_path: Path) -> None:
    _, found = measure(Warm(slowed(), lost={"temperature:gpu": "No such device"}), tmp_path)
    assert found.notes == (
        "temperature:cpu 40 C at first, 40 to 50, 50 at the end",
        "firmware held the device back in 55% of readings, first at 5 s",
        "temperature:gpu was lost on the way: No such device",
        "no sensor of clock can be read there: throttling shows in the latency alone",
        "energy was not measured: no sensor of power can be read there",
    )


def test_energy_is_of_an_image_gross_and_beyond_rest(tmp_path: Path) -> None:
    work = {"sensor": "RAPL package-0", "kind": "energy counter", "samples": 100, "rate_hz": 10.0, "seconds": 10.0}
    work |= {"millijoules": 75_000.0, "milliwatts": 7500.0}
    rows, _ = measure(Warm(slowed(), energy=work, idle={"milliwatts": 3000.0}), tmp_path)
    assert rows["energy_per_inference_mj"].value == 10.0
    assert rows["energy_per_inference_net_mj"].value == 6.0  # (75 - 3 x 10) J / 7,500
    how = rows["energy_per_inference_mj"].how
    assert (how["sensor"], how["rate_hz"], how["idle_mw"]) == ("RAPL package-0", 10.0, 3000.0)
    rows, _ = measure(Warm(slowed(), energy=work), tmp_path)
    assert rows["energy_per_inference_mj"].how["idle_mw"] == "not measured"
    assert "energy_per_inference_net_mj" not in rows


def test_power_sensor_that_was_lost_gives_no_energy(tmp_path: Path) -> None:
    work = {"sensor": "RAPL", "kind": "energy counter", "samples": 3, "rate_hz": 1.0, "seconds": 3.0}
    work |= {"millijoules": 9.0, "milliwatts": 3.0}
    rows, found = measure(Warm(slowed(), energy=work, lost={"RAPL": "Input/output error"}), tmp_path)
    assert "energy_per_inference_mj" not in rows
    assert "RAPL was lost on the way: Input/output error" in found.notes


def test_imitated_device_gives_emulated_numbers(tmp_path: Path) -> None:
    rows, _ = measure(Warm(slowed()), tmp_path, BOARD.model_copy(update={"emulated": "qemu-user"}))
    assert {row.source for row in rows.values()} == {"emulated"}
    assert rows["sustained_p50_ms"].how["emulated"] == "qemu-user"


def test_device_without_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="has no Python"):
        measure(Warm(slowed()), tmp_path, BOARD.model_copy(update={"python": ""}))


def test_stretches_of_time_hold_what_began_in_them() -> None:
    times = np.array([[0, 10], [10, 20], [30, 10], [90, 10]], np.int64)
    assert [list(part) for part in sustained.by_time(times, 2)] == [[10, 20, 10], [10]]
    assert [list(part) for part in sustained.by_time(times, 10)] == [[10], [20], [10], [10]]
