"""[train] says what counts, refuses what cannot stand together, and keeps the paths it is given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import InputError
from toolkit.plan import make_plan
from toolkit.recipe import Recipe
from toolkit.recipe_reader import load_recipe, parse_recipe
from toolkit.training.section import AugmentSection, FeaturesSection, FinetuneSection, TrainSection

DATA = '[data]\nuse = "digits"\npreprocess = { scale = 0.0625, color = "gray" }\n'
SPLITS = "[data.splits]\nselection = 0.2\ntest = 0.2\n"


def load(folder: Path, train: str, *, before: str = "", splits: str = SPLITS, **options: Any) -> Recipe:
    path = folder / "r.toml"
    path.write_text(f'schema = 1\nexport = ["tflite"]\n{before}{DATA}{splits}[train]\n{train}')
    return load_recipe(path, **options)


def mistake(folder: Path, train: str, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        load(folder, train, **options)
    return str(error.value).replace(str(folder / "r.toml"), "r.toml")


def test_recipe_plans_the_model_it_makes(tmp_path: Path) -> None:
    recipe = load(tmp_path, "input_size = [8, 8]\nepochs = 3\n[train.augment]\nshift = 0.1\n")
    made = make_plan(recipe)
    first = made.stages[0]
    assert not made.problems and (first.name, first.kind, first.use) == ("original", "source", "train")
    assert first.component.augment.shift == 0.1 and [stage.parent for stage in made.stages[1:3]] == ["original"] * 2
    again = parse_recipe(recipe.document, recipe.base).resolved()
    assert again["train"]["epochs"] == 3 and "finetune" not in again["train"]


def test_resolved_section_is_read_back_as_it_was(tmp_path: Path) -> None:
    for text in ("input_size = [8, 8]\n", 'backbone = "a.keras"\ninput_size = [8, 8]\n'):
        section = load(tmp_path, text).train
        assert section is not None
        again = TrainSection.model_validate(section.resolved())
        assert again == section


def test_backbone_is_found_from_the_recipe_or_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    text = 'backbone = "a.keras"\ninput_size = [8, 8]\n'
    found = load(tmp_path / "sub", text).train
    given = load(tmp_path / "sub", text, overrides=["train.backbone=b.keras"]).train
    assert found is not None and found.files == (tmp_path / "sub" / "a.keras",)
    assert given is not None and given.files == (tmp_path / "b.keras",)


def test_backbone_that_is_not_there_is_named_before_any_work(tmp_path: Path) -> None:
    recipe = load(tmp_path, 'backbone = "a.keras"\ninput_size = [8, 8]\n')
    with pytest.raises(InputError, match=r"r\.toml:10: train\.backbone: no such file, got .*a\.keras"):
        recipe.require_runnable()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('backbone = "keras.applications.MobileNetV2"\n', 'needs weights: "imagenet", a weights file, or "none"'),
        ('weights = "imagenet"\n', "weights are for keras.applications alone"),
        ('backbone = "a.keras"\nweights = "none"\n', "weights are for keras.applications alone"),
        (
            'backbone = "a.keras"\nepochs = 3\n',
            "epochs says nothing here; a pretrained backbone has features, finetune",
        ),
        ('backbone = "a.keras"\nwidth = 3\n', "width says nothing here"),
        ("[train.features]\nepochs = 3\n", "features says nothing here; from scratch has epochs"),
        ("decay = 0.1\n", "decay says nothing to the cosine schedule"),
        ("epoch = 3\n", "did you mean 'epochs'"),
        ('optimizer = "adamm"\n', "did you mean 'adam'"),
        ("head_dropout = 1.0\n", "must be less than 1"),
        ("[train.finetune]\nlayers = 0\n", "must be at least 1"),
        ("[train.augment]\nrotation = 181\n", "must be at most 180"),
    ],
)
def test_mistake_is_one_line_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    found = mistake(tmp_path, text)
    assert problem in found and found.startswith("r.toml:") and "\n" not in found


def test_model_is_read_or_made_not_both(tmp_path: Path) -> None:
    before = '[model]\nsource = "a.keras"\ninput_shape = [8, 8]\nhead = "softmax"\n'
    found = mistake(tmp_path, "input_size = [8, 8]\n", before=before)
    assert "model.source: stands beside [train]" in found and "model.input_shape: stands beside" in found
    assert "model.head" not in found
    with pytest.raises(InputError, match=r"--model: stands beside \[train\]"):
        load(tmp_path, "input_size = [8, 8]\n", model="b.keras")


def test_plan_names_the_splits_that_lack(tmp_path: Path) -> None:
    made = make_plan(load(tmp_path, "patience = 2\n", splits='[data.splits]\ntest = "rest"\n'))
    assert any("train needs the train split" in problem for problem in made.problems)
    assert any("patience: there is no selection split" in problem for problem in made.problems)


def test_pretrained_is_a_backbone_with_weights() -> None:
    assert not TrainSection().pretrained
    assert not TrainSection(backbone="keras.applications.VGG16", weights="none", epochs=3).pretrained
    assert TrainSection(backbone="keras.applications.VGG16", weights="imagenet").pretrained
    assert TrainSection(backbone="a.keras", features=FeaturesSection(epochs=3)).pretrained


def test_every_key_is_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "train.md").read_text()
    sections = (TrainSection, AugmentSection, FeaturesSection, FinetuneSection)
    names = {name for section in sections for name in section.model_fields}
    assert not [name for name in names if not re.search(rf"`{name}\b|\b{name} = |\.{name}\]", text)]
