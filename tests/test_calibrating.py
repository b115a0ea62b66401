"""`device calibrate`: latencies of a made-up board are learned from; copies are written whole, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.estimates.profiles import board
from tests.estimates.small import network
from toolkit import runs
from toolkit.calibrating import calibrate_profile
from toolkit.cli import cli
from toolkit.devices import load_device, shipped
from toolkit.errors import EdgekitError, InputError
from toolkit.estimates import workload
from toolkit.estimates.roofline import estimate


def bench(folder: Path, milliseconds: float, **more: Any) -> Path:
    """What `edgekit bench --json` would have printed of net.tflite on the board."""
    network(folder / "net.tflite", int8=True)
    row = {"subject": "net.tflite", "name": "latency_p50_ms", "value": milliseconds, "unit": "ms", "source": "measured"}
    path = folder / "bench.json"
    rows = [{**row, "device": "board", "interval": None, "how": {"threads": 2}, **more}]
    path.write_text(json.dumps({"device": "board", "measurements": rows}))
    return path


def test_estimate_of_a_timed_file_comes_near_its_latency_and_its_range_narrows(tmp_path: Path) -> None:
    profile = load_device(board(tmp_path))
    layers = workload.read(network(tmp_path / "net.tflite", int8=True))
    before = estimate(profile, layers, threads=2)
    true = 4 * before.milliseconds
    found = calibrate_profile(str(tmp_path / "board.toml"), [bench(tmp_path, true)], out=tmp_path / "mine.toml")
    after = estimate(load_device(tmp_path / "mine.toml"), layers, threads=2)
    assert found.found.before == (pytest.approx(0.25),)
    assert found.found.after == (pytest.approx(after.milliseconds / true, rel=1e-3),)
    assert 0.7 < after.milliseconds / true < 1.1
    assert after.high / after.low < before.high / before.low
    assert after.based_on == "calibrated: 1 latency measured by Edgekit (net.tflite)"


def test_copy_keeps_the_profile_s_name_and_text(tmp_path: Path) -> None:
    source = board(tmp_path)
    calibrate_profile(str(source), [bench(tmp_path, 1.0)], out=tmp_path / "mine.toml")
    made = load_device(tmp_path / "mine.toml")
    assert made.name == "board"
    assert made.model_copy(update={"efficiency": ()}) == load_device(source)
    assert {item.arithmetic for item in made.efficiency} == {"float32", "int8", None}


def test_several_sources_are_learned_from_together(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    sources = [bench(tmp_path / name, 1.0) for name in ("one", "two")]
    found = calibrate_profile(str(board(tmp_path)), sources, out=tmp_path / "mine.toml")
    assert len(found.found.timed) == 2


def test_calibrated_profile_is_not_calibrated_again(tmp_path: Path) -> None:
    source = bench(tmp_path, 1.0)
    calibrate_profile(str(board(tmp_path)), [source], out=tmp_path / "mine.toml")
    with pytest.raises(InputError, match="is calibrated already"):
        calibrate_profile(str(tmp_path / "mine.toml"), [source], out=tmp_path / "again.toml")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"source": "emulated"}, "net.tflite is emulated"),
        ({"device": "other"}, "holds no latency measured on board"),
        ({"subject": "gone.tflite"}, "gone.tflite no such file"),
        ({"name": "latency_p90_ms"}, "holds no latency measured on board"),
    ],
)
def test_what_is_no_measurement_of_it_is_refused(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        calibrate_profile(str(board(tmp_path)), [bench(tmp_path, 1.0, **more)], out=tmp_path / "mine.toml")
    assert not (tmp_path / "mine.toml").exists()


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"measurements": [{"subject": 1}]}', "\x00"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(InputError, match="neither a run directory nor what"):
        calibrate_profile(str(board(tmp_path)), [tmp_path / "odd.json"], out=tmp_path / "mine.toml")


def test_nothing_is_written_over_or_among_the_shipped_profiles(tmp_path: Path) -> None:
    source = bench(tmp_path, 1.0)
    folder = next(iter(shipped("devices").values())).parent
    with pytest.raises(InputError, match="is there already"):
        calibrate_profile(str(board(tmp_path)), [source], out=board(tmp_path))
    with pytest.raises(InputError, match="is no place for a profile of your own"):
        calibrate_profile(str(board(tmp_path)), [source], out=folder / "mine.toml")


def test_command_writes_the_copy_and_says_what_changed(tmp_path: Path) -> None:
    asked = ["device", "calibrate", str(board(tmp_path)), "--from", str(bench(tmp_path, 1.0))]
    said = CliRunner().invoke(cli, [*asked, "--out", str(tmp_path / "mine.toml")])
    assert said.exit_code == 0, said.output
    assert "net.tflite: measured 1 ms; estimate was " in said.output
    assert (tmp_path / "mine.toml").is_file()


def test_file_that_is_not_the_one_that_was_timed_teaches_nothing(tmp_path: Path) -> None:
    source = bench(tmp_path, 1.0)
    said = json.loads(source.read_text())
    source.write_text(json.dumps({**said, "files": {"net.tflite": "0" * 64}}))
    with pytest.raises(InputError, match=r"that can be used: net\.tflite is not the file that was timed"):
        calibrate_profile(str(board(tmp_path)), [source], out=tmp_path / "mine.toml")
    source.write_text(json.dumps({**said, "files": {"net.tflite": runs.file_sha256(tmp_path / "net.tflite")}}))
    assert calibrate_profile(str(board(tmp_path)), [source], out=tmp_path / "mine.toml").left_out == ()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_folder_that_takes_no_files_is_one_line(tmp_path: Path) -> None:
    for command in (
        ("calibrate", str(board(tmp_path)), "--from", str(bench(tmp_path, 1.0)), "--out", "/proc/mine.toml"),
        ("micro", str(tmp_path / "net.tflite"), "--out", "/proc/src"),
        ("capture", "--out", "/proc/board.toml"),
    ):
        said = CliRunner().invoke(cli, ["device", *command])
        assert isinstance(said.exception, EdgekitError | SystemExit), said.exception
        assert "cannot be" in said.stderr and said.stderr.count("\n") <= 2
