"""Edgekit: takes a trained CNN to an edge device, smaller, faster, and proven to be still right.

The names below are loaded on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "EdgekitError": "toolkit.errors:EdgekitError",
    "bench_files": "toolkit.measuring:bench_files",
    "compare_runs": "toolkit.compare:compare",
    "evaluate_file": "toolkit.measuring:evaluate_file",
    "examine": "toolkit.doctor:examine",
    "inspect_file": "toolkit.inspection:inspect_file",
    "list_names": "toolkit.catalogue:list_names",
    "load_device": "toolkit.devices:load_device",
    "load_recipe": "toolkit.recipe_reader:load_recipe",
    "make_plan": "toolkit.plan:make_plan",
    "read_manifest": "toolkit.runs:read",
    "run": "toolkit.pipeline:run",
    "write_report": "toolkit.reporting:write_report",
}

__all__ = ["__version__", *sorted(_WHERE)]  # noqa: PLE0604 - all of them are strings


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
