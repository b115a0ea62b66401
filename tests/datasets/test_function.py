"""A dataset of one's own: by entry point, or by a function whose module the command line allows."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from toolkit import registry
from toolkit.core import Preprocessing
from toolkit.data import load_splits
from toolkit.datasets.census import CensusSpec
from toolkit.datasets.function import Function
from toolkit.datasets.preprocess import PreprocessSpec
from toolkit.datasets.splits import SplitSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.recipe import DataSpec, Step

ROOT = Path(__file__).resolve().parents[2]
CODE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The example of docs/data.md as a module; importing it leaves a file behind."""
    (tmp_path / "my_shapes.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{CODE}", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_shapes"
    sys.modules.pop("my_shapes", None)


def spec(dataset: object) -> DataSpec:
    step = Step("callable", dataset, ("data",))
    return DataSpec(step, PreprocessSpec(), SplitSpec(test=0.25), None, CensusSpec())


def test_function_gives_the_images_when_its_module_is_allowed(module: str) -> None:
    dataset = Function(function=f"{module}:shapes", arguments={"count": 40})
    splits = load_splits(spec(dataset), Preprocessing(), seed=0, allow_code=(module,))
    assert (len(splits.test), splits.test.classes) == (10, ("bar", "block"))
    assert next(splits.test.batches(10)).inputs["image"].shape == (10, 16, 16, 3)


@pytest.mark.parametrize("allowed", [(), ("my_shapes_too",), ("my",), ("my_shapes:shapes",)])
def test_function_runs_nothing_when_its_module_is_not_allowed(
    module: str, tmp_path: Path, allowed: tuple[str, ...]
) -> None:
    dataset = Function(function=f"{module}:shapes")
    with pytest.raises(UnsupportedError, match=r"code of the module 'my_shapes'. Fix: add --allow-code my_shapes"):
        load_splits(spec(dataset), Preprocessing(), seed=0, allow_code=allowed)
    assert not (tmp_path / "ran").exists()


def test_a_recipe_cannot_allow_itself() -> None:
    assert "allow_code" not in Function.model_fields
    with pytest.raises(UnsupportedError):
        Function(function="os:getcwd").load()


@pytest.mark.parametrize(
    "function, problem",
    [
        ("no_such_module:f", "No module named 'no_such_module'. Fix: install it"),
        ("os:no_such_function", "the module has no 'no_such_function'"),
        ("os:getcwd", r"returned str. Fix: return toolkit\.core\.Records"),
    ],
)
def test_function_that_gives_no_records_is_refused(function: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Function(function=function).load((function.partition(":")[0],))


def test_entry_points_of_other_packages_are_datasets(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("shapes", f"{module}:Shapes", "edgekit.datasets")
    real = importlib.metadata.entry_points
    points = importlib.metadata.EntryPoints([point])
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda **by: points if by == {"group": "edgekit.datasets"} else real(**by)
    )
    assert registry.names("datasets")["shapes"] == "my_shapes:Shapes"
    dataset = registry.load("datasets", "shapes")(count=8)
    splits = load_splits(spec(dataset), Preprocessing(), seed=0)
    assert (len(splits.test), splits.test.ids[0][:6]) == (2, "shape-")
