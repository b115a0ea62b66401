"""The docs are true: generated pages are fresh, examples run, every command and shipped file is mentioned."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from toolkit import registry
from toolkit.cli import cli
from toolkit.devices import shipped

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh() -> None:
    for path, text in generator().pages().items():
        assert path.read_text() == text, f"{path.name} is stale: run `make docs`"


def test_python_examples_run(digits_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, Any] = {"model": digits_model, "folder": tmp_path}
    for block in blocks:
        exec(block, names)
    assert names["sizes"]["int8.tflite"] < names["sizes"]["original.tflite"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_is_in_the_docs() -> None:
    text = "\n".join(path.read_text() for path in PAGES if path.name != "cli.md")
    missing = [name for name in cli.commands if f"edgekit {name}" not in text and f"`{name}`" not in text]
    assert not missing


@pytest.mark.parametrize("kind", ["recipes", "devices"])
def test_every_shipped_file_is_in_its_page(kind: str) -> None:
    text = (ROOT / "docs" / f"{kind}.md").read_text()
    assert not [name for name in shipped(kind) if f"`{name}`" not in text]


def test_every_registered_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    for family, entries in registry.FAMILIES.items():
        for name in entries:
            assert f"### {name}\n" in text, f"{family}.{name}"


def test_public_names_are_documented() -> None:
    import toolkit

    text = (ROOT / "docs" / "python.md").read_text()
    undocumented = [name for name in toolkit.__all__ if f"toolkit.{name}" not in text and name != "__version__"]
    assert not undocumented


def test_changelog_says_nothing_twice() -> None:
    """Merges of branches that both add to its top have left entries several times."""
    for release in re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]:
        entries = re.split(r"^- ", release, flags=re.MULTILINE)[1:]
        assert entries and len({" ".join(entry.split()) for entry in entries}) == len(entries)
