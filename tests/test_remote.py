"""Devices over SSH as a user has them: bench, and a recipe judged there, by `--ssh`; loopback is the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.loopback import HOST, Loopback, serve
from tests.terminal import HIDE, SHOW, Terminal
from toolkit.cli import cli

BOARD = """
schema = 1
title = "A board"
transport = "ssh"
python = "PYTHON"
arch = "any"

[[runtimes]]
use = "litert"
formats = ["tflite"]
schemes = ["float32", "int8"]
delegates = ["xnnpack"]

[[runtimes]]
use = "onnxruntime"
formats = ["onnx"]
schemes = ["float32", "int8"]
delegates = ["cpu"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with serve(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def board(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{server.binaries}:{os.environ['PATH']}")
    path = tmp_path / "board.toml"
    path.write_text(BOARD.replace("PYTHON", sys.executable))
    return path


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_bench_measures_there_and_names_the_device(finished: Any, board: Path) -> None:
    file = finished.folder / "artifacts" / "int8.tflite"
    result = invoke("bench", file, "--device", board, "--ssh", HOST, "--processes", 2, "--seconds", 0.02, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["measurements"]
    assert {(row["device"], row["source"], row["subject"]) for row in rows} == {("board", "measured", "int8.tflite")}
    assert rows[0]["how"]["version"]


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_while_a_device_is_timing_ends_what_runs_there(
    finished: Any, board: Path, server: Loopback, presses: int
) -> None:
    file = finished.folder / "artifacts" / "int8.tflite"
    command = [sys.executable, "-m", "toolkit", "bench", str(file), "--device", str(board), "--ssh", HOST]
    watched = Terminal([*command, "--processes", "2", "--seconds", "50"])
    watched.wait_for(lambda text: "timing int8.tflite, process 1" in text and bool(workers(server)))
    for _ in range(presses):
        watched.press_ctrl_c()
    code, stdout = watched.end()
    assert (code, stdout) == (130, "")
    assert watched.seen.rfind(SHOW) > watched.seen.rfind(HIDE)
    assert any((not workers(server) and not left(server)) or time.sleep(0.1) for _ in range(300))


def workers(server: Loopback) -> list[str]:
    """Programs that run there, out of its folder for temporary files."""
    found = subprocess.run(["pgrep", "-f", f"{server.temporary}/.*job-"], capture_output=True, text=True, check=False)
    return found.stdout.split()


def left(server: Loopback) -> list[str]:
    return [path.name for path in server.temporary.iterdir() if not path.name.startswith("edgekit-lease-")]


def test_bench_without_a_host_says_what_to_give(finished: Any, board: Path) -> None:
    result = invoke("bench", finished.folder / "artifacts" / "int8.tflite", "--device", board)
    assert result.exit_code == 3
    assert "nobody said where it is. Fix: give --ssh board=USER@HOST" in result.stderr


def test_run_is_judged_on_the_device_and_keeps_no_host(
    finished: Any, board: Path, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    import shutil

    shutil.copytree(finished.folder, tmp_path / "run")
    arguments = ("run", recipe_file, "--model", digits_model, "--resume", tmp_path / "run", "--device", board)
    result = invoke(*arguments, "--ssh", f"board={HOST}", "--set", "budget.max_latency_p50_ms=1000", "--json")
    assert result.exit_code == 0, result.stderr
    manifest = json.loads(result.stdout)
    here = {(m.subject, m.name): m.value for m in finished.manifest.measurements if m.device == "this-machine"}
    there = {(m["subject"], m["name"]): m["value"] for m in manifest["measurements"] if m["device"] == "board"}
    assert there["int8.tflite", "top1"] == here["int8.tflite", "top1"]  # the same machine, after all
    assert {v["device"] for v in manifest["verdicts"]} == {"board"}
    assert (tmp_path / "run" / "manifest.json").read_text().count(f'{HOST}"') == 0


def boards(board: Path, count: int) -> list[Path]:
    """As many profiles of that host, each a device of its own name."""
    made = [board.with_name(f"board-{number}.toml") for number in range(count)]
    for path in made:
        path.write_text(board.read_text())
    return made


def options(paths: list[Path]) -> list[Any]:
    return [part for path in paths for part in ("--device", path, "--ssh", f"{path.stem}={HOST}")]


@pytest.fixture
def again(finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path) -> list[Any]:
    """The command that takes up a copy of the finished run, to be told the devices."""
    import shutil

    shutil.copytree(finished.folder, tmp_path / "run")
    return ["run", recipe_file, "--model", digits_model, "--resume", tmp_path / "run"]


def test_several_devices_work_at_once_and_are_timed_one_after_the_other(again: list[Any], board: Path) -> None:
    result = invoke(*again, *options(boards(board, 4)), "--set", "budget.max_latency_p50_ms=1000", "--json")
    assert result.exit_code == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith(("timing ", "timed on"))]
    assert len(said) == 8
    for begun, ended in zip(said[::2], said[1::2], strict=True):  # one physical host: never two at once
        assert (begun.rpartition(" on ")[2], begun[:7]) == (ended.rpartition(" on ")[2], "timing ")
    manifest = json.loads(result.stdout)
    verdicts = {(v["device"], v["gate"], v["outcome"]) for v in manifest["verdicts"]}
    assert {(f"board-{n}", "max_latency_p50_ms", "PASS") for n in range(4)} <= verdicts
    agreed = [m for m in manifest["measurements"] if m["name"] == "host_agreement"]
    assert {m["device"] for m in agreed} == {f"board-{n}" for n in range(4)}
    assert {m["value"] for m in agreed} == {1.0}  # the same machine, after all
    assert all("kernels" in m["how"] and "kernels" in m["how"]["host"] for m in agreed)


def test_a_device_that_fails_is_inconclusive_and_does_not_stop_the_others(again: list[Any], board: Path) -> None:
    good, bad = boards(board, 2)
    bad.write_text(bad.read_text().replace(sys.executable, "/no/such/python"))
    result = invoke(*again, *options([good, bad]), "--set", "budget.max_latency_p50_ms=1000", "--json")
    assert result.exit_code == 4, result.stderr
    manifest = json.loads(result.stdout)
    assert {v["outcome"] for v in manifest["verdicts"] if v["device"] == "board-0"} == {"PASS"}
    timed = next(v for v in manifest["verdicts"] if v["device"] == "board-1" and "latency" in v["gate"])
    assert timed["outcome"] == "INCONCLUSIVE"
    assert "/no/such/python: is not there" in timed["reason"]
    assert not [m for m in manifest["measurements"] if m["device"] == "board-1"]


def test_a_device_nobody_reached_is_judged_on_the_answers_of_this_machine(again: list[Any], board: Path) -> None:
    near, far = boards(board, 2)
    result = invoke(*again, *options([near]), "--device", far, "--set", "budget.max_latency_p50_ms=1000", "--json")
    assert result.exit_code == 4, result.stderr
    outcomes = {
        (v["device"], v["gate"]): v["outcome"]
        for v in json.loads(result.stdout)["verdicts"]
        if v["artifact"] == "int8.tflite"
    }
    assert outcomes["board-1", "max_accuracy_drop"] == outcomes["board-0", "max_accuracy_drop"] == "PASS"
    assert outcomes["board-1", "max_latency_p50_ms"] == "INCONCLUSIVE"


def test_where_every_device_fails_the_run_does(again: list[Any], board: Path) -> None:
    bad = boards(board, 2)
    for path in bad:
        path.write_text(path.read_text().replace(sys.executable, "/no/such/python"))
    result = invoke(*again, *options(bad))
    assert result.exit_code == 3
    assert "/no/such/python: is not there" in result.stderr


def test_phone_without_python_is_timed_there_and_judged_on_the_answers_here(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    import shutil

    stand_in = Path(__file__).parent / "worker" / "fakes" / "benchmark_model.py"
    program = tmp_path / "benchmark_model"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} "$@"\n')
    program.chmod(0o755)
    phone = tmp_path / "phone.toml"
    told = f'transport = "local"\nbenchmark_model = "{program}"\npython = ""'
    phone.write_text(BOARD.replace('transport = "ssh"\npython = "PYTHON"', told))
    shutil.copytree(finished.folder, tmp_path / "run")
    arguments = ("run", recipe_file, "--model", digits_model, "--resume", tmp_path / "run", "--device", phone)
    limits = ("--set", "budget.max_latency_p50_ms=1000", "--set", "budget.min_agreement=0.5")
    result = invoke(*arguments, *limits, "--json")
    assert result.exit_code == 4, result.stderr  # .onnx files are not timed: INCONCLUSIVE
    manifest = json.loads(result.stdout)
    there = {(m["subject"], m["name"]): m for m in manifest["measurements"] if m["device"] == "phone"}
    here = {(m["subject"], m["name"]) for m in manifest["measurements"] if m["device"] == "this-machine"}
    assert there["int8.tflite", "latency_p50_ms"]["how"]["tool"] == "benchmark_model"
    assert ("int8.tflite", "top1") in here and ("int8.tflite", "top1") not in there
    verdicts = {(v["artifact"], v["gate"]): v["outcome"] for v in manifest["verdicts"] if v["device"] == "phone"}
    assert verdicts["int8.tflite", "max_latency_p50_ms"] == "PASS"
    assert verdicts["int8.tflite", "min_agreement"] == verdicts["int8.onnx", "min_agreement"] == "PASS"
    assert verdicts["int8.onnx", "max_latency_p50_ms"] == "INCONCLUSIVE"
    assert any("benchmark_model runs .tflite: " in warning for warning in manifest["warnings"])


def test_runtime_missing_or_too_old_there_is_one_line_with_what_to_do(
    finished: Any, board: Path, tmp_path: Path
) -> None:
    import subprocess

    file = finished.folder / "artifacts" / "int8.tflite"
    newer = tmp_path / "newer.toml"
    newer.write_text(board.read_text().replace('use = "litert"', 'use = "litert"\nversion = "99.1"'))
    result = invoke("bench", file, "--device", newer, "--ssh", HOST)
    assert result.exit_code == 3
    assert "newer: has litert " in result.stderr and ", too old: its profile speaks of 99.1. Fix: " in result.stderr
    assert "-m pip install --upgrade ai-edge-litert" in result.stderr
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    bare = tmp_path / "bare.toml"
    bare.write_text(board.read_text().replace(sys.executable, str(tmp_path / "bare" / "bin" / "python")))
    result = invoke("bench", file, "--device", bare, "--ssh", HOST)
    assert result.exit_code == 3
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "litert: numpy is missing: No module named 'numpy'. Fix: " in line
    assert line.endswith(f"{tmp_path}/bare/bin/python -m pip install ai-edge-litert.")
