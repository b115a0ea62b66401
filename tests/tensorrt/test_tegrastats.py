"""Lines of tegrastats in every shape; synthetic values, in the form each JetPack prints."""

from __future__ import annotations

import pytest

from toolkit.tensorrt import tegrastats
from toolkit.tensorrt.tegrastats import Reading

NANO = (
    "RAM 1276/3956MB (lfb 108x4MB) SWAP 0/1978MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [31%@1479,12%@1479,off,off] "
    "EMC_FREQ 14%@1600 GR3D_FREQ 22%@921 APE 25 PLL@21C CPU@23C PMIC@100C GPU@22.5C AO@28C thermal@22.5C "
    "POM_5V_IN 3478/3201 POM_5V_GPU 812/740 POM_5V_CPU 623/588"
)
AGX_XAVIER = (
    "RAM 1893/31919MB (lfb 6984x4MB) SWAP 0/15959MB (cached 0MB) CPU [17%@1190,15%@1574] EMC_FREQ 55%@2133 "
    "GR3D_FREQ 95%@1377 APE 150 MTS fg 0% bg 10% AO@48C GPU@54.5C Tdiode@53.25C PMIC@50C CPU@49C thermal@49.45C "
    "GPU 18401/18525 CPU 2301/2330 SOC 4602/4602 CV 0/0 VDDRQ 2914/2911 SYS5V 4632/4620"
)
ORIN_NANO = (
    "11-21-2026 15:00:00 RAM 4832/7620MB (lfb 2x4MB) SWAP 111/3810MB (cached 0MB) CPU [45%@1728,30%@1728] "
    "EMC_FREQ 8%@2133 GR3D_FREQ 63%@[624] NVDEC off NVJPG off VIC off OFA off APE 200 cpu@48.781C soc2@48.093C "
    "gpu@50.718C tj@50.718C cv0@-256C VDD_IN 6030mW/5900mW VDD_CPU_GPU_CV 1913mW/1900mW VDD_SOC 1557mW/1550mW"
)
AGX_ORIN = (
    "RAM 9469/30697MB (lfb 5x4MB) SWAP 0/15348MB (cached 0MB) CPU [2%@729] EMC_FREQ 0%@3199 GR3D_FREQ 0%@[1300,1300] "
    "CPU@49C Tboard@37C SOC2@45.8C tj@49C SOC1@46C VDD_GPU_SOC 2400mW/2400mW VDD_CPU_CV 400mW/400mW "
    "VIN_SYS_5V0 2911mW/2911mW"
)
THOR_7_0 = (
    "RAM 117456/125772MB (lfb 9x4MB) CPU [0%@1890,5%@1890] cpu@43.812C tj@44.218C gpu@43.968C "
    "VDD_GPU -392mW VDD_CPU_SOC_MSS 7484mW VIN_SYS_5V0 6309mW VIN 28548mW"
)
THOR_7_2 = (
    "07-23-2026 15:29:26 RAM 9101/125811MB (lfb 19x4MB) SWAP 0/2048MB (cached 0MB) CPU [39%@2160] EMC_FREQ 7%@3200 "
    "GR3D_FREQ @[314,314,314] NVENC0_FREQ @1556 PVA0_FREQ off APE 300 cpu@34.843C/34.843C tj@35.906C/35.906C "
    "VDD_GPU 4925mW/4900mW/5100mW VDD_CPU_SOC_MSS 8710mW/8710mW/8710mW VIN_SYS_5V0 6767mW/6767mW/6767mW"
)


@pytest.mark.parametrize(
    ("line", "rails"),
    [
        (NANO, {"POM_5V_IN": (3478, 3201), "POM_5V_GPU": (812, 740), "POM_5V_CPU": (623, 588)}),
        (
            AGX_XAVIER,
            {"GPU": (18401, 18525), "CPU": (2301, 2330), "SOC": (4602, 4602), "CV": (0, 0), "VDDRQ": (2914, 2911)}
            | {"SYS5V": (4632, 4620)},
        ),
        (ORIN_NANO, {"VDD_IN": (6030, 5900), "VDD_CPU_GPU_CV": (1913, 1900), "VDD_SOC": (1557, 1550)}),
        (AGX_ORIN, {"VDD_GPU_SOC": (2400, 2400), "VDD_CPU_CV": (400, 400), "VIN_SYS_5V0": (2911, 2911)}),
        (
            THOR_7_0,
            {
                "VDD_GPU": (-392, None),
                "VDD_CPU_SOC_MSS": (7484, None),
                "VIN_SYS_5V0": (6309, None),
                "VIN": (28548, None),
            },
        ),
        (THOR_7_2, {"VDD_GPU": (4925, 4900), "VDD_CPU_SOC_MSS": (8710, 8710), "VIN_SYS_5V0": (6767, 6767)}),
        ("RAM 1/2MB VDD_IN 6.5W/6.4W", {"VDD_IN": (6500, 6400)}),
        ("RAM 1234/7620MB SWAP 0/3810MB IRAM 0/252kB", {}),
    ],
)
def test_rails_are_read_and_nothing_else(line: str, rails: dict[str, tuple[float, float | None]]) -> None:
    found = tegrastats.sample(line)
    assert found is not None
    assert found.rails == {name: Reading(*values) for name, values in rails.items()}


@pytest.mark.parametrize(
    ("line", "percent", "mhz"),
    [
        (NANO, 22, 921),
        (ORIN_NANO, 63, 624),
        (AGX_ORIN, 0, 1300),
        (THOR_7_2, None, 314),
        (THOR_7_0, None, None),
        ("RAM 1/2MB GR3D_FREQ 35%", 35, None),
    ],
)
def test_gpu_load_and_clock_are_read(line: str, percent: float | None, mhz: float | None) -> None:
    found = tegrastats.sample(line)
    assert found is not None
    assert (found.gpu_percent, found.gpu_mhz) == (percent, mhz)


def test_temperatures_leave_out_what_is_no_sensor() -> None:
    nano, orin, thor = (tegrastats.sample(line) for line in (NANO, ORIN_NANO, THOR_7_2))
    assert nano and orin and thor
    assert nano.celsius == {"PLL": 21, "CPU": 23, "PMIC": 100, "GPU": 22.5, "AO": 28, "thermal": 22.5}
    assert nano.hottest == 28  # PMIC says 100 whatever it is
    assert orin.celsius == {"cpu": 48.781, "soc2": 48.093, "gpu": 50.718, "tj": 50.718}  # cv0 is off
    assert thor.celsius == {"cpu": 34.843, "tj": 35.906}


def test_memory_is_in_mib() -> None:
    found = tegrastats.sample(THOR_7_0)
    assert found is not None
    assert (found.used_mib, found.total_mib) == (117456, 125772)


def test_other_lines_are_none_and_a_cut_last_line_is_left_out() -> None:
    assert tegrastats.sample("tegrastats: not found") is None
    text = "\n".join(["starting", ORIN_NANO, ORIN_NANO, ORIN_NANO[: ORIN_NANO.index("VDD_CPU")]])
    assert len(tegrastats.samples(text)) == 2
    assert tegrastats.samples("") == ()
