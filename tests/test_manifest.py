"""Manifests as others meet them: old ones open, new ones fit the published schema, later ones are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from toolkit import compare, manifest_versions, runs
from toolkit.core import Interval, Measurement
from toolkit.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((ROOT / "docs" / "manifest.schema.json").read_text())
# As earlier versions wrote them (paths and host names taken out, long lists cut): name -> what their runs found out
OLD = {
    "diagnosed": ("done", "PASS", 13, 4, 2),
    "first": ("done", "PASS", 12, 4, 2),
    "interrupted": ("failed", "", 4, 2, 0),
    "onnx-source": ("done", "INCONCLUSIVE", 8, 2, 1),
    "repaired": ("done", "PASS", 9, 2, 1),
}


def path_of(name: str) -> Path:
    return Path(__file__).parent / "manifests" / f"{name}.json"


def lost(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Where something of `before` is gone or changed."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after[key], f"{where}.{key}") if key in after else [f"{where}.{key}"]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{where}.{number}")
    elif before != after:
        yield where


def validate(found: Any) -> None:
    """By a program that is not ours."""
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(found)


def test_every_kept_manifest_is_tried() -> None:
    assert {path.stem for path in (Path(__file__).parent / "manifests").glob("*.json")} == set(OLD)


@pytest.mark.parametrize("name", OLD)
def test_old_manifest_still_opens_with_all_it_said(name: str) -> None:
    said, manifest = json.loads(path_of(name).read_text()), runs.read(path_of(name))
    assert OLD[name] == (
        manifest.status,
        manifest.outcome,
        len(manifest.stages),
        len(manifest.artifacts),
        len(manifest.verdicts),
    )
    written = json.loads(runs.dump(manifest))
    assert not list(lost(said, written))
    assert compare.text(compare.compare(manifest, manifest))


@pytest.mark.parametrize("name", OLD)
def test_old_manifest_has_a_report_and_a_summary(name: str) -> None:
    from toolkit.report.html import render
    from toolkit.report.text import summary_lines

    manifest = runs.read(path_of(name))
    page = render(manifest)
    assert manifest.name in page
    for verdict in manifest.verdicts:
        assert verdict.artifact in page
        assert any(verdict.artifact in line for line in summary_lines(manifest))


@pytest.mark.parametrize("name", OLD)
def test_manifest_written_today_fits_the_published_schema(name: str) -> None:
    validate(json.loads(runs.dump(runs.read(path_of(name)))))
    validate(json.loads(path_of(name).read_text()))


def test_numbers_that_json_has_not_fit_the_schema_and_other_words_do_not() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    interval = Interval(-math.inf, math.inf, 0.95, "x")
    odd = Measurement("a", "sqnr_db", math.nan, "dB", "measured", interval=interval)
    manifest = runs.Manifest("n", "done", "2026", {}, 0, {}, {}, measurements=(odd,))
    found = json.loads(runs.dump(manifest))
    validate(found)
    for key, wrong in (("value", "much"), ("source", "guessed"), ("subject", 3)):
        broken = json.loads(runs.dump(manifest))
        broken["measurements"][0][key] = wrong
        with pytest.raises(jsonschema.ValidationError):
            validate(broken)


def test_what_a_reader_does_not_know_is_passed_over(tmp_path: Path) -> None:
    found = json.loads(path_of("interrupted").read_text()) | {"of_tomorrow": [1]}
    found["stages"][0]["of_tomorrow"] = 2
    (tmp_path / "manifest.json").write_text(json.dumps(found))
    assert runs.read(tmp_path) == runs.read(path_of("interrupted"))
    validate(found)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"schema": 2}', "was written by a newer Edgekit: schema 2, this one reads up to 1"),
        ('{"name": "n"}', "is not a manifest: it says no `schema`"),
        ('{"schema": true}', "is not a manifest: it says no `schema`"),
        ("[1]", "is not a manifest: it says no `schema`"),
        ("{", "is not a manifest: "),
        ("", "is not a manifest: "),
        ("[" * 100_000, "is not a manifest: "),
        ('{"schema": 1}', "is not a manifest of schema 1: name "),
    ],
)
def test_what_is_no_manifest_of_ours_is_refused_in_one_line(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError) as caught:
        runs.read(tmp_path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_older_schemas_are_upgraded_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were two more numbers to come: one that renames a field, one that moves what it holds."""

    def renamed(found: dict[str, Any]) -> dict[str, Any]:
        return {**found, "schema": 2, "title": found["name"]}

    def moved(found: dict[str, Any]) -> dict[str, Any]:
        return {**found, "schema": 3, "name": f"{found['title']} of {found['seed']}"}

    (tmp_path / "manifest.json").write_text(path_of("interrupted").read_text())
    monkeypatch.setattr(manifest_versions, "UPGRADES", (renamed, moved))
    assert (runs.read(tmp_path).name, runs.read(tmp_path).schema) == ("digits-demo of 0", 3)
