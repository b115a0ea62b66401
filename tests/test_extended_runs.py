"""A run of a recipe that extends another: it repeats nothing of what is the same, and keeps the files it came from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from toolkit import pipeline


def test_extending_recipe_takes_up_a_run_of_the_one_it_extends(
    finished: Any, recipe_file: Path, digits_model: Path, tmp_path: Path
) -> None:
    """Same name and content in two files: nothing is done again. Then one late parameter: what depends on it alone."""
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    own = tmp_path / recipe_file.name
    own.write_text(f'schema = 1\nextends = "{recipe_file}"\n')
    same = pipeline.run(own, model=digits_model, resume=run)
    assert all(stage.reused for stage in same.manifest.stages)
    assert same.manifest.recipe == finished.manifest.recipe | {"description": ""}
    assert (run / "recipe.toml").read_bytes() == own.read_bytes()
    assert (run / "extends" / f"1-{recipe_file.name}").read_bytes() == recipe_file.read_bytes()

    passes = '[{ use = "quantize", scheme = "int8", granularity = "per_tensor" }]'
    own.write_text(f'{own.read_text()}[[variants]]\nname = "int8"\npasses = {passes}\nexport = ["tflite"]\n')
    changed = pipeline.run(own, model=digits_model, resume=run)
    names = [stage.name for stage in changed.manifest.stages]
    assert names.count("01-prune") == names.count("02-distill") == 1  # both variants share them
    again = {stage.name for stage in changed.manifest.stages if not stage.reused and stage.kind != "check"}
    assert again == {"int8.03-quantize", "int8.tflite"}
