"""Several devices at once: they overlap, and one that fails stops no other."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from toolkit import together
from toolkit.devices import DeviceProfile, load_device
from toolkit.errors import StageError
from toolkit.together import on_each


class Opened:
    """A session that knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Opened]:
    made: dict[str, Opened] = {}
    monkeypatch.setattr(together, "open_session", lambda profile: made.setdefault(profile.name, Opened()))
    return made


def devices(*names: str) -> list[DeviceProfile]:
    here = load_device("this-machine")
    return [here.model_copy(update={"name": name}) for name in names]


def test_devices_are_worked_on_at_the_same_time(opened: dict[str, Opened]) -> None:
    meeting = threading.Barrier(3)

    def work(profile: DeviceProfile, session: Any) -> None:
        meeting.wait(timeout=20)  # breaks unless all three are here together

    assert on_each(devices("a", "b", "c"), work) == {}
    assert all(session.closed.is_set() for session in opened.values())


def test_failed_device_is_named_and_the_others_finish(opened: dict[str, Opened]) -> None:
    done = []

    def work(profile: DeviceProfile, session: Any) -> None:
        if profile.name == "b":
            raise StageError("b", "went away")
        done.append(profile.name)

    failed = on_each(devices("a", "b", "c"), work)
    assert [(name, error.problem) for name, error in failed.items()] == [("b", "went away")]
    assert sorted(done) == ["a", "c"]
    assert opened["b"].closed.is_set()


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_where_all_fail_it_is_raised(opened: dict[str, Opened], names: tuple[str, ...]) -> None:
    def work(profile: DeviceProfile, session: Any) -> None:
        raise StageError(profile.name, "went away")

    with pytest.raises(StageError, match="a: went away"):
        on_each(devices(*names), work)


def test_anything_else_closes_what_is_open_and_is_raised(opened: dict[str, Opened]) -> None:
    def work(profile: DeviceProfile, session: Opened) -> None:
        if profile.name == "b":
            raise ZeroDivisionError
        assert session.closed.wait(timeout=20)  # ends when the connection does

    with pytest.raises(ZeroDivisionError):
        on_each(devices("a", "b"), work)
    assert opened["a"].closed.is_set()


def test_who_waits_for_a_device_keeps_nobody_from_ending(
    opened: dict[str, Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, free = threading.Event(), threading.Event()
    made = together.open_session

    def slow(profile: DeviceProfile) -> Any:
        if profile.name == "b":
            waiting.set()
            free.wait(timeout=60)
        return made(profile)

    worked = []

    def work(profile: DeviceProfile, session: Any) -> None:
        worked.append(profile.name)
        assert waiting.wait(timeout=20)
        raise KeyboardInterrupt

    monkeypatch.setattr(together, "open_session", slow)
    monkeypatch.setattr(together, "ENDING_S", 0.1)
    with pytest.raises(KeyboardInterrupt):
        on_each(devices("a", "b"), work)
    assert "b" not in opened  # it was not waited for
    free.set()
    assert any(
        ("b" in opened and opened["b"].closed.wait(timeout=0.1)) or threading.Event().wait(0.1) for _ in range(100)
    )
    assert worked == ["a"]  # had too late, it is given back at once
