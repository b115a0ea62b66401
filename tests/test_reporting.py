"""`edgekit report` as it is called."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from toolkit import runs
from toolkit.cli import cli
from toolkit.errors import InputError
from toolkit.recipe_reader import load_recipe


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    spec = importlib.util.spec_from_file_location("a_manifest", Path(__file__).parent / "report" / "sample_manifest.py")
    assert spec
    assert spec.loader
    samples = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(samples)
    made = [tmp_path_factory.mktemp(name) for name in ("monday", "tuesday")]
    for folder in made:
        (folder / "manifest.json").write_bytes(runs.dump(samples.sample()))
    return made


def report(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def test_one_run_is_written_into_its_folder(folders: list[Path]) -> None:
    found = report(folders[0])
    assert (found.exit_code, found.output.strip()) == (0, str(folders[0] / "report.html"))
    assert (folders[0] / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_several_runs_are_written_into_one_page_here(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = report(*folders)
    assert (found.exit_code, found.output.strip()) == (0, "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"1: {folders[0].name}" in page
    assert f"2: {folders[1].name}" in page


def test_markdown_is_printed_or_written(folders: list[Path], tmp_path: Path) -> None:
    printed = report(folders[0], "--markdown")
    assert printed.output.startswith("### `digits-demo`: ")
    report(folders[0], "--markdown", "--out", tmp_path / "summary.md")
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == printed.output
    both = report(*folders, "--markdown").output
    assert both.count("### `digits-demo`: ") == 2
    assert "0 measurements worse, 0 better" in both


def test_open_starts_the_browser_with_the_page(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!{sys.executable}\nimport sys\nopen({str(tmp_path / "seen")!r}, "w").write(sys.argv[1])\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    for name in ("_browsers", "_tryorder"):  # what the module remembers of an earlier search
        monkeypatch.setattr(f"webbrowser.{name}", {} if name == "_browsers" else None)
    assert report(folders[0], "--open").exit_code == 0
    assert (tmp_path / "seen").read_text() == (folders[0] / "report.html").as_uri()


def test_open_without_a_browser_says_where_the_page_is(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    found = report(folders[0], "--open")
    assert found.exit_code == 3
    assert "report.html: no browser could be started" in found.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--markdown", "--open"], "leave --markdown out"),
        (["--out", "nowhere/page.html"], "its folder is not there"),
        (["--out", "."], "is a folder"),
    ],
)
def test_what_cannot_be_done_is_refused(folders: list[Path], arguments: list[str], said: str) -> None:
    found = report(folders[0], *arguments)
    assert found.exit_code == 2
    assert said in found.output


def test_what_is_no_run_is_named(folders: list[Path], tmp_path: Path) -> None:
    found = report(folders[0], tmp_path)
    assert found.exit_code == 2
    assert f"{tmp_path}: holds no manifest.json" in found.output


def test_run_keeps_no_images_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []

    def run(recipe: str, *, overrides: tuple[str, ...], **rest: object) -> None:
        seen.append(overrides)
        raise InputError(recipe, "is not carried out here")

    monkeypatch.setattr("toolkit.pipeline.run", run)
    CliRunner().invoke(cli, ["run", "digits-demo", "--set", "seed=1", "--no-images"])
    CliRunner().invoke(cli, ["run", "digits-demo"])
    assert seen == [("seed=1", "report.images=0"), ()]


def test_recipe_says_how_many_images_are_kept(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    text = 'schema = 1\nexport = ["tflite"]\n[report]\nimages = {}\n'
    recipe.write_text(text.format(30))
    assert load_recipe(recipe).resolved()["report"] == {"images": 30, "stages": True}
    assert load_recipe(recipe, overrides=["report.images=0"]).resolved()["report"]["images"] == 0
    recipe.write_text(text.format(101))
    with pytest.raises(InputError, match=r"report\.images"):
        load_recipe(recipe)
