"""The sample manifests, for every test of this folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from toolkit.runs import Manifest


def _samples() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_manifest", Path(__file__).with_name("sample_manifest.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    return _samples()


@pytest.fixture(scope="session")
def sample(samples: ModuleType) -> Manifest:
    return samples.sample()  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def hostile(samples: ModuleType) -> Manifest:
    return samples.hostile()  # type: ignore[no-any-return]
