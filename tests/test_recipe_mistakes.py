"""One mistake in a small recipe, one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import InputError
from toolkit.recipe_reader import load_recipe

SHORT = 'schema = 1\nexport = ["tflite"]\n'


def mistakes(folder: Path, text: str) -> list[str]:
    path = folder / "r.toml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    return str(error.value).replace(str(path), "r.toml").split("\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 1\n", 'r.toml:1: export: is missing. Fix: add `export = ["tflite"]`, or [[variants]].'),
        ('export = ["tflite"]\n', "r.toml:1: schema: is missing. Fix: add `schema = 1`."),
        (
            SHORT + "modell = 3\n",
            "r.toml:3: modell: no such key. Fix: did you mean 'model'?",
        ),
        (SHORT + 'model = "m.keras"\n', "r.toml:3: model: must be a table, got 'm.keras'. Fix: give a table."),
        (
            SHORT + "passes = 3\n",
            "r.toml:3: passes: must be an array, got 3. Fix: give an array of values, each text or a table.",
        ),
        (
            SHORT + 'passes = [{ use = "prunee" }]\n',
            "r.toml:3: passes.0.use: no such pass, got 'prunee'. Fix: did you mean 'prune'?",
        ),
        (
            SHORT + 'passes = ["xyzzy"]\n',
            "r.toml:3: passes.0: no such pass, got 'xyzzy'. Fix: use one of "
            "cluster, distill, prune, qat, quantize, sparsify, student.",
        ),
        (
            SHORT + "passes = [{ sparsity = 0.5 }]\n",
            "r.toml:3: passes.0.use: is missing. Fix: add `use`, one of "
            "cluster, distill, prune, qat, quantize, sparsify, student.",
        ),
        (
            SHORT + 'passes = ["prune"]\n',
            "r.toml:3: passes.0: give exactly one of sparsity, macs, parameters, size, size_kib, latency and "
            "latency_ms.",
        ),
        (
            SHORT + "passes = [5]\n",
            "r.toml:3: passes.0: must be text or a table, got 5. "
            "Fix: give `passes` as an array of values, each text or a table.",
        ),
        (
            'schema = 1\nexport = ["tflite", "tflite"]\n',
            "r.toml:2: export.1: tflite stands here twice, and both files would have one name. "
            "Fix: make it another variant.",
        ),
        (
            SHORT + '[[variants]]\nname = "a"\nexport = ["onnx"]\n',
            "r.toml:2: export: stands beside [[variants]], which have exports of their own. "
            "Fix: move it into the variants.",
        ),
        (
            'schema = 1\n[[variants]]\nname = "a"\nexport = ["onnx"]\n\n[[variants]]\nname = "A"\nexport = ["onnx"]\n',
            "r.toml:7: variants.1.name: 'A' is the name of the variant in line 3, up to upper and lower case. "
            "Fix: give each variant a name of its own.",
        ),
        (
            'schema = 1\n[[variants]]\nname = "original"\nexport = ["onnx"]\n',
            "r.toml:3: variants.0.name: 'original' is what the model before any pass is called. "
            "Fix: give the variant another name.",
        ),
        (
            'schema = 1\n[[variants]]\nname = "a/b"\nexport = ["onnx"]\n',
            "r.toml:3: variants.0.name: must be letters, digits, '.', '_' or '-', from a letter or digit on, "
            "got 'a/b'.",
        ),
        (
            'schema = 1\n[[variants]]\nname = "a"\nexport = []\n',
            "r.toml:4: variants.0.export: needs 1 or more items, got []. "
            "Fix: give an array of values, each text or a table, at least 1.",
        ),
        (
            'schema = 1\n[[variants]]\nname = "a"\n',
            "r.toml:2: variants.0.export: is missing. "
            "Fix: add `export`, an array of values, each text or a table, at least 1.",
        ),
        (
            SHORT + '[data]\nuse = "digts"\nsplits = { test = 0.5 }\n',
            "r.toml:4: data.use: no such dataset, got 'digts'. Fix: did you mean 'digits'?",
        ),
        (
            SHORT + '[data]\npath = "a.tar"\nsplits = { test = 0.5 }\n',
            "r.toml:4: data.path: cannot tell what kind of dataset this is, got 'a.tar'. "
            "Fix: give a .npz, .csv, .jsonl or .tfrecord file or a folder, or add `use`, one of callable, csv, digits, "
            "folder, jsonl, keras, npy, npz, tfds, tfrecord.",
        ),
        (
            SHORT + "[data]\nnum_classes = 3\nsplits = { test = 0.5 }\n",
            "r.toml:3: data.path: is missing, and nothing else says what dataset this is. Fix: add `path`.",
        ),
        (
            SHORT + '[data]\nuse = "digits"\n',
            'r.toml:3: data.splits.test: train and test are both "rest", that is all that is left. '
            "Fix: say how much test gets, such as test = 0.2.",
        ),
        (
            SHORT + '[data]\nuse = "digits"\npreprocess = { preset = "raw", scale = 2 }\nsplits = { test = 0.5 }\n',
            "r.toml:5: data.preprocess: a preset excludes scale.",
        ),
        (
            SHORT + '[data]\nuse = "digits"\nheld_out = 3\n[data.splits]\ntest = 0.5\ncalibration = 5\n',
            "r.toml:5: data.held_out: must be a table, got 3.",
        ),
        (
            SHORT + '[data]\nuse = "digits"\nfolder = 3\n[data.splits]\ntest = 0.5\n',
            "r.toml:5: data.folder: no such key. Fix: use one of held_out, max_corrupt, preprocess, "
            "splits, unlabelled, use, verify.",
        ),
        (
            SHORT + '[data]\nuse = "digits"\n[data.preprocess]\nscale = [1, "a"]\n[data.splits]\ntest = 0.5\n',
            "r.toml:6: data.preprocess.scale.1: must be a number, got 'a'. "
            "Fix: give `scale` as a number or an array of values, each a number, at least 1.",
        ),
        (
            SHORT + '[[targets]]\ndevice = "this-machine"\n[[targets]]\ndevice = "this-machine"\n',
            "r.toml:6: targets.1.device: this-machine already judges variant 'main' (targets.0). "
            "Fix: merge the two targets.",
        ),
        (
            SHORT + "[budget]\nmax_size_kib = -1\n",
            "r.toml:4: budget.max_size_kib: must be more than 0, got -1. Fix: give a number > 0.",
        ),
        (
            SHORT + "seed = -1\n",
            "r.toml:3: seed: must be at least 0, got -1. Fix: give a whole number >= 0, < 4294967296.",
        ),
    ],
)
def test_load_recipe_names_the_mistake(tmp_path: Path, text: str, message: str) -> None:
    assert mistakes(tmp_path, text) == [message]
