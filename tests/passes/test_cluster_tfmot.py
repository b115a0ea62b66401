"""`cluster` by tensorflow-model-optimization itself, from the pass to the file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.passes.test_cluster import Images, original, values  # noqa: F401  (the fixture)
from toolkit.checks.weights import weights_of
from toolkit.core import Codebook, ExportContext, Model, PassContext, QuantSpec
from toolkit.exporters.tflite import TFLite
from toolkit.passes.cluster import Cluster

pytest.importorskip("tf_keras", reason="the extra `legacy`")


@pytest.mark.skipif(find_spec("tensorflow_model_optimization") is None, reason="the extra `tfmot`")
@pytest.mark.slow
def test_values_of_tfmot_stand_in_the_file(original: Model, tmp_path: Path) -> None:  # noqa: F811
    asked = Cluster(clusters=4, epochs=1, batch_size=16, backend="tfmot", protect=("answer",))
    found = asked.run(original, PassContext(original=original, train=Images(), evaluate=lambda model: 0.5))
    assert values(found.model) == {"conv": 4, "point": 4, "answer": 48}
    assert found.model.clustered == {"conv": Codebook(4), "point": Codebook(4)}
    rows = {change.layer: change.after for change in found.changes}
    assert (rows["conv"], rows["point"], len(found.curves["loss"])) == ("4 values", "4 values", 1)
    TFLite().export(found.model, tmp_path / "m.tflite", ExportContext())
    few = [w.values.size for w in weights_of(tmp_path / "m.tflite") if max(map(len, map(np.unique, w.channels))) <= 4]
    assert sorted(few) == [128, 144]


def test_package_is_asked_for_where_it_trains() -> None:
    assert Cluster(clusters=4, backend="tfmot").packages(QuantSpec(), "keras")[0][1] == "edgekit[tfmot]"
    assert Cluster(clusters=4).packages(QuantSpec(), "keras") == ()
