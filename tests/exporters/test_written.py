"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from toolkit.errors import UnavailableError
from toolkit.exporters.written import draft


def test_draft_takes_its_name_on_success_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.bin"
    for content in (b"one", b"two"):
        with draft(path) as temporary:
            temporary.write_bytes(content)
            assert temporary.parent == path.parent
    assert path.read_bytes() == b"two"
    assert [file.name for file in path.parent.iterdir()] == ["model.bin"]


def test_draft_leaves_the_old_file_and_nothing_else_when_a_check_fails(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="not sound"), draft(path) as temporary:
        temporary.write_bytes(b"new")
        raise ValueError("not sound")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_full_disk_is_the_environments_fault(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="No space left") as caught, draft(tmp_path / "m"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_code == 3


def test_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="cannot be written"), draft(tmp_path / "file" / "model.bin"):
        pass


def test_an_unrelated_missing_file_keeps_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), draft(tmp_path / "m"):
        (tmp_path / "image.png").read_bytes()
