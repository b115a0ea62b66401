"""The stand-in programs of tests/stand_ins/, told which system they are. What they print is synthetic."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

STAND_INS = Path(__file__).resolve().parent.parent / "stand_ins"

Install = Callable[..., Path]
Start = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """install(tensorrt="8.5.2", board="jetson-nano", ...) -> folder with the programs, told what they are."""

    def put(**told: Any) -> Path:
        folder = tmp_path / "bin"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in STAND_INS.iterdir():
            copied = Path(shutil.copy(path, folder))
            text = copied.read_text(encoding="utf-8")  # this Python without its packages: it starts ten times as fast
            copied.write_text(text.replace("#!/usr/bin/env python3", f"#!{sys.executable} -S", 1), encoding="utf-8")
        (folder / "stand_in.json").write_text(json.dumps(told), encoding="utf-8")
        return folder

    return put


@pytest.fixture
def start() -> Start:
    def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run
