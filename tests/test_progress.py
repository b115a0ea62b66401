"""Progress: time left from the measured pace, bars in a terminal, lines in a log, and silence where asked for."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from tests import terminal
from toolkit.cli import cli
from toolkit.cli_options import json_option, print_result, quiet_option
from toolkit.core import Progress
from toolkit.progress import Ends, Plain, shown

WORK = (Progress("reading", keep=True), Progress("half", 0.5), Progress("warning: odd", keep=True), Progress("more"))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_time_left_is_by_the_pace_since_the_first_fraction() -> None:
    clock = Clock()
    ends = Ends(clock)
    assert (ends.heard(0.2), ends.left) == (True, None)
    clock.now += 10
    assert (ends.heard(0.4), ends.left) == (False, 30)  # a fifth in 10 s, three fifths are left
    clock.now += 5
    assert ends.left == 25  # it goes on between two messages
    clock.now += 60
    assert ends.left == 0


def test_time_left_counts_anew_where_something_else_begins() -> None:
    clock = Clock()
    ends = Ends(clock)
    for share in (0.0, 0.9):
        ends.heard(share)
        clock.now += 90
    assert (ends.heard(0.1), ends.left) == (True, None)
    clock.now += 1
    assert (ends.heard(0.2), ends.left) == (False, pytest.approx(8))
    assert (ends.heard(None), ends.left) == (True, None)


def test_hundredth_of_the_work_says_nothing_of_its_pace() -> None:
    clock = Clock()
    ends = Ends(clock)
    ends.heard(0.0)
    clock.now += 5
    ends.heard(0.01)
    assert ends.left is None


def test_plain_lines_are_those_to_keep_and_a_sign_of_life_each_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    emit = Plain(clock)
    for second in range(150):
        clock.now = 100.0 + second
        emit(Progress("training", second / 200))
    emit(Progress("trained", keep=True))
    assert capsys.readouterr().err.splitlines() == ["training (30%)", "training (60%)", "trained"]


@click.command()
@quiet_option
@json_option
def command(as_json: bool) -> None:
    with shown() as emit:
        for progress in WORK:
            emit(progress)
    print_result(as_json, lambda: {"done": True}, lambda: ["done"])


@pytest.mark.parametrize(
    ("words", "stdout", "stderr"),
    [
        ([], "done\n", "reading\nwarning: odd\n"),
        (["--quiet"], "done\n", "warning: odd\n"),
        (["-q", "--json"], None, "warning: odd\n"),
        (["--json"], None, "reading\nwarning: odd\n"),
    ],
)
def test_quiet_leaves_warnings_and_json_leaves_stdout_to_one_document(
    words: list[str], stdout: str | None, stderr: str
) -> None:
    result = CliRunner().invoke(command, words)
    assert result.stderr == stderr
    if stdout is None:
        assert json.loads(result.stdout) == {"done": True}
    else:
        assert result.stdout == stdout


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from commands(each, f"{path}{name} ")
        else:
            yield f"{path}{name}", each


def test_every_command_with_progress_can_be_quiet_and_give_json() -> None:
    long = [(n, c) for n, c in commands(cli) if c.callback and "shown()" in inspect.getsource(c.callback)]
    assert {"run", "train", "bench", "eval", "deploy"} <= {name for name, _ in long}
    for name, each in long:
        options = {word for parameter in each.params for word in parameter.opts}
        assert {"--quiet", "--json"} <= options, name


SHOW = """
import sys, time
from toolkit.core import Progress
from toolkit.parts import Part, beside
from toolkit.progress import shown
with shown() as emit:
    emit(Part.of("02-distill", 3, 9))
    for share in (0.0, 0.1, 0.2):
        emit(Progress("  distill: [bold]epoch[/bold] 1 of 5 " + "and much more of it " * 9, share))
        time.sleep(0.3)
    emit(Progress("warning: kept", keep=True))
    time.sleep(0.3)
    emit(Progress("  distill: later", 0.3))
    time.sleep(0.3)
    emit(Part.of("checks", 9, 9))
    for device in ("pi", "phone"):
        beside(emit, device)(Progress("timing a.tflite", 0.5))
    time.sleep(0.4)
print("result")
"""


@pytest.mark.parametrize("columns", [100, 60])
def test_terminal_shows_parts_shares_and_time_left(columns: int) -> None:
    watched = terminal.Terminal(terminal.python(SHOW), columns=columns)
    code, stdout = watched.end()
    assert (code, stdout) == (0, "result\n")
    text = watched.text
    assert "[3/9] 02-distill\r\n" in text and "warning: kept\r\n" in text  # stay on the screen
    assert re.search(r"3/9 +0:00:0\d +02-distill", text)
    assert re.search(r"20% +0:00:0\d +0:0[123] left +distill: \[bold", text)  # 10% in 0.3 s: 80% in 2.4 s; no markup
    assert re.search(r"30% +0:00:0\d +0:0\d left +distill: later", text)  # a warning between does not begin it anew
    assert "pi: timing a" in text and "phone: timing a" in text
    assert watched.seen.rfind(terminal.SHOW) > watched.seen.rfind(terminal.HIDE)
    assert max(len(line) for line in re.split(r"[\r\n]+", text)) <= columns


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": ""}])
def test_terminal_that_cannot_draw_gets_plain_lines(environment: dict[str, str]) -> None:
    watched = terminal.Terminal(terminal.python(SHOW), **environment)
    assert watched.end()[0] == 0
    assert watched.seen.splitlines() == ["[3/9] 02-distill", "warning: kept", "[9/9] checks"]
