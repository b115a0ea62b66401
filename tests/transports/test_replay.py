"""Recordings: what was done on a device is answered again, in order, once, and nothing that was not done."""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.loopback import HOST, serve
from toolkit.cli import cli
from toolkit.devices import load_device, open_session, reached
from toolkit.errors import EdgekitError, InputError, StageError
from toolkit.transports.local import Local
from toolkit.transports.replay import RecordedSession, Replay, plain

BOARD = """
schema = 1
title = "A board"
transport = "ssh"
python = "PYTHON"
arch = "any"

[[runtimes]]
use = "onnxruntime"
formats = ["onnx"]
schemes = ["float32"]
delegates = ["cpu"]
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of one operator."""
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", ends[:1], ends[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "one.onnx"
    )
    return tmp_path / "one.onnx"


def carry_out(session: Any, file: Path, back: Path) -> list[Any]:
    """What several calls answer, one of which fails."""
    there = session.push(file)
    found: list[Any] = [session.execute(["sh", "-c", f"wc -c < {there}; echo bad >&2; exit 3"], timeout_s=10)]
    session.execute(["sh", "-c", 'echo "$1" > out; pwd', "sh", str(os.getpid())], timeout_s=10)
    session.pull(f"{session.folder()}/out", back)
    found.append(back.read_text())
    found += [session.execute(["sh", "-c", "echo x >> n; wc -l < n"], timeout_s=10).stdout.strip() for _ in range(2)]
    try:
        session.execute(["sleep", "9"], timeout_s=1)
    except StageError as error:
        found.append(str(error))
    with session.alone():
        found.append(sorted(session.run({"kind": "info", "runtime": "onnxruntime"}, timeout_s=60)["versions"]))
    return found


@pytest.fixture
def recording(tmp_path: Path, model: Path) -> tuple[Path, list[Any]]:
    folder = tmp_path / "recording"
    with closing(RecordedSession(Local().open(), folder, device="here")) as session:
        return folder, carry_out(session, model, tmp_path / "back")


def test_recording_answers_as_the_device_did(recording: tuple[Path, list[Any]], tmp_path: Path, model: Path) -> None:
    folder, told = recording
    with closing(Replay(host=str(folder)).open()) as session:
        assert carry_out(session, model, tmp_path / "back") == told
    assert told[0].returncode == 3
    assert told[2:4] == ["1", "2"]  # the same call, answered in order


def test_call_that_was_not_recorded_is_an_error_and_so_is_one_too_many(
    recording: tuple[Path, list[Any]], tmp_path: Path, model: Path
) -> None:
    with closing(Replay(host=str(recording[0])).open()) as session:
        carry_out(session, model, tmp_path / "back")
        with pytest.raises(InputError, match="this info was no more often done when here was recorded on 2"):
            session.run({"kind": "info", "runtime": "onnxruntime"}, timeout_s=60)
        with pytest.raises(InputError, match="this bench was not done when here was recorded"):
            session.run({"kind": "bench", "runtime": "onnxruntime"}, timeout_s=60)
        other = tmp_path / "other.onnx"
        other.write_bytes(model.read_bytes() + b"x")
        with pytest.raises(InputError, match="this execute was not done"):
            session.execute(["cat", session.push(other)], timeout_s=10)


def test_recording_holds_no_path_of_this_machine_and_no_host(tmp_path: Path, model: Path) -> None:
    class Failing:
        def push(self, path: Path) -> str:
            return "/device/there.onnx"

        def folder(self) -> str:
            return "/device"

        def execute(self, command: Any, *, timeout_s: float) -> Any:
            raise StageError("me@board: sh", "me@board went away; not me@board2", "ssh me@board true")

        def close(self) -> None: ...

    folder = tmp_path / "recording"
    session = RecordedSession(Failing(), folder, device="pi", place="me@board")  # type: ignore[arg-type]
    session.push(model)
    with pytest.raises(StageError):
        session.execute(["cat", "/device/there.onnx", "/device/x"], timeout_s=1)
    session.close()
    (line,) = map(json.loads, (folder / "calls.jsonl").read_text().splitlines())
    assert line["error"] == ["StageError", "pi: sh", "pi went away; not me@board2", "ssh pi true"]
    assert line["asked"][0] == "cat"
    assert line["asked"][1].startswith("<")
    assert line["asked"][2] == "<folder>/x"


def test_longer_names_are_replaced_before_those_they_begin_with() -> None:
    names = {"/w/a": "<1>", "/w/ab": "<2>"}
    assert plain({"k": ["/w/ab", "/w/a", 3, None]}, "/w", names) == {"k": ["<2>", "<1>", 3, None]}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("recording.json", None, "is no recording: No such file or directory"),
        ("recording.json", "{", "is no recording: Expecting"),
        ("recording.json", '{"schema": 9, "device": "a", "recorded": ""}', "is a recording of schema 9"),
        ("calls.jsonl", '{"call": "run"}', "is no recording: line 1 of calls.jsonl"),
        ("calls.jsonl", '{"call": "run", "asked": 1, "error": ["SystemExit", "", "", ""]}', "line 1 of calls.jsonl"),
        ("calls.jsonl", '[1]\n"', "is no recording"),
        (
            "calls.jsonl",
            '{"call": "run", "asked": 1, "answer": 2}\n' * 2 + "3",
            "is no recording: line 3 of calls.jsonl",
        ),
    ],
)
def test_folder_that_is_no_recording_is_refused(
    recording: tuple[Path, list[Any]], name: str, content: str | None, problem: str
) -> None:
    folder, _ = recording
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(InputError, match=problem):
        Replay(host=str(folder)).open()


def test_file_that_changed_in_the_recording_is_refused(
    recording: tuple[Path, list[Any]], tmp_path: Path, model: Path
) -> None:
    folder, _ = recording
    (kept,) = (folder / "files").iterdir()
    kept.write_text("other")
    with closing(Replay(host=str(folder)).open()) as session, pytest.raises(InputError, match="is not the file that"):
        carry_out(session, model, tmp_path / "back")


def test_recording_is_made_in_a_new_folder_alone(recording: tuple[Path, list[Any]]) -> None:
    with closing(Local().open()) as session, pytest.raises(InputError, match="is there already and not empty"):
        RecordedSession(session, recording[0], device="here")


# ---------------------------------------------------------------- as a user has them


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_bench_recorded_over_ssh_is_replayed_without_the_device_and_called_emulated(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, kept = tmp_path / "board.toml", tmp_path / "kept"
    profile.write_text(BOARD.replace("PYTHON", sys.executable))
    arguments = ("bench", model, "--device", profile, "--processes", 2, "--seconds", 0.02, "--json")
    (tmp_path / "sshd").mkdir()
    with serve(tmp_path / "sshd") as server:
        monkeypatch.setenv("PATH", f"{server.binaries}:{os.environ['PATH']}")
        measured = invoke(*arguments, "--ssh", HOST, "--record", kept)
    assert measured.exit_code == 0, measured.output
    again = invoke(*arguments, "--replay", kept / "board")
    assert again.exit_code == 0, again.output
    ours, theirs = (json.loads(result.stdout)["measurements"] for result in (measured, again))
    assert [(row["name"], row["value"]) for row in ours] == [(row["name"], row["value"]) for row in theirs]
    assert {row["source"] for row in ours} == {"measured"}
    assert {row["source"] for row in theirs} == {"emulated"}
    assert theirs[0]["how"]["emulated"].startswith("replayed from a recording of board of 2")
    assert HOST not in "".join(path.read_text() for path in (kept / "board").glob("*.json*"))
    more = invoke(*arguments[:-1], "--threads", 2, "--replay", kept / "board")
    assert more.exit_code == 2
    assert "this bench of " in more.stderr and " was not done when board was recorded" in more.stderr


def test_device_is_replayed_in_its_place_and_what_is_no_recording_is_refused(
    recording: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    board, here = load_device("raspberry-pi-4"), load_device("this-machine")
    at, same = reached([board, here], replay=[str(recording[0])])
    assert (at.transport, at.emulated[:29], same is here) == ("replay", "replayed from a recording of ", True)
    assert board.emulated == ""
    with pytest.raises(EdgekitError, match="is no recording: No such file"):
        reached([board], replay=[str(tmp_path / "nothing")])
    with pytest.raises(InputError, match="raspberry-pi-4 is said to be at two places"):
        reached([board], ["h"], replay=[str(recording[0])])
    with pytest.raises(InputError, match="--record: no device of this command is reached from here"):
        reached([here], record=tmp_path / "kept")


def test_recording_that_cannot_be_made_is_one_line_and_closes_what_was_opened(
    recording: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (board,) = reached([load_device("raspberry-pi-4")], replay=[str(recording[0])], record=tmp_path / "file")
    with pytest.raises(InputError, match="raspberry-pi-4: cannot be made: Not a directory"):
        open_session(board)


def test_profile_that_is_recorded_opens_a_session_that_is(recording: tuple[Path, list[Any]], tmp_path: Path) -> None:
    """Even of a recording, which is a device like another."""
    (board,) = reached([load_device("raspberry-pi-4")], replay=[str(recording[0])], record=tmp_path / "kept")
    with closing(open_session(board)) as session:
        assert session.execute(["sh", "-c", "echo x >> n; wc -l < n"], timeout_s=10).stdout.strip() == "1"
    assert len((tmp_path / "kept" / "raspberry-pi-4" / "calls.jsonl").read_text().splitlines()) == 1
