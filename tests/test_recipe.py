"""Recipes: what they resolve to, and that every mistake is named by file, line and key before any work."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from toolkit.core import Budget, MeasureSpec
from toolkit.devices import shipped
from toolkit.documents import Document
from toolkit.errors import InputError
from toolkit.passes.prune import Prune
from toolkit.recipe import Recipe
from toolkit.recipe_reader import check_file, load_recipe, parse_recipe

WHOLE = """\
schema = 1
name = "flowers"

[model]
source = "flowers.keras"

[data]
path = "flowers.npz"
preprocess = "signed"

[data.splits]
calibration = 100
test = 0.2

[[passes]]
use = "prune"
sparsity = 0.5

[[variants]]
name = "phone"
passes = [{ use = "quantize", scheme = "int8" }]
export = ["tflite", { use = "onnx", layout = "NCHW" }]

[[variants]]
name = "float"
export = ["tflite"]

[budget]
max_accuracy_drop = 0.02
max_size_kib = 500

[[targets]]
device = "this-machine"
variants = ["phone"]
budget = { max_size_kib = 100 }
measure = { threads = 2 }
"""
SHORT = 'schema = 1\nexport = ["tflite"]\n'


def write(folder: Path, text: str, name: str = "r.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def mistakes(folder: Path, text: str, **options: Any) -> list[str]:
    path = write(folder, text)
    with pytest.raises(InputError) as error:
        load_recipe(path, **options)
    return str(error.value).replace(str(path), "r.toml").split("\n")


# ---------------------------------------------------------------- what a recipe resolves to


def test_load_recipe_gives_typed_steps(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, WHOLE))
    assert recipe.passes[0].component == Prune(sparsity=0.5)
    assert [variant.name for variant in recipe.variants] == ["phone", "float"]
    phone = recipe.variant("phone")
    assert [step.use for step in phone.exports] == ["tflite", "onnx"]
    assert phone.exports[1].component.layout == "NCHW"
    assert phone.passes[0].component.scheme == "int8"
    assert recipe.where(*phone.exports[1].key) == f"{tmp_path / 'r.toml'}:22: variants.0.export.1"
    assert recipe.text == WHOLE.encode()


def test_load_recipe_takes_paths_from_the_recipes_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", WHOLE.replace("flowers.keras", "../flowers.keras"))
    recipe = load_recipe("sub/r.toml")
    assert recipe.base == tmp_path / "sub"
    assert recipe.model.source == tmp_path / "flowers.keras"
    assert recipe.data.records is not None
    assert recipe.data.records.use == "npz"
    assert recipe.data.records.component.path == tmp_path / "sub" / "flowers.npz"


def test_target_budget_and_settings_replace_the_recipes_field_by_field(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, WHOLE))
    target = recipe.targets[0]
    assert target.budget == Budget(max_accuracy_drop=0.02, max_size_kib=100)
    assert target.measure == MeasureSpec(threads=2)
    assert recipe.budget == Budget(max_accuracy_drop=0.02, max_size_kib=500)


def test_measure_merges_profile_recipe_and_target(tmp_path: Path) -> None:
    board = shipped("devices")["this-machine"].read_text().replace('name = "this-machine"', 'name = "board"')
    write(tmp_path, board + "\n[measure]\nthreads = 4\nprocesses = 3\nseconds = 0.5\n", "board.toml")
    text = SHORT + (
        '[measure]\nprocesses = 5\nseconds = 2\n[[targets]]\ndevice = "board.toml"\nmeasure = { seconds = 7 }\n'
    )
    target = load_recipe(write(tmp_path, text)).targets[0]
    assert target.profile.name == "board"
    assert target.measure == MeasureSpec(threads=4, processes=5, seconds=7)


def test_export_alone_is_one_variant_called_main_for_this_machine(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SHORT, "my recipe.toml"))
    assert recipe.name == "my-recipe"
    assert [(variant.name, len(variant.passes)) for variant in recipe.variants] == [("main", 0)]
    assert [(target.profile.name, target.variants) for target in recipe.targets] == [("this-machine", ("main",))]


def test_resolved_is_json_and_resolves_to_itself(tmp_path: Path) -> None:
    board = shipped("devices")["this-machine"].read_text().replace('name = "this-machine"', 'name = "board"')
    write(tmp_path, board, "board.toml")
    recipe = load_recipe(write(tmp_path, WHOLE + '[[targets]]\ndevice = "board.toml"\n'))
    resolved = json.loads(json.dumps(recipe.resolved()))
    again = parse_recipe(Document("manifest.json", resolved), Path("/elsewhere"))
    assert again.resolved() == resolved
    assert resolved["passes"][0]["round_to"] == 8  # defaults are filled in


def test_train_is_what_is_left_unless_another_split_is(tmp_path: Path) -> None:
    text = SHORT + '[data]\nuse = "digits"\nsplits = { calibration = 50, test = "rest" }\n'
    splits = load_recipe(write(tmp_path, text)).data.splits
    assert (splits.train, splits.calibration, splits.test) == (None, 50, "rest")
    assert load_recipe(write(tmp_path, WHOLE)).data.splits.train == "rest"


def test_what_is_expected_of_the_images_stands_beside_the_dataset(tmp_path: Path) -> None:
    keys = 'use = "digits"\nmax_corrupt = 0.25\nverify = "decode"\n[data.splits]\ntest = 9\n'
    data = load_recipe(write(tmp_path, SHORT + "[data]\n" + keys)).data
    assert (data.census.max_corrupt, data.census.verify) == (0.25, "decode")
    assert data.resolved()["max_corrupt"] == 0.25
    plain = load_recipe(write(tmp_path, SHORT + '[data]\nuse = "digits"\n[data.splits]\ntest = 9\n')).data
    assert (plain.census.max_corrupt, plain.census.verify) == (0.01, "structure")


def test_class_names_of_the_model_come_from_a_file_beside_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SHORT + '[model]\nclasses_file = "names.txt"\n'))
    assert recipe.model.classes_file == tmp_path / "names.txt"


def test_held_out_data_has_its_own_source_and_pool(tmp_path: Path) -> None:
    text = SHORT + '[data]\nuse = "digits"\n[data.held_out]\npath = "test.npz"\n[data.splits]\ncalibration = 9\n'
    data = load_recipe(write(tmp_path, text)).data
    assert data.held_out is not None
    assert (data.held_out.use, data.held_out.component.path) == ("npz", tmp_path / "test.npz")
    assert (data.splits.train, data.splits.test) == ("rest", "rest")


@pytest.mark.parametrize("name", sorted(shipped("recipes")))
def test_shipped_recipes_load_and_explain_themselves(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    lines = recipe.text.decode().splitlines()
    assert sum(line.startswith("#") for line in lines) >= 6
    assert not [line for line in lines if line.count(" = ") > 1]  # one key a line


@pytest.mark.parametrize("name", sorted(set(shipped("recipes")) - {"digits-demo", "train-small"}))
def test_shipped_recipes_correct_the_biases_of_int8_that_is_not_trained(name: str) -> None:
    steps = [step for variant in load_recipe(name).variants for step in variant.passes if step.use == "quantize"]
    wanted = [("bias",) if step.component.scheme == "int8" else () for step in steps]
    assert [step.component.corrections for step in steps] == wanted


MAKING = ("train-small", "transfer-then-compress")  # recipes that make their model


@pytest.mark.parametrize("name", sorted(set(shipped("recipes")) - set(MAKING)))
def test_shipped_recipes_run_on_given_model_and_data(name: str, tmp_path: Path) -> None:
    model = write(tmp_path, "", "m.keras")
    recipe = load_recipe(name, model=model, data="digits")
    recipe.require_runnable()
    assert recipe.model.source == model


def test_shipped_recipes_that_make_their_model_run_on_given_data_and_backbone(tmp_path: Path) -> None:
    load_recipe("train-small", data="digits").require_runnable()
    backbone = write(tmp_path, "", "m.keras")
    recipe = load_recipe("transfer-then-compress", data="digits", overrides=[f"train.backbone={backbone}"])
    recipe.require_runnable()
    assert recipe.train is not None and recipe.train.files == (backbone,)


# ---------------------------------------------------------------- the command line's changes


def changed(folder: Path, *overrides: str) -> Recipe:
    return load_recipe(write(folder, WHOLE), overrides=overrides)


def test_set_takes_numbers_names_and_text(tmp_path: Path) -> None:
    recipe = changed(
        tmp_path,
        "passes.0.sparsity=0.6",
        "variants.phone.passes.quantize.scheme=float16",
        "variants.float.export.tflite.input_shape = [8, 9]",
        "targets.this-machine.budget.max_latency_p50_ms=3",
        "measure.processes=2",
        'data.preprocess={ scale = 0.5, color = "gray" }',
        "name=other",
    )
    assert recipe.passes[0].component.sparsity == 0.6
    assert recipe.variant("phone").passes[0].component.scheme == "float16"
    assert recipe.variant("float").exports[0].component.input_shape == (8, 9)
    assert recipe.targets[0].budget == Budget(max_accuracy_drop=0.02, max_size_kib=100, max_latency_p50_ms=3)
    assert recipe.targets[0].measure == MeasureSpec(threads=2, processes=2)
    assert (recipe.data.preprocess.scale, recipe.data.preprocess.color) == (0.5, "gray")
    assert recipe.name == "other"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("passes.0.sparcity=0.6", "--set passes.0.sparcity: no such key. Fix: did you mean 'sparsity'?"),
        (
            "passes.0.sparsity=1.5",
            "--set passes.0.sparsity: must be less than 1, got 1.5. Fix: give a number > 0, < 1.",
        ),
        ("passes.3.sparsity=0.5", "--set passes.3.sparsity: no item 3 in a list of 1. Fix: use 0 to 0."),
        (
            "passes.prun.sparsity=0.5",
            "--set passes.prun.sparsity: no item is called 'prun'. Fix: did you mean 'prune'?",
        ),
        ("budgets.max_size_kib=3", "--set budgets.max_size_kib: no such key. Fix: did you mean 'budget'?"),
        (
            "passes.0.sparsity",
            "--set passes.0.sparsity: is not KEY=VALUE. Fix: write for example passes.0.sparsity=0.6.",
        ),
        (
            "export.0.layout=NCHW",
            "--set export.0.layout: the recipe has no export. Fix: set all of `export`, or write them in the recipe.",
        ),
        (
            "data.splits.test=2.5",
            '--set data.splits.test: give a fraction (0.2), a number of images (200), a subset of the data ("test"), '
            '{ from = "train", count = 200 } or "rest".',
        ),
    ],
)
def test_set_names_the_option_that_is_wrong(tmp_path: Path, override: str, message: str) -> None:
    assert mistakes(tmp_path, WHOLE, overrides=[override]) == [message]


def test_model_and_data_are_taken_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, WHOLE)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "images").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    recipe = load_recipe(path, model="m.keras", data="images")
    assert recipe.model.source == elsewhere / "m.keras"
    assert recipe.data.records is not None
    assert recipe.data.records.use == "folder"
    assert recipe.data.records.component.path == elsewhere / "images"
    assert recipe.data.preprocess.preset == "signed"


def test_data_may_be_a_datasets_name_and_drops_the_old_ones_keys(tmp_path: Path) -> None:
    text = WHOLE.replace('path = "flowers.npz"', 'path = "flowers.npz"\nnum_classes = 5')
    recipe = load_recipe(write(tmp_path, text), data="digits")
    assert recipe.data.records is not None
    assert recipe.data.records.resolved() == {"use": "digits"}
    assert recipe.data.splits.calibration == 100


def test_data_of_the_same_kind_keeps_its_keys(tmp_path: Path) -> None:
    text = WHOLE.replace('path = "flowers.npz"', 'path = "flowers.npz"\nnum_classes = 5')
    other = write(tmp_path, "", "other.npz")
    recipe = load_recipe(write(tmp_path, text), data=other)
    assert recipe.data.records is not None
    assert (recipe.data.records.component.path, recipe.data.records.component.num_classes) == (other, 5)


def test_kind_of_data_in_a_folder_is_looked_up_where_the_recipe_is(tmp_path: Path) -> None:
    for name in ("flowers", "others"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "", "images.npy")
    text = WHOLE.replace('path = "flowers.npz"', 'path = "flowers"\nnum_classes = 5')
    recipe = load_recipe(write(tmp_path, text), data=tmp_path / "others")
    assert recipe.data.records is not None
    assert (recipe.data.records.use, recipe.data.records.component.num_classes) == ("npy", 5)


def test_data_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert mistakes(tmp_path, WHOLE, data="digts") == [
        "--data: no such file or folder, and no dataset of that name, got 'digts'. Fix: did you mean 'digits'?"
    ]


def test_device_picks_targets_and_keeps_their_budget(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, WHOLE), devices=["raspberry-pi-4", "this-machine"])
    assert [(t.profile.name, t.variants, t.budget.max_size_kib) for t in recipe.targets] == [
        ("raspberry-pi-4", ("phone", "float"), 500),
        ("this-machine", ("phone",), 100),
    ]


def test_device_that_is_unknown_is_an_error(tmp_path: Path) -> None:
    assert mistakes(tmp_path, WHOLE, devices=["this-machin"]) == [
        "this-machin: no such file, and no shipped device of that name. Fix: did you mean 'this-machine'?"
    ]


def test_require_runnable_asks_for_model_and_data(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_recipe("post-training-int8").require_runnable()
    assert str(error.value) == "recipe: model.source is not given. Fix: give --model PATH."
    with pytest.raises(InputError) as error:
        load_recipe("post-training-int8", model=write(tmp_path, "", "m.keras")).require_runnable()
    assert str(error.value) == "recipe: data.path is not given. Fix: give --data PATH."
    with pytest.raises(InputError) as error:
        load_recipe(write(tmp_path, WHOLE)).require_runnable()
    assert str(error.value) == (
        f"{tmp_path / 'r.toml'}:5: model.source: no such file, got '{tmp_path / 'flowers.keras'}'. "
        "Fix: give --model PATH."
    )


# ---------------------------------------------------------------- mistakes


def test_load_recipe_names_every_mistake_of_every_part_at_once(tmp_path: Path) -> None:
    text = (
        WHOLE.replace('preprocess = "signed"', 'preprocess = "signd"\nclases = 3')
        .replace("sparsity = 0.5", "sparsity = 5")
        .replace('use = "onnx"', 'use = "onxx"')
        .replace('variants = ["phone"]', 'variants = ["phon"]')
        .replace('device = "this-machine"', 'device = "this-machin"')
        .replace("max_accuracy_drop", "max_acuracy_drop")
        .replace('scheme = "int8"', 'scheme = "int7"')
    )
    assert mistakes(tmp_path, text) == [
        "r.toml:9: data.preprocess: must be 'raw', 'unit', 'signed', 'imagenet' or 'caffe', got 'signd'. "
        "Fix: did you mean 'signed'?",
        "r.toml:10: data.clases: no such key. Fix: did you mean 'num_classes' or 'labels'?",
        "r.toml:18: passes.0.sparsity: must be less than 1, got 5. Fix: give a number > 0, < 1.",
        "r.toml:22: variants.0.passes.0.scheme: must be 'float16', 'dynamic', 'int8', 'int16x8', 'weight_int8' or "
        "'weight_int4', got 'int7'. "
        "Fix: did you mean 'int8'?",
        "r.toml:23: variants.0.export.1.use: no such exporter, got 'onxx'. Fix: did you mean 'onnx'?",
        "r.toml:30: budget.max_acuracy_drop: no such key. Fix: did you mean 'max_accuracy_drop' or 'max_class_drop'?",
        "r.toml:34: targets.0.device: no such device profile, got 'this-machin'. Fix: did you mean 'this-machine'?",
        "r.toml:35: targets.0.variants.0: no such variant, got 'phon'. Fix: did you mean 'phone'?",
    ]


def test_load_recipe_suggests_a_shipped_name() -> None:
    with pytest.raises(InputError) as error:
        load_recipe("digit-demo")
    assert str(error.value) == (
        "digit-demo: no such file, and no shipped recipe of that name. Fix: did you mean 'digits-demo'?"
    )


def test_check_file_tells_recipes_from_device_profiles(tmp_path: Path) -> None:
    device = write(tmp_path, shipped("devices")["raspberry-pi-4"].read_text(), "board.toml")
    assert [check_file(file)["kind"] for file in ("digits-demo", "this-machine", device)] == [
        "recipe",
        "device profile",
        "device profile",
    ]
    assert check_file(device)["name"] == "raspberry-pi-4"
    assert tomllib.loads(device.read_text())["name"] == "raspberry-pi-4"


def test_loading_a_recipe_imports_no_framework() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from toolkit.recipe_reader import load_recipe; load_recipe('digits-demo')\n"
        "print(sorted({'numpy', 'tensorflow', 'keras', 'onnx', 'onnxruntime', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
