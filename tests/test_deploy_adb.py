"""A deployment over adb: by mksh and toybox, where the arm64 root file system is; else by this machine's shell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.android import Android, android
from tests.delivered import finished_run
from toolkit.deploy import Deployment, deploy, roll_back
from toolkit.errors import UnsupportedError

PHONE = """
schema = 1
transport = "adb"
python = ""
arch = "any"

[[runtimes]]
use = "onnxruntime"
formats = ["onnx"]
schemes = ["float32"]
delegates = ["cpu"]
"""


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Android]:
    with android(tmp_path_factory.mktemp("adb")) as running:
        yield running


@pytest.fixture
def profile(phone: Android, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{phone.binaries}:{os.environ['PATH']}")
    path = tmp_path / "phone.toml"
    path.write_text(PHONE)
    return path


def test_versions_switch_and_roll_back_without_python(phone: Android, profile: Path, tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / name, factor) for name, factor in (("a", 1.0), ("b", 2.0))]
    root = "/data/local/tmp/models" if phone.emulated else str(phone.temporary / "models")
    here = phone.temporary / "models" / "colors"

    def put(run: Path) -> Deployment:
        return deploy(run, "good.onnx", device=str(profile), adb=[phone.serial], into=root, smoke=False)

    first, second = (put(run) for run in runs)
    assert (second.before, second.folder) == (first.version, f"{root}/colors")
    assert put(runs[1]).switched is False
    done = roll_back(device=str(profile), name="colors", adb=[phone.serial], into=root, smoke=False)
    assert done.version == first.version
    link = (here / "current").readlink()
    assert (here / link / "good.onnx").read_bytes() == (runs[0] / "artifacts" / "good.onnx").read_bytes()
    assert sorted(path.name for path in here.iterdir()) == ["current", "versions"]


def test_smoke_test_without_python_is_refused_before_anything_is_sent(
    phone: Android, profile: Path, tmp_path: Path
) -> None:
    run = finished_run(tmp_path / "run")
    with pytest.raises(UnsupportedError, match=r"has no Python.*--no-smoke"):
        deploy(run, "good.onnx", device=str(profile), adb=[phone.serial])
