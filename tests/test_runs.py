"""The manifest: written whole or not at all, read back equal, and the keys by which stages are recognised."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from toolkit import runs
from toolkit.core import Interval, Measurement
from toolkit.errors import InputError, UnavailableError


def manifest() -> runs.Manifest:
    return runs.Manifest(
        name="n", status="running", started="2026-01-01T00:00:00+00:00", recipe={"a": [1]}, seed=0, host={}, versions={}
    )


def stage(name: str = "01-prune", key: str = "k", **more: object) -> runs.StageRecord:
    return runs.StageRecord(name, "prune", "pass", "original", key, {}, 1.0, **more)  # type: ignore[arg-type]


def test_manifest_reads_back_equal_with_infinities(tmp_path: Path) -> None:
    run = runs.Run.create(tmp_path / "run", manifest(), b"schema = 1")
    run.add_measurements(
        [Measurement("a", "sqnr_db", math.inf, "dB", "measured", interval=Interval(-math.inf, 1, 0.9, "x"))]
    )
    run.add_stage(stage(files={"artifacts/x": "0"}, curves={"loss": (1.0, 0.5)}))
    assert runs.read(tmp_path / "run") == run.manifest
    json.loads((tmp_path / "run" / "manifest.json").read_text(), parse_constant=pytest.fail)
    assert (tmp_path / "run" / "recipe.toml").read_bytes() == b"schema = 1"


def test_later_number_and_stage_replace_earlier_ones(tmp_path: Path) -> None:
    run = runs.Run.create(tmp_path / "run", manifest(), b"")
    for value in (1.0, 2.0):
        run.add_measurements([Measurement("a", "top1", value, "fraction", "measured", device="d")])
        run.add_stage(stage(key=str(value)))
    run.add_measurements([Measurement("a", "top1", 3.0, "fraction", "measured", device="other")])
    assert [(m.device, m.value) for m in run.manifest.measurements] == [("d", 2.0), ("other", 3.0)]
    assert [s.key for s in run.manifest.stages] == ["2.0"]


def test_stage_is_reusable_while_key_and_files_are_what_they_were(tmp_path: Path) -> None:
    run = runs.Run.create(tmp_path / "run", manifest(), b"")
    file = tmp_path / "run" / "artifacts" / "m"
    file.write_bytes(b"abc")
    # printf abc | sha256sum
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    run.add_stage(stage(files={"artifacts/m": digest}))
    found = run.reusable("01-prune", "k")
    assert found is not None
    assert found.reused
    assert run.reusable("01-prune", "other") is None
    file.write_bytes(b"abd")
    assert run.reusable("01-prune", "k") is None


def test_numbers_of_what_is_gone_or_made_again_are_dropped(tmp_path: Path) -> None:
    run = runs.Run.create(tmp_path / "run", manifest(), b"")
    run.add_measurements(
        Measurement(subject, name, 1.0, "", "measured", device="d", how=how)
        for subject in ("kept", "remade", "gone")
        for name, how in (("top1", {"images": 9}), ("latency_p50_ms", {"samples": 5}))
    )
    run.add_stage(stage("gone"))
    run.add_stage(stage("kept"))
    run.keep_only({"kept", "remade"})
    assert [s.name for s in run.manifest.stages] == ["kept"]
    run.forget({"remade"})
    assert [(m.subject, m.name) for m in run.manifest.measurements] == [("kept", "top1"), ("kept", "latency_p50_ms")]
    run.forget_latency("d")
    assert [(m.subject, m.name) for m in run.manifest.measurements] == [("kept", "top1")]


def test_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="is not empty"):
        runs.Run.create(tmp_path, manifest(), b"")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.json"
    runs.write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.os, "fsync", full)
    with pytest.raises(UnavailableError, match=r"manifest\.json: cannot be written: No space left on device"):
        runs.write_atomically(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("manifest.json", b"old")]


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"name": 3}'])
def test_folder_without_a_sound_manifest_is_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError) as caught:
        runs.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_content_key_follows_content_and_not_order() -> None:
    assert runs.content_key({"a": 1, "b": [2]}) == runs.content_key({"b": [2], "a": 1})
    assert runs.content_key({"a": 1}) != runs.content_key({"a": 2})
    assert runs.content_key("ab", "c") != runs.content_key("a", "bc")


def test_numbers_stand_in_the_order_of_devices_whichever_was_done_first(tmp_path: Path) -> None:
    run = runs.Run.create(tmp_path / "run", manifest(), b"")
    for subject, device in (("y", "b"), ("x", "b"), ("x", ""), ("x", "a")):
        run.add_measurements([Measurement(subject, "top1", 1.0, "", "measured", device)])
    run.order_devices(["a", "b"])
    found = [(m.subject, m.device) for m in run.manifest.measurements]
    assert found == [("x", ""), ("x", "a"), ("y", "b"), ("x", "b")]
