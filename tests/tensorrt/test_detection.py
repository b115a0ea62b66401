"""What a target is, told by stand-in programs of several boards; what cannot be had is missing, never guessed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.tensorrt.conftest import Install, Start
from toolkit.core import Completed
from toolkit.tensorrt import detection, jetson, power, tegrastats, trtexec
from toolkit.tensorrt.detection import COMMANDS, Detected
from toolkit.tensorrt.trtexec import TimingSpec


def ask(folder: Path, commands: Mapping[str, tuple[str, ...]] = COMMANDS) -> dict[str, Completed]:
    """Run the commands with the stand-ins first in PATH, without a shell."""
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    found = {}
    for name, command in commands.items():
        program = shutil.which(command[0], path=environment["PATH"])
        if program is None:
            found[name] = Completed(127, "", f"sh: 1: {command[0]}: not found")
            continue
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, env=environment, check=False)
        found[name] = Completed(done.returncode, done.stdout, done.stderr)
    return found


def detect(folder: Path) -> Detected:
    return detection.detected(ask(folder))


def test_orin_nano_is_told_whole_where_root_is_had(install: Install) -> None:
    found = detect(install(board="jetson-orin-nano-super", root=True))
    target = found.target
    assert found.missing == ()
    assert found.profile == "jetson-orin-nano-super"
    assert (target.tensorrt, target.compute_capability, target.l4t, target.cuda) == ("10.3.0", "8.7", "36.4.3", "12.6")
    assert (target.platform, target.os, target.power_mode) == ("linux-aarch64", "Ubuntu 22.04.5 LTS", "15W")
    assert target.device == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert target.memory_mib == 7620
    assert (found.trtexec, found.trtexec_version) == ("trtexec", "10.3.0")
    assert found.release == jetson.Release("6.1 to 6.2", "12.6", "10.3")
    assert [mode.name for mode in found.modes] == ["15W", "25W", "MAXN_SUPER"]
    assert found.how() == {"power_mode": "15W", "clocks": "not locked"}


def test_without_root_the_clocks_are_missing_and_nothing_else(install: Install) -> None:
    found = detect(install(board="jetson-orin-nano-super"))
    (missing,) = found.missing
    assert missing.startswith("whether the clocks are locked: `jetson_clocks --show` says 'Error: Run this script(")
    assert found.how() == {"power_mode": "15W"}


def test_in_a_container_what_it_hides_is_missing(install: Install) -> None:
    found = detect(install(board="jetson-orin-nano-super", container=True))
    said = "\n".join(found.missing)
    assert "the L4T version: `cat /etc/nv_tegra_release` says 'cat: /etc/nv_tegra_release: No such file" in said
    assert "the power mode: `nvpmodel -q` says 'NVPM ERROR" in said
    assert "CUDA's version: `dpkg-query -W`" in said
    assert (found.target.l4t, found.target.power_mode, found.target.cuda) == ("", "", "")
    assert found.target.compute_capability == "8.7"  # the device tree is the host's
    assert found.target.tensorrt == "10.3.0"  # trtexec's own
    assert any("container" in note for note in found.notes)


@pytest.mark.parametrize(
    ("board", "tensorrt", "capability", "jetpack"),
    [
        ("jetson-nano", "8.2.1", "5.3", "4.6.1 to 4.6.6"),
        ("jetson-agx-xavier", "8.5.2", "7.2", "5.1 to 5.1.6"),
        ("jetson-orin-nx-16", "8.6.2", "8.7", "6.0"),
        ("jetson-agx-orin-64", "10.16.2", "8.7", "7.2"),
        ("jetson-thor", "10.13.3", "11.0", "7.0"),
    ],
)
def test_boards_are_told_apart(board: str, tensorrt: str, capability: str, jetpack: str, install: Install) -> None:
    found = detect(install(board=board, root=True))
    assert (found.profile, found.missing, found.notes) == (board, (), ())
    assert (found.target.tensorrt, found.target.compute_capability) == (tensorrt, capability)
    assert found.release is not None
    assert found.release.jetpack == jetpack


def test_a_discrete_gpu_is_told_by_nvidia_smi(install: Install) -> None:
    found = detect(install(board="h200"))
    target = found.target
    assert (target.device, target.compute_capability, target.driver) == ("NVIDIA H200", "9.0", "570.124.06")
    assert (target.memory_mib, target.platform, target.power_mode) == (143771, "linux-x86_64", "limit 700 W")
    assert target.tensorrt == "10.16.2"  # no package, trtexec's
    assert found.profile == ""
    assert found.missing[0].startswith("CUDA's version: `dpkg-query -W` says 'dpkg-query: no packages found")


def test_thor_has_nvidia_smi_too(install: Install) -> None:
    assert detect(install(board="jetson-thor")).target.driver == "580.00"


def test_a_machine_that_answers_nothing_misses_everything() -> None:
    found = detection.detected({})
    assert (
        "the GPU: `nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total,clocks.sm,clocks.max.sm"
        in (found.missing[-1])
    )
    assert found.missing[0] == "TensorRT's version: no package and no trtexec say it"
    assert found.missing[1].startswith("trtexec: not in /usr/bin/trtexec, not in /usr/src/tensorrt/bin/trtexec")
    assert found.target.tensorrt == found.target.device == found.target.platform == ""
    assert found.how() == {}


def test_the_usual_tensorrt_of_a_jetpack_is_named_and_not_taken(install: Install) -> None:
    outputs = ask(install(board="jetson-orin-nano-super", root=True))
    gone = {
        name: Completed(127, "", "sh: 1: x: not found") for name in outputs if name.startswith(("trtexec", "packages"))
    }
    found = detection.detected({**outputs, **gone})
    assert found.target.tensorrt == ""
    assert found.missing[0] == "TensorRT's version: no package and no trtexec say it; JetPack 6.1 to 6.2 came with 10.3"


def test_versions_that_disagree_are_noted(install: Install) -> None:
    found = detect(install(board="jetson-orin-nano-super", tensorrt="10.7.0", root=True))
    assert found.notes == ("trtexec is of TensorRT 10.7.0, the library packages are of 10.3.0",)
    outputs = ask(install(board="jetson-orin-nano-super", root=True))
    packages = Completed(0, "libnvinfer10\t10.7.0.23-1\nlibnvinfer8\t8.6.2.3-1\ncuda-cudart-12-6\t1\n", "")
    notes = detection.detected({**outputs, "packages": packages}).notes
    assert notes == (
        "several TensorRT libraries are installed (libnvinfer10, libnvinfer8): the newest is meant",
        "trtexec is of TensorRT 10.3.0, the library packages are of 10.7.0",
        "JetPack 6.1 to 6.2 came with TensorRT 10.3, this has 10.7.0",
    )


@pytest.mark.parametrize(
    ("text", "capability", "memory", "count"),
    [
        (
            "NVIDIA L4, 550.1, 8.9, 23034, 210, 2040, 72.00\nNVIDIA L4, 550.1, 8.9, 23034, 210, 2040, 72.00\n",
            "8.9",
            23034,
            2,
        ),
        ("NVIDIA Thor, 580.00, 11.0, [N/A], 306, 1575, [N/A]\n", "11.0", None, 1),
        ("Orin (nvgpu), 540.4.0, [Not Supported], [N/A], [N/A], [N/A], [N/A]\n", "", None, 1),
        ('Field "compute_cap" is not a valid field to query.\n', "", None, 0),
        ("", "", None, 0),
    ],
)
def test_rows_of_nvidia_smi_are_read(text: str, capability: str, memory: int | None, count: int) -> None:
    rows = detection.gpus(text)
    assert len(rows) == count
    assert all((row.compute_capability, row.memory_mib) == (capability, memory) for row in rows)


def test_commands_need_no_shell() -> None:
    assert not any(set(part) & set("|&;<>$`\\\"'\n") for command in COMMANDS.values() for part in command)


def test_clocks_are_put_back_as_they_were(install: Install, start: Start, tmp_path: Path) -> None:
    folder = install(board="jetson-orin-nano-super", root=True)
    commands = jetson.clocks_commands(str(tmp_path / "clocks.conf"))
    show = {"clocks": COMMANDS["clocks"]}
    before = jetson.clocks(ask(folder, show)["clocks"].stdout)
    for command, locked in zip(commands, (False, True, False), strict=True):
        assert start([str(folder / command[0]), *command[1:]]).returncode == 0
        assert jetson.clocks(ask(folder, show)["clocks"].stdout)["GPU"].locked == locked
    assert jetson.clocks(ask(folder, show)["clocks"].stdout) == before


def test_a_power_mode_is_set_by_name(install: Install, start: Start) -> None:
    folder = install(board="jetson-agx-orin-64", root=True)
    command = jetson.mode_command("MODE_30W", detect(folder).modes)
    assert start([str(folder / command[0]), *command[1:]]).returncode == 0
    assert detect(folder).target.power_mode == "MODE_30W"


@pytest.mark.parametrize("board", ["jetson-nano", "jetson-agx-xavier", "jetson-orin-nano-super", "jetson-thor"])
def test_power_is_sampled_until_its_time_is_over(board: str, install: Install) -> None:
    outputs = ask(install(board=board), {"power": tuple(tegrastats.command(100, 1))})
    samples = tegrastats.samples(outputs["power"].stdout)
    trace = power.tegrastats_trace(samples, board=board, interval_ms=100)
    told = {"jetson-nano": 2000, "jetson-agx-xavier": 5258, "jetson-orin-nano-super": 5000, "jetson-thor": 28548}
    assert len(trace.milliwatts) >= 2
    assert set(trace.milliwatts) == {told[board]}


def test_power_of_a_card_is_sampled_by_nvidia_smi(install: Install) -> None:
    outputs = ask(install(board="h200"), {"power": tuple(power.smi_command(100, 1))})
    assert set(power.smi_trace(outputs["power"].stdout, interval_ms=100).milliwatts) == {78_500}


def test_energy_comes_from_power_while_the_engine_runs(install: Install, tmp_path: Path) -> None:
    """tegrastats beside trtexec: 5 W more than at rest, in the stand-ins' world."""
    board, interval = "jetson-orin-nano-super", 50
    folder = install(board=board, real_time=True)
    engine = tmp_path / "m.engine"
    engine.write_text(json.dumps({"tensorrt": "10.3.0", "dynamic": [], "verbosity": "detailed"}), encoding="utf-8")
    files = {"engine": str(engine), "version": "10.3.0", "times": str(tmp_path / "t.json")}
    spec = TimingSpec(seconds=2, iterations=10)
    running = subprocess.Popen(
        trtexec.compute_command(str(folder / "trtexec"), spec, **files), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not (folder / "running").exists() and running.poll() is None:
        time.sleep(0.01)
    loaded = ask(folder, {"power": tuple(tegrastats.command(interval, 1))})["power"].stdout
    assert running.wait(60) == 0
    rest = ask(folder, {"power": tuple(tegrastats.command(interval, 1))})["power"].stdout
    traces = [
        power.tegrastats_trace(tegrastats.samples(text), board=board, interval_ms=interval) for text in (loaded, rest)
    ]
    seconds = len(traces[0].milliwatts) * interval / 1000
    found = power.energy(traces[0], seconds=seconds, inferences=round(seconds * 500), idle=traces[1])
    assert (found.load_mw, found.idle_mw) == (10_000, 5_000)  # 2 ms an inference
    assert found.net_mj == pytest.approx(5_000 * seconds / round(seconds * 500))
