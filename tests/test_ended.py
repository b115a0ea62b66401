"""Ctrl-C: once it cleans up, twice it ends at once; nothing is left running and the cursor is back."""

from __future__ import annotations

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
