"""Names resolve without imports; other packages add theirs by entry points."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from toolkit import registry
from toolkit.errors import InputError, UnavailableError


def test_names_have_the_shipped_ones_first() -> None:
    assert list(registry.names("passes"))[: len(registry.FAMILIES["passes"])] == list(registry.FAMILIES["passes"])


def test_load_gives_the_registered_class() -> None:
    from toolkit.datasets.npz import Npz

    assert registry.load("datasets", "npz") is Npz


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("datasets", "foldr", "datasets.foldr: no such datasets entry. Fix: did you mean 'folder'?"),
        ("transports", "xyzzy", "transports.xyzzy: no such transports entry. Fix: use one of "),
        ("dataset", "npz", "dataset: no such registry family. Fix: did you mean 'datasets'?"),
    ],
)
def test_load_says_what_was_meant_when_the_name_is_unknown(family: str, name: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        registry.load(family, name)
    assert str(error.value).startswith(message)


def test_entry_points_of_other_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints(
        [
            EntryPoint("fractions", "fractions:Fraction", "edgekit.passes"),
            EntryPoint("prune", "fractions:Fraction", "edgekit.passes"),
        ]
    )
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points.select(group=group))
    assert registry.load("passes", "fractions").__name__ == "Fraction"
    assert registry.names("passes")["prune"] == registry.FAMILIES["passes"]["prune"]  # a shipped name is not replaced
    assert "fractions" not in registry.names("metrics")


def test_load_names_the_missing_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.FAMILIES["passes"], "broken", "no_such_module_anywhere:Pass")
    with pytest.raises(UnavailableError) as error:
        registry.load("passes", "broken")
    assert "No module named 'no_such_module_anywhere'" in str(error.value)
    assert error.value.exit_code == 3


def test_loading_a_component_imports_no_framework() -> None:
    """In a fresh process: every family that a recipe names, and no TensorFlow, Keras or NumPy."""
    import subprocess

    code = (
        "import sys; from toolkit import registry\n"
        "for family in ('passes', 'exporters', 'runtimes', 'transports', 'datasets'):\n"
        "    for name in registry.FAMILIES[family]: registry.load(family, name)\n"
        "print(sorted({'numpy', 'tensorflow', 'keras', 'onnx', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
