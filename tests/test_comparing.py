"""Runs made by hand compared with what they kept: paired answers, and files timed in turn by a device made by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.checks.test_simulated_verdicts import LEVEL, host, within
from tests.run_by_hand import FILE, HERE, make_run
from toolkit import retiming, runs
from toolkit.budget import MeasureSpec
from toolkit.checks.latency import limit_s
from toolkit.cli import cli
from toolkit.comparing import compare_runs
from toolkit.engine.latency import typical_interval
from toolkit.engine.statistics import Paired, paired_interval
from toolkit.errors import InputError, UnsupportedError
from toolkit.report.compared import delivered
from toolkit.retiming import judge_ratios

MS = 1_000_000


class Bench:
    """A device on which a file takes as long as its content says, and all takes longer in a slow state."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.rng = np.random.default_rng(0)

    def push(self, path: Path) -> str:
        return str(path)

    @contextmanager
    def alone(self) -> Any:
        yield

    def close(self) -> None:
        pass

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        path = Path(job["model"])
        self.order.append(path.parent.parent.name)
        slow = 1.6 if len(self.order) // 10 % 2 else 1.0
        took = float(path.read_text()) * slow * float(np.exp(0.01 * self.rng.normal()))
        return {"samples_ns": [int(took * MS)] * 5}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    monkeypatch.setattr(retiming, "open_session", lambda profile: made)
    monkeypatch.setattr(retiming.compat, "require_read", lambda *_: None)
    return made


def pair(folder: Path, **after: Any) -> tuple[Path, Path]:
    """A run, and one on another host that differs in these ways."""
    before = make_run(folder / "base", content=b"4.0", host={"cpu": "one"})
    return before, make_run(folder / "head", **{"content": b"4.0", "host": {"cpu": "two"}, **after})


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["compare", *map(str, arguments)])


# ---------------------------------------------------------------- answers


def test_loss_that_two_intervals_hide_is_seen_on_the_same_images(tmp_path: Path) -> None:
    """5 against 30 dogs lost of 900 images: 2.8 points, where each accuracy's own interval holds 2 on either side."""
    found = compare_runs(*pair(tmp_path, loses=30)).comparison
    (change,) = [item for item in found.measurements if (item.name, item.device) == ("top1", HERE)]
    assert change.judgement == "worse"
    assert change.reason == "paired on 900 images"
    limits = paired_interval(Paired(900 - 90 - 30, 25, 0, 95), 0.95)
    assert change.interval is not None
    assert (change.interval.low, change.interval.high) == pytest.approx((-limits.high, -limits.low))


@pytest.mark.parametrize("left", [0, 100])
def test_damaged_answers_leave_the_wider_interval(tmp_path: Path, left: int) -> None:
    before, after = pair(tmp_path)
    file = after / "samples" / f"{FILE}@{HERE}.answers.npz"
    file.write_bytes(file.read_bytes()[:left])
    (change,) = [item for item in compare_runs(before, after).comparison.measurements if item.name == "top1"]
    assert change.interval is not None and change.interval.method == "MOVER"


def test_without_labels_the_wider_interval_stays(tmp_path: Path) -> None:
    before, after = pair(tmp_path, loses=30)
    for run in (before, after):
        (run / "samples" / "test.labels.npz").unlink()
    found = compare_runs(before, after).comparison
    (change,) = [item for item in found.measurements if (item.name, item.device) == ("top1", HERE)]
    assert (change.judgement, change.interval and change.interval.method) == ("unclear", "MOVER")
    assert "not paired: samples/ holds no labels of the test images" in change.reason


# ---------------------------------------------------------------- times


def test_slower_file_is_worse_whatever_the_hosts_were(tmp_path: Path, bench: Bench) -> None:
    made = compare_runs(*pair(tmp_path, content=b"4.4"), bench=True)
    (timed,) = made.comparison.retimed
    assert timed.judgement == "worse"
    assert timed.interval is not None
    assert timed.interval.low <= 1.1 <= timed.interval.high
    assert timed.interval.confidence == pytest.approx(1 - 2 * 0.0206947, abs=1e-6)  # at most 5 of 20 beyond the median
    assert bench.order[:4] == ["base", "head", "head", "base"]  # who goes first changes
    assert len(bench.order) == 40
    assert [line.split(" (")[0] for line in made.worse] == [f"{FILE} takes {timed.ratio:.3g} times as long on {HERE}"]


@pytest.mark.parametrize(("content", "judgement"), [(b"4.01", "same"), (b"3.6", "better"), (b"4.08", "unclear")])
def test_small_differences_are_none_and_gains_are_told(
    tmp_path: Path, bench: Bench, content: bytes, judgement: str
) -> None:
    made = compare_runs(*pair(tmp_path, content=content), bench=True)
    assert [timed.judgement for timed in made.comparison.retimed] == [judgement]
    assert made.worse == ()


def test_what_the_runs_timed_themselves_is_no_verdict_beside_it(tmp_path: Path, bench: Bench) -> None:
    before, after = pair(tmp_path, content=b"4.4", host={"cpu": "one"}, milliseconds=9.0)
    found = compare_runs(before, after, bench=True).comparison
    assert found.same_host
    (change,) = [item for item in found.measurements if item.name == "latency_p50_ms"]
    assert (change.judgement, change.reason) == ("not compared", "timed in turn instead")


def test_same_bytes_are_not_timed(tmp_path: Path, bench: Bench) -> None:
    made = compare_runs(*pair(tmp_path), bench=True)
    (timed,) = made.comparison.retimed
    assert (timed.same, timed.ratio, timed.judgement) == (True, 1.0, "same")
    assert bench.order == []
    assert "same file" in "\n".join(made.lines())


def test_file_that_is_not_the_one_judged_is_refused(tmp_path: Path, bench: Bench) -> None:
    before, after = pair(tmp_path)
    (after / "artifacts" / FILE).write_bytes(b"9.9")
    with pytest.raises(InputError, match="is not the file that the run judged"):
        compare_runs(before, after, bench=True)
    (after / "artifacts" / FILE).unlink()
    with pytest.raises(InputError, match="is not there"):
        compare_runs(before, after, bench=True)


def device(folder: Path, *lines: str, runtime: str = "litert") -> str:
    """A profile of a device that is this machine."""
    path = folder / "board.toml"
    runs_ = f"[[runtimes]]\nuse = {runtime!r}\nformats = ['tflite']\nschemes = ['int8']\n"
    path.write_text("\n".join(["schema = 1\narch = 'any'\ntransport = 'local'", *lines, runs_]))
    return str(path)


def test_imitated_device_is_not_timed(tmp_path: Path, bench: Bench) -> None:
    with pytest.raises(UnsupportedError, match="is imitated"):
        compare_runs(*pair(tmp_path, content=b"4.4"), bench=True, device=device(tmp_path, "emulated = 'qemu'"))
    assert bench.order == []


def test_kernels_whose_time_says_nothing_are_not_timed(tmp_path: Path, bench: Bench) -> None:
    board = device(tmp_path, runtime="tflite-micro")
    found = compare_runs(*pair(tmp_path, content=b"4.4"), bench=True, device=board).comparison
    assert found.not_retimed == {FILE: "tflite-micro on this machine says nothing of board's speed"}
    assert (found.retimed, bench.order) == ((), [])


@pytest.mark.parametrize(("runtime", "least"), [("onnxruntime", 300), ("tensorrt", 3600)])
def test_process_that_builds_first_gets_the_time_for_it(runtime: str, least: float) -> None:
    spec = MeasureSpec(seconds=0.5, warmup_seconds=0.5)
    assert limit_s((runtime, "none"), spec) == least + 10


def test_too_few_rounds_for_so_many_files_are_refused() -> None:
    judge_ratios([1.0] * 8, 5, 0.02)
    with pytest.raises(InputError, match="ask for 8 or more"):
        judge_ratios([1.0] * 7, 5, 0.02)


def test_equal_files_are_called_worse_no_more_often_than_stated() -> None:
    """Two files that are alike, a second apart in each round, on a host that is slow 30% of the time."""
    rng, runs = np.random.default_rng(11), 4000
    times = host(rng, (runs,), 40, apart=1.0, slow=0.3)
    before, after = times[:, 0::2].copy(), times[:, 1::2].copy()
    before[:, 1::2], after[:, 1::2] = times[:, 3::4], times[:, 2::4]  # who goes first changes
    ratios = np.sort(after / before, axis=1)
    found = typical_interval(list(range(20)), 0.95)
    assert within(float((ratios[:, int(found.low)] > 1).mean()), runs)
    assert within(float((ratios[:, int(found.high)] < 1).mean()), runs)
    assert LEVEL == 0.025


def test_file_a_tenth_slower_is_found_out_nearly_always() -> None:
    times = host(np.random.default_rng(12), (2000,), 40, apart=1.0, slow=0.1)
    ratios = np.sort(1.1 * times[:, 1::2] / times[:, 0::2], axis=1)
    found = typical_interval(list(range(20)), 0.95)
    assert (ratios[:, int(found.low)] > 1.02).mean() > 0.95


# ---------------------------------------------------------------- what fails a pull request


@pytest.mark.parametrize(
    ("after", "code", "said"),
    [
        ({}, 0, ""),
        ({"loses": 7}, 0, ""),  # two images more tell nothing
        ({"loses": 60}, 1, "accuracy 89.4% to 83.3%"),
        ({"size": 40 * 1024 + 300}, 0, ""),  # within 2%
        ({"size": 44 * 1024}, 1, "size 40.0 KiB to 44.0 KiB"),
        ({"size": 30 * 1024}, 0, ""),
        ({"milliseconds": 9.0}, 0, ""),  # on another host, which says nothing
    ],
)
def test_exit_code_is_1_where_something_is_really_worse(
    tmp_path: Path, after: dict[str, Any], code: int, said: str
) -> None:
    before, run = pair(tmp_path, **after)
    result = invoke(before, run, "--fail-on", "worse")
    assert result.exit_code == code, result.output
    assert said in result.output.replace("\u00a0", " ")
    assert invoke(before, run).exit_code == 0


@pytest.mark.parametrize("which", [0, 1])
def test_run_that_has_not_ended_is_told_and_never_counts_as_no_worse(tmp_path: Path, which: int) -> None:
    both = pair(tmp_path)
    manifest = runs.read(both[which])
    runs.Run(both[which], manifest).update(status="failed", error="the disk is full", measurements=())
    said = f"{both[which]}: the run has not ended, its status is failed (the disk is full)"
    told = invoke(*both)
    assert told.exit_code == 0
    assert f"cannot be told: {said}" in told.output
    refused = invoke(*both, "--fail-on", "worse")
    assert refused.exit_code == 2
    assert said in refused.output and "edgekit run --resume" in refused.output


@pytest.mark.parametrize("words", [("--tolerance", "nan"), ("--bench", "--seconds", "nan")])
def test_what_is_no_number_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    """More than nan of a size is never: with such a tolerance nothing would be worse."""
    result = invoke(*pair(tmp_path, size=80 * 1024), "--fail-on", "worse", *words)
    assert result.exit_code == 2
    assert "give a number, got nan" in result.output


def test_tolerance_is_the_users(tmp_path: Path) -> None:
    before, after = pair(tmp_path, size=44 * 1024)
    assert invoke(before, after, "--fail-on", "worse", "--tolerance", 0.2).exit_code == 0


def test_markdown_says_what_is_worse_first_and_json_has_it(tmp_path: Path, bench: Bench) -> None:
    before, after = pair(tmp_path, content=b"5.0", loses=60)
    text = invoke(before, after, "--bench", "--markdown").output
    assert text.index("**Worse:**") < text.index("| file | before | after | ratio | judgement |")
    assert "times as long" in text
    assert "measured in one job, in turn, on this-machine" in text
    found = json.loads(invoke(before, after, "--bench", "--json").stdout)
    assert len(found["worse"]) >= 2
    assert found["retimed"][0]["judgement"] == "worse"
    assert found["retimed"][0]["interval"]["confidence"] > 0.95


def test_scores_on_other_images_are_said_to_be_untold(tmp_path: Path) -> None:
    before, after = pair(tmp_path, loses=60)
    manifest = runs.read(after)
    runs.Run(after, replace(manifest, data=(replace(manifest.data[0], fingerprint="sha256:other"),))).update()
    made = compare_runs(before, after)
    assert made.worse == ()
    assert made.untold == (f"accuracy of {FILE} is not compared: the test images differ",)
    assert "**Cannot be told:**\n- accuracy of phone.tflite" in invoke(before, after, "--markdown").output


@pytest.mark.parametrize("option", [("--rounds", 9), ("--device", HERE), ("--seconds", 1), ("--ssh", "pi=me@host")])
def test_options_of_bench_without_it_are_refused(tmp_path: Path, option: tuple[str, Any]) -> None:
    result = invoke(*pair(tmp_path), *option)
    assert result.exit_code == 2
    assert "--bench" in result.output


@pytest.mark.parametrize(
    ("subject", "whether"),
    [("01-prune", False), ("phone.02-quantize", False), ("phone/02-quantize", False), ("phone.tflite", True)],
)
def test_stages_are_told_from_files(subject: str, whether: bool) -> None:
    assert delivered(subject) is whether
    assert delivered("12-bit.tflite")
    assert delivered("original")


def test_comparing_changes_no_run(tmp_path: Path) -> None:
    before, after = pair(tmp_path, loses=60)
    digests = [hashlib.sha256((run / "manifest.json").read_bytes()).hexdigest() for run in (before, after)]
    invoke(before, after, "--markdown")
    assert [hashlib.sha256((run / "manifest.json").read_bytes()).hexdigest() for run in (before, after)] == digests
