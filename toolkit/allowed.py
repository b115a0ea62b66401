"""Code that --allow-code lets run: the files its modules come from, so that a run notices when they change."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from toolkit.errors import InputError


def files(modules: Iterable[str]) -> tuple[Path, ...]:
    """The source file of each module; InputError for one that cannot be imported here. Imports packages around them."""
    return tuple(_file(module) for module in modules)


def _file(module: str) -> Path:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # of a package around it, or no name of a module
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        problem = f"no module {module!r} can be imported here"
        raise InputError("--allow-code", problem, "run from its folder, or set PYTHONPATH")
    return Path(spec.origin)
