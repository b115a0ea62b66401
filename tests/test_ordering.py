"""The order of passes: what loses what was worked for is refused, with the reason and the fix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from toolkit import ordering, registry
from toolkit.core import QuantSpec, Trait
from toolkit.plan import Stage
from toolkit.traits import SHAPE

# what the table of the docs calls them -> as a recipe has them
WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    "student": ("student", {"width": 0.5}),
    "prune": ("prune", {"macs": 0.5}),
    "prune, `reconstruct`": ("prune", {"macs": 0.5, "reconstruct": True}),
    "sparsify": ("sparsify", {"sparsity": 0.5}),
    "sparsify, N:M or blocks": ("sparsify", {"pattern": "2:4"}),
    "cluster": ("cluster", {"clusters": 16}),
    "distill": ("distill", {}),
    "quantize": ("quantize", {"scheme": "int8"}),
    "quantize, `corrections`": ("quantize", {"scheme": "int8", "corrections": ["equalize"]}),
    "qat": ("qat", {}),
    "qat, `tfmot`": ("qat", {"backend": "tfmot"}),
}
HERE = [name for name, (use, _) in WRITTEN.items() if use in registry.FAMILIES["passes"]]
PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipes.md"


def chain(passes: Sequence[tuple[str, Any]], export: bool = True) -> list[Stage]:
    """The stages of a recipe of one variant, in lines 1, 2, 3, ..."""
    stages = [Stage("original", "source", "keras", None, "", "", QuantSpec(), "r.toml:0")]
    for line, (use, component) in enumerate(passes, start=1):
        where = f"r.toml:{line}"
        stages.append(Stage(f"{line:02d}-{use}", "pass", use, component, stages[-1].name, "a", QuantSpec(), where))
    if export:
        stages.append(Stage("a.tflite", "export", "tflite", None, stages[-1].name, "a", QuantSpec(), "r.toml:9"))
    return stages


def said(*names: str) -> list[str]:
    chosen = [WRITTEN[name] for name in names]
    passes = [(use, registry.load("passes", use)(**parameters)) for use, parameters in chosen]
    return list(ordering.problems(chain(passes)))


def declared(makes: Sequence[Trait] = (), keeps: Any = None) -> Any:
    return SimpleNamespace(makes=frozenset(makes), **({} if keeps is None else {"keeps": frozenset(keeps)}))


@pytest.mark.parametrize(
    "names",
    [
        ("prune", "distill", "quantize"),
        ("prune", "distill", "qat"),
        ("prune", "distill", "prune", "distill"),
        ("sparsify", "prune", "distill"),  # single zeros of the channels that stay are kept
        ("prune", "sparsify", "distill", "qat"),
        ("sparsify, N:M or blocks", "distill", "qat"),
        ("sparsify, N:M or blocks", "sparsify", "quantize"),
        ("prune", "qat, `tfmot`"),
        ("distill", "sparsify", "quantize"),
    ],
)
def test_orders_that_keep_everything_pass(names: tuple[str, ...]) -> None:
    assert said(*names) == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("quantize", "prune"), "r.toml:2: prune comes after quantize (r.toml:1), which sets the rounding and must be"),
        (("qat", "distill"), "r.toml:2: distill comes after qat (r.toml:1), which sets the rounding and must be"),
        (("quantize", "quantize"), "last pass of its variant. Fix: leave one of them out"),
        (("qat", "quantize"), "r.toml:2: quantize comes after qat"),
        (("quantize", "qat"), "last pass of its variant. Fix: leave one of them out"),
        (("sparsify", "prune, `reconstruct`"), "whose zeros it would fill. Fix: put prune before sparsify"),
        (
            ("sparsify, N:M or blocks", "prune"),
            "whose groups or blocks of zeros it would break up. Fix: put prune before sparsify",
        ),
        (("sparsify, N:M or blocks", "distill", "prune"), "r.toml:3: prune comes after sparsify (r.toml:1)"),
        (
            ("sparsify", "qat, `tfmot`"),
            "r.toml:2: qat comes after sparsify (r.toml:1), whose zeros it would fill. "
            "Fix: set qat to what keeps them (docs/recipes.md), or leave sparsify out",
        ),
        (
            ("cluster", "quantize, `corrections`"),
            "Fix: set quantize to what keeps them (docs/recipes.md), or leave cluster out",
        ),
    ],
)
def test_order_that_loses_work_is_one_line_with_the_reason_and_the_fix(names: tuple[str, ...], words: str) -> None:
    (line,) = said(*names)
    assert words in line
    assert ". Fix: " in line


def test_fix_is_never_the_order_that_was_refused() -> None:
    """Of any two passes: where each must come before the other, the fix is another one."""
    for first in HERE:
        for then in HERE:
            if any(f"Fix: put {WRITTEN[then][0]} before" in line for line in said(first, then)):
                assert not any("Fix: put " in line and "before" in line for line in said(then, first)), (first, then)


def test_network_built_anew_loses_a_cut_and_a_training_but_nothing_when_it_comes_first() -> None:
    student, distill = declared(["fresh"], ()), declared(["trained"], [*SHAPE, "fresh"])
    prune = declared(["narrow"])
    assert list(ordering.problems(chain([("student", student), ("distill", distill), ("prune", prune)]))) == []
    (line,) = ordering.problems(chain([("prune", prune), ("student", student), ("distill", distill)]))
    assert (
        line == "r.toml:2: student comes after prune (r.toml:1), whose cut would be lost. Fix: put student before prune"
    )
    (line,) = ordering.problems(chain([("distill", distill), ("student", student), ("distill", distill)]))
    assert "student comes after distill (r.toml:1), whose training would be lost" in line


def test_fresh_weights_must_be_trained_before_a_pass_that_needs_them_and_before_a_file() -> None:
    student, distill = declared(["fresh"], ()), declared(["trained"], [*SHAPE, "fresh"])
    (line,) = ordering.problems(chain([("student", student)]))
    assert line.startswith("r.toml:9: variant a: nothing trains the weights of student (r.toml:1). Fix: put a pass")
    (line,) = ordering.problems(chain([("student", student), ("quantize", declared(["quantized"]))], export=False))
    assert 'Fix: put a pass that trains, such as use = "distill", between them' in line
    assert list(ordering.problems(chain([("student", student), ("distill", distill)]))) == []


def test_pass_that_declares_nothing_keeps_the_shape_alone() -> None:
    """One of another package: what it does to zeros nobody knows."""
    unknown = SimpleNamespace()
    assert list(ordering.problems(chain([("prune", declared(["narrow"])), ("theirs", unknown)]))) == []
    (line,) = ordering.problems(chain([("sparsify", declared(["sparse"])), ("theirs", unknown)]))
    assert "theirs comes after sparsify (r.toml:1), whose zeros it would fill" in line


def test_variants_branch_with_a_history_of_their_own() -> None:
    """Quantized in one variant, trained on in the other."""
    trunk = chain([("prune", declared(["narrow"]))], export=False)
    quantize = Stage("a.02", "pass", "quantize", declared(["quantized"]), "01-prune", "a", QuantSpec(), "r.toml:2")
    distill = Stage("b.02", "pass", "distill", declared(["trained"]), "01-prune", "b", QuantSpec(), "r.toml:3")
    assert list(ordering.problems([*trunk, quantize, distill])) == []


@pytest.mark.parametrize("name", sorted(registry.FAMILIES["passes"]))
def test_every_pass_declares_traits_that_there_are(name: str) -> None:
    use, parameters = next(written for written in WRITTEN.values() if written[0] == name)  # a new pass needs a line
    component = registry.load("passes", use)(**parameters)
    assert {"makes", "keeps"} <= set(dir(component))
    assert component.makes
    assert ordering.made(component) | ordering.kept(component) <= set(get_args(Trait))


def test_every_trait_has_a_reason() -> None:
    assert set(ordering.REASONS) == set(get_args(Trait))


def test_table_of_the_docs_says_what_plan_says() -> None:
    rows = [line.strip("|\n ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    start = next(index for index, row in enumerate(rows) if row[0] == "first, then:")
    columns = rows[start][1:]
    table = {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows[start + 2 : start + 2 + len(columns)]}
    assert list(table) == columns == list(WRITTEN)
    for first in HERE:
        for then in HERE:
            refused = [line for line in said(first, then) if " comes after " in line]
            assert table[first][then] == ("no" if refused else "yes"), (first, then, refused)
