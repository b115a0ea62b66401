"""Packed zeros on the emulated Raspberry Pi: XNNPACK skips them where the rules of checks.zeros leave it open.

Emulated work is no latency; but sparse kernels do a fraction of the dense ones', whoever counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulated import pi
from tests.loopback import HOST, Loopback
from tests.sparse_net import Net
from toolkit.checks.zeros import use_of, zeros_of
from toolkit.devices import load_device
from toolkit.exporters import tflite_packed
from toolkit.inspection import read_artifact
from toolkit.measuring import bench_files

DEVICE = "raspberry-pi-4-emulated"
pytestmark = [pytest.mark.emulated, pytest.mark.slow, pytest.mark.skipif(bool(pi.missing()), reason=pi.missing())]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with pi.pi(tmp_path_factory.mktemp("pi")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{server.binaries}:{os.environ['PATH']}")
        yield server


@pytest.mark.usefixtures("board")
def test_xnnpack_skips_zeros_where_all_conditions_hold_and_nowhere_else(tmp_path: Path) -> None:
    files = {}
    for name, zeros, same in (("few", 0.5, "never"), ("many", 0.9, "never"), ("same", 0.9, "stride 1")):
        dense, packed = tmp_path / f"{name}_dense.tflite", tmp_path / f"{name}_packed.tflite"
        dense.write_bytes(Net(zeros, same=same).content())  # type: ignore[arg-type]
        packed.write_bytes(tflite_packed.pack(dense.read_bytes())[0])
        files |= {dense.stem: dense, packed.stem: packed}
    found = bench_files(list(files.values()), device=DEVICE, ssh=[HOST], processes=1, seconds=0.5)
    work = {Path(row["subject"]).stem: row["value"] for row in found["measurements"] if row["name"] == "latency_p50_ms"}
    assert {row["source"] for row in found["measurements"]} == {"emulated"}
    device = load_device(DEVICE)
    uses = {
        name: use_of(read_artifact(path), zeros_of(path), device, "litert", "xnnpack").used
        for name, path in files.items()
    }
    assert [name for name, used in uses.items() if used == "open"] == ["many_packed", "same_packed"]
    for name in ("many", "same"):
        assert work[f"{name}_packed"] < 0.6 * work[f"{name}_dense"]  # about 0.3 of it
    assert work["few_packed"] > 0.75 * work["few_dense"]
