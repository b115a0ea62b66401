"""A device whose runtime is missing or too old is one line, before anything is sent there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from toolkit.checks.installed import installed
from toolkit.devices import DeviceProfile, DeviceRuntime
from toolkit.errors import UnavailableError


class Answers:
    """A session whose device has this version."""

    def __init__(self, version: str) -> None:
        self.version = version

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        return {"versions": {job["runtime"]: self.version}, "newer": "python3 -m pip install --upgrade ai-edge-litert"}


def look(version: str, stated: str) -> str:
    runtime = DeviceRuntime(use="litert", formats=("tflite",), schemes=("float32",), version=stated)
    board = DeviceProfile(name="board", arch="aarch64", runtimes=(runtime,))
    return installed(Answers(version), board, "litert")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "stated"), [("2.3.0", ""), ("2.3.0", "2.3.0"), ("2.10.0", "2.3.0"), ("2.3.0.dev1", "2.3"), ("", "2")]
)
def test_as_new_as_the_profile_says_or_newer_is_enough(version: str, stated: str) -> None:
    assert look(version, stated) == version


def test_older_than_the_profile_says_is_refused_with_the_command_that_updates_it() -> None:
    with pytest.raises(UnavailableError) as caught:
        look("2.3.0", "2.10.0")
    assert str(caught.value) == (
        "board: has litert 2.3.0, too old: its profile speaks of 2.10.0. Fix: python3 -m pip install --upgrade "
        "ai-edge-litert; or set version in the profile to what is there."
    )
