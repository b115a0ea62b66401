"""Every mistake of a file is named at once, by file, line and key; descriptions come from the same definitions."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field, model_validator

from toolkit.documents import Document, key_lines
from toolkit.errors import InputError
from toolkit.schema import Component, FieldDoc, Reader, describe, paths_in, relocated, summary, validate


class Recover(Component):
    """Training after the cut."""

    epochs: Annotated[int, Field(ge=1, le=100)] = 5
    """Passes over the data."""


class Cut(Component):
    """Cuts something out.

    More of it here.
    """

    takes: ClassVar[tuple[str, ...]] = ("keras",)

    sparsity: Annotated[float, Field(gt=0, lt=1)]
    """Share to remove,
    of all."""
    importance: Literal["l2", "l1", "random"] = "l2"
    """What ranks channels."""
    keep: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Fewest to keep."""
    size: tuple[int, int] | None = None
    """Height and width."""
    layers: tuple[str, ...] = ()
    """Names."""
    recover: Recover | None = None
    """Training."""
    fast: bool = False
    """Quickly."""
    file: Path | None = None
    """A list."""

    @model_validator(mode="after")
    def _consistent(self) -> Cut:
        if self.fast and self.recover:
            raise ValueError("fast excludes recover")
        return self


def document(text: str) -> Document:
    return Document("r.toml", tomllib.loads(text), text.encode(), key_lines(text))


def mistakes(text: str) -> list[str]:
    with pytest.raises(InputError) as error:
        validate(Cut, document(text))
    return str(error.value).split("\n")


def test_validate_gives_the_typed_object() -> None:
    found = validate(Cut, document('schema = 1\nsparsity = 0.5\nsize = [8, 9]\nrecover.epochs = 2\nfile = "a/b"\n'))
    assert found == Cut(sparsity=0.5, size=(8, 9), recover=Recover(epochs=2), file=Path("a/b"))


class Several(Component):
    """Files, alone or in an array."""

    files: Literal["own"] | Path | tuple[Literal["own"] | Path, ...] = "own"
    """Names."""
    inner: Cut | None = None
    """More."""


def test_paths_are_found_and_moved_in_arrays_and_tables_too() -> None:
    one = Several(files=("own", Path("a"), Path("b")), inner=Cut(sparsity=0.5, file=Path("c")))
    assert dict(paths_in(one)) == {("files", 1): Path("a"), ("files", 2): Path("b"), ("inner", "file"): Path("c")}
    moved = relocated(one, Path("/base").joinpath)
    assert moved.files == ("own", Path("/base/a"), Path("/base/b"))
    assert moved.inner == Cut(sparsity=0.5, file=Path("/base/c"))
    assert relocated(Several(), Path("/base").joinpath) == Several()


def test_validate_names_all_mistakes_at_once_in_the_files_order() -> None:
    text = """\
schema = 1
importence = "l2"
sparsity = 1.5

[recover]
epoch = 3
epochs = 0
"""
    assert mistakes(text) == [
        "r.toml:2: importence: no such key. Fix: did you mean 'importance'?",
        "r.toml:3: sparsity: must be less than 1, got 1.5. Fix: give a number > 0, < 1.",
        "r.toml:6: recover.epoch: no such key. Fix: did you mean 'epochs'?",
        "r.toml:7: recover.epochs: must be at least 1, got 0. Fix: give a whole number >= 1, <= 100.",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('sparsity = "half"', "sparsity: must be a number, got 'half'. Fix: give a number > 0, < 1."),
        ('sparsity = "0.5"', "sparsity: must be a number, got '0.5'. Fix: give a number > 0, < 1."),
        ("sparsity = true", "sparsity: must be a number, got true. Fix: give a number > 0, < 1."),
        ("sparsity = nan", "sparsity: must be a finite number, got nan. Fix: give a number > 0, < 1."),
        ("sparsity = inf", "sparsity: must be a finite number, got inf. Fix: give a number > 0, < 1."),
        ("sparsity = []", "sparsity: must be a number, got []. Fix: give a number > 0, < 1."),
    ],
)
def test_validate_reads_no_type_as_another(line: str, message: str) -> None:
    assert mistakes(f"schema = 1\n{line}\n") == [f"r.toml:2: {message}"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('importance = "rand"', "importance: must be 'l2', 'l1' or 'random', got 'rand'. Fix: did you mean 'random'?"),
        (
            'importance = "x"',
            "importance: must be 'l2', 'l1' or 'random', got 'x'. Fix: give 'l2', 'l1' or 'random'.",
        ),
        ("keep = 0", "keep: must be 'auto' or at least 1, got 0. Fix: give 'auto' or a whole number >= 1."),
        ("size = [8]", "size.1: is missing. Fix: give `size` as an array of 2 values, each a whole number."),
        (
            "size = [8, 2.5]",
            "size.1: must be a whole number, got 2.5. Fix: give `size` as an array of 2 values, each a whole number.",
        ),
        ("size = 8", "size: must be an array, got 8. Fix: give an array of 2 values, each a whole number."),
        ('layers = ["a", 1]', "layers.1: must be text, got 1. Fix: give `layers` as an array of values, each text."),
        ("recover = 3", "recover: must be a table, got 3. Fix: give a table."),
        ("file = 3", "file: must be a path, got 3. Fix: give a path."),
        ("fast = 1", "fast: must be true or false, got 1. Fix: give true or false."),
        ("layers = 2020-01-01", "layers: must be an array, got 2020-01-01. Fix: give an array of values, each text."),
    ],
)
def test_validate_says_what_was_got_and_what_to_give(line: str, message: str) -> None:
    assert mistakes(f"schema = 1\nsparsity = 0.5\n{line}\n") == [f"r.toml:3: {message}"]


def test_validate_passes_on_what_a_validator_says() -> None:
    text = "schema = 1\nsparsity = 0.5\nfast = true\nrecover = {}\n"
    assert mistakes(text) == ["r.toml:1: fast excludes recover."]


def test_validate_names_a_missing_key_with_its_type() -> None:
    assert mistakes("schema = 1\n") == ["r.toml:1: sparsity: is missing. Fix: add `sparsity`, a number > 0, < 1."]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "r.toml:1: schema: is missing. Fix: add `schema = 1`."),
        (
            "schema = 2",
            "r.toml:1: schema: schema 2 is newer than this Edgekit, which reads 1. "
            "Fix: upgrade edgekit, or write the file for the older schema.",
        ),
        ("schema = 0", "r.toml:1: schema: must be 1, got 0. Fix: write `schema = 1`."),
        ('schema = "1"', "r.toml:1: schema: must be 1, got '1'. Fix: write `schema = 1`."),
        ("schema = true", "r.toml:1: schema: must be 1, got true. Fix: write `schema = 1`."),
    ],
)
def test_validate_checks_the_schema_number(line: str, message: str) -> None:
    assert mistakes(f"{line}\nsparsity = 0.5\n") == [message]


def test_validate_names_the_option_that_set_a_value() -> None:
    doc = document("schema = 1\nsparsity = 0.5\n").with_option(("sparsity",), 3, "--set sparsity")
    with pytest.raises(InputError) as error:
        validate(Cut, doc)
    assert str(error.value) == "--set sparsity: must be less than 1, got 3. Fix: give a number > 0, < 1."


class Choice(Component):
    """A value in one of three forms."""

    part: float | tuple[float, ...] | Recover | None = None
    """The value."""


def test_reader_names_what_is_wrong_inside_the_branch_that_fits() -> None:
    reader = Reader(document("schema = 1\npart = { epochs = 0 }\n"))
    assert reader.read(Choice, {"part": {"epochs": 0}}) is None
    with pytest.raises(InputError) as error:
        reader.finish()
    assert (
        str(error.value) == "r.toml:2: part.epochs: must be at least 1, got 0. Fix: give a whole number >= 1, <= 100."
    )


def test_reader_notes_one_mistake_once() -> None:
    reader = Reader(document("schema = 1\nlist = 3\n"))
    assert reader.array(("list",), 3) == []
    reader.array(("list",), 3)
    with pytest.raises(InputError) as error:
        reader.finish()
    assert str(error.value) == "r.toml:2: list: must be an array, got 3. Fix: put it in [ ]."
    assert error.value.exit_code == 2


# ---------------------------------------------------------------- descriptions


def test_describe_tells_every_field_from_its_definition() -> None:
    assert describe(Cut) == (
        FieldDoc("sparsity", "a number", "> 0, < 1", None, True, "Share to remove, of all."),
        FieldDoc("importance", "'l2', 'l1' or 'random'", "", "l2", False, "What ranks channels."),
        FieldDoc("keep", "'auto' or a whole number", ">= 1", "auto", False, "Fewest to keep."),
        FieldDoc("size", "an array of 2 values, each a whole number", "", None, False, "Height and width."),
        FieldDoc("layers", "an array of values, each text", "", [], False, "Names."),
        FieldDoc("recover", "a table", "", None, False, "Training."),
        FieldDoc("fast", "true or false", "", False, False, "Quickly."),
        FieldDoc("file", "a path", "", None, False, "A list."),
    )


def test_summary_is_the_first_line_of_the_docstring() -> None:
    assert summary(Cut) == "Cuts something out."


def test_components_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recover().epochs = 3  # type: ignore[misc]
