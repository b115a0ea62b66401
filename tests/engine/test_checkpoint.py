"""A checkpoint gives back what was written, and nothing of another training or of a damaged file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from toolkit.engine.checkpoint import Checkpoint, State, read, write
from toolkit.errors import UnavailableError

STATE = State({"one": [np.arange(3, dtype=np.float32), np.array(7)], "two": []}, {"losses": [0.5], "epoch": 1})


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    place = Checkpoint(tmp_path / "new" / "train.npz", "a")
    write(place, STATE)
    found = read(place)
    assert found is not None and found.facts == STATE.facts and found.arrays["two"] == []
    for one, two in zip(STATE.arrays["one"], found.arrays["one"], strict=True):
        assert one.dtype == two.dtype and np.array_equal(one, two)
    assert [path.name for path in place.path.parent.iterdir()] == ["train.npz"]


def test_another_training_a_missing_and_a_damaged_file_are_no_state(tmp_path: Path) -> None:
    place = Checkpoint(tmp_path / "train.npz", "a")
    assert read(place) is None
    write(place, STATE)
    assert read(Checkpoint(place.path, "b")) is None
    for rest in (200, 0):
        place.path.write_bytes(place.path.read_bytes()[:rest])
        assert read(place) is None


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    place = Checkpoint(tmp_path / "train.npz", "a")
    np.savez(place.path, facts=np.array([{"key": "a"}], dtype=object))
    assert read(place) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UnavailableError, match="cannot be written"):
        write(Checkpoint(tmp_path / "train.npz", "a"), STATE)


def test_file_in_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UnavailableError, match="cannot be written"):
        write(Checkpoint(tmp_path / "taken" / "train.npz", "a"), STATE)
