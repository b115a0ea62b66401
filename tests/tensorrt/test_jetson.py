"""Jetson's files and programs, read: texts are synthetic, in the form these print."""

from __future__ import annotations

import pytest

from toolkit.errors import InputError
from toolkit.tensorrt import jetson
from toolkit.tensorrt.jetson import Clock, Mode

NVPMODEL = """NVPM VERB: Config file: /etc/nvpmodel.conf
NVPM VERB: parsing done for /etc/nvpmodel.conf
NVPM VERB: Current mode: NV Power Mode: MAXN
0
NVPM VERB: PM_CONFIG: DEFAULT=MODE_15W_6CORE(2)
NVPM VERB: POWER_MODEL: ID=0 NAME=MODE_15W_2CORE
NVPM VERB: POWER_MODEL: ID=8 NAME=MODE_20W_6CORE
"""
CLOCKS = """SOC family:tegra234  Machine:NVIDIA Jetson AGX Orin
cpu0: Online=1 Governor=schedutil MinFreq=729600 MaxFreq=2201600 CurrentFreq=2188800 IdleStates: WFI=1 c7=1
GPU MinFreq=306000000 MaxFreq=1300500000 CurrentFreq=305999
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0
DLA0_CORE:   Online=1 MinFreq=0 MaxFreq=1600000000 CurrentFreq=1600000000
"""


@pytest.mark.parametrize(
    ("text", "version", "jetpack", "tensorrt"),
    [
        ("# R32 (release), REVISION: 6.1, GCID: 2, BOARD: t210ref", "32.6.1", "4.6", "8.0.1"),
        ("# R32 (release), REVISION: 7.4, GCID: 2", "32.7.4", "4.6.1 to 4.6.6", "8.2.1"),
        ("# R35 (release), REVISION: 1.0, GCID: 2", "35.1.0", "5.0.2", "8.4.1"),
        ("# R35 (release), REVISION: 4.1, GCID: 2", "35.4.1", "5.1 to 5.1.6", "8.5.2"),
        ("# R36 (release), REVISION: 3.0, GCID: 2", "36.3.0", "6.0", "8.6.2"),
        ("# R36 (release), REVISION: 4.3, GCID: 2", "36.4.3", "6.1 to 6.2", "10.3"),
        ("# R36 (release), REVISION: 5.0, GCID: 2", "36.5.0", "6.1 to 6.2", "10.3"),
        ("# R38 (release), REVISION: 2.1, GCID: 2", "38.2.1", "7.0", "10.13"),
        ("# R38 (release), REVISION: 4.0, GCID: 2", "38.4.0", "7.1", "10.13"),
        ("# R39 (release), REVISION: 2.0, GCID: 2", "39.2.0", "7.2", "10.16.2"),
        ("# R39 (release), REVISION: 2.1, GCID: 2", "39.2.1", "7.2.1", "10.16.2"),
    ],
)
def test_l4t_tells_the_jetpack(text: str, version: str, jetpack: str, tensorrt: str) -> None:
    assert jetson.l4t(text) == version
    found = jetson.release(version)
    assert found is not None
    assert (found.jetpack, found.tensorrt) == (jetpack, tensorrt)


@pytest.mark.parametrize("version", ["", "36", "31.1.0", "34.1.1", "38.3.0", "39.2.2", "40.0.0", "new"])
def test_an_l4t_of_no_table_is_no_jetpack(version: str) -> None:
    assert jetson.release(version) is None


def test_no_release_file_is_no_l4t() -> None:
    assert jetson.l4t("Ubuntu 22.04") == jetson.l4t("") == ""


@pytest.mark.parametrize(
    ("model", "compatible", "memory", "profile"),
    [
        (
            "NVIDIA Jetson Nano Developer Kit",
            ("nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,tegra210"),
            3964,
            "jetson-nano",
        ),
        ("NVIDIA Jetson Nano 2GB Developer Kit", ("nvidia,p3542-0000+p3448-0003", "nvidia,tegra210"), 1979, ""),
        ("quill", ("nvidia,p2597-0000+p3310-1000", "nvidia,tegra186"), 7852, "jetson-tx2"),
        ("NVIDIA Jetson TX2 NX", ("nvidia,p3509-0000+p3636-0001", "nvidia,tegra186"), 3830, ""),
        (
            "NVIDIA Jetson Xavier NX Developer Kit",
            ("nvidia,p3509-0000+p3668-0000", "nvidia,tegra194"),
            7765,
            "jetson-xavier-nx",
        ),
        ("Jetson-AGX", ("nvidia,p2822-0000+p2888-0004", "nvidia,tegra194"), 31919, "jetson-agx-xavier"),
        (
            "NVIDIA Jetson Orin Nano Developer Kit",
            ("nvidia,p3768-0000+p3767-0004", "nvidia,tegra234"),
            3427,
            "jetson-orin-nano-4",
        ),
        (
            "NVIDIA Jetson Orin Nano Developer Kit",
            ("nvidia,p3768-0000+p3767-0005", "nvidia,tegra234"),
            7620,
            "jetson-orin-nano-8",
        ),
        (
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            ("nvidia,p3768-0000+p3767-0003-super", "nvidia,p3767-0003", "nvidia,tegra234"),
            7620,
            "jetson-orin-nano-super",
        ),
        # the words are of the kit the module sits in, the identifier is its own
        (
            "NVIDIA Jetson Orin Nano Developer Kit",
            ("nvidia,p3768-0000+p3767-0001", "nvidia,tegra234"),
            7620,
            "jetson-orin-nx-8",
        ),
        (
            "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
            ("nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000", "nvidia,tegra234"),
            15655,
            "jetson-orin-nx-16",
        ),
        (
            "NVIDIA Jetson AGX Orin Developer Kit",
            ("nvidia,p3737-0000+p3701-0000", "nvidia,tegra234"),
            30697,
            "jetson-agx-orin-32",
        ),
        (
            "NVIDIA Jetson AGX Orin Developer Kit",
            ("nvidia,p3737-0000+p3701-0000", "nvidia,tegra234"),
            62841,
            "jetson-agx-orin-64",
        ),
        (
            "NVIDIA Jetson AGX Orin Developer Kit",
            ("nvidia,p3737-0000+p3701-0005", "nvidia,tegra234"),
            62841,
            "jetson-agx-orin-64",
        ),
        ("NVIDIA Jetson AGX Orin Developer Kit", (), 62841, "jetson-agx-orin-64"),  # by its words alone
        (
            "NVIDIA Jetson AGX Thor Developer Kit",
            ("nvidia,p4071-0000+p3834-0008", "nvidia,tegra264"),
            125772,
            "jetson-thor",
        ),
        ("NVIDIA Jetson T4000", ("nvidia,p4071-0000+p3834-0000", "nvidia,tegra264"), 62000, ""),  # no profile is for it
        ("Raspberry Pi 4 Model B", ("raspberrypi,4-model-b", "brcm,bcm2711"), 3791, ""),
        ("NVIDIA Jetson Orin NX", ("nvidia,p3767-0000", "nvidia,tegra234"), 7620, ""),  # memory of another size
    ],
)
def test_module_is_told_by_identifier_and_memory(
    model: str, compatible: tuple[str, ...], memory: int, profile: str
) -> None:
    assert jetson.module(model, compatible, memory) == profile
    assert jetson.module(model, compatible, None) == ""


def test_super_is_told_by_the_power_modes_too() -> None:
    where = ("NVIDIA Jetson Orin Nano Developer Kit", ("nvidia,p3767-0005",), 7620)
    assert jetson.module(*where, (Mode(0, "15W"), Mode(2, "MAXN_SUPER"))) == "jetson-orin-nano-super"
    assert jetson.module(*where, (Mode(0, "15W"), Mode(1, "7W"))) == "jetson-orin-nano-8"


def test_device_tree_strings_end_in_nul() -> None:
    raw = "nvidia,p3767-0005\0nvidia,tegra234\0"
    assert jetson.texts(raw) == ("nvidia,p3767-0005", "nvidia,tegra234")
    assert jetson.texts("NVIDIA Jetson Nano\0") == ("NVIDIA Jetson Nano",)
    assert jetson.texts("") == ()


@pytest.mark.parametrize(
    ("soc", "capability"),
    [("tegra210", "5.3"), ("tegra186", "6.2"), ("tegra194", "7.2"), ("tegra234", "8.7"), ("tegra264", "11.0")],
)
def test_soc_tells_the_compute_capability(soc: str, capability: str) -> None:
    assert jetson.compute_capability(("nvidia,p3767-0005", f"nvidia,{soc}")) == capability
    assert jetson.compute_capability(("nvidia,tegra999",)) == ""


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: 25W\n1\n", Mode(1, "25W")),
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\n2\n", Mode(2, "MODE_15W_6CORE")),
        (NVPMODEL, Mode(0, "MAXN")),
        ("NVPM ERROR: failed to open /etc/nvpmodel.conf\n", None),
        ("", None),
    ],
)
def test_power_mode_has_a_name_and_a_number(text: str, mode: Mode | None) -> None:
    assert jetson.power_mode(text) == mode


def test_power_modes_are_asked_for_by_name() -> None:
    modes = jetson.power_modes(NVPMODEL)
    assert modes == (Mode(0, "MODE_15W_2CORE"), Mode(8, "MODE_20W_6CORE"))
    assert jetson.mode_command("mode_20w_6core", modes) == ["nvpmodel", "-m", "8"]
    with pytest.raises(InputError, match=r"no 'MAXN'.*MODE_15W_2CORE, MODE_20W_6CORE"):
        jetson.mode_command("MAXN", modes)


def test_clocks_are_locked_where_they_cannot_move() -> None:
    found = jetson.clocks(CLOCKS)
    assert found == {"GPU": Clock(306000000, 1300500000, 305999), "EMC": Clock(204000000, 3199000000, 2133000000)}
    assert not found["GPU"].locked
    assert Clock(5, 5, 5).locked
    assert jetson.clocks("Error: Run this script(/usr/bin/jetson_clocks) as a root user") == {}


def test_clocks_are_kept_before_and_put_back_after() -> None:
    keep, lock, back = jetson.clocks_commands("work/clocks.conf")
    assert keep == ["jetson_clocks", "--store", "work/clocks.conf"]
    assert lock == ["jetson_clocks"]
    assert jetson.as_root(back) == ["sudo", "-n", "jetson_clocks", "--restore", "work/clocks.conf"]


@pytest.mark.parametrize(
    ("text", "version", "cuda"),
    [
        ("libnvinfer8\t8.5.2-1+cuda11.4\ncuda-cudart-11-4\t11.4.298-1\n", "8.5.2", "11.4"),
        ("libnvinfer10:arm64\t10.3.0.30-1+cuda12.5\nlibnvinfer8\t\ncuda-cudart-dev-12-6\t1\n", "10.3.0", ""),
        (
            "libnvinfer8\t8.6.2.3-1\nlibnvinfer10\t10.3.0.30-1\ncuda-cudart-9-0\t1\ncuda-cudart-12-6\t1\n",
            "10.3.0",
            "12.6",
        ),
        (
            "ii  libnvinfer8    8.2.1-1+cuda10.2  arm64  TensorRT runtime\nrc  libnvinfer10 10.3.0.30-1 arm64 x\n",
            "8.2.1",
            "",
        ),
        ("nvidia-jetpack\t6.2+b77\n", "", ""),
        ("", "", ""),
    ],
)
def test_packages_tell_versions(text: str, version: str, cuda: str) -> None:
    installed = jetson.packages(text)
    assert (jetson.tensorrt_version(installed), jetson.cuda_version(installed)) == (version, cuda)
