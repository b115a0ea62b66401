"""The floors, light imports, file sizes, and that every registry line resolves, is documented and is tested."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from toolkit import registry

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "toolkit"
MODULES = sorted(PACKAGE.rglob("*.py"))
FLOORS = {
    "worker": 0,  # imports nothing of toolkit; anything may start it
    "errors": 0,
    "children": 0,
    "ended": 1,
    "digest": 0,
    "registry": 1,
    "documents": 1,
    "schema": 2,
    "budget": 3,
    "quantization": 2,
    "codebook": 2,
    "traits": 2,
    "engine": 3,
    "tensorrt": 3,  # knows graphs and texts; not recipes, files or devices
    "core": 4,
    "parts": 4,
    "tfmot": 4,  # a program of its own on top of the engine
    "passes": 5,
    "exporters": 5,
    "runtimes": 5,
    "transports": 5,
    "datasets": 5,
    "sources": 5,
    "metrics": 5,
    "hardware": 4,
    "cores": 4,
    "tflite_versions": 4,
    "devices": 6,
    "compat": 7,
    "estimates": 6,
    "benchmark_model": 6,
    "kernels": 7,
    "training": 6,
    "recipe_file": 6,
    "overrides": 6,
    "recipe": 6,
    "extending": 6,
    "budget_file": 6,
    "recipe_reader": 6,
    "data": 6,
    "checks": 6,
    "allowed": 7,
    "ordering": 7,
    "plan": 7,
    "pruning": 7,
    "runs": 7,
    "manifest_versions": 7,
    "manifest_schema": 8,
    "run_log": 8,
    "ending": 8,
    "beside": 8,
    "weighing": 8,
    "bundle": 8,
    "card": 8,
    "candidates": 8,
    "capture": 8,
    "captured": 8,
    "capturing": 8,
    "calibrating": 8,
    "bench": 8,
    "catalogue": 8,
    "compare": 8,
    "comparing": 8,
    "kept": 8,
    "paired_runs": 8,
    "regressions": 8,
    "retiming": 8,
    "contract": 8,
    "coverage": 8,
    "deploy": 8,
    "deployed": 8,
    "diagnosis": 8,
    "equivalence": 8,
    "doctor": 8,
    "engine_timing": 8,
    "engines": 8,
    "examining": 8,
    "executor": 8,
    "faster": 8,
    "first_recipe": 8,
    "inspection": 8,
    "linting": 8,
    "judging": 8,
    "measuring": 8,
    "pipeline": 8,
    "planned": 8,
    "profiles": 8,
    "progress": 8,
    "rejudging": 8,
    "repair": 8,
    "reference": 8,
    "report": 8,
    "reporting": 8,
    "sample_code": 8,
    "selecting": 8,
    "split_records": 8,
    "staged": 8,
    "stages": 8,
    "thumbnails": 8,
    "timing": 8,
    "starting": 8,
    "together": 8,
    "trained": 8,
    "cli_deploy": 9,
    "cli_options": 9,
    "cli_device": 9,
    "cli_report": 9,
    "cli_init": 9,
    "cli_estimates": 9,
    "cli_verdicts": 9,
    "cli": 9,
    "__init__": 9,
    "__main__": 9,
}
SIBLINGS = 5  # the floor whose packages never import each other
HEAVY = {
    *("numpy", "tensorflow", "keras", "onnx", "onnxruntime", "ai_edge_litert", "tflite_runtime", "tf2onnx"),
    *("tflite_micro", "ethosu"),
    *("sklearn", "PIL", "scipy", "h5py", "tf_keras", "tensorrt_rtx", "matplotlib"),
}
ENGINE_MAY = {"numpy", "keras", "tensorflow"}
LONGEST = 450  # lines of a file


@dataclass(frozen=True)
class Import:
    """One imported module. top: at module level and not for type checking alone."""

    module: str
    line: int
    top: bool


@cache
def imports(path: Path) -> tuple[Import, ...]:
    return tuple(_walk(ast.parse(path.read_text(encoding="utf-8")), path, top=True))


def _walk(node: ast.AST, path: Path, *, top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(name, child.lineno, top) for name in _from(child, path))
        else:
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, path, top=top and not typing and not function)


def _from(node: ast.ImportFrom, path: Path) -> list[str]:
    """`from toolkit import registry` names toolkit.registry, `from toolkit.core import Model` names toolkit.core."""
    base = node.module or ""
    if node.level:
        parents = path.relative_to(ROOT).parts[: -node.level]
        base = ".".join((*parents, base)).rstrip(".")
    if base == "toolkit":
        return [f"toolkit.{alias.name}" for alias in node.names if alias.name != "__version__"]
    return [base]


def part(path: Path) -> str:
    """The entry of FLOORS a file belongs to: its package under toolkit/, or its own name."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def own(path: Path) -> Iterator[tuple[str, Import]]:
    """(part, import) of everything a file imports from toolkit."""
    for item in imports(path):
        names = item.module.split(".")
        if names[0] == "toolkit":
            yield (names[1] if len(names) > 1 else "__init__"), item


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_imports_only_from_floors_below(path: Path) -> None:
    assert part(path) in FLOORS, f"{name_of(path)} has no floor: add it to FLOORS"
    floor = FLOORS[part(path)]
    upward = [f"line {item.line}: {item.module}" for name, item in own(path) if FLOORS.get(name, 99) > floor]
    assert upward == [], f"{name_of(path)} is on floor {floor}"


@pytest.mark.parametrize("path", [path for path in MODULES if FLOORS.get(part(path)) == SIBLINGS], ids=name_of)
def test_siblings_never_import_each_other(path: Path) -> None:
    across = [
        f"line {item.line}: {item.module}"
        for name, item in own(path)
        if FLOORS.get(name) == SIBLINGS and name != part(path)
    ]
    assert across == []


def test_worker_imports_nothing_of_toolkit() -> None:
    found = [(name_of(path), item) for path in MODULES if part(path) == "worker" for _, item in own(path)]
    assert found == []


@pytest.mark.parametrize("path", [path for path in MODULES if part(path) != "worker"], ids=name_of)
def test_heavy_imports_stay_inside_functions_or_the_engine(path: Path) -> None:
    heavy = HEAVY - ENGINE_MAY if part(path) == "engine" else HEAVY
    found = [f"line {item.line}: {item.module}" for item in imports(path) if item.top and _root(item) in heavy]
    assert found == []


def test_engine_is_imported_inside_functions_only() -> None:
    """engine/ imports TensorFlow, so that whoever imports it at the top does too."""
    found = [
        f"{name_of(path)}:{item.line}"
        for path in MODULES
        if part(path) != "engine"
        for name, item in own(path)
        if name == "engine" and item.top
    ]
    assert found == []


def _root(item: Import) -> str:
    return item.module.partition(".")[0]


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))], ids=name_of)
def test_files_stay_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{name_of(path)} has {lines} lines: it holds more than one idea"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{name_of(path)} has no docstring"


# ---------------------------------------------------------------- the registry

LINES = [(family, name) for family, entries in registry.FAMILIES.items() for name in entries]


@cache
def _text(folder: str, pattern: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / folder).rglob(pattern)))


@pytest.mark.parametrize(("family", "name"), LINES)
def test_registry_line_resolves_to_something_described(family: str, name: str) -> None:
    entry = registry.load(family, name)
    assert (entry.__doc__ or "").strip(), f"{family}.{name} has no docstring"
    fields = getattr(entry, "model_fields", {})
    bare = [field for field, info in fields.items() if not info.description]
    assert bare == [], f"fields of {family}.{name} without a description"


@pytest.mark.parametrize(("family", "name"), LINES)
def test_registry_line_is_documented(family: str, name: str) -> None:
    assert f"`{name}`" in _text("docs", "*.md"), f"docs/ do not mention `{name}` of {family}"


@pytest.mark.parametrize(("family", "name"), LINES)
def test_registry_line_is_tested(family: str, name: str) -> None:
    """A test names the class, or gives the name to what it tests."""
    cls = registry.FAMILIES[family][name].partition(":")[2]
    folder = ROOT / "tests" / family
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("test_*.py")))
    assert re.search(rf"\b{cls}\b|[\"']{re.escape(name)}[\"']", text), f"tests/{family}/ never use {cls}"


@pytest.mark.parametrize("kind", ["recipes", "devices"])
def test_shipped_files_are_documented(kind: str) -> None:
    missing = [path.stem for path in (ROOT / kind).glob("*.toml") if f"`{path.stem}`" not in _text("docs", "*.md")]
    assert missing == []
