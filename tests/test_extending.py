"""Recipes that extend one another: what is merged and what replaced, and that mistakes name the file they are in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from toolkit import runs
from toolkit.errors import InputError
from toolkit.extending import read_recipe
from toolkit.plan import make_plan
from toolkit.recipe_reader import check_file, load_recipe

BASE = """\
schema = 1
name = "base"
description = "the base"
seed = 3

[model]
source = "net.keras"

[data]
path = "images.npz"
preprocess = "signed"

[data.splits]
calibration = 100
test = 0.2

[[passes]]
use = "prune"
macs = 0.5

[[passes]]
use = "distill"
epochs = 9

[[variants]]
name = "float"
export = ["tflite"]

[[variants]]
name = "phone"
description = "for phones"
export = ["tflite"]

[[variants.passes]]
use = "quantize"
scheme = "int8"

[budget]
max_accuracy_drop = 0.02

[[targets]]
device = "this-machine"
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "base.toml", BASE)
    return tmp_path


def child(folder: Path, text: str, name: str = "child.toml", extends: str = "base.toml") -> Path:
    return write(folder / name, f'schema = 1\nextends = "{extends}"\n{text}')


def mistake(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_recipe(path, **options)
    return str(caught.value).replace(f"{path.parent}/", "")


# ---------------------------------------------------------------- what comes out


def test_recipe_that_says_nothing_is_the_one_it_extends_under_its_own_name(folder: Path) -> None:
    base, own = load_recipe(folder / "base.toml").resolved(), load_recipe(child(folder, "")).resolved()
    assert (own["name"], own["description"]) == ("child", "")
    assert own | {"name": "base", "description": "the base"} == base


def test_tables_are_merged_key_by_key(folder: Path) -> None:
    recipe = load_recipe(child(folder, "seed = 4\n[data.splits]\ntest = 0.3\n[budget]\nmin_agreement = 0.9\n"))
    assert recipe.seed == 4
    assert (recipe.data.splits.calibration, recipe.data.splits.test) == (100, 0.3)
    assert (recipe.budget.max_accuracy_drop, recipe.budget.min_agreement) == (0.02, 0.9)


def test_passes_and_targets_are_replaced_as_a_whole(folder: Path) -> None:
    text = '[[passes]]\nuse = "sparsify"\nsparsity = 0.8\n[[targets]]\ndevice = "pixel-8"\n'
    recipe = load_recipe(child(folder, text))
    assert [step.use for step in recipe.passes] == ["sparsify"]
    assert [target.profile.name for target in recipe.targets] == ["pixel-8"]
    assert load_recipe(child(folder, "passes = []\n")).passes == ()


def test_variants_are_merged_by_name_and_new_ones_follow(folder: Path) -> None:
    text = (
        '[[variants]]\nname = "server"\nexport = ["onnx"]\n[[variants]]\nname = "phone"\nexport = ["tflite", "onnx"]\n'
    )
    recipe = load_recipe(child(folder, text))
    found = {
        variant.name: ([s.use for s in variant.passes], [s.use for s in variant.exports]) for variant in recipe.variants
    }
    assert list(found) == ["float", "phone", "server"]
    assert found["phone"] == (["quantize"], ["tflite", "onnx"])
    assert found["float"] == ([], ["tflite"])
    assert recipe.variant("phone").description == "for phones"


def test_passes_of_a_variant_are_replaced_as_a_whole(folder: Path) -> None:
    text = '[[variants]]\nname = "phone"\n[[variants.passes]]\nuse = "qat"\n'
    (step,) = load_recipe(child(folder, text)).variant("phone").passes
    assert step.use == "qat"


def test_other_kind_of_dataset_leaves_the_old_ones_parameters_behind(folder: Path) -> None:
    write(folder / "base.toml", BASE.replace('path = "images.npz"', 'path = "images.csv"\nimage_column = "file"'))
    recipe = load_recipe(child(folder, '[data]\nuse = "digits"\n'))
    assert recipe.data.records is not None
    assert recipe.data.records.use == "digits"
    assert recipe.data.splits.calibration == 100  # belongs to no kind of dataset


def test_other_kind_of_held_out_data_leaves_the_old_ones_parameters_behind_and_the_same_kind_does_not(
    folder: Path,
) -> None:
    write(
        folder / "base.toml",
        BASE.replace("[data.splits]", '[data.held_out]\npath = "b.csv"\nlabel = "kind"\n[data.splits]'),
    )
    same = load_recipe(child(folder, '[data.held_out]\nuse = "csv"\npath = "c.csv"\n')).data.held_out
    other = load_recipe(child(folder, '[data.held_out]\npath = "b.npz"\n')).data.held_out
    assert same is not None and other is not None
    assert (same.use, same.component.label, same.component.path) == ("csv", "kind", folder / "c.csv")
    assert (other.use, other.component.path) == ("npz", folder / "b.npz")


def test_exports_of_a_file_without_variants_can_be_left_behind_for_variants(folder: Path) -> None:
    head, _, tail = BASE.partition('[[variants]]\nname = "float"')
    write(folder / "base.toml", head.replace("seed = 3", 'export = ["tflite"]') + tail[tail.index("[budget]") :])
    text = '[[variants]]\nname = "own"\nexport = ["onnx"]\n'
    message = mistake(child(folder, text))
    assert message.startswith("base.toml:4: export: stands beside [[variants]]")
    assert message.endswith("Fix: write `export = []` beside the variants.")
    assert [variant.name for variant in load_recipe(child(folder, f"export = []\n{text}")).variants] == ["own"]


def test_chain_of_three_gives_the_nearest_the_last_word(folder: Path) -> None:
    child(folder, "seed = 5\n[budget]\nmax_size_kib = 7\n", "middle.toml")
    recipe = load_recipe(child(folder, "[budget]\nmax_size_kib = 8\n", extends="middle.toml"))
    assert (recipe.seed, recipe.budget.max_size_kib, recipe.budget.max_accuracy_drop) == (5, 8, 0.02)
    assert [Path(base.name).name for base in recipe.document.bases] == ["middle.toml", "base.toml"]


def test_shipped_recipe_can_be_extended_by_name(tmp_path: Path) -> None:
    own, shipped = load_recipe(child(tmp_path, "", extends="digits-demo")), load_recipe("digits-demo")
    assert own.resolved()["variants"] == shipped.resolved()["variants"]
    assert own.model.source == shipped.model.source  # a path of that file, not of this one


def test_paths_start_from_the_file_that_says_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "base.toml", BASE.replace("epochs = 9", 'epochs = 9\nteacher = "teachers/big.keras"'))
    path = child(folder, '[data]\npath = "own.npz"\n', "deep/er/child.toml", extends="../../base.toml")
    monkeypatch.chdir(folder)
    for name in (path, path.relative_to(folder)):
        recipe = load_recipe(name)
        assert recipe.data.records is not None
        assert recipe.model.source == folder / "net.keras"
        assert str(recipe.data.records.component.path) == str(folder / "deep/er/own.npz")
        assert recipe.passes[1].component.teacher == folder / "teachers/big.keras"


def test_set_is_laid_on_top_and_its_paths_start_from_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = folder / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    overrides = ["passes.distill.teacher=big.keras", "variants.phone.passes.quantize.io=int8", "seed=9"]
    recipe = load_recipe(child(folder, "seed = 5\n"), overrides=overrides)
    assert recipe.seed == 9
    assert recipe.passes[1].component.teacher == here / "big.keras"
    assert recipe.variant("phone").passes[0].component.io == "int8"


def test_what_is_hashed_of_a_run_depends_on_the_resolved_recipe_alone(folder: Path) -> None:
    """The same written in one file or in three, in whatever order, resolves to the same bytes."""
    child(folder, "[budget]\nmax_size_kib = 7\n", "middle.toml")
    parts = load_recipe(child(folder, "seed = 5\n", extends="middle.toml"))
    whole = BASE.replace('name = "base"\ndescription = "the base"\nseed = 3\n', "")
    whole = "seed = 5\n" + whole.replace("[budget]\n", "[budget]\nmax_size_kib = 7\n")
    one = load_recipe(write(folder / "child.toml", whole))
    assert len(parts.bases) == 2
    assert one.bases == ()
    assert runs.content_key(one.resolved()) == runs.content_key(parts.resolved())


def test_run_directory_keeps_the_files_byte_for_byte(folder: Path) -> None:
    write(folder / "deep/base.toml", BASE + "# the deepest\r\n")
    child(folder, "seed = 5\n", "base.toml", extends="deep/base.toml")
    recipe = load_recipe(child(folder, "# own\n"))
    manifest = runs.Manifest("r", "running", "2026-01-01", recipe.resolved(), 0, {}, {})
    run = runs.Run.create(folder / "run", manifest, recipe.text, recipe.bases)
    kept = {
        "recipe.toml": folder / "child.toml",
        "extends/1-base.toml": folder / "base.toml",
        "extends/2-base.toml": folder / "deep/base.toml",
    }
    for name, original in kept.items():
        assert (run.folder / name).read_bytes() == original.read_bytes()
    alone = load_recipe(folder / "deep/base.toml")
    run.keep_recipe(alone.text, alone.bases)  # a run that is resumed with another recipe
    assert (run.folder / "recipe.toml").read_bytes() == alone.text
    assert not (run.folder / "extends").exists()


def test_check_takes_a_recipe_that_extends_another(folder: Path) -> None:
    found = check_file(child(folder, ""))
    assert (found["kind"], found["name"]) == ("recipe", "child")


# ---------------------------------------------------------------- mistakes


def test_mistake_names_the_file_and_line_it_is_in(folder: Path) -> None:
    write(folder / "base.toml", BASE.replace("macs = 0.5", "macs = 5"))
    message = mistake(child(folder, "[budget]\nconfidence = 2\n"))
    assert "child.toml:4: budget.confidence: must be" in message
    assert "base.toml:19: passes.0.macs: must be" in message
    assert message.index("child.toml") < message.index("base.toml")  # one's own first


def test_problem_of_the_plan_names_the_file_it_is_in(folder: Path) -> None:
    text = '[[variants]]\nname = "phone"\n[[variants.passes]]\nuse = "sparsify"\npattern = "2:4"\n'
    write(
        folder / "base.toml", BASE.replace("macs = 0.5", 'macs = 0.5\n[[passes]]\nuse = "quantize"\nscheme = "float16"')
    )
    (problem, *_) = make_plan(load_recipe(child(folder, text))).problems
    assert re.search(r"/base.toml:24: passes.2: distill comes after quantize \(\S*/base.toml:20: passes.1\)", problem)


def test_merged_variant_names_each_line_in_its_file(folder: Path) -> None:
    document = read_recipe(child(folder, '[[variants]]\nname = "phone"\nexport = ["onnx"]\n'))
    places = [
        document.where(key).replace(f"{folder}/", "")
        for key in (
            ("variants", 1),
            ("variants", 1, "export", 0),
            ("variants", 1, "passes", 0, "scheme"),
            ("variants", 0, "export"),
        )
    ]
    assert places == [
        "child.toml:3: variants.1",
        "child.toml:5: variants.1.export.0",
        "base.toml:36: variants.1.passes.0.scheme",
        "base.toml:27: variants.0.export",
    ]


def test_file_that_extends_itself_is_refused(folder: Path) -> None:
    child(folder, "", "one.toml", extends="two.toml")
    two = child(folder, "", "two.toml", extends="one.toml")
    message = mistake(two)
    assert message.startswith(
        "one.toml:2: extends: the files extend each other in a circle: two.toml -> one.toml -> two"
    )
    assert "in a circle" in mistake(child(folder, "", "self.toml", extends="self.toml"))


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        (
            '"digits-demmo"',
            "r.toml:2: extends: no such file, and no shipped recipe of that name, got 'digits-demmo'. Fix: did",
        ),
        ('""', "r.toml:2: extends: must be text, got ''. Fix: name a shipped recipe, or a path from this file"),
        ("3", "r.toml:2: extends: must be text, got 3"),
        ('["base.toml"]', "r.toml:2: extends: must be text"),
        ('"."', "r.toml:2: extends: no such file"),
        ('"device.toml"', "r.toml:2: extends: device.toml is a device profile. Fix: name a recipe"),
        ('"old.toml"', "old.toml:1: schema: is missing"),
        ('"new.toml"', "new.toml:1: schema: schema 2 is newer than this Edgekit"),
    ],
)
def test_what_cannot_be_extended_is_named(folder: Path, extends: str, message: str) -> None:
    for name, text in {"device": 'schema = 1\narch = "any"\n', "old": "seed = 1\n", "new": "schema = 2\n"}.items():
        write(folder / f"{name}.toml", text)
    assert message in mistake(write(folder / "r.toml", f"schema = 1\nextends = {extends}\n"))


def test_file_that_extends_says_its_own_schema(folder: Path) -> None:
    message = mistake(write(folder / "r.toml", 'extends = "base.toml"\n'))
    assert message.startswith("r.toml:1: schema: is missing")


def test_variant_of_the_same_name_but_for_case_names_the_other_ones_file(folder: Path) -> None:
    message = mistake(child(folder, '[[variants]]\nname = "Phone"\nexport = ["tflite"]\n'))
    assert message.startswith(
        "child.toml:4: variants.2.name: 'Phone' is the name of the variant in line 30 of base.toml"
    )


def test_extends_cannot_be_set(folder: Path) -> None:
    message = mistake(folder / "base.toml", overrides=["extends=digits-demo"])
    assert message.startswith("--set extends: says what a file extends, which cannot be set")


def test_broken_file_below_is_named_with_its_line(folder: Path) -> None:
    write(folder / "base.toml", "schema = 1\nseed = \n")
    assert mistake(child(folder, "")).startswith("base.toml:2: not valid TOML")
