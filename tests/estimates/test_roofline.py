"""Estimates of files on profiles: what they rest on, what they refuse, what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.estimates.profiles import QUOTED, board
from tests.estimates.small import network
from toolkit.checks import gate
from toolkit.cli_estimates import estimate as command
from toolkit.core import Budget
from toolkit.devices import load_device
from toolkit.errors import InputError, UnsupportedError
from toolkit.estimates import estimated
from toolkit.estimates.architectures import layers_of
from toolkit.estimates.roofline import estimate
from toolkit.estimates.workload import read

MOBILE = layers_of("mobilenet_v1_1.0_224", "int8")


def test_published_latency_of_the_same_model_pulls_the_estimate_to_it(tmp_path: Path) -> None:
    bare = estimate(load_device(board(tmp_path)), MOBILE, threads=4)
    far = 5 * bare.milliseconds
    told = estimate(load_device(board(tmp_path, QUOTED.format(milliseconds=far))), MOBILE, threads=4)
    assert bare.milliseconds < told.milliseconds < far
    assert told.high / told.low < bare.high / bare.low
    assert told.based_on == "1 latency that others published of it"


def test_layers_add_up_to_the_estimate(tmp_path: Path) -> None:
    found = estimate(load_device(board(tmp_path)), MOBILE)
    assert sum(layer.milliseconds for layer in found.layers) == pytest.approx(found.milliseconds)
    assert found.share_of("memory") + found.share_of("compute") == pytest.approx(1)
    assert found.low < found.milliseconds < found.high


def test_estimate_is_marked_and_never_passes_a_latency_gate(tmp_path: Path) -> None:
    (number,) = estimate(load_device(board(tmp_path)), MOBILE).measurements("a.tflite", "board")
    assert number.source == "estimated"
    assert number.interval is not None and number.interval.confidence == 0
    facts = gate.gather([number], "a.tflite", "board")
    (verdict,) = gate.judge("a.tflite", "board", budget=Budget(max_latency_p50_ms=1e6), facts=facts)
    assert verdict.outcome == "INCONCLUSIVE"
    assert f"only estimated ({number.value:.3g} ms, " in verdict.reason


def test_other_processor_is_chosen_by_name(tmp_path: Path) -> None:
    profile = load_device(board(tmp_path))
    assert estimate(profile, MOBILE, processor="accelerator").processor == "accelerator"
    with pytest.raises(InputError, match="no such one, got 'tpu'"):
        estimate(profile, MOBILE, processor="tpu")


def test_arithmetic_that_the_processor_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="computes no float32"):
        estimate(load_device(board(tmp_path)), layers_of("resnet8_32", "float32"), processor="accelerator")


def test_profile_without_processors_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"no \[\[processors\]\]"):
        estimate(load_device("this-machine"), MOBILE)


def test_command_prints_the_estimate_with_its_range_and_what_it_rests_on(tmp_path: Path) -> None:
    path, device = network(tmp_path / "net.tflite", int8=True), str(board(tmp_path))
    said = CliRunner().invoke(command, [str(path), "--device", device])
    assert said.exit_code == 0
    assert "net.tflite on board: " in said.output and "[estimated]" in said.output
    told = json.loads(CliRunner().invoke(command, [str(path), "--device", device, "--json"]).output)
    (row,) = told["measurements"]
    wanted = estimate(load_device(device), read(path))
    assert row["value"] == wanted.milliseconds
    assert row["interval"]["low"] == wanted.low


def test_note_says_where_the_file_would_not_run_there(tmp_path: Path) -> None:
    path = network(tmp_path / "net.tflite", int8=True)
    lacking = load_device(board(tmp_path, "")).model_copy(update={"storage_kib": 1})
    assert list(estimated.notes(path, load_device(board(tmp_path, "")))) == []
    assert list(estimated.notes(path, lacking)) == [
        f"net.tflite has {path.stat().st_size / 1024:,.0f} KiB, board has room for 1"
    ]
    other = path.rename(tmp_path / "net.onnx")
    assert list(estimated.notes(other, load_device(board(tmp_path, "")))) == [
        "board runs no .onnx files, only tflite: export the model so"
    ]
