"""Measuring is interleaved, goes on until two processes agree, and keeps every raw sample."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.checks import latency
from toolkit.core import Artifact, MeasureSpec, Progress, Signature
from toolkit.devices import DeviceProfile, DeviceRuntime

MS = 1_000_000
LITERT = DeviceRuntime(use="litert", formats=("tflite",), schemes=("float32",))
BOARD = DeviceProfile(name="board", arch="any", runtimes=(LITERT,))


class Bench:
    """A session whose files take the times it is told, one list of medians (ms) for each file."""

    def __init__(self, medians: Mapping[str, list[float]]) -> None:
        self.left = {name: list(values) for name, values in medians.items()}
        self.order: list[str] = []

    def push(self, path: Path) -> str:
        return str(path)

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        name = Path(job["model"]).name
        self.order.append(name)
        median = int(self.left[name].pop(0) * MS)
        return {
            "samples_ns": [median - 1000, median, median + 1000],
            "load_ms": 5.0,
            "first_inference_ms": 2.0,
            "versions": {"litert": "9.9"},
            "threads": job["threads"],
            "delegate": job["delegate"],
            "kernel_path": "XNNPACK",
            "arena_bytes": 2048,
        }


def artifact(name: str) -> Artifact:
    return Artifact(name, Path(name), "tflite", "float32", 1, "0", Signature((), ()))


def measure(
    bench: Bench, folder: Path, processes: int = 2, profile: DeviceProfile = BOARD
) -> dict[tuple[str, str], Any]:
    names = list(bench.left)
    found = latency.measure(
        [artifact(name) for name in names],
        bench,  # type: ignore[arg-type]
        MeasureSpec(processes=processes, threads=3),
        profile,
        runtimes=dict.fromkeys(names, ("litert", "xnnpack")),
        samples=folder,
        emit=lambda progress: None,
    )
    return {(m.subject, m.name): m for m in found}


def test_processes_of_the_files_take_turns(tmp_path: Path) -> None:
    bench = Bench({"a": [1.0, 1.0], "b": [2.0, 2.0]})
    found = measure(bench, tmp_path)
    assert bench.order == ["a", "b", "a", "b"]
    assert found["a", "latency_p50_ms"].value == 1.0
    assert found["b", "throughput_per_s"].value == 500.0
    assert found["a", "arena_kib"].value == 2.0


def test_only_the_unsettled_file_goes_on_and_at_most_twice_as_long(tmp_path: Path) -> None:
    bench = Bench({"calm": [1.0, 1.0], "shaky": [5.0, 4.0, 3.0, 3.01], "wild": [8.0, 4.0, 2.0, 1.0]})
    found = measure(bench, tmp_path)
    assert bench.order == [*["calm", "shaky", "wild"] * 2, *["shaky", "wild"] * 2]
    assert found["shaky", "latency_p50_ms"].value == 3.0
    assert found["shaky", "latency_p50_ms"].how["stable"] is True
    assert found["wild", "latency_p50_ms"].how["stable"] is False
    assert found["calm", "latency_p50_ms"].how["processes"] == 2


def test_numbers_say_how_they_were_got_and_raw_samples_are_kept(tmp_path: Path) -> None:
    found = measure(Bench({"a": [1.0, 1.5, 1.0, 1.0]}), tmp_path)
    p50 = found["a", "latency_p50_ms"]
    assert (p50.source, p50.device) == ("measured", "board")
    assert {"runtime": "litert", "version": "9.9", "threads": 3, "delegate": "xnnpack"}.items() <= p50.how.items()
    assert p50.interval is not None
    assert p50.interval.low <= p50.value <= p50.interval.high
    with np.load(tmp_path / "a@board.latency.npz") as raw:
        assert [int(np.median(raw[name])) for name in raw.files] == [MS, int(1.5 * MS), MS]


def test_crash_of_a_worker_is_not_hidden(tmp_path: Path) -> None:
    from toolkit.errors import StageError

    class Broken(Bench):
        def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
            raise StageError("a", "the worker was killed by SIGSEGV")

    with pytest.raises(StageError):
        measure(Broken({"a": []}), tmp_path)


def test_progress_is_shown(tmp_path: Path) -> None:
    seen: list[Progress] = []
    bench = Bench({"a": [1.0, 1.0]})
    latency.measure(
        [artifact("a")],
        bench,  # type: ignore[arg-type]
        MeasureSpec(processes=2),
        BOARD,
        runtimes={"a": ("litert", "none")},
        samples=tmp_path,
        emit=seen.append,
    )
    said = ["timing 1 file on board", "timing a, process 1", "timing a, process 2", "timed on board"]
    assert [progress.text for progress in seen] == said
    assert [progress.keep for progress in seen] == [True, False, False, True]


def test_progress_is_the_share_of_the_processes(tmp_path: Path) -> None:
    seen: list[Progress] = []
    latency.measure(
        [artifact("a"), artifact("b")],
        Bench({"a": [1.0, 1.0], "b": [1.0, 9.0, 1.0]}),  # type: ignore[arg-type]
        MeasureSpec(processes=2),
        BOARD,
        runtimes=dict.fromkeys("ab", ("litert", "none")),
        samples=tmp_path,
        emit=seen.append,
    )
    assert [progress.fraction for progress in seen[1:-1]] == [0.0, 0.25, 0.5, 0.75, 0.0]  # b goes on: anew


def test_gpu_time_is_the_best_process_median_and_the_worst_p99(tmp_path: Path) -> None:
    class Gpu(Bench):
        def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
            found = super().run(job, timeout_s=timeout_s)
            median = found["samples_ns"][1] / MS
            return {**found, "gpu_ms": {"median": median / 2, "p99": median, "runs": 50, "how": "CUDA events"}}

    found = measure(Gpu({"a": [4.0, 4.01]}), tmp_path)
    assert found["a", "gpu_compute_p50_ms"].value == 2.0
    assert found["a", "gpu_compute_p99_ms"].value == 4.01
    assert "CUDA events" in found["a", "gpu_compute_p50_ms"].how["estimator"]
    assert ("a", "gpu_compute_p50_ms") not in measure(Bench({"a": [4.0, 4.01]}), tmp_path)


def test_every_number_of_an_imitated_device_is_emulated_and_says_by_what(tmp_path: Path) -> None:
    found = measure(Bench({"a": [1.0, 1.0]}), tmp_path, profile=BOARD.model_copy(update={"emulated": "qemu-user"}))
    assert {m.source for m in found.values()} == {"emulated"}
    assert {m.how["emulated"] for m in found.values()} == {"qemu-user"}
    assert "emulated" not in measure(Bench({"a": [1.0, 1.0]}), tmp_path)["a", "latency_p50_ms"].how


def test_sweep_over_threads_is_interleaved_and_each_keeps_its_samples(tmp_path: Path) -> None:
    class Faster(Bench):
        def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
            self.order.append(f"{Path(job['model']).name} {job['threads']}")
            base = {"samples_ns": [MS // job["threads"]] * 3, "load_ms": 5.0, "first_inference_ms": 2.0}
            told = {"versions": {"litert": "9.9"}, "threads": job["threads"], "delegate": "xnnpack"}
            return {**base, **told, "kernel_path": "XNNPACK"}

    bench = Faster({"a": [], "b": []})
    found = latency.measure(
        [artifact("a"), artifact("b")],
        bench,  # type: ignore[arg-type]
        MeasureSpec(processes=2),
        BOARD,
        runtimes=dict.fromkeys("ab", ("litert", "xnnpack")),
        samples=tmp_path,
        emit=lambda progress: None,
        threads=(1, 4),
    )
    assert bench.order == ["a 1", "a 4", "b 1", "b 4"] * 2
    p50 = {(m.subject, m.how["threads"]): m.value for m in found if m.name == "latency_p50_ms"}
    assert p50 == {("a", 1): 1.0, ("a", 4): 0.25, ("b", 1): 1.0, ("b", 4): 0.25}
    assert (tmp_path / "a@board.4-threads.latency.npz").is_file()


def test_batch_and_cores_reach_the_worker_and_are_told(tmp_path: Path) -> None:
    class Asked(Bench):
        def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
            assert (job["batch"], job["cores"]) == (4, [2, 3])
            return {**super().run(job, timeout_s=timeout_s), "cores": [2, 3], "peak_rss_kib": 90, "rss_before_kib": 60}

    bench = Asked({"a": [2.0, 2.0]})
    found = latency.measure(
        [artifact("a")],
        bench,  # type: ignore[arg-type]
        MeasureSpec(processes=2, batch=4, cores=(2, 3)),
        BOARD,
        runtimes={"a": ("litert", "xnnpack")},
        samples=tmp_path,
        emit=lambda progress: None,
    )
    rows = {m.name: m for m in found}
    assert rows["throughput_per_s"].value == 2000.0  # four images in 2 ms
    assert (rows["latency_p50_ms"].how["batch"], rows["latency_p50_ms"].how["cores"]) == (4, "2,3")
    assert rows["peak_rss_kib"].value == 90
    assert "of it 60 KiB are Python and libraries" in rows["peak_rss_kib"].how["estimator"]
