"""Progress of what cannot speak while it works, and where in the whole it belongs."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from toolkit import parts
from toolkit.core import Progress
from toolkit.parts import Part, beside, passed, told_in, warns, watching


def test_device_is_named_beside_others_and_its_lines_are_kept() -> None:
    heard: list[Progress] = []
    beside(heard.append, "pi")(Progress("timed", 0.5, keep=True))
    (told,) = heard
    assert (told.text, told.fraction, told.keep, getattr(told, "device", "")) == ("timed", 0.5, True, "pi")


def test_part_is_a_line_with_its_place() -> None:
    part = Part.of("checks", 2, 2)
    assert (part.text, part.keep, part.number, part.total) == ("[2/2] checks", True, 2, 2)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (Progress("warning: x", keep=True), True),
        (Progress("  warning: x", keep=True), True),
        (Progress("warning: x"), False),
        (Progress("no warning: x", keep=True), False),
    ],
)
def test_warning_is_a_line_that_says_so(progress: Progress, expected: bool) -> None:
    assert warns(progress) == expected


def test_silent_work_is_told_as_what_it_leaves_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "EVERY_S", 0.01)
    heard, half = [], Event()

    def emit(progress: Progress) -> None:
        heard.append(progress)
        if progress.fraction == 0.5:
            half.set()

    file = tmp_path / "told"
    with watching(emit, "answering", told_in(file)):
        time.sleep(0.05)
        file.write_text("half")  # being written
        file.write_text("0.5")
        assert half.wait(20)
    assert heard[0] == Progress("answering")
    assert {progress.fraction for progress in heard[1:]} == {0.5}
    count = len(heard)
    time.sleep(0.05)
    assert len(heard) == count  # nobody watches any more


def test_watching_ends_with_an_error_inside() -> None:
    with pytest.raises(ZeroDivisionError), watching(lambda progress: None, "x", lambda: None):
        raise ZeroDivisionError


def test_time_that_is_known_before_goes_by_evenly() -> None:
    now = [10.0]
    share = passed(40.0, clock=lambda: now[0])
    found = []
    for second in (10.0, 20.0, 50.0, 90.0):
        now[0] = second
        found.append(share())
    assert found == [0.0, 0.25, 1.0, 1.0]


def test_rows_leave_word_of_how_many_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.worker import common

    monkeypatch.setattr(common, "EVERY_S", 0.0)
    rows = np.arange(20.0).reshape(10, 2)
    told = common.Told(rows, str(tmp_path / "told"))
    assert (len(told), told.shape, told[:1].nbytes) == (10, (10, 2), 16)
    assert not (tmp_path / "told").exists()  # the first block says nothing
    for start, share in ((4, 0.4), (8, 0.8)):
        assert np.array_equal(told[start : start + 4], rows[start : start + 4])
        assert told_in(tmp_path / "told")() == share
    assert np.array_equal(common.Told(rows, "/no/such/folder/told")[4:8], rows[4:8])
