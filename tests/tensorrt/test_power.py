"""Power and energy: numbers worked out by hand, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.tensorrt.test_tegrastats import AGX_ORIN, AGX_XAVIER, NANO, ORIN_NANO, THOR_7_0, THOR_7_2
from toolkit.errors import InputError, UnsupportedError
from toolkit.tensorrt import power, tegrastats
from toolkit.tensorrt.power import Trace


def trace(milliwatts: float, count: int = 20, interval_ms: float = 500) -> Trace:
    return Trace("tegrastats (INA3221)", ("VDD_IN",), power.INPUT, (milliwatts,) * count, interval_ms)


@pytest.mark.parametrize(
    ("line", "board", "milliwatts", "meaning"),
    [
        (NANO, "jetson-nano", 3478, power.INPUT),
        (ORIN_NANO, "jetson-orin-nano-super", 6030, power.INPUT),
        (ORIN_NANO, "jetson-orin-nx-16", 6030, power.INPUT),
        (ORIN_NANO, "jetson-xavier-nx", 6030, power.INPUT),
        (AGX_XAVIER, "jetson-agx-xavier", 18401 + 2301 + 4602 + 0 + 2914 + 4632, power.PARTS),
        (AGX_ORIN, "jetson-agx-orin-64", 2400 + 400 + 2911, power.PARTS),
        (THOR_7_0, "jetson-thor", 28548, power.INPUT),
        (THOR_7_2, "jetson-thor", 4925 + 8710 + 6767, power.PARTS),
    ],
)
def test_whole_board_is_its_input_or_the_sum_of_its_parts(
    line: str, board: str, milliwatts: float, meaning: str
) -> None:
    found = power.tegrastats_trace(tegrastats.samples(line), board=board, interval_ms=1000)
    assert (found.milliwatts, found.meaning) == ((milliwatts,), meaning)


@pytest.mark.parametrize(
    ("line", "board", "says"),
    [
        (ORIN_NANO, "my-board", "'my-board' is the whole board is not known; it has VDD_CPU_GPU_CV, VDD_IN, VDD_SOC"),
        (ORIN_NANO, "jetson-agx-orin-64", "should have VDD_GPU_SOC"),
        ("RAM 1/2MB GR3D_FREQ 0%", "jetson-orin-nano-8", "no power rails"),
        ("", "jetson-orin-nano-8", "no power rails"),
    ],
)
def test_a_rail_that_is_not_known_is_said(line: str, board: str, says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        power.tegrastats_trace(tegrastats.samples(line), board=board, interval_ms=1000)


def test_sampling_faster_than_the_sensor_is_noted() -> None:
    found = power.tegrastats_trace(tegrastats.samples(ORIN_NANO), board="jetson-orin-nano-8", interval_ms=100)
    assert "430 ms" in found.notes[0]
    assert power.tegrastats_trace(tegrastats.samples(NANO), board="jetson-nano", interval_ms=100).notes == ()


def test_energy_is_worked_out_by_hand() -> None:
    # 10 W for 10 s are 100 J; of 5000 inferences each takes 20 mJ; 4 W of the 10 are there at rest: 12 mJ
    found = power.energy(trace(10_000), seconds=10, inferences=5000, idle=trace(4_000))
    assert (found.gross_mj, found.net_mj) == pytest.approx((20, 12))
    assert found.how() == {
        "sensor": "tegrastats (INA3221)",
        "rails": "VDD_IN",
        "rail_is": "input of the module",
        "sampling_ms": 500,
        "samples": 20,
        "power_mw": 10_000,
        "idle_mw": 4_000,
        "gross_mj": pytest.approx(20),
        "net_mj": pytest.approx(12),
    }


def test_energy_without_rest_is_gross_alone() -> None:
    found = power.energy(trace(10_000), seconds=10, inferences=5000)
    assert (found.net_mj, found.how()["idle_mw"], found.how()["net_mj"]) == (None, "not measured", "not measured")


def test_power_not_above_rest_is_noted() -> None:
    found = power.energy(trace(4_000), seconds=10, inferences=10, idle=trace(4_100))
    assert "not above that at rest: 4000 and 4100 mW" in found.notes[0]


@pytest.mark.parametrize(
    ("load", "idle", "seconds", "inferences", "says"),
    [
        (trace(1, count=9), None, 4.5, 1, "9 samples under load, 10 are the fewest"),
        (trace(1), trace(1, count=3), 10, 1, "3 samples at rest"),
        (trace(1), None, 30, 1, "samples span 10 s, the inferences 30 s"),
        (trace(1), None, 5, 1, "samples span 10 s, the inferences 5 s"),
        (trace(1), replace(trace(1), rails=("VIN",)), 10, 1, "different sensors"),
        (trace(0), None, 10, 1, "mean power is 0 mW"),
        (trace(1), None, 10, 0, "0 inferences"),
        (trace(1), None, 0, 1, "0 s"),
        (trace(1), None, float("nan"), 1, "nan s"),
    ],
)
def test_energy_of_too_little_is_refused(
    load: Trace, idle: Trace | None, seconds: float, inferences: int, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        power.energy(load, seconds=seconds, inferences=inferences, idle=idle)


def test_power_of_a_card_comes_in_watts() -> None:
    found = power.smi_trace("70.25\n71.00\n\n", interval_ms=100)
    assert found.milliwatts == (70_250, 71_000)
    assert found.meaning == "the card, without its computer"
    with pytest.raises(UnsupportedError, match=r"says '\[N/A\]'"):
        power.smi_trace("[N/A]\n[N/A]\n", interval_ms=100)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({}, {}, ""),
        ({"power_mode": "15W"}, {"power_mode": "15W"}, ""),
        ({"power_mode": "15W"}, {"power_mode": "MAXN"}, "the power modes differ: 15W and MAXN"),
        ({"power_mode": "15W"}, {}, "the power mode of one run is not known, of the other it is 15W"),
        ({"power_mode": ""}, {"power_mode": "30W"}, "the power mode of one run is not known, of the other it is 30W"),
        (
            {"power_mode": "15W", "clocks": "locked"},
            {"power_mode": "15W", "clocks": "free"},
            "the clocks differ: locked and free",
        ),
    ],
)
def test_power_modes_are_compared_by_name(before: dict[str, object], after: dict[str, object], says: str) -> None:
    assert power.incomparable(before, after) == says
