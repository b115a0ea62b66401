"""The emulated Raspberry Pi as a user has a real one: reached, benched, judged, and agreeing with this machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.emulated import pi
from tests.loopback import HOST, Loopback
from toolkit.cli import cli
from toolkit.core import Session
from toolkit.devices import load_device, open_session

DEVICE = "raspberry-pi-4-emulated"
pytestmark = [pytest.mark.emulated, pytest.mark.slow, pytest.mark.skipif(bool(pi.missing()), reason=pi.missing())]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with pi.pi(tmp_path_factory.mktemp("pi")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{server.binaries}:{os.environ['PATH']}")
        yield server


@pytest.fixture
def session(board: Loopback) -> Iterator[Session]:
    with closing(open_session(load_device(DEVICE).at(HOST))) as opened:
        yield opened


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_it_says_that_it_is_a_raspberry_pi(session: Session) -> None:
    model = "tr -d '\\0' < /sys/firmware/devicetree/base/model; echo"
    asked = f"uname -m; whoami; hostname; {model}; grep -c 0xd08 /proc/cpuinfo; grep MemTotal /proc/meminfo"
    machine, user, name, model, cores, memory = session.execute(["sh", "-c", asked], timeout_s=60).stdout.splitlines()
    assert (machine, user, name) == ("aarch64", "pi", "pi-emulated")
    assert (model, cores, memory.split()[1]) == (pi.MODEL, "4", "3884360")


@pytest.mark.usefixtures("board")
def test_its_profile_is_captured_from_it(tmp_path: Path) -> None:
    out = tmp_path / "pi.toml"
    result = invoke("device", "capture", "--ssh", HOST, "--out", out)
    assert result.exit_code == 0, result.output
    profile = load_device(out)
    facts = {fact.name: fact.value for fact in profile.facts}
    assert (profile.title, profile.arch, facts["memory"]) == (pi.MODEL, "aarch64", 3884360)
    assert facts["core types"].startswith("4 x Cortex-A72")
    assert [(each.use, each.version) for each in profile.runtimes if "xnnpack" in each.delegates] == [
        ("litert", load_device(DEVICE).runtimes[0].version)
    ]
    assert any("thermal_zone" in str(value) for name, value in facts.items() if name == "temperature sensors")


def test_it_is_no_root_and_cannot_change_what_others_use(session: Session) -> None:
    assert session.execute(["sh", "-c", "id -u; touch /usr/local/x"], timeout_s=60).stdout == "1000\n"
    assert not (pi.ROOT / "usr/local/x").exists()


@pytest.mark.parametrize("file", ["int8.tflite", "float.tflite", "int8.onnx"])
def test_answers_agree_with_this_machine(finished: Any, session: Session, tmp_path: Path, file: str) -> None:
    """The kernels are others, so a few values may be a step away; the decisions are the same."""
    from toolkit.inspection import read_artifact

    artifact = read_artifact(finished.folder / "artifacts" / file)
    spec = artifact.signature.inputs[0]
    inputs = tmp_path / "inputs.npy"
    np.save(inputs, np.random.default_rng(3).uniform(0, 1, (50, *spec.shape[1:])).astype("float32"))
    with closing(open_session(load_device("this-machine"))) as here:
        ours, theirs = (answers(each, artifact, inputs, tmp_path / where)
                        for each, where in ((here, "here.npy"), (session, "there.npy")))  # fmt: skip
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()
    apart = np.abs(ours - theirs)
    assert (apart > 1e-4).mean() <= (0.02 if "int8" in file else 0)
    assert apart.max() <= 2 / 256  # two steps of an int8 softmax


def answers(session: Session, artifact: Any, inputs: Path, out: Path) -> Any:
    """What a session's worker answers to the rows of `inputs`."""
    runtime = "litert" if artifact.format == "tflite" else "onnxruntime"
    there = f"{session.folder()}/{out.name}"
    job = {
        "kind": "eval",
        "runtime": runtime,
        "delegate": "xnnpack" if runtime == "litert" else "cpu",
        "threads": 1,
        "model": session.push(artifact.path),
        "inputs": {artifact.signature.inputs[0].name: session.push(inputs)},
        "outputs": {artifact.signature.outputs[0].name: there},
    }
    found = session.run(job, timeout_s=300)
    assert found["n"] == 50
    session.pull(there, out)
    return np.load(out)


def test_bench_says_that_its_numbers_are_emulated(finished: Any, board: Loopback) -> None:
    file = finished.folder / "artifacts" / "int8.tflite"
    result = invoke("bench", file, "--device", DEVICE, "--ssh", HOST, "--processes", 1, "--seconds", 0.05, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["measurements"]
    assert {(row["device"], row["source"]) for row in rows} == {(DEVICE, "emulated")}
    assert {row["how"]["emulated"] for row in rows} == {"qemu-user, cortex-a72"}


def test_run_judges_answers_there_and_leaves_latency_open(
    finished: Any, board: Loopback, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    arguments = ("run", recipe_file, "--model", digits_model, "--resume", tmp_path / "run", "--device", DEVICE)
    result = invoke(
        *arguments, "--ssh", HOST, "--set", "budget.max_latency_p50_ms=100000", "--set", "measure.processes=1", "--json"
    )
    assert result.exit_code == 4, result.stderr  # inconclusive: a gate was asked for
    manifest = json.loads(result.stdout)
    outcomes = {(v["gate"], v["outcome"]) for v in manifest["verdicts"] if v["device"] == DEVICE}
    assert ("max_latency_p50_ms", "INCONCLUSIVE") in outcomes
    assert not {("max_latency_p50_ms", "PASS"), ("max_latency_p50_ms", "FAIL")} & outcomes
    here = {(m.subject, m.name): m.value for m in finished.manifest.measurements if m.device == "this-machine"}
    there = {(m["subject"], m["name"]): m for m in manifest["measurements"] if m["device"] == DEVICE}
    assert there["int8.tflite", "top1"]["source"] == "emulated"
    assert there["int8.tflite", "top1"]["value"] == pytest.approx(here["int8.tflite", "top1"], abs=1 / 400)


def test_nothing_is_left_there(board: Loopback, session: Session) -> None:
    """Of the sessions before this one; what is open still has its folder."""
    mine = Path(session.folder()).name
    assert [path.name for path in board.temporary.glob("edgekit-*") if "lease" not in path.name] == [mine]
