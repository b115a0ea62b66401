"""Engines built and timed on a device over SSH: an sshd on loopback, and stand-ins for trtexec and Jetson's programs.

Every number that the stand-ins give is synthetic; what is tested is what is asked of them, and what is made of it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.loopback import HOST, Loopback, serve
from toolkit.cli import cli
from toolkit.tensorrt import records

STAND_INS = Path(__file__).resolve().parent / "stand_ins"
ORIN = """
schema = 1
title = "Jetson Orin Nano 8 GB"
transport = "ssh"
arch = "aarch64"

[[runtimes]]
use = "onnxruntime"
formats = ["onnx"]
schemes = ["float32"]
"""

Tell = Callable[..., None]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    for path in STAND_INS.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
            text = path.read_text()
            # this Python itself, without site-packages: what `env python3` finds may be a slow shim
            (folder / path.name).write_text(text.replace("#!/usr/bin/env python3", f"#!{sys.executable} -IS", 1))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Loopback]:
    with serve(tmp_path_factory.mktemp("sshd"), programs=programs) as running:
        yield running


@pytest.fixture
def tell(programs: Path, server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Tell the stand-ins which device they are."""
    monkeypatch.setenv("PATH", f"{server.binaries}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def put(**told: Any) -> None:
        (programs / "stand_in.json").write_text(json.dumps({"tensorrt": "10.3.0", **told}))
        (programs / "state.json").unlink(missing_ok=True)

    put()
    return put


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("onnx") / "net.onnx", [1, 3, 8, 8])


def write(path: Path, shape: list[Any]) -> Path:
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "out")]
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["out"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    return path


def engine(model: Path, folder: Path, *options: Any, device: str = "jetson-orin-nano-super") -> Result:
    profile = folder / f"{device}.toml"
    profile.write_text(ORIN)
    arguments = ["engine", model, "--device", profile, "--ssh", HOST, "--out", folder / "net.engine", *options]
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_engine_comes_back_with_a_record_that_says_what_it_is_for(tell: Tell, model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "kept there.cache"  # the device is this machine
    result = engine(model, tmp_path, "--seconds", 0, "--timing-cache", cache)
    assert result.exit_code == 0, result.output
    assert cache.is_file()
    record = records.check(tmp_path / "net.engine", records.read(tmp_path / "net.engine").target)
    assert record.onnx_sha256 == records.sha256_of(model)
    assert (record.target.tensorrt, record.target.compute_capability, record.target.l4t) == ("10.3.0", "8.7", "36.4.3")
    assert record.builder == "trtexec"
    assert "--stronglyTyped" in record.flags
    assert not any(flag in record.flags for flag in ("--fp16", "--int8"))


def test_sparse_kernels_are_for_files_with_two_of_four(tell: Tell, model: Path, tmp_path: Path) -> None:
    from tests.worker.fakes.network import network

    result = engine(Path(network(tmp_path / "dense.onnx")), tmp_path, "--seconds", 0, "--sparse")
    assert result.exit_code == 2
    assert (
        'no layer of it has two zeros in every four input channels. Fix: sparsify with pattern = "2:4"' in result.output
    )
    result = engine(Path(network(tmp_path / "sparse.onnx", sparse=True)), tmp_path, "--seconds", 0, "--sparse")
    assert result.exit_code == 0, result.output
    assert "--sparsity=enable" in records.read(tmp_path / "net.engine").flags
    assert "2:4: trtexec does not say which layers use sparse kernels" in result.output


def test_timing_runs_are_apart_and_say_how_they_were_taken(tell: Tell, model: Path, tmp_path: Path) -> None:
    tell(compute_ms=2.0)
    result = engine(model, tmp_path, "--seconds", 0.2, "--power-seconds", 0, "--json")
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)["measurements"]}
    assert rows["gpu_compute_p50_ms"]["value"] == pytest.approx(2.0, rel=0.01)
    assert rows["latency_p50_ms"]["value"] == pytest.approx(2.31, rel=0.01)  # the stand-in's copies take 0.21 and 0.1
    assert rows["gpu_compute_cv"]["value"] < 0.01
    assert rows["throughput_per_s"]["how"]["estimator"] == "trtexec, two streams, transfers included"
    assert {row["source"] for row in rows.values()} == {"measured"}
    assert rows["gpu_compute_p50_ms"]["how"]["power_mode"]
    notes = json.loads(result.stdout)["notes"]
    assert any("--allow-sudo locks them" in note for note in notes)


def test_energy_is_that_of_the_timed_inferences_above_rest(tell: Tell, model: Path, tmp_path: Path) -> None:
    tell(compute_ms=2.0, real_time=True)
    result = engine(model, tmp_path, "--seconds", 0.1, "--power-seconds", 3, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = {row["name"]: row for row in found["measurements"]}
    assert "energy_per_inference_mj" in rows, found["notes"]
    how = rows["energy_per_inference_mj"]["how"]
    assert (how["idle_mw"], how["rails"], how["sampling_ms"]) == (5000.0, "VDD_IN", 100)
    each = how["power_mw"] / 1000 * 2.0  # mW x ms
    assert rows["energy_per_inference_mj"]["value"] == pytest.approx(each, rel=0.05)
    assert 9000 < how["power_mw"] <= 10000  # the stand-in takes 5 W more while it works
    net = rows["energy_per_inference_net_mj"]["value"]
    assert net == pytest.approx(rows["energy_per_inference_mj"]["value"] - 5.0 * 2.0, rel=0.05)


def test_clocks_are_locked_with_sudo_alone_and_put_back(
    tell: Tell, programs: Path, model: Path, tmp_path: Path
) -> None:
    tell(sudo=True)
    result = engine(model, tmp_path, "--seconds", 0.1, "--power-seconds", 0, "--allow-sudo", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["measurements"]
    assert {row["how"]["clocks"] for row in rows} == {"locked"}
    assert json.loads((programs / "state.json").read_text())["locked"] is False


def test_refused_sudo_is_said_and_nothing_is_locked(tell: Tell, programs: Path, model: Path, tmp_path: Path) -> None:
    result = engine(model, tmp_path, "--seconds", 0.1, "--power-seconds", 0, "--allow-sudo", "--json")
    assert result.exit_code == 0, result.output
    assert any("clocks could not be locked" in note for note in json.loads(result.stdout)["notes"])
    assert not (programs / "state.json").exists()


@pytest.mark.parametrize("version", ["8.2.1", "8.5.2", "8.6.2", "10.3.0", "10.16.2", "11.4.1"])
def test_every_version_builds_and_is_timed_by_options_it_has(
    tell: Tell, model: Path, tmp_path: Path, version: str
) -> None:
    tell(tensorrt=version)
    result = engine(model, tmp_path, "--seconds", 0.1, "--power-seconds", 0, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["record"]["target"]["tensorrt"] == version


def test_another_device_than_the_profile_says_is_refused(tell: Tell, model: Path, tmp_path: Path) -> None:
    result = engine(model, tmp_path, device="jetson-agx-orin-64")
    assert result.exit_code == 2
    assert "the device there is NVIDIA Jetson Orin Nano" in result.stderr
    assert "use --device jetson-orin-nano-super" in result.stderr


def test_free_batch_asks_for_its_range(tell: Tell, tmp_path: Path) -> None:
    free = write(tmp_path / "free.onnx", ["batch", 3, 8, 8])
    result = engine(free, tmp_path)
    assert result.exit_code == 2
    assert "has free dimensions (?x3x8x8)" in result.stderr
    assert "give --batch LEAST,USUAL,MOST" in result.stderr
    result = engine(free, tmp_path, "--batch", "1,2,4", "--seconds", 0.1, "--power-seconds", 0, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert "--optShapes=image:2x3x8x8" in found["record"]["flags"]
    assert {row["how"]["batch"] for row in found["measurements"]} == {2}


def test_errors_of_a_build_come_whole_and_leave_no_engine(tell: Tell, model: Path, tmp_path: Path) -> None:
    tell(build_errors=["[TRT] first thing", "[TRT] second thing"])
    result = engine(model, tmp_path)
    assert result.exit_code == 2
    assert "first thing" in result.stderr
    assert "second thing" in result.stderr
    assert [path.name for path in tmp_path.iterdir() if "engine" in path.name] == []


def test_device_with_neither_trtexec_nor_python_bindings_says_so(
    tell: Tell, programs: Path, model: Path, tmp_path: Path
) -> None:
    (programs / "trtexec").rename(programs / "hidden")
    try:
        result = engine(model, tmp_path)
    finally:
        (programs / "hidden").rename(programs / "trtexec")
    assert result.exit_code == 3
    assert "neither trtexec nor TensorRT for Python is there" in result.stderr
    assert "install TensorRT on the device" in result.stderr


def test_dla_that_the_board_lacks_is_refused_before_a_build(tell: Tell, model: Path, tmp_path: Path) -> None:
    result = engine(model, tmp_path, "--dla", 0)
    assert result.exit_code == 2
    assert "has no DLA core" in result.stderr


def test_engine_built_before_is_timed_where_it_fits_and_refused_elsewhere(
    tell: Tell, model: Path, tmp_path: Path
) -> None:
    built = tmp_path / "net.engine"
    assert engine(model, tmp_path, "--seconds", 0).exit_code == 0
    board = tmp_path / "jetson-orin-nano-super.toml"
    again = ["engine", built, "--device", board, "--ssh", HOST, "--seconds", 0.1, "--power-seconds", 0]
    result = CliRunner().invoke(cli, list(map(str, again)))
    assert result.exit_code == 0, result.output
    assert "gpu_compute_p50_ms" in result.stdout
    tell(tensorrt="10.16.2")
    result = CliRunner().invoke(cli, list(map(str, again)))
    assert result.exit_code == 2
    assert "built by TensorRT 10.3.0, the target has 10.16.2" in result.stderr
    assert "edgekit engine MODEL.onnx --device" in result.stderr


def test_engine_of_others_is_refused_unless_it_is_named(
    tell: Tell, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = tmp_path / "net.engine"
    assert engine(model, tmp_path, "--seconds", 0).exit_code == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    again = ["engine", built, "--device", tmp_path / "jetson-orin-nano-super.toml", "--ssh", HOST, "--seconds", 0.1]
    again += ["--power-seconds", 0]
    result = CliRunner().invoke(cli, list(map(str, again)))
    assert result.exit_code == 2
    assert "was not built by this user, and an engine is code" in result.stderr
    digest = records.sha256_of(built)
    result = CliRunner().invoke(cli, [*map(str, again), "--allow-engine", digest])
    assert result.exit_code == 0, result.output


def test_file_that_tensorrt_refuses_is_not_sent(tell: Tell, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3, 8, 8])
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1])
    zero = helper.make_tensor("zero", TensorProto.UINT8, [], [128])
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["out"]),
    ]
    graph = helper.make_graph(nodes, "g", [image], [out], [scale, zero])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "asymmetric.onnx")
    result = engine(tmp_path / "asymmetric.onnx", tmp_path)
    assert result.exit_code == 2
    assert "TensorRT 10.3.0 would refuse it" in result.stderr
    assert "edgekit inspect" in result.stderr


def test_profile_of_ones_own_name_is_taken_for_the_device_there(tell: Tell, model: Path, tmp_path: Path) -> None:
    result = engine(model, tmp_path, "--seconds", 0, device="jetson-on-my-desk")
    assert result.exit_code == 0, result.output


def test_engine_is_only_held_against_the_device_when_nothing_is_to_be_timed(
    tell: Tell, model: Path, tmp_path: Path
) -> None:
    assert engine(model, tmp_path, "--seconds", 0).exit_code == 0
    board = tmp_path / "jetson-orin-nano-super.toml"
    again = ["engine", tmp_path / "net.engine", "--device", board, "--ssh", HOST, "--seconds", 0, "--json"]
    result = CliRunner().invoke(cli, list(map(str, again)))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["measurements"] == []
