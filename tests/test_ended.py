"""Ctrl-C: once it cleans up, twice it ends at once; nothing is left running and the cursor is back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import terminal
from tests.test_executor import gone

# A command whose cleaning up takes long, with a process of its own
SLOW = """
import subprocess, sys, time
from toolkit import children
from toolkit.core import Progress
from toolkit.ended import listen
from toolkit.progress import shown
listen()
child = subprocess.Popen(["sleep", "100"], start_new_session=True)
children.born(child.pid)
print(child.pid, flush=True)
try:
    with shown() as emit:
        try:
            emit(Progress("at work", keep=True))
            time.sleep(100)
        except KeyboardInterrupt:
            emit(Progress("cleaning up", keep=True))
            time.sleep(WAIT)
            raise
except KeyboardInterrupt:
    children.kill_all()
    sys.exit(130)
"""


@pytest.mark.parametrize(("wait", "presses"), [("0", 1), ("100", 2)])
def test_ctrl_c_once_cleans_up_and_twice_ends_at_once(wait: str, presses: int) -> None:
    watched = terminal.Terminal(terminal.python(SLOW.replace("WAIT", wait)))
    for words in ("at work", "cleaning up")[:presses]:
        watched.wait_for(lambda text, words=words: words in text)  # type: ignore[misc]
        watched.press_ctrl_c()
    code, stdout = watched.end(seconds=30)
    assert code == 130
    assert "Traceback" not in watched.text
    assert gone(int(stdout))
    assert watched.seen.rfind(terminal.SHOW) > watched.seen.rfind(terminal.HIDE) >= 0


# A command during which Ctrl-C comes, and what becomes of the KeyboardInterrupt on its way up
ODD = """
import os, signal
from toolkit import cli, pipeline
from toolkit.errors import UnavailableError
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000000): pass
def through_exec(**options):
    exec("interrupt()", {"interrupt": interrupt})
def of_a_library(**options):
    try: interrupt()
    except KeyboardInterrupt: raise SystemError("<built-in function> returned a result with an exception set")
def of_ours(**options):
    try: interrupt()
    except KeyboardInterrupt: raise UnavailableError("numpy", "cannot be imported")
pipeline.run = HOW
cli.main()
"""


@pytest.mark.parametrize("how", ["through_exec", "of_a_library", "of_ours"])
def test_ctrl_c_is_known_whatever_a_library_makes_of_it(how: str, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD.replace("HOW", how))
    command = [sys.executable, "-m", "odd", "run", "digits-demo"]
    watched = terminal.Terminal(command, TERM="dumb", PYTHONPATH=f"{terminal.ROOT}:{tmp_path}")
    assert watched.end(seconds=60) == (130, "")
    assert watched.text.strip() == "interrupted"
