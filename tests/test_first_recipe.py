"""First recipes: what is written for each device, model and number of images, and that all of it can be planned."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from toolkit.core import Kind
from toolkit.devices import load_device, shipped
from toolkit.documents import Document
from toolkit.errors import UnsupportedError
from toolkit.first_recipe import Images, Seen, first_recipe, forms
from toolkit.plan import make_plan
from toolkit.recipe_reader import parse_recipe

FILES: dict[Kind, str] = {"keras": "net.keras", "onnx": "net.onnx", "tflite": "net.tflite", "savedmodel": "net"}
NET = Seen("net.keras", "keras", "softmax", 10, 78_666, 12_500_000, (32, 32), "", True)
MANY = Images({"use": "digits"}, 1797, 10)
FEW = Images({"use": "digits"}, 60, 10)


def written(model: Seen, device: str, images: Images | None) -> dict[str, Any]:
    return tomllib.loads(first_recipe(model, load_device(device), device, images))


def variants(model: Seen, device: str, images: Images | None) -> dict[str, tuple[list[str], list[str]]]:
    """Name -> its passes and its exporters."""
    found = written(model, device, images)["variants"]
    return {v["name"]: ([p["use"] for p in v.get("passes", ())], v["export"]) for v in found}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES.values():
        (tmp_path / name).write_bytes(b"") if "." in name else (tmp_path / name).mkdir()
    (tmp_path / "net" / "saved_model.pb").write_bytes(b"")
    return tmp_path


MODELS = {
    "classes": NET,
    "cannot be pruned": replace(NET, prunable=False),
    "open size": replace(NET, size=(None, None)),
    "embedding": replace(NET, head="embedding", outputs=128),
    "regression": replace(NET, head="regression", outputs=2),
    "several labels": replace(NET, head="sigmoids"),
    "large": replace(NET, parameters=25_000_000, scaled="rescaling"),
    **{kind: replace(NET, source=FILES[kind], kind=kind, head="tensor", prunable=False) for kind in get_args(Kind)[1:]},
}


@pytest.mark.parametrize("device", sorted(shipped("devices")))
def test_recipe_can_be_planned_on_every_shipped_device(device: str, folder: Path) -> None:
    profile = load_device(device)
    for what, model in MODELS.items():
        for images in (None, FEW, MANY) if what == "classes" else (MANY,):
            if not forms(model.kind, profile):
                with pytest.raises(UnsupportedError, match="runs no file that can be made of this"):
                    first_recipe(model, profile, device, images)
                continue
            text = first_recipe(model, profile, device, images)
            made = make_plan(parse_recipe(Document("r.toml", tomllib.loads(text)), folder))
            assert made.problems == (), (what, images)
            assert [check.device.name for check in made.checks if check.artifact != "original"]
            assert {check.device.name for check in made.checks} == {device}


def test_keras_models_reach_every_shipped_device() -> None:
    assert all(forms("keras", load_device(name)) for name in shipped("devices"))


def test_form_is_what_the_device_runs_first() -> None:
    found = {
        name: [(form.scheme, form.exporter, form.symmetric) for form in forms("keras", load_device(name)).values()]
        for name in ("pixel-8", "jetson-orin-nano-8", "jetson-nano", "cortex-m4", "openvino-cpu")
    }
    assert found["pixel-8"][0] == ("int8", "tflite", False)
    assert found["jetson-orin-nano-8"][0] == ("int8", "tensorrt", True)
    assert found["jetson-nano"] == [("float16", "tensorrt", False), ("float32", "tensorrt", False)]  # has no int8
    assert [scheme for scheme, _, _ in found["cortex-m4"]] == ["int8", "float32"]
    assert found["openvino-cpu"][0][0] == "int8"


def test_microcontroller_gets_integer_ends_and_its_own_memory_as_limits() -> None:
    recipe = written(NET, "cortex-m4", None)
    (variant,) = recipe["variants"]
    assert variant["passes"] == [{"use": "quantize", "scheme": "int8", "io": "int8", "corrections": ["bias"]}]
    assert recipe["targets"][0]["budget"] == {"max_size_kib": 1024, "max_arena_kib": 384}  # of 2,048 and 640 KiB


def test_gpu_gets_symmetric_int8_and_float16_beside_it() -> None:
    found = variants(NET, "jetson-orin-nano-8", None)
    assert found == {"int8": (["quantize"], ["tensorrt"]), "float16": (["quantize"], ["tensorrt"])}
    assert written(NET, "jetson-orin-nano-8", None)["variants"][0]["passes"][0]["flavour"] == "symmetric"


@pytest.mark.parametrize(
    ("model", "images", "passes"),
    [
        (NET, MANY, {"int8": ["quantize"], "small": ["prune", "distill", "quantize"]}),
        (replace(NET, prunable=False), MANY, {"int8": ["quantize"], "trained": ["qat"]}),
        (NET, FEW, {"int8": ["quantize"]}),
        (NET, None, {"int8": ["quantize"]}),
        (replace(NET, kind="tflite", source="net.tflite"), MANY, {"int8": ["quantize"]}),
    ],
)
def test_what_trains_needs_a_keras_model_and_images_enough(
    model: Seen, images: Images | None, passes: dict[str, list[str]]
) -> None:
    assert {name: used for name, (used, _) in variants(model, "raspberry-pi-4", images).items()} == passes


def test_model_too_large_for_the_storage_is_cut_to_what_fits() -> None:
    """25,000,000 weights of a byte; half of 2,048 KiB is 1,048,576 bytes, that is 4.19% of them: 4% stay."""
    prune = written(MODELS["large"], "cortex-m4", MANY)["variants"][1]["passes"][0]
    assert prune["parameters"] == 0.04
    assert "macs" not in prune
    assert written(NET, "cortex-m4", MANY)["variants"][1]["passes"][0]["macs"] == 0.5


def test_splits_follow_the_number_of_images_and_the_datas_own_parts() -> None:
    assert written(NET, "pixel-8", FEW)["data"]["splits"] == {"calibration": 15, "test": "rest"}
    assert written(NET, "pixel-8", MANY)["data"]["splits"] == {"selection": 0.1, "calibration": 200, "test": 0.2}
    own = replace(MANY, subsets={"test": 300, "train": 1297, "val": 200})
    assert written(NET, "pixel-8", own)["data"]["splits"] == {"selection": "val", "calibration": 200, "test": "test"}
    alone = replace(MANY, subsets={"test": 1797})  # nothing would be left to learn from
    assert written(NET, "pixel-8", alone)["data"]["splits"]["test"] == 0.2


def test_device_without_int8_gets_no_images_for_a_training_that_is_not_there() -> None:
    text = first_recipe(NET, load_device("jetson-nano"), "jetson-nano", MANY)
    recipe = tomllib.loads(text)
    assert [variant["name"] for variant in recipe["variants"]] == ["float16"]
    assert recipe["data"]["splits"] == {"calibration": 200, "test": "rest"}
    assert "int8" not in text
    assert "Training keeps" not in text


@pytest.mark.parametrize(
    ("head", "limit"),
    [
        ("softmax", "max_accuracy_drop"),
        ("sigmoids", "max_accuracy_drop"),
        ("embedding", "min_cosine"),
        ("regression", "max_error_increase"),
    ],
)
def test_limit_is_one_that_the_head_can_be_judged_by(head: Any, limit: str) -> None:
    assert limit in written(replace(NET, head=head), "pixel-8", None)["budget"]


def test_what_no_file_says_is_marked_and_what_it_says_is_not() -> None:
    text = first_recipe(NET, load_device("pixel-8"), "pixel-8", None)
    assert re.findall(r"# CHECK: (.*)", text) == [
        "what the model was trained on: raw (0..255), unit (0..1), signed (-1..1), imagenet or caffe."
    ]
    assert "CHECK" not in first_recipe(replace(NET, scaled="rescaling"), load_device("pixel-8"), "pixel-8", None)
    assert "CHECK. 224 x 224" in first_recipe(replace(NET, size=(None, None)), load_device("pixel-8"), "pixel-8", None)


def test_names_are_written_as_toml_has_them(folder: Path) -> None:
    odd = 'a "b"\\c\x7f é.keras'
    table = {"use": "csv", "path": 'x "y".csv', "label": "kind", "columns": ["a", "b"], "more": {"c d": True}}
    recipe = written(replace(NET, source=odd), "pixel-8", replace(FEW, table=table))
    assert recipe["model"]["source"] == odd
    assert {key: recipe["data"][key] for key in table} == table


def test_every_choice_has_a_comment() -> None:
    """As the shipped recipes: no section of settings without a word."""
    for images in (None, MANY):
        text = first_recipe(NET, load_device("cortex-m4"), "cortex-m4", images)
        comments = [line for line in text.splitlines() if line.startswith("# ")]
        settings = [line for line in text.splitlines() if re.match(r"[a-z_]+ = ", line)]
        assert len(comments) >= len(settings) / 2
