"""A deployment to the emulated Raspberry Pi: real arm64 programs unpack, hash, answer and switch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.emulated import pi
from tests.loopback import HOST, Loopback
from toolkit.deploy import deploy, roll_back

DEVICE = "raspberry-pi-4-emulated"
pytestmark = [pytest.mark.emulated, pytest.mark.slow, pytest.mark.skipif(bool(pi.missing()), reason=pi.missing())]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with pi.pi(tmp_path_factory.mktemp("pi")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{server.binaries}:{os.environ['PATH']}")
        yield server


def test_deploy_and_rollback_on_arm64_agree_with_this_machine(finished: Any, board: Loopback, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    first = deploy(run, "float.tflite", device=DEVICE, ssh=[HOST])
    assert first.folder == "/home/pi/edgekit/small"
    assert first.smoke is not None
    assert first.smoke.sqnr_db > 100  # floats: the same but for rounding
    second = deploy(run, "int8.tflite", device=DEVICE, ssh=[HOST])
    assert second.before == first.version
    assert second.smoke is not None
    assert (second.smoke.decisions, second.smoke.kernel_path[:7]) == (second.smoke.images, "XNNPACK")
    assert second.smoke.differing <= 0.05 * second.smoke.values
    assert f"{DEVICE} is emulated (qemu-user, cortex-a72)" in second.notes
    home = board.folder / "home" / "edgekit" / "small"
    assert (home / "current" / "int8.tflite").read_bytes() == (run / "artifacts" / "int8.tflite").read_bytes()
    done = roll_back(device=DEVICE, name="small", ssh=[HOST])
    assert (done.version, done.artifact) == (first.version, "float.tflite")
    assert sorted(path.name for path in home.iterdir()) == ["current", "versions"]
