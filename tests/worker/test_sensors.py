"""What a device tells of itself is read from the kernel's files; a sensor that fails on the way is told as lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.transports.local import WORKER


@pytest.fixture
def sensors(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(WORKER))
    import sensors

    return sensors


@pytest.fixture
def sustained(sensors: Any) -> Any:
    import sustained

    return sustained


def put(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def board(root: Path, throttled: str = "0x0") -> Path:
    """A Raspberry Pi: one clock policy, two zones of one type, a fan that is no brake, and vcgencmd."""
    put(root, "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "1800000\n")
    for zone, value in ((0, "48500"), (1, "51000")):
        put(root, f"sys/class/thermal/thermal_zone{zone}/temp", f"{value}\n")
        put(root, f"sys/class/thermal/thermal_zone{zone}/type", "cpu-thermal\n")
    for device, kind, state in ((0, "pwm-fan", "3"), (1, "cpufreq-cpu0", "2")):
        put(root, f"sys/class/thermal/cooling_device{device}/cur_state", f"{state}\n")
        put(root, f"sys/class/thermal/cooling_device{device}/type", f"{kind}\n")
    put(root, "usr/bin/vcgencmd", f"#!/bin/sh\n[ $1 = get_throttled ] && echo throttled={throttled}\n").chmod(0o755)
    return root


def test_clocks_temperatures_and_brakes_are_read_in_their_units(sensors: Any, tmp_path: Path) -> None:
    found = sensors.Sensors(str(board(tmp_path, "0x50005")))
    assert found.sample() == {
        "clock:cpu0": 1800.0,
        "temperature:cpu-thermal": 48.5,
        "temperature:cpu-thermal:1": 51.0,
        "throttling:cpufreq-cpu0": 2.0,
        "throttling:firmware": 5.0,  # 0x50005: under-voltage and throttled, now and before
    }
    assert found.units()["temperature:cpu-thermal:1"] == "C"


def test_throttling_of_before_is_none_of_now(sensors: Any, tmp_path: Path) -> None:
    assert sensors.Sensors(str(board(tmp_path, "0x50000"))).sample()["throttling:firmware"] == 0.0


def test_sensor_that_fails_is_lost_once_and_said(sensors: Any, tmp_path: Path) -> None:
    found = sensors.Sensors(str(board(tmp_path)))
    (tmp_path / "sys/class/thermal/thermal_zone1/temp").unlink()
    assert "temperature:cpu-thermal:1" not in found.sample()
    assert list(found.lost) == ["temperature:cpu-thermal:1"]
    assert "No such file" in found.lost["temperature:cpu-thermal:1"]
    put(tmp_path, "sys/class/thermal/thermal_zone1/temp", "51000")
    assert "temperature:cpu-thermal:1" not in found.sample()  # a series with a hole would hide it


def test_nothing_there_is_nothing_and_no_error(sensors: Any, tmp_path: Path) -> None:
    found = sensors.Sensors(str(tmp_path))
    assert (found.sample(), found.units(), sensors.meter(str(tmp_path))) == ({}, {}, None)


def test_energy_counter_that_wraps_goes_on(sensors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = put(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", "900000")
    put(tmp_path, "sys/class/powercap/intel-rapl:0/max_energy_range_uj", "1000000")
    put(tmp_path, "sys/class/powercap/intel-rapl:0/name", "package-0")
    times = iter([10.0, 11.0, 12.0])
    monkeypatch.setattr(sensors.time, "monotonic", lambda: next(times))
    meter = sensors.meter(str(tmp_path))
    meter.start()
    for value in ("950000", "50000"):  # 50 mJ, then 50 to the end and 50 on
        counter.write_text(value)
        meter.tick()
    told = sensors.described(meter)
    assert (told["sensor"], told["kind"], told["samples"]) == ("RAPL package-0", "energy counter", 2)
    assert told["millijoules"] == pytest.approx(150.0)
    assert (told["milliwatts"], told["rate_hz"]) == (pytest.approx(75.0), pytest.approx(1.0))


def test_power_is_summed_by_trapezoids(sensors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    power = put(tmp_path, "sys/class/hwmon/hwmon2/power1_input", "2000000")
    put(tmp_path, "sys/class/hwmon/hwmon2/name", "ina226")
    put(tmp_path, "sys/class/hwmon/hwmon2/power1_label", "VDD_CPU")
    times = iter([0.0, 1.0, 3.0])
    monkeypatch.setattr(sensors.time, "monotonic", lambda: next(times))
    meter = sensors.meter(str(tmp_path))
    meter.start()
    for value in ("4000000", "2000000"):  # (2 + 4) / 2 W for 1 s, (4 + 2) / 2 W for 2 s
        power.write_text(value)
        meter.tick()
    assert sensors.described(meter)["sensor"] == "hwmon ina226 VDD_CPU"
    assert sensors.described(meter)["millijoules"] == pytest.approx(9000.0)


def test_rail_of_current_and_voltage_is_their_product(sensors: Any, tmp_path: Path) -> None:
    for name, text in (("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "1200")):
        put(tmp_path, f"sys/class/hwmon/hwmon4/{name}", text)
    meter = sensors.meter(str(tmp_path))
    assert meter.name == "hwmon ina3221 VDD_IN"
    assert meter.read() == pytest.approx(6000.0)  # 5 V x 1.2 A


def test_power_sensor_that_fails_on_the_way_is_lost(sensors: Any, tmp_path: Path) -> None:
    power = put(tmp_path, "sys/class/hwmon/hwmon0/power1_input", "2000000")
    meter = sensors.meter(str(tmp_path))
    meter.start()
    power.unlink()
    meter.tick()
    assert "No such file" in meter.lost
    assert sensors.described(meter)["milliwatts"] is None


def test_sustained_run_keeps_every_time_and_reads_sensors_between(sustained: Any, tmp_path: Path) -> None:
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "40000")

    class Runner:
        calls = 0

        def invoke(self) -> None:
            self.calls += 1
            (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text(str(40000 + self.calls))

    runner = Runner()
    job = {"seconds": 0.05, "samples": str(tmp_path / "times.npy"), "root": str(tmp_path)}
    found = sustained.run(runner, job)
    times = np.load(tmp_path / "times.npy")
    assert (times.dtype, times.shape) == (np.dtype(np.int64), (runner.calls, 2))
    assert found["inferences"] == runner.calls
    assert np.all(np.diff(times[:, 0]) >= times[:-1, 1])  # one after another
    assert times[-1, 0] <= 0.05e9
    values = [row["values"]["temperature:thermal_zone0"] for row in found["series"]]
    assert values[0] == 40.0 and values[-1] == pytest.approx((40000 + runner.calls) / 1000)
    assert (found["energy"], found["idle"], found["lost"]) == (None, None, {})
