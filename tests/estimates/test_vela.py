"""Vela's own figures, read from what it writes: counted again by hand where they can be, and its refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.estimates.profiles import board
from tests.estimates.small import network
from toolkit.cli_estimates import estimate as command
from toolkit.errors import InputError, UnavailableError, UnsupportedError
from toolkit.estimates import vela
from toolkit.hardware import Vela

TARGET = Vela(accelerator="ethos-u55-256", system_config="Ethos_U55_High_End_Embedded", memory_mode="Shared_Sram")
ETHOS = """
[[processors]]
name = "Ethos-U55-256"
kind = "npu"
cores = 1
clock_ghz = 0.5
macs_per_cycle = { int8 = 256 }
vela = { accelerator = "ethos-u55-256", system_config = "Ethos_U55_High_End_Embedded", memory_mode = "Shared_Sram" }
source = "made up"
"""
needs_vela = pytest.mark.skipif(vela.version() is None, reason="pip install 'edgekit[mcu]'")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("vela") / "net.tflite", int8=True)


@needs_vela
def test_time_is_the_cycles_at_the_clock_of_the_configuration(file: Path) -> None:
    found = vela.compile_file(file, TARGET)
    assert found.milliseconds == pytest.approx(found.cycles / 500e6 * 1000, rel=1e-3)  # 500 MHz, in vela.ini
    # the network's MACs by hand: conv, depthwise, dense; Vela also counts pooling and softmax
    assert found.macs >= 8 * 8 * 4 * 27 + 4 * 4 * 4 * 9 + 12
    assert found.sram_kib * 1024 >= 8 * 8 * 3
    assert (found.cpu_operators, found.on_cpu) == (0, ())
    assert {row.source for row in found.measurements("net", "board")} == {"estimated"}


@needs_vela
def test_smaller_accelerator_takes_more_cycles_of_computing(file: Path) -> None:
    small = TARGET.model_copy(update={"accelerator": "ethos-u55-32"})
    assert vela.compile_file(file, small).cycles > vela.compile_file(file, TARGET).cycles


@needs_vela
def test_file_of_which_nothing_runs_there_is_refused_with_vela_s_reason(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"nothing of it would run on ethos-u55-256: .*Float32"):
        vela.compile_file(network(tmp_path / "net.tflite", int8=False), TARGET)


@needs_vela
@pytest.mark.parametrize("option", ["system_config", "memory_mode"])
def test_unknown_configuration_is_named(file: Path, option: str) -> None:
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')}: .*got 'Nope'"):
        vela.compile_file(file, TARGET.model_copy(update={option: "Nope"}))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cut.tflite", None, "is not a readable .tflite file"),
        ("empty.tflite", b"", "is empty"),
        ("text.tflite", b"hello, world", "is damaged or not a .tflite file"),
        ("net.onnx", b"hello, world", "is no .tflite file, and Vela takes no other"),
    ],
)
def test_wrong_file_is_said_in_our_own_words(
    file: Path, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    (tmp_path / name).write_bytes(file.read_bytes()[:300] if content is None else content)
    with pytest.raises(InputError, match=re.escape(f"{name}: {words}")):
        vela.compile_file(tmp_path / name, TARGET)


def test_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"net\.tflite: no such file"):
        vela.compile_file(tmp_path / "net.tflite", TARGET)


def test_operators_left_to_the_cpu_are_read_with_their_reasons() -> None:
    said = (
        "Warning (supported operators) operator: QUANTIZE, ofm: 'q'\nReason: Operation has tensor Float32 (x)\n"
        "Feature-map dataTypes must be one of {...}\n\nCPU operators = 1 (2.0%)\nNPU operators = 49 (98.0%)\n"
    )
    row = {
        **dict.fromkeys(("on_chip_flash_memory_used", "dram_memory_used"), "0.0"),
        "off_chip_flash_memory_used": "77.5",
        "inference_time": "0.000283994",
        "cycles_total": "141997",
        "sram_memory_used": "50.625",
        "nn_macs": "12505748",
    }
    found = vela._read(row, said, TARGET, "5.2.0")
    assert (found.npu_operators, found.cpu_operators) == (49, 1)
    assert found.on_cpu == ("QUANTIZE 'q' (Operation has tensor Float32 (x))",)
    how = found.measurements("net", "board")[0].how
    assert how["on the CPU"] == "QUANTIZE 'q' (Operation has tensor Float32 (x))"
    assert "whose time is not in it" in how["operators"]


def test_absent_vela_is_said_with_its_install_command(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "version", lambda: None)
    with pytest.raises(UnavailableError, match=r"pip install 'edgekit\[mcu\]'"):
        vela.compile_file(file, TARGET)


@needs_vela
def test_command_asks_vela_for_an_ethos_u_and_takes_its_options(file: Path, tmp_path: Path) -> None:
    device = str(board(tmp_path, ETHOS))
    told = ["--device", device, "--processor", "Ethos-U55-256", "--memory-mode", "Sram_Only"]
    said = CliRunner().invoke(command, [str(file), *told])
    assert said.exit_code == 0, said.output
    assert "[estimated by Vela" in said.output and "Sram_Only" in said.output
    other = CliRunner().invoke(command, [str(file), "--device", device, "--memory-mode", "Sram_Only"])
    assert isinstance(other.exception, InputError) and "is for an Ethos-U" in str(other.exception)


def test_threads_of_an_ethos_u_are_refused(file: Path, tmp_path: Path) -> None:
    told = ["--device", str(board(tmp_path, ETHOS)), "--processor", "Ethos-U55-256", "--threads", "2"]
    said = CliRunner().invoke(command, [str(file), *told])
    assert isinstance(said.exception, InputError) and str(said.exception).startswith("--threads: ")
