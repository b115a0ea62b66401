"""Estimates in plans and runs: said before, marked after, never in place of a measurement; and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.estimates.profiles import QUOTED, board, micro
from tests.estimates.small import network
from toolkit import pipeline
from toolkit.core import Measurement
from toolkit.devices import load_device
from toolkit.errors import UnsupportedError
from toolkit.estimates import expected
from toolkit.inspection import read_artifact
from toolkit.measuring import bench_files
from toolkit.plan import make_plan
from toolkit.recipe_reader import load_recipe

RECIPE = """
schema = 1
[data]
use = "digits"
preprocess = { scale = 0.0625 }
[data.splits]
calibration = 60
test = 300
[[variants]]
name = "int8"
passes = [{ use = "quantize", scheme = "int8" }]
export = ["tflite"]
[budget]
max_accuracy_drop = 0.2
max_latency_p50_ms = 1000
max_arena_kib = 1000
[[targets]]
device = "BOARD"
[[targets]]
device = "MICRO"
"""


def test_plan_says_what_the_estimate_will_rest_on(tmp_path: Path) -> None:
    profile = load_device(board(tmp_path, QUOTED.format(milliseconds=20)))
    (note,) = expected.to_plan([profile, profile], None)
    assert note == (
        "board: latency there will be estimated, not measured (core; 1 latency that others published of it)"
    )


def test_plan_says_that_nothing_is_estimated_where_vela_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.estimates.vela.version", lambda: None)
    (note,) = expected.to_plan([load_device("cortex-m55-ethos-u55")], None)
    assert note == (
        "cortex-m55-ethos-u55: latency there is not even estimated: "
        "ethos-u-vela is not installed (pip install 'edgekit[mcu]')"
    )


def test_plan_gives_the_estimate_of_a_source_that_is_a_file(tmp_path: Path) -> None:
    source = network(tmp_path / "net.tflite", int8=True)
    (note,) = expected.to_plan([load_device(board(tmp_path))], source)
    assert "; net.tflite as it is: " in note and " ms (" in note


def test_plan_is_silent_where_latency_is_measured_or_nothing_is_known() -> None:
    assert list(expected.to_plan([load_device("this-machine")], None)) == []


def test_measured_latency_is_never_replaced(tmp_path: Path) -> None:
    artifact = read_artifact(network(tmp_path / "net.tflite", int8=True))
    profile = load_device(board(tmp_path))
    timed = Measurement("net.tflite", "latency_p50_ms", 1.0, "ms", "measured", "board")
    assert expected.of_file(artifact, profile, [timed], threads=1) == ()
    (found,) = expected.of_file(artifact, profile, [replace(timed, device="other")], threads=1)
    assert (found.source, found.device, found.subject) == ("estimated", "board", "net.tflite")


def test_what_is_larger_than_the_device_is_said(tmp_path: Path) -> None:
    artifact = read_artifact(network(tmp_path / "net.tflite", int8=True))
    profile = load_device(micro(tmp_path))
    arena = Measurement("net.tflite", "arena_kib", 9.0, "KiB", "emulated", "micro")
    large = replace(artifact, size_bytes=2 << 20)
    assert list(expected.too_large(profile, large, [arena, replace(arena, device="other")])) == [
        "net.tflite has 2,048 KiB, micro has room for 1,024",
        "net.tflite needs 9 KiB of arena (emulated), micro has 8 KiB of memory",
    ]
    assert list(expected.too_large(profile, artifact, [replace(arena, value=7.0)])) == []


def test_scheme_that_is_not_estimated_is_refused_with_the_reason(tmp_path: Path) -> None:
    from toolkit.estimates.workload import check_scheme

    with pytest.raises(UnsupportedError, match="is dynamic: what its layers are computed in depends on the runtime"):
        check_scheme("x.tflite", "dynamic")


def test_bench_of_a_microcontroller_gives_its_arena_and_no_latency(tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro", reason="pip install 'edgekit[mcu]'")
    file = network(tmp_path / "net.tflite", int8=True)
    found = bench_files([file], device=str(micro(tmp_path)))
    (row,), (note,) = found["measurements"], found["notes"]
    assert (row["name"], row["source"]) == ("arena_kib", "emulated")
    assert "`edgekit device estimate net.tflite --device micro` does" in note
    with pytest.raises(UnsupportedError, match="no latency: tflite-micro on this machine says nothing"):
        bench_files([file], device=str(micro(tmp_path)), sustained=0.05)
    assert row["how"]["estimator"].startswith("least arena in which tflite-micro loads the file")


@pytest.fixture(scope="module")
def finished(digits_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("tflite_micro", reason="pip install 'edgekit[mcu]'")
    folder = tmp_path_factory.mktemp("estimated")
    text = RECIPE.replace("BOARD", str(board(folder))).replace("MICRO", str(micro(folder)))
    (folder / "r.toml").write_text(text)
    plan = make_plan(load_recipe(folder / "r.toml", model=digits_files["tflite"]))
    return plan, pipeline.run(folder / "r.toml", model=digits_files["tflite"], out=folder / "run")


def test_run_estimates_what_it_cannot_time_and_judges_it_inconclusive(finished: Any) -> None:
    plan, result = finished
    assert sum("will be estimated, not measured" in note for note in plan.notes) == 2
    found = {(m.subject, m.device): m for m in result.manifest.measurements if m.name == "latency_p50_ms"}
    assert {key: m.source for key, m in found.items()} == {
        (name, device): "estimated" for name in ("original.tflite", "int8.tflite") for device in ("board", "micro")
    }
    assert found["int8.tflite", "board"].value < found["int8.tflite", "micro"].value
    latency = [v for v in result.manifest.verdicts if v.gate == "max_latency_p50_ms"]
    assert {v.outcome for v in latency} == {"INCONCLUSIVE"}
    assert all(v.reason.startswith("only estimated (") for v in latency)


def test_run_answers_and_sizes_the_arena_by_tflite_micro(finished: Any) -> None:
    _, result = finished
    found = {(m.name, m.subject): m for m in result.manifest.measurements if m.device == "micro"}
    assert found["arena_kib", "int8.tflite"].source == found["top1", "int8.tflite"].source == "emulated"
    gates = {(v.device, v.gate): v for v in result.manifest.verdicts}
    assert gates["micro", "max_accuracy_drop"].outcome == "PASS"
    assert "tflite-micro on this machine" in gates["micro", "max_accuracy_drop"].reason
    assert gates["micro", "max_arena_kib"].outcome == "PASS"
    arenas = {name: found["arena_kib", name].value for name in ("original.tflite", "int8.tflite")}
    warned = [warning for warning in result.manifest.warnings if "KiB of arena (emulated)" in warning]
    assert len(warned) == sum(value > 8 for value in arenas.values())
