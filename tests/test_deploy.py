"""Deployments on this machine: versions, the one switch, rollback, and what is left when anything stops half-way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.delivered import edit_manifest, finished_run
from toolkit.cli import cli
from toolkit.core import Completed
from toolkit.deploy import Deployment, deploy, roll_back
from toolkit.errors import GateError, InputError, UnavailableError
from toolkit.transports.local import LocalSession

HERE = "this-machine"


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three runs whose files differ."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: finished_run(folder / name, factor) for name, factor in {"a": 1.0, "b": 2.0, "c": 3.0}.items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "device"


def put(run: Path, root: Path, **more: Any) -> Deployment:
    return deploy(run, "good.onnx", device=HERE, into=str(root), **more)


def back(root: Path, **more: Any) -> Deployment:
    return roll_back(device=HERE, name="colors", into=str(root), **more)


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def current(root: Path) -> bytes:
    """The model file that is current."""
    return (root / "colors" / "current" / "good.onnx").read_bytes()


def model(run: Path) -> bytes:
    return (run / "artifacts" / "good.onnx").read_bytes()


def left(root: Path) -> list[str]:
    """Everything in the deployment's folder but whole versions."""
    return sorted(path.name for path in (root / "colors").iterdir() if path.name not in ("versions", "current"))


def test_first_deployment_is_whole_and_current(versions: dict[str, Path], root: Path) -> None:
    done = put(versions["a"], root)
    assert (done.version[:5], done.before, done.switched) == ("0001-", "", True)
    assert str((root / "colors" / "current").readlink()) == f"versions/{done.version}"
    assert current(root) == model(versions["a"])
    assert done.smoke is not None
    assert (done.smoke.differing, done.smoke.decisions) == (0, 16)
    record = json.loads((root / "colors" / "current" / "deployed.json").read_text())
    assert (record["previous"], record["archive"], record["smoke"]["values"]) == ("", done.archive, 48)


def test_rollback_goes_back_one_version_at_a_time_and_then_says_no(versions: dict[str, Path], root: Path) -> None:
    names = [put(versions[name], root).version for name in "abc"]
    assert [name[:4] for name in names] == ["0001", "0002", "0003"]
    assert (back(root).version, current(root)) == (names[1], model(versions["b"]))
    assert (back(root).version, current(root)) == (names[0], model(versions["a"]))
    with pytest.raises(InputError, match="nothing was before it"):
        back(root)
    assert current(root) == model(versions["a"])


def test_rollback_after_a_rollback_passes_over_what_was_taken_back(versions: dict[str, Path], root: Path) -> None:
    first = put(versions["a"], root)
    put(versions["b"], root)
    back(root)
    third = put(versions["c"], root)
    assert (third.version[:4], third.before) == ("0003", first.version)
    assert back(root).version == first.version


def test_same_bundle_again_changes_nothing(versions: dict[str, Path], root: Path) -> None:
    first = put(versions["a"], root)
    again = put(versions["a"], root)
    assert (again.switched, again.version) == (False, first.version)
    assert again.smoke is not None
    assert len(list((root / "colors" / "versions").iterdir())) == 1


def test_damaged_current_version_is_replaced(versions: dict[str, Path], root: Path) -> None:
    put(versions["a"], root)
    second, told = put(versions["b"], root), []
    (root / "colors" / "current" / "good.onnx").write_bytes(b"gone")
    third = put(versions["b"], root, emit=told.append)
    assert any("damaged" in progress.text for progress in told)
    assert (third.version[:4], third.version[4:], current(root)) == ("0003", second.version[4:], model(versions["b"]))
    assert current(root) == model(versions["b"])
    assert back(root).version[:4] == "0001"


def test_damaged_earlier_version_is_not_gone_back_to(versions: dict[str, Path], root: Path) -> None:
    first = put(versions["a"], root)
    put(versions["b"], root)
    (root / "colors" / "versions" / first.version / "good.onnx").write_bytes(b"gone")
    with pytest.raises(UnavailableError, match=r"good.onnx did not stay whole"):
        back(root)
    assert current(root) == model(versions["b"])


def test_old_versions_go_and_those_that_rollback_needs_stay(versions: dict[str, Path], root: Path) -> None:
    first = put(versions["a"], root)
    second = put(versions["b"], root)
    back(root)
    third = put(versions["c"], root, keep=2)  # before it: a; b was taken back
    found = {path.name for path in (root / "colors" / "versions").iterdir()}
    assert found == {first.version, third.version}
    assert second.version not in found
    assert put(versions["b"], root, keep=1).version[:4] == "0004"
    assert len(list((root / "colors" / "versions").iterdir())) == 1
    with pytest.raises(InputError, match="before it is gone"):
        back(root)


def test_lost_record_keeps_old_versions_and_is_told(versions: dict[str, Path], root: Path) -> None:
    first, told = put(versions["a"], root, smoke=False), []
    (root / "colors" / "versions" / first.version / "deployed.json").unlink()
    put(versions["b"], root, smoke=False, keep=2, emit=told.append)
    assert put(versions["c"], root, smoke=False, keep=3, emit=told.append).switched
    assert any("no old version is removed" in progress.text for progress in told)
    assert current(root) == model(versions["c"])
    assert len(list((root / "colors" / "versions").iterdir())) == 3


# ---------------------------------------------------------------- refusals


def test_failed_gate_is_refused_and_nothing_is_made(versions: dict[str, Path], root: Path) -> None:
    result = invoke("deploy", versions["a"], "bad.onnx", "--device", HERE, "--into", root)
    assert result.exit_code == 1
    assert "bad.onnx: failed max_size_kib" in result.stderr
    assert not root.exists()
    allowed = invoke("deploy", versions["a"], "bad.onnx", "--device", HERE, "--into", root, "--allow-failed", "--json")
    assert allowed.exit_code == 0
    assert json.loads(allowed.stdout)["notes"] == ["delivered although it failed max_size_kib on this-machine"]
    record = json.loads((root / "colors" / "current" / "deployed.json").read_text())
    assert record["allowed"] == ["max_size_kib on this-machine"]


def test_other_answers_there_fail_and_the_old_version_stays(tmp_path: Path, root: Path) -> None:
    one = finished_run(tmp_path / "one", 1.0)
    two = finished_run(tmp_path / "two", 2.0)
    put(one, root)
    put(two, tmp_path / "other")  # makes the reference
    expected = two / "samples" / "good.onnx.reference" / "cpu-0.npy"
    np.save(expected, np.load(expected)[:, ::-1])
    with pytest.raises(GateError, match="does not answer there as it does here: SQNR"):
        put(two, root)
    assert (current(root), left(root)) == (model(one), [])
    assert len(list((root / "colors" / "versions").iterdir())) == 1
    done = put(two, root, smoke=False)
    assert (done.smoke, current(root)) == (None, model(two))


def test_link_that_is_no_link_is_left_alone(versions: dict[str, Path], root: Path) -> None:
    (root / "colors" / "current").mkdir(parents=True)
    with pytest.raises(InputError, match="is no link"):
        put(versions["a"], root)
    assert [path.name for path in (root / "colors").iterdir()] == ["current"]


@pytest.mark.parametrize("into", ["relative/path", "~/models", "/a\nb"])
def test_folder_that_cannot_be_meant_is_refused(versions: dict[str, Path], into: str) -> None:
    with pytest.raises(InputError, match="--into"):
        deploy(versions["a"], "good.onnx", device=HERE, into=into)


@pytest.mark.parametrize("name", ["../up", "a b", "-rf", ".", "x/y", "$(id)"])
def test_name_that_is_no_plain_name_is_refused(versions: dict[str, Path], root: Path, name: str) -> None:
    with pytest.raises(InputError, match="--name"):
        put(versions["a"], root, name=name)


def test_hostile_folder_is_a_folder_and_nothing_else(versions: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "a b;$(touch hacked)`touch hacked`'\"&|*"
    put(versions["a"], root)
    put(versions["b"], root)
    assert back(root).version[:4] == "0001"
    assert not list(tmp_path.rglob("hacked"))
    assert not Path("hacked").exists()


def test_nothing_deployed_is_said_and_nothing_is_made(root: Path) -> None:
    result = invoke("deploy", "--rollback", "--device", HERE, "--name", "colors", "--into", root)
    assert result.exit_code == 2
    assert "nothing is deployed in" in result.stderr
    assert not root.exists()


def test_rollback_takes_the_name_from_the_run(versions: dict[str, Path], root: Path) -> None:
    put(versions["a"], root)
    put(versions["b"], root)
    result = invoke("deploy", versions["b"], "--rollback", "--device", HERE, "--into", root)
    assert result.exit_code == 0, result.stderr
    assert "is now current" in result.stdout
    assert current(root) == model(versions["a"])
    assert invoke("deploy", "--rollback", "--device", HERE).exit_code == 2
    assert invoke("deploy", "--device", HERE).exit_code == 2


def test_rollback_refuses_what_it_would_not_heed(versions: dict[str, Path], root: Path) -> None:
    for more in (("good.onnx",), ("--card", "license=MIT"), ("--allow-failed",)):
        result = invoke("deploy", versions["a"], *more, "--rollback", "--device", HERE, "--into", root)
        assert result.exit_code == 2
        assert "--rollback: goes to what was current before" in result.stderr
    assert not root.exists()


def test_record_of_a_device_that_names_files_elsewhere_is_refused(versions: dict[str, Path], root: Path) -> None:
    first = put(versions["a"], root)
    put(versions["b"], root)
    path = root / "colors" / "versions" / first.version / "bundle.json"
    path.write_text(path.read_text().replace('"labels.txt"', '"../../../../etc/passwd"'))
    with pytest.raises(InputError, match="names a file elsewhere"):
        back(root)


def test_device_with_no_room_for_the_file_is_refused_before_anything_is_sent(
    versions: dict[str, Path], tmp_path: Path
) -> None:
    from toolkit.devices import shipped

    text = shipped("devices")[HERE].read_text()
    (tmp_path / "tiny.toml").write_text(text.replace("arch =", "storage_kib = 1\narch =", 1))
    run = finished_run(tmp_path / "run")
    records = json.loads((run / "manifest.json").read_text())["artifacts"]
    path = run / "artifacts" / "good.onnx"
    edit_manifest(run, artifacts=[{**records[0], "size_bytes": 5000}, records[1]])
    assert path.is_file()
    with pytest.raises(InputError, match="has 5 KiB, it has room for 1"):
        deploy(run, "good.onnx", device=str(tmp_path / "tiny.toml"), into=str(tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def test_runtime_there_that_is_too_old_for_the_file_is_told_before_anything_is_sent(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path / "run", ir_version=9)
    monkeypatch.setattr("toolkit.deploy.installed", lambda session, profile, runtime: "1.14.0")
    with pytest.raises(InputError, match=r"this-machine: cannot read good.onnx: .*1\.14"):
        put(run, root)
    assert not root.exists()
    monkeypatch.setattr("toolkit.deploy.installed", lambda session, profile, runtime: "1.18.0")
    assert put(run, root).switched


# ---------------------------------------------------------------- interrupted


@dataclass
class Cut:
    """Stops the n-th program of a deployment, before or after it has done its work."""

    at: int
    after: bool
    seen: int = 0

    def execute(self, session: Any, command: Sequence[str], *, timeout_s: float) -> Completed:
        self.seen += 1
        if self.seen == self.at and not self.after:
            raise UnavailableError(HERE, "the connection was lost")
        found = EXECUTE(session, command, timeout_s=timeout_s)
        if self.seen >= self.at:  # and what comes later, such as cleaning up, does not reach the device either
            raise UnavailableError(HERE, "the connection was lost")
        return found


EXECUTE = LocalSession.execute
STEPS = 6  # look, make room, unpack, hash, keep, switch


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_interrupted_deployment_leaves_one_whole_version_current_and_the_next_cleans_up(
    versions: dict[str, Path], root: Path, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    put(versions["a"], root, smoke=False)
    cut = Cut(step, after)
    monkeypatch.setattr(
        LocalSession, "execute", lambda self, command, *, timeout_s: cut.execute(self, command, timeout_s=timeout_s)
    )
    with pytest.raises(UnavailableError, match="the connection was lost"):
        put(versions["b"], root, smoke=False)
    assert cut.seen >= step
    monkeypatch.undo()
    switched = step == STEPS and after
    assert current(root) == model(versions["b" if switched else "a"])
    done = put(versions["c"], root, smoke=False)
    assert (current(root), left(root)) == (model(versions["c"]), [])
    assert done.before[:4] == ("0002" if switched else "0001")
    assert back(root).artifact == "good.onnx"
    assert current(root) == model(versions["b" if switched else "a"])


def test_interrupt_by_the_user_cleans_up(
    versions: dict[str, Path], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(versions["a"], root)

    def interrupted(self: Any, job: Any, *, timeout_s: float) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalSession, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(versions["b"], root)
    monkeypatch.undo()
    assert (current(root), left(root)) == (model(versions["a"]), [])
    assert len(list((root / "colors" / "versions").iterdir())) == 1
