"""Processes that were started in a session of their own, for a command that is ended at once to end them, too."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

_leaders: set[int] = set()


def born(leader: int) -> None:
    """A process group of ours has begun."""
    _leaders.add(leader)


def gone(leader: int) -> None:
    """It has ended and was waited for: the number may be another's from now on."""
    _leaders.discard(leader)


def kill_all() -> None:
    """End every group that is left, without waiting for it."""
    for leader in tuple(_leaders):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
