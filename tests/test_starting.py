"""`edgekit init`: from files to a recipe that works, and what it says of models and images that none can start from."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from toolkit import pipeline, starting
from toolkit.cli import cli
from toolkit.errors import InputError, UnsupportedError
from toolkit.plan import make_plan
from toolkit.recipe_reader import check_file, load_recipe

FOUND: dict[str, Any] = {
    "inputs": [{"shape": (None, 8, 8, 1), "layout": "NHWC", "meaning": "image"}],
    "outputs": [{"shape": (None, 10), "meaning": "softmax"}],
    "parameters": 4_000,
    "macs": 30_000,
    "layers": [{"layer": "conv", "kind": "Conv2D"}],
    "takes": {"pass prune": "yes: 28 channels in 2 groups can be removed"},
}


@pytest.fixture
def inspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says what `inspect` would say of net.keras, but for these."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.keras").write_bytes(b"")

    def says(**changed: Any) -> Path:
        monkeypatch.setattr(starting, "inspect_file", lambda path, allow_code=(): {**FOUND, **changed})
        return Path("net.keras")

    return says


def test_trained_model_gets_a_recipe_that_checks_plans_and_knows_it(digits_model: Path, tmp_path: Path) -> None:
    """The real thing once, by the command; the model is read in a process of its own."""
    out = tmp_path / "made" / "first.toml"
    command = ["init", str(digits_model), "--device", "cortex-m4", "--data", "digits", "--out", str(out)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert f"wrote {out}" in done.output
    assert "CHECK: what the model was trained on" in done.output
    assert check_file(out)["name"] == "first"
    recipe = load_recipe(out)
    assert recipe.model.source == digits_model
    assert [variant.name for variant in recipe.variants] == ["int8", "small"]  # 1,797 images train, channels can go
    assert make_plan(recipe).problems == ()
    again = CliRunner().invoke(cli, command)
    assert again.exit_code == 2
    assert "is there already" in again.output


def test_recipe_goes_to_standard_output_with_paths_from_here(inspected: Any, tmp_path: Path) -> None:
    text = starting.start(inspected(), "pixel-8").text
    assert tomllib.loads(text)["model"]["source"] == "net.keras"
    (tmp_path / "deep").mkdir()
    out = tmp_path / "deep" / "first.toml"
    starting.start(inspected(), "pixel-8", out=out)
    assert load_recipe(out).model.source == tmp_path / "net.keras"


def test_data_may_be_a_table_of_its_parameters(inspected: Any, tmp_path: Path) -> None:
    rows = "\n".join(f"{i}.png,{i % 10}" for i in range(40))
    (tmp_path / "list.csv").write_text(f"picture,kind\n{rows}\n")
    for i in range(40):
        (tmp_path / f"{i}.png").write_bytes(b"no image, and nobody looks")
    (tmp_path / "deep").mkdir()
    given = '{path = "list.csv", file = "picture", label = "kind", root = "."}'
    started = starting.start(inspected(), "pixel-8", data=given, out=tmp_path / "deep" / "first.toml")
    data = tomllib.loads(started.text)["data"]
    assert (data["use"], data["file"], data["label"]) == ("csv", "picture", "kind")
    assert (data["path"], data["root"]) == (str(tmp_path / "list.csv"), str(tmp_path))  # not below the recipe
    assert data["splits"] == {"calibration": 10, "test": "rest"}


def test_channels_first_and_open_sizes_are_read_from_the_shape(inspected: Any, tmp_path: Path) -> None:
    first = [{"shape": (None, 3, 24, 32), "layout": "none", "meaning": "tensor"}]
    assert starting.look(inspected(inputs=first), tmp_path).size == (24, 32)
    open_ends = [{"shape": (None, None, None, 3), "layout": "NHWC", "meaning": "image"}]
    assert starting.look(inspected(inputs=open_ends), tmp_path).size == (None, None)
    assert "input_shape = [224, 224]" in starting.start(Path("net.keras"), "pixel-8").text


def test_layer_that_scales_pixels_is_named(inspected: Any, tmp_path: Path) -> None:
    model = inspected(layers=[{"layer": "conv", "kind": "Conv2D"}, {"layer": "to_unit", "kind": "Rescaling"}])
    assert starting.look(model, tmp_path).scaled == "to_unit"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": FOUND["inputs"] * 2}, "has 2 inputs, and recipes give one image"),
        ({"scheme": "int8"}, "is int8 already. Fix: start from the float model"),
        ({"inputs": [{"shape": (None, 20), "layout": "none"}]}, "takes ?x20, and recipes give images"),
    ],
)
def test_model_that_no_recipe_can_start_from_is_refused(inspected: Any, changed: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message.replace("?", r"\?")):
        starting.start(inspected(**changed), "pixel-8")


def test_images_of_other_classes_are_refused_before_a_recipe_is_written(inspected: Any) -> None:
    model = inspected(outputs=[{"shape": (None, 6), "meaning": "softmax"}])
    with pytest.raises(InputError, match="the model has 6 classes, the data has 10"):
        starting.start(model, "pixel-8", data="digits", out=Path("first.toml"))
    assert not Path("first.toml").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "pixel-88"}, "no such file, and no shipped device of that name"),
        ({"device": "pixel-8", "data": "nowhere/"}, "no such file or folder, and no dataset of that name"),
        ({"device": "pixel-8", "data": "{columns = 3}"}, "is no table with a path"),
    ],
)
def test_what_is_not_there_is_named(inspected: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        starting.start(inspected(), **options)


def test_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        starting.start(tmp_path / "none.keras", "pixel-8")


def test_profile_of_ones_own_is_written_as_a_path(inspected: Any, tmp_path: Path) -> None:
    profile = tmp_path / "boards" / "mine.toml"
    profile.parent.mkdir()
    runtime = '[[runtimes]]\nuse = "onnxruntime"\nformats = ["onnx"]\nschemes = ["float32", "int8"]\n'
    profile.write_text(f'schema = 1\narch = "any"\n{runtime}')
    recipe = tomllib.loads(starting.start(inspected(), str(profile)).text)
    assert recipe["targets"][0]["device"] == "boards/mine.toml"
    assert recipe["variants"][0]["export"] == ["onnx"]


@pytest.mark.slow
def test_written_recipe_runs(digits_model: Path, tmp_path: Path) -> None:
    """All of it but the long part: one epoch instead of twenty, nothing timed."""
    out = tmp_path / "first.toml"
    starting.start(digits_model, "this-machine", data="digits", out=out)
    quick = ["variants.small.passes.distill.epochs=1", "measure.processes=0", "data.preprocess={scale = 0.0625}"]
    found = pipeline.run(out, overrides=quick, out=tmp_path / "run").manifest
    assert found.status == "done"
    sizes = {artifact.name: artifact.size_bytes for artifact in found.artifacts}
    assert sizes["small.tflite"] < sizes["int8.tflite"] < sizes["original.tflite"]
    macs = {m.subject: m.value for m in found.measurements if m.name == "macs"}
    # 12 and 16 channels by steps of 8: of 12 x 8, 8 x 16 and 8 x 8 the first is nearest to half of 31,936
    assert macs["small.tflite"] == 16 * 9 * 12 + 16 * 9 * 12 * 8 + 16 * 8 * 10
    assert macs["int8.tflite"] == macs["original"] == 31_936
    assert {verdict.gate for verdict in found.verdicts} == {"max_accuracy_drop"}
