"""What a device says of itself, from texts as these systems print them; the profile that is written of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from toolkit import capture, cores
from toolkit.capture import Cores, Machine, parse, split
from toolkit.captured import Reached, profile_text
from toolkit.devices import DeviceProfile, load_device
from toolkit.tensorrt.detection import Detected
from toolkit.tensorrt.types import Target

ARM64 = "fp asimd evtstrm crc32 cpuid"
DOTPROD = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
MEMORY = "MemTotal:         931316 kB\nMemAvailable:     701312 kB\nSwapTotal:        102396 kB"
FREE = (
    "Filesystem     1024-blocks    Used Available Capacity Mounted on\n/dev/root  30358040 4719044 24360536  17% /tmp/e"
)


def arm(part: str, count: int, features: str, start: int = 0) -> str:
    """/proc/cpuinfo of alike cores, as a 64-bit kernel prints it."""
    text = "processor\t: {}\nBogoMIPS\t: 108.00\nFeatures\t: {}\nCPU implementer\t: 0x41\nCPU part\t: {}\n"
    return "\n".join(text.format(number, features, part) for number in range(start, start + count))


def clocks(*khz: int) -> str:
    path = "/sys/devices/system/cpu/cpu{}/cpufreq/cpuinfo_max_freq {}"
    return "\n".join(path.format(number, value) for number, value in enumerate(khz))


def linux(bits: int = 64, machine: str = "aarch64") -> str:
    return f"Linux\n{machine}\n6.6.51+rpt-rpi-v8\n{bits}\n"


DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n'
PI4 = {
    "machine": linux(),
    "os": DEBIAN,
    "model": "Raspberry Pi 4 Model B Rev 1.4",
    "compatible": "raspberrypi,4-model-b\nbrcm,bcm2711",
    "cpuinfo": arm("0xd08", 4, ARM64) + "\nRevision\t: d03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4",
    "meminfo": MEMORY,
    "clocks": clocks(1800000, 1800000, 1800000, 1800000),
    "storage": FREE,
    "thermal": "/sys/class/thermal/thermal_zone0/type cpu-thermal",
    "hwmon": "cpu_thermal temp1_input",
    "tools": "/usr/bin/vcgencmd\n/usr/bin/taskset",
    "python": "python 3.11.2\nai-edge-litert 2.3.0\nnumpy 2.2.6",
}
PI5 = PI4 | {
    "model": "Raspberry Pi 5 Model B Rev 1.0",
    "cpuinfo": arm("0xd0b", 4, DOTPROD),
    "clocks": clocks(2400000, 2400000, 2400000, 2400000),
}
PI3_32 = PI4 | {
    "machine": linux(32),
    "model": "Raspberry Pi 3 Model B Plus Rev 1.3",
    "cpuinfo": "\n".join(
        f"processor\t: {number}\nmodel name\t: ARMv7 Processor rev 4 (v7l)\nFeatures\t: half thumb neon vfpv4 crc32\n"
        "CPU implementer\t: 0x41\nCPU part\t: 0xd03\n"
        for number in range(4)
    ),
    "clocks": clocks(1400000, 1400000, 1400000, 1400000),
    "python": "python 3.11.2\ntflite-runtime 2.14.0\nnumpy 1.26.4",
}
LAPTOP = {
    "machine": "Linux\nx86_64\n6.1.0-28-amd64\n64\n",
    "os": 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
    "board": "/sys/class/dmi/id/sys_vendor LENOVO\n/sys/class/dmi/id/product_name 20L5CTO1WW",
    "cpuinfo": "\n".join(
        f"processor\t: {number}\nmodel name\t: Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz\nphysical id\t: 0\n"
        f"core id\t\t: {number % 4}\nflags\t\t: fpu sse avx f16c fma avx2\n"
        for number in range(8)
    ),
    "meminfo": "MemTotal:       16113772 kB\nMemAvailable:   12000000 kB",
    "clocks": clocks(*[4000000] * 8),
    "powercap": "/sys/class/powercap/intel-rapl:0/name package-0",
    "battery": "/sys/class/power_supply/AC/type Mains\n/sys/class/power_supply/BAT0/type Battery",
    "python": "python 3.12.3\nonnxruntime 1.20.1\nnumpy 2.1.0",
}
PHONE = {
    "machine": "Linux\naarch64\n5.15.110-android14-11\n64\n",
    "properties": "ro.product.manufacturer=Google\nro.product.model=Pixel 8\nro.soc.manufacturer=Google\n"
    "ro.soc.model=Tensor G3\nro.build.version.release=14\nro.build.version.sdk=34\nro.product.cpu.abi=arm64-v8a",
    "cpuinfo": "\n".join(
        (
            arm("0xd46", 4, DOTPROD + " sve2 i8mm bf16 sve"),
            arm("0xd4d", 4, DOTPROD + " sve2 i8mm bf16 sve", 4),
            arm("0xd4e", 1, DOTPROD + " sve2 i8mm bf16 sve", 8),
        )
    ),
    "clocks": clocks(*[1704000] * 4, *[2367000] * 4, 2914000),
    "meminfo": "MemTotal:        7737780 kB\nMemAvailable:    3100000 kB",
    "thermal": "/sys/class/thermal/thermal_zone0/type BIG\n/sys/class/thermal/thermal_zone1/type MID",
    "tools": "/system/bin/taskset\n/data/local/tmp/benchmark_model",
    "python": "",
}


def test_pi_4_is_four_cores_without_dot_products() -> None:
    pi = parse(PI4)
    assert (pi.model, pi.arch, pi.system) == (
        "Raspberry Pi 4 Model B Rev 1.4",
        "aarch64",
        "Debian GNU/Linux 12 (bookworm)",
    )
    assert pi.cores == (Cores("Cortex-A72", 4, 1.8),)
    assert pi.isa == ("neon",)
    assert (pi.memory_kib, pi.available_kib, pi.storage_kib) == (931316, 701312, 24360536)
    assert dict(pi.packages) == {"ai-edge-litert": "2.3.0", "numpy": "2.2.6"}
    assert pi.sensors == (
        ("temperature", "/sys/class/thermal/thermal_zone0 (cpu-thermal)"),
        ("temperature", "hwmon cpu_thermal temp1_input"),
        ("temperature", "vcgencmd measure_temp"),
        ("throttling", "vcgencmd get_throttled"),
    )
    assert pi.missing == ("power: no sensor can be read, so no energy is measured",)


def test_pi_5_has_dot_products_and_half_precision() -> None:
    assert parse(PI5).isa == ("neon", "fp16", "dotprod")
    assert parse(PI5).cores == (Cores("Cortex-A76", 4, 2.4),)


def test_32_bit_system_on_a_64_bit_kernel_is_armv7l() -> None:
    pi = parse(PI3_32)
    assert (pi.arch, pi.cores, pi.isa) == ("armv7l", (Cores("Cortex-A53", 4, 1.4),), ("neon",))


def test_hyper_threads_count_once_and_a_boards_name_comes_from_its_firmware() -> None:
    laptop = parse(LAPTOP)
    assert laptop.cores == (Cores("Intel Core i7-8550U", 4, 4.0),)
    assert laptop.model == "LENOVO 20L5CTO1WW"
    assert laptop.isa == ("avx", "f16c", "fma", "avx2")
    assert [kind for kind, _ in laptop.sensors] == ["power", "current"]


def test_clock_in_an_intel_name_counts_where_cpufreq_says_nothing() -> None:
    assert parse({**LAPTOP, "clocks": ""}).cores[0].clock_ghz == 1.8


def test_phone_has_three_kinds_of_cores_the_fastest_first_and_no_python() -> None:
    phone = parse(PHONE)
    assert (phone.model, phone.system) == ("Google Pixel 8 (Google Tensor G3)", "Android 14 (API level 34)")
    assert phone.cores == (
        Cores("Cortex-X3", 1, 2.914),
        Cores("Cortex-A715", 4, 2.367),
        Cores("Cortex-A510", 4, 1.704),
    )
    assert phone.isa == ("neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2")
    assert tomllib.loads(profile_text(phone, "phone", Reached("adb")))["python"] == ""
    assert "Python: there is none of that name, so the worker cannot run" in phone.missing


def test_flags_that_not_all_cores_have_do_not_count() -> None:
    mixed = {**PI4, "cpuinfo": arm("0xd03", 4, ARM64) + "\n" + arm("0xd0b", 4, DOTPROD, 4)}
    assert parse(mixed).isa == ("neon",)


def test_unknown_core_keeps_its_numbers_and_gets_no_rates() -> None:
    odd = parse({**PI4, "cpuinfo": arm("0xabc", 2, ARM64)})
    assert odd.cores == (Cores("implementer 0x41 part 0xabc", 2, 1.8),)
    assert cores.rates(odd.cores[0].name, odd.isa) == {}


def test_what_nothing_said_is_missing() -> None:
    nothing = parse({})
    assert nothing.arch == ""
    assert len(nothing.missing) == 8  # of the nine that are asked, clocks are those of no cores


@pytest.mark.parametrize(
    ("core", "extensions", "expected"),
    [
        ("Cortex-A72", ["neon"], {"float32": 4, "int8": 8}),
        ("Cortex-A76", ["neon", "fp16", "dotprod"], {"float32": 8, "float16": 16, "int8": 32}),
        ("Cortex-X3", ["neon", "fp16", "dotprod", "i8mm"], {"float32": 16, "float16": 32, "int8": 128}),
        ("any", ["avx2", "fma"], {"float32": 16, "int8": 32}),
        ("any", ["avx512f", "avx512_vnni"], {"float32": 32, "int8": 128}),
        ("any", ["avx"], {}),
    ],
)
def test_rates_are_pipes_times_lanes(core: str, extensions: list[str], expected: dict[str, float]) -> None:
    assert cores.rates(core, extensions) == expected


# ---------------------------------------------------------------- profiles


def written(machine: Machine, folder: Path, transport: str = "ssh") -> DeviceProfile:
    path = folder / "board.toml"
    path.write_text(profile_text(machine, "board", Reached(transport)), encoding="utf-8")
    return load_device(path)


@pytest.mark.parametrize("said", [PI4, PI5, PI3_32, LAPTOP, PHONE, {}], ids=["pi4", "pi5", "pi3", "x86", "phone", "-"])
def test_profile_of_every_device_is_valid_and_says_where_each_fact_was_read(
    said: dict[str, str], tmp_path: Path
) -> None:
    profile = written(parse(said), tmp_path)
    assert all(fact.source.endswith("read on the device") for fact in profile.facts)
    assert all("rates unverified" in each.source for each in profile.processors)


def test_profile_of_a_pi_has_what_was_found_there(tmp_path: Path) -> None:
    profile = written(parse(PI5), tmp_path)
    assert [(each.use, each.version, each.delegates) for each in profile.runtimes] == [
        ("litert", "2.3.0", ("xnnpack",)),
        ("litert", "2.3.0", ("none",)),
    ]
    assert profile.runtime_for("tflite", "int16x8").delegates == ("none",)
    (processor,) = profile.processors
    assert (processor.cores, processor.clock_ghz, processor.macs_per_cycle["int8"]) == (4, 2.4, 32)
    assert (profile.memory_kib, profile.storage_kib, profile.transport) == (701312, 24360536, "ssh")


def test_old_x86_is_told_that_onnx_runtime_saturates(tmp_path: Path) -> None:
    (runtime,) = written(parse(LAPTOP), tmp_path).runtimes
    assert runtime.use == "onnxruntime"
    assert runtime.needs("saturating") is not None


def test_device_without_a_runtime_gets_the_one_to_install(tmp_path: Path) -> None:
    for said, use, advice in (
        ({**PI4, "python": "python 3.11.2"}, "litert", "pip install ai-edge-litert"),
        ({**PI3_32, "python": ""}, "tflite-runtime", "pip install 'tflite-runtime' 'numpy<2'"),
        (PHONE, "litert", "benchmark_model into /data/local/tmp"),
    ):
        profile = written(parse(said), tmp_path)
        assert (profile.runtimes[0].use, profile.runtimes[0].version) == (use, "")
        assert advice in (tmp_path / "board.toml").read_text()


def test_jetson_gets_tensorrt_of_its_own_version_and_capability(tmp_path: Path) -> None:
    orin = parse({**PI5, "compatible": "nvidia,p3767-0005\nnvidia,tegra234", "model": "NVIDIA Jetson Orin Nano"})
    assert orin.tegra
    target = Target("10.3.0", "8.7", "NVIDIA Jetson Orin Nano", "linux-aarch64", l4t="36.4.3", power_mode="15W")
    system = Detected(target, "jetson-orin-nano-8", ("whether the clocks are locked: root is needed",))
    path = tmp_path / "orin.toml"
    path.write_text(profile_text(orin, "orin", Reached("ssh"), system=system))
    profile = load_device(path)
    engines = profile.runtimes[0]
    assert (profile.compute_capability, engines.use, engines.version, engines.layout) == (
        "8.7", "tensorrt", "10.3.0", "NCHW",
    )  # fmt: skip
    assert engines.needs("symmetric_only") is not None
    assert {fact.name: fact.value for fact in profile.facts}["L4T"] == "36.4.3"
    assert "Edgekit ships a profile of this module: jetson-orin-nano-8" in profile.notes
    assert "root is needed" in profile.notes


def test_text_of_the_device_cannot_break_the_profile(tmp_path: Path) -> None:
    hostile = {**PI4, "model": 'Pi" \\ \u001b[31m"""\nname = "x"'}
    assert written(parse(hostile), tmp_path).title == 'Pi" \\ [31m""" name = "x"'


# ---------------------------------------------------------------- the script itself


def sections() -> dict[str, str]:
    """What the script says of the computer that runs the tests."""
    command = ["sh", "-c", capture.SCRIPT, "capture", "--mark", sys.executable, capture.PYTHON]
    return split(subprocess.run(command, capture_output=True, text=True, check=False).stdout, "--mark")


def test_script_gets_through_on_this_computer_and_asks_for_no_serial_number() -> None:
    said = sections()
    assert list(said)[-1] == "end"
    assert not re.search(r"\bserial\b", "\n".join(said.values()), re.IGNORECASE)  # `serialize` is a flag of some CPUs
    here = parse(said)
    assert here.python == ".".join(map(str, sys.version_info[:3]))
    assert here.memory_kib > 0
    assert sum(group.count for group in here.cores) >= 1


def test_script_needs_no_python_and_says_that_there_is_none() -> None:
    command = ["sh", "-c", capture.SCRIPT, "capture", "--mark", "no-such-python", capture.PYTHON]
    said = split(subprocess.run(command, capture_output=True, text=True, check=False).stdout, "--mark")
    assert list(said)[-1] == "end"
    assert parse(said).python == ""


def test_profile_names_no_host_and_no_user() -> None:
    text = profile_text(parse(sections()), "here", Reached("ssh"))
    data = tomllib.loads(text)
    assert not {"host", "user", "serial"} & data.keys()
