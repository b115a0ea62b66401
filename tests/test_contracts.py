"""What every registered pass, exporter, runtime, transport, dataset, source and metric promises, whoever wrote it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from toolkit import registry
from toolkit.core import ExportContext, PassContext, QuantSpec, Scheme
from toolkit.errors import InputError
from toolkit.schema import Component, describe

# The smallest settings each pass can run with; a new pass needs a line here
PASSES: dict[str, dict[str, Any]] = {
    "prune": {"sparsity": 0.5, "round_to": 4},
    "student": {"width": 0.5, "round_to": 4},
    "distill": {"epochs": 1},
    "sparsify": {"sparsity": 0.5, "epochs": 1},
    "cluster": {"clusters": 4, "epochs": 1},
    "quantize": {"scheme": "int8"},
    "qat": {"epochs": 1},
}
ENTRIES = [(family, name) for family, entries in registry.FAMILIES.items() for name in entries]


@pytest.fixture(scope="module")
def context(digits_model: Path) -> PassContext:
    from toolkit.sources.keras import Keras

    model = Keras().load(digits_model)
    splits = digits_splits(model)
    return PassContext(original=model, train=splits.train, selection=splits.selection, calibration=splits.calibration)


def digits_splits(model: Any) -> Any:
    from toolkit.datasets.digits import Digits
    from toolkit.datasets.preprocess import PreprocessSpec
    from toolkit.datasets.splits import SplitSpec, make_splits

    contract = PreprocessSpec(scale=0.0625).resolve(model.signature.inputs[0].shape)
    spec = SplitSpec(train=200, selection=100, calibration=100, test="rest")
    return make_splits(Digits().load(), None, spec, contract, 0)


@pytest.mark.parametrize(("family", "name"), ENTRIES)
def test_every_entry_is_a_frozen_component_with_described_fields(family: str, name: str) -> None:
    cls = registry.load(family, name)
    assert issubclass(cls, Component)
    assert cls.model_config["frozen"]
    assert cls.model_config["extra"] == "forbid"
    assert (cls.__doc__ or "").strip().endswith((".", ")"))
    assert all(field.description for field in describe(cls))


@pytest.mark.parametrize("name", sorted(registry.FAMILIES["passes"]))
def test_pass_leaves_its_input_and_keeps_the_signature(name: str, context: PassContext) -> None:
    component = registry.load("passes", name)(**PASSES[name])
    model = context.original
    assert model is not None
    before = [np.array(weight) for weight in model.graph.weights]
    result = component.run(model, context)
    for old, weight in zip(before, model.graph.weights, strict=True):
        np.testing.assert_array_equal(old, weight)
    assert result.model.signature == model.signature
    assert [tensor.shape for tensor in result.model.graph.outputs] == [tensor.shape for tensor in model.graph.outputs]
    assert result.changes
    assert set(component.needs) <= {"train", "selection", "calibration"}
    again = component.run(model, context)  # a pass is a function of model, parameters and seed
    for one, two in zip(result.model.graph.weights, again.model.graph.weights, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("scheme", get_args(Scheme))
@pytest.mark.parametrize("name", sorted(registry.FAMILIES["exporters"]))
def test_exporter_honours_or_refuses_every_scheme(name: str, scheme: Any, context: PassContext, tmp_path: Path) -> None:
    exporter = registry.load("exporters", name)()
    assert context.original is not None
    model = replace(context.original, quant=QuantSpec(scheme))
    path = tmp_path / f"m{exporter.suffix}"
    refusal = exporter.refusal(model.quant)
    if refusal is not None:
        with pytest.raises(InputError):
            exporter.export(model, path, ExportContext(context.calibration))
        assert not list(tmp_path.iterdir())
        return
    assert scheme in exporter.schemes
    artifact = exporter.export(model, path, ExportContext(context.calibration))
    assert (artifact.scheme, artifact.format, artifact.size_bytes) == (scheme, exporter.format, path.stat().st_size)
    assert [spec.name for spec in artifact.signature.inputs] == ["image"]
    assert [spec.name for spec in artifact.signature.outputs] == ["classes"]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", sorted(registry.FAMILIES["exporters"]))
def test_exporter_leaves_nothing_behind_when_it_fails(name: str, context: PassContext, tmp_path: Path) -> None:
    import keras

    assert context.original is not None
    broken = keras.models.clone_model(context.original.graph)
    broken.layers[-1].kernel.assign(np.full(broken.layers[-1].kernel.shape, np.nan))
    exporter = registry.load("exporters", name)()
    with pytest.raises(InputError, match="classes"):
        exporter.export(replace(context.original, graph=broken), tmp_path / "m", ExportContext())
    assert not list(tmp_path.iterdir())


def test_every_pass_has_a_line_here() -> None:
    assert set(PASSES) == set(registry.FAMILIES["passes"])


@pytest.mark.parametrize("name", sorted(registry.FAMILIES["runtimes"]))
def test_runtime_takes_formats_that_an_exporter_writes(name: str) -> None:
    formats = {registry.load("exporters", exporter).format for exporter in registry.FAMILIES["exporters"]}
    assert set(registry.load("runtimes", name).formats) <= formats
