"""What a microcontroller's program is given: an array that compiles to the file, methods by their names."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.estimates.small import Network, network
from toolkit.cli_estimates import micro as command
from toolkit.errors import InputError, UnsupportedError
from toolkit.estimates import micro

OPERATORS = ("AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "SOFTMAX")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("micro") / "net.tflite", int8=True)


def test_operators_are_registered_by_their_methods(file: Path) -> None:
    found = micro.needs(file)
    assert found.operators == OPERATORS
    wanted = ("AddAveragePool2D", "AddConv2D", "AddDepthwiseConv2D", "AddFullyConnected", "AddSoftmax")
    assert found.calls == wanted
    text = micro.sources(file)["model_ops.h"]
    assert "MicroMutableOpResolver<5>" in text
    assert all(f"resolver.{call}()" in text for call in wanted)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("PADV2", "PadV2"),
        ("L2_POOL_2D", "L2Pool2D"),
        ("SPLIT_V", "SplitV"),
        ("CUSTOM:ethos-u", "EthosU"),
        ("RELU6", "Relu6"),
    ],
)
def test_methods_have_the_names_of_the_header(kind: str, method: str) -> None:
    assert micro._method(kind) == method


def test_arena_is_that_of_tflite_micro(file: Path) -> None:
    pytest.importorskip("tflite_micro", reason="pip install 'edgekit[mcu]'")
    found = micro.needs(file)
    assert found.arena_bytes is not None and found.arena_bytes % 16 == 0
    assert f"kArenaBytes = {found.arena_bytes};" in micro.sources(file)["model_data.h"]


def test_arena_is_left_out_and_said_to_be_unknown_without_tflite_micro(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro.TFLiteMicro, "version", lambda self: None)
    text = micro.sources(file)["model_data.h"]
    assert "constexpr" not in text
    assert "kArenaBytes is unknown: tflite-micro is not installed" in text
    first = next(iter(micro.needs(file).lines("net.tflite")))
    assert "arena unknown: " in first and "edgekit[mcu]" in first
    assert "emulated" not in first  # nothing was


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_array_compiles_to_the_bytes_of_the_file(file: Path, tmp_path: Path) -> None:
    for name, text in micro.sources(file).items():
        (tmp_path / name).write_text(text)
    main = '#include <cstdio>\n#include "model_data.h"\nint main() { fwrite(g_model, 1, g_model_size, stdout); }\n'
    (tmp_path / "main.cc").write_text(main)
    sources = ["main.cc", "model_data.cc"]
    subprocess.run(["g++", "-std=c++17", "-Wall", "-Werror", "-o", "dump", *sources], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "dump"], check=True, capture_output=True).stdout == file.read_bytes()


def test_operator_without_a_kernel_is_named(tmp_path: Path) -> None:
    net = Network(int8=False)
    one, two = net.tensor("one", (1, 4)), net.tensor("two", (1, 4))
    net.op("ATAN2", [one, one], [two])
    path = tmp_path / "odd.tflite"
    path.write_bytes(net.pack([one], [two]))
    with pytest.raises(UnsupportedError, match="no kernel for ATAN2"):
        micro.needs(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        micro.needs(tmp_path / "none.tflite")
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"no \.tflite file"):
        micro.needs(tmp_path / "net.onnx")


def test_command_prints_what_to_paste_and_writes_the_sources(file: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(command, [str(file), "--out", str(tmp_path / "src")])
    assert said.exit_code == 0, said.output
    assert "resolver.AddDepthwiseConv2D();" in said.output
    assert sorted(path.name for path in (tmp_path / "src").iterdir()) == sorted(micro.sources(file))
    again = CliRunner().invoke(command, [str(file), "--out", str(tmp_path / "src")])
    assert again.exit_code != 0  # nothing is written over
