"""What a file is by itself: sizes of every file, and what is said of zeros and shared weights where there are some."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.checks.test_zeros import tflite
from toolkit.core import Artifact, Codebook, Model, Signature
from toolkit.devices import load_device
from toolkit.sources import store
from toolkit.weighing import weighed

CHECKS: Any = [SimpleNamespace(device=load_device("this-machine"), runtime="litert", delegate="xnnpack")]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """Two output channels of 27 weights, one value in the first, two in the other."""
    kernel = np.stack([np.full((3, 3, 3), 7.0), np.resize([1.0, 2.0], (3, 3, 3))])
    path = tflite(tmp_path / "m.tflite", (kernel, 1, 0))
    return Artifact("m.tflite", path, "tflite", "float32", path.stat().st_size, "", Signature((), ()))


def rest(folder: Path, clustered: dict[str, Codebook]) -> Path:
    path = folder / "stage.keras"
    store.save_contract(Model("keras", None, Signature((), ()), clustered=clustered), path)
    return path


def test_file_of_a_clustered_model_says_what_it_holds(artifact: Artifact, tmp_path: Path) -> None:
    found = {m.name: m for m in weighed(artifact, CHECKS, rest(tmp_path, {"conv": Codebook(2)}))}
    assert set(found) == {"size_bytes", "gzip_bytes", "entropy_bytes", "clusters"}
    assert (found["clusters"].value, found["clusters"].device) == (1, "this-machine")
    assert found["clusters"].how["found"] == "2 in each output channel of 1 of 1 layers with more weights there"
    assert found["clusters"].how["in a layer"] == "3"
    entropy = -(14 * np.log2(14 / 27) + 13 * np.log2(13 / 27))  # 1 and 2 in turns, and three floats of 4 bytes
    assert found["entropy_bytes"].value == round(float(entropy) / 8 + 12)


def test_file_of_another_model_has_its_sizes_alone(artifact: Artifact, tmp_path: Path) -> None:
    sizes = {"size_bytes", "gzip_bytes", "entropy_bytes"}
    assert {m.name for m in weighed(artifact, CHECKS, rest(tmp_path, {}))} == sizes
    assert {m.name for m in weighed(artifact, CHECKS, tmp_path / "none.keras")} == sizes
