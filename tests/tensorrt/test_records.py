"""Records of engines: read back as written, refused when damaged, tampered with, foreign or of another system."""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import EdgekitError, InputError, UnsupportedError
from toolkit.tensorrt import records
from toolkit.tensorrt.types import BuildSpec, EngineRecord, ShapeRange, Target

ORIN = Target(
    tensorrt="10.3.0.30",
    compute_capability="8.7",
    device="Jetson Orin Nano 8GB",
    platform="linux-aarch64",
    l4t="36.4.3",
    cuda="12.6",
    power_mode="15W",
)
SERVER = Target("10.15.2", "8.9", "NVIDIA L4", "linux-x86_64", cuda="12.9", driver="570.86.10")
SPEC = BuildSpec(1024, {"x": ShapeRange((1, 3, 96, 96), (4, 3, 96, 96), (8, 3, 96, 96))}, timing_cache="t.cache")
PLAN = b"not a real plan"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine with its record, not one's own yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "m.engine"
    path.write_bytes(PLAN)
    records.write(path, record())
    return path


def record(**more: Any) -> EngineRecord:
    made = EngineRecord(
        engine_sha256=hashlib.sha256(PLAN).hexdigest(),
        onnx_sha256="0" * 64,
        target=ORIN,
        spec=SPEC,
        builder="python",
        flags=("STRONGLY_TYPED",),
        precision={"int8": 21, "float32": 1},
        warnings=("slow",),
        edgekit="0.1.0",
    )
    return replace(made, **more)


def changed(engine: Path, **more: Any) -> None:
    path = records.record_path(engine)
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


# ---------------------------------------------------------------- the file


def test_record_is_read_back_as_it_was_written(engine: Path) -> None:
    assert records.record_path(engine).name == "m.engine.json"
    assert records.read(engine) == record()


def test_record_of_another_file_is_not_written(engine: Path) -> None:
    with pytest.raises(InputError, match="is not the engine its record speaks of"):
        records.write(engine, record(engine_sha256="1" * 64))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"{", "damaged"),
        (b"[]", "no JSON object"),
        (b'{"schema": 1, "schema": 1}', "stands twice"),
        (b"[" * 100_000, "damaged"),
        (b"{}", "got schema None"),
        (b'{"schema": true}', "got schema True"),
        (b'{"schema": 2}', "upgrade edgekit"),
        (b'{"schema": 1}', "engine_sha256: "),
    ],
)
def test_damaged_record_is_one_clear_line(engine: Path, content: bytes, words: str) -> None:
    records.record_path(engine).write_bytes(content)
    with pytest.raises(InputError) as caught:
        records.read(engine)
    assert words in str(caught.value)
    assert "m.engine.json: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("engine_sha256", "abc", "engine_sha256: is no sha256"),
        ("onnx_sha256", "Z" * 64, "onnx_sha256: is no sha256"),
        ("builder", "make", "builder: "),
        ("flags", "FP16", "flags: "),
        ("precision", {"int8": "many"}, "precision.int8: "),
        ("target", {"tensorrt": "10.3.0"}, "target"),
        ("extra", 1, "extra: no such key"),
        ("spec", {"workspace_mib": 1, "hidden": 2}, "spec: has keys too many"),
    ],
)
def test_wrong_key_of_a_record_is_named(engine: Path, key: str, value: Any, words: str) -> None:
    changed(engine, **{key: value})
    with pytest.raises(InputError, match="is a damaged engine record") as caught:
        records.read(engine)
    assert words in str(caught.value)


def test_missing_record_is_named(engine: Path) -> None:
    records.record_path(engine).unlink()
    with pytest.raises(InputError, match=r"m\.engine\.json: is missing"):
        records.read(engine)


# ---------------------------------------------------------------- one's own


def test_engine_of_others_is_refused_and_ones_own_is_not(engine: Path) -> None:
    sha = record().engine_sha256
    with pytest.raises(UnsupportedError, match=rf"not built by this user.*edgekit engine.*--allow-engine {sha}"):
        records.check(engine, ORIN)
    assert records.check(engine, ORIN, allow=[sha]) == record()
    with pytest.raises(UnsupportedError, match="not built by this user"):
        records.check(engine, ORIN, allow=["1" * 64])
    records.remember(sha)
    assert records.check(engine, ORIN) == record()


def test_own_engines_are_kept_for_this_user_alone(engine: Path) -> None:
    records.remember("a" * 64)
    records.remember("b" * 64)
    records.remember("a" * 64)
    assert records.own() == {"a" * 64, "b" * 64}
    assert stat.S_IMODE(records.own_file().stat().st_mode) == 0o600
    assert records.own_file() == engine.parent / "state" / "edgekit" / "engines"


def test_list_that_others_can_write_is_not_believed(engine: Path) -> None:
    records.remember(record().engine_sha256)
    records.own_file().chmod(0o666)
    with pytest.raises(InputError, match="can be written by others"):
        records.check(engine, ORIN)


@pytest.mark.parametrize("text", ["", "abc", "A" * 64, f"{'a' * 64}\n{'b' * 64}"])
def test_only_a_hash_can_be_remembered(engine: Path, text: str) -> None:
    with pytest.raises(InputError, match="no sha256"):
        records.remember(text)


def test_tampered_engine_is_refused_even_when_the_record_is_ones_own(engine: Path) -> None:
    records.remember(record().engine_sha256)
    engine.write_bytes(PLAN + b"!")
    rebuild = records.rebuild_command(engine, onnx="my model.onnx", device="orin", host="jetson")
    with pytest.raises(InputError, match="is not the file its record speaks of") as caught:
        records.check(engine, ORIN, rebuild=rebuild)
    assert f"edgekit engine 'my model.onnx' --device orin --ssh jetson --out {engine}" in str(caught.value)


def test_engine_whose_record_was_rewritten_for_it_is_not_ones_own(engine: Path) -> None:
    """Both files replaced together: the hash is right, and it is nobody's."""
    records.remember(record().engine_sha256)
    engine.write_bytes(b"other code")
    changed(engine, engine_sha256=hashlib.sha256(b"other code").hexdigest())
    with pytest.raises(UnsupportedError, match="not built by this user"):
        records.check(engine, ORIN)


def test_missing_and_damaged_files_end_with_the_rebuild_command(engine: Path) -> None:
    records.record_path(engine).write_text("{")
    with pytest.raises(EdgekitError, match=r"edgekit engine MODEL\.onnx --device NAME"):
        records.check(engine, ORIN)
    engine.unlink()
    with pytest.raises(EdgekitError, match=r"edgekit engine MODEL\.onnx"):
        records.check(engine, ORIN)


# ---------------------------------------------------------------- mismatches


def test_engine_fits_the_system_it_was_built_on() -> None:
    assert records.mismatches(record(), ORIN) == ()
    assert records.mismatches(record(target=SERVER), SERVER) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tensorrt": "10.7.0.23"}, "built by TensorRT 10.3.0.30, the target has 10.7.0.23"),
        ({"tensorrt": ""}, "TensorRT's version is not known"),
        ({"flavour": "tensorrt_rtx", "tensorrt": "1.7.1"}, "built by tensorrt, the target has tensorrt_rtx"),
        ({"compute_capability": "7.2"}, "built for compute capability 8.7, the target is 7.2"),
        ({"compute_capability": ""}, "built for compute capability 8.7, the target is unknown"),
        ({"platform": "linux-x86_64"}, "built for platform linux-aarch64, the target is linux-x86_64"),
        ({"device": "Jetson Orin NX 16GB"}, "the target is Jetson Orin NX 16GB"),
        ({"cuda": "13.2"}, "built with CUDA 12.6, the target has 13.2"),
        ({"l4t": "36.3.0"}, "built on Jetson Linux 36.4.3, the target has 36.3.0"),
        ({"l4t": ""}, "built on Jetson Linux 36.4.3, the target has none"),
    ],
)
def test_each_difference_is_told_in_words(change: dict[str, Any], words: str) -> None:
    found = records.mismatches(record(), replace(ORIN, **change))
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize("change", [{"tensorrt": "10.3.0"}, {"l4t": "36.4.4"}, {"cuda": "12.9"}, {"power_mode": "25W"}])
def test_what_does_not_matter_to_an_engine_is_no_mismatch(change: dict[str, Any]) -> None:
    assert records.mismatches(record(), replace(ORIN, **change)) == ()


def test_driver_too_old_for_cuda_is_told() -> None:
    built = record(target=SERVER)
    old = records.mismatches(built, replace(SERVER, driver="470.256.02"))
    assert old == ("CUDA 12.9 needs driver 525 or newer, the target has 470.256.02",)
    assert records.mismatches(built, replace(SERVER, driver="525.60.13")) == ()
    assert records.mismatches(built, replace(SERVER, driver="")) == ()


def test_engine_for_another_system_is_refused_with_all_reasons(engine: Path) -> None:
    records.remember(record().engine_sha256)
    with pytest.raises(UnsupportedError) as caught:
        records.check(engine, SERVER)
    for words in ("TensorRT 10.3.0.30", "compute capability 8.7", "linux-aarch64", "Jetson Linux", "edgekit engine"):
        assert words in str(caught.value)
