"""What was clustered stays clustered in the delivered files: different integers counted in each output channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.passes.test_cluster import Images, kernels, original  # noqa: F401  (the fixture)
from toolkit.checks.weights import weights_of
from toolkit.core import Codebook, ExportContext, Model, PassContext
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.tflite import TFLite
from toolkit.passes.cluster import Cluster
from toolkit.passes.qat import Qat
from toolkit.passes.quantize import Quantize
from toolkit.passes.sparsify import Sparsify

SIZES = {144: "conv", 128: "point", 48: "answer"}


@pytest.fixture(scope="module")
def context(original: Model) -> PassContext:  # noqa: F811
    return PassContext(original=original, train=Images(), calibration=Images())


@pytest.fixture(scope="module")
def sparse(original: Model, context: PassContext) -> Model:  # noqa: F811
    """Half of the weights zero, and four values beside zero: five in all."""
    zeros = Sparsify(sparsity=0.5, epochs=0).run(original, context).model
    return Cluster(clusters=5, epochs=1, batch_size=16, learning_rate=0.01).run(zeros, context).model


def files(model: Model, folder: Path) -> list[dict[str, Any]]:
    """A row of integers for each output channel of each layer, of both kinds of file."""
    export = ExportContext(calibration=Images())  # type: ignore[arg-type]
    found = []
    for exporter, name in ((TFLite(), "m.tflite"), (ONNX(), "m.onnx")):
        exporter.export(model, folder / name, export)
        weights = [weight for weight in weights_of(folder / name) if weight.values.size in SIZES]
        found.append({SIZES[weight.values.size]: weight for weight in weights})
    return found


@pytest.mark.parametrize("step", ["qat", "quantize", "bias", "weight_int8", "float16", "float32"])
def test_delivered_files_have_as_few_values(sparse: Model, context: PassContext, step: str, tmp_path: Path) -> None:
    """Through BatchNormalization, rounding and both exporters; and what was zero is zero."""
    passes: dict[str, Any] = {
        "qat": Qat(epochs=2, batch_size=16, learning_rate=0.01),
        "quantize": Quantize(scheme="int8"),
        "bias": Quantize(scheme="int8", corrections=("bias",)),
        "weight_int8": Quantize(scheme="weight_int8"),
        "float16": Quantize(scheme="float16"),
    }
    model = passes[step].run(sparse, context).model if step in passes else sparse
    assert set(model.clustered) == set(SIZES.values())
    for found in files(model, tmp_path):
        assert set(found) == set(SIZES.values())
        for name, weight in found.items():
            if "float" not in step:
                assert weight.values.dtype == np.int8
            assert max(len(np.unique(row)) for row in weight.channels) <= 5
            assert np.sum(weight.values == 0) >= np.sum(kernels(sparse)[name] == 0)


def test_files_of_a_model_without_clusters_have_many_values(
    original: Model,  # noqa: F811
    context: PassContext,
    tmp_path: Path,
) -> None:
    for found in files(Quantize(scheme="int8").run(original, context).model, tmp_path):
        assert all(max(len(np.unique(row)) for row in weight.channels) > 7 for weight in found.values())


def test_per_channel_codebooks_have_as_many_integers_in_each(
    original: Model,  # noqa: F811
    context: PassContext,
    tmp_path: Path,
) -> None:
    step = Cluster(clusters=3, per="channel", epochs=1, batch_size=16, learning_rate=0.01)
    model = Qat(epochs=1, batch_size=16, learning_rate=0.01).run(step.run(original, context).model, context).model
    assert set(model.clustered.values()) == {Codebook(3, "channel")}
    for found in files(model, tmp_path):
        assert {max(len(np.unique(row)) for row in weight.channels) for weight in found.values()} == {3}
