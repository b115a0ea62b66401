"""Both families of network as int8 files, written once; lets the tests beside it import `nets`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import keras
import pytest

from toolkit.core import ExportContext, QuantSpec

sys.path.insert(0, str(Path(__file__).parent))

from nets import Noise, Written, lively, mobile, residual


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    """Both networks, quantized to int8 by both exporters."""
    from toolkit.exporters.onnx import ONNX
    from toolkit.exporters.tflite import TFLite
    from toolkit.sources.keras import Keras

    folder, found = tmp_path_factory.mktemp("int8"), {}
    for name, make in (("mobile", mobile), ("residual", residual)):
        keras.utils.set_random_seed(1)
        path = folder / f"{name}.keras"
        lively(make()).save(path)
        model = Keras().load(path)
        asked = replace(model, quant=QuantSpec("int8"))
        files = [folder / f"{name}{suffix}" for suffix in (".tflite", ".onnx")]
        for exporter, file in zip((TFLite(), ONNX(layout="NCHW")), files, strict=True):
            exporter.export(asked, file, ExportContext(Noise()))
        found[name] = Written(model.graph, *files)
    return found
