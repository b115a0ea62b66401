"""The sample manifests, for every test of this folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from toolkit.runs import Manifest


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    return _module("sample_manifest")


@pytest.fixture(scope="session")
def answered(samples: ModuleType) -> Callable[..., Manifest]:
    """The sample manifest with the answers of a head: `answered("logits", classes=10)`."""
    make = _module("answered").manifest
    return lambda head, **options: make(samples.sample(), head, **options)


@pytest.fixture(scope="session")
def sample(samples: ModuleType) -> Manifest:
    return samples.sample()  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def hostile(samples: ModuleType) -> Manifest:
    return samples.hostile()  # type: ignore[no-any-return]
