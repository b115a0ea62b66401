"""The model card: what was stated, what was found, and "unknown" for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.delivered import edit_manifest, finished_run
from toolkit import runs
from toolkit.card import model_card, stated
from toolkit.contract import read_contract_file
from toolkit.core import Measurement, Verdict
from toolkit.errors import InputError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run")


def card(run: Path, *given: str) -> str:
    manifest = runs.read(run)
    contract = read_contract_file(run / "artifacts" / "good.onnx.json")
    return model_card(manifest, manifest.artifacts[0], contract, stated(manifest, given), ["example_onnxruntime.py"])


def section(text: str, name: str) -> list[str]:
    return [line for line in text.partition(f"## {name}\n")[2].partition("\n## ")[0].splitlines() if line]


def test_what_nobody_stated_is_unknown(run: Path) -> None:
    text = card(run)
    assert section(text, "Licences")[:2] == ["- Model: unknown", "- Data: unknown"]
    assert section(text, "Intended use") == ["unknown"]
    assert "- Authors: unknown" in text


def test_recipe_states_and_the_command_line_replaces(run: Path) -> None:
    edit_manifest(run, recipe={"name": "colors", "card": {"license": "MIT", "data_license": "CC-BY-4.0"}})
    text = card(run, "license=Apache-2.0 = really", "authors=A. Person")
    assert section(text, "Licences")[:2] == ["- Model: Apache-2.0 = really", "- Data: CC-BY-4.0"]
    assert "- Authors: A. Person" in text


def test_recipe_file_takes_a_card_and_names_a_wrong_key(tmp_path: Path) -> None:
    from toolkit.recipe_reader import load_recipe

    path = tmp_path / "r.toml"
    path.write_text(
        'schema = 1\nexport = ["onnx"]\n[data]\nuse = "digits"\nsplits = { test = 9 }\n[card]\nlicense = "MIT"\n'
    )
    assert load_recipe(path).resolved()["card"]["license"] == "MIT"
    path.write_text(path.read_text().replace("license", "licence"))
    with pytest.raises(InputError, match=r"r.toml:7: card.licence.*license"):
        load_recipe(path)


@pytest.mark.parametrize(("given", "words"), [("licence=MIT", "license"), ("license", "--card license=")])
def test_mistaken_option_says_what_to_write(run: Path, given: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        card(run, given)


def test_numbers_stand_with_interval_device_and_source(run: Path) -> None:
    text = card(run)
    assert "| accuracy (`top1`) | 95.0% | 91.0% .. 99.0% at 95% | this-machine | measured |" in text
    assert "| size (`max_size_kib`) | <= 9.00 KiB | this-machine | PASS | 1 KiB, budget 9 |" in text
    assert "- Made from: means.keras, sha256 " + "ab" * 32 in text


def test_card_says_what_the_machine_was_and_what_the_programs_need(run: Path) -> None:
    assert "`this-machine` was unknown, unknown cores (unknown)." in card(run)
    edit_manifest(run, host={"name": "secret", "cpu": "Some CPU", "cores": 2, "machine": "x86_64"})
    text = card(run)
    assert "`this-machine` was Some CPU, 2 cores (x86_64)." in section(text, "Metrics")
    assert "secret" not in text
    assert "They need numpy, pillow and: onnxruntime; one each." in section(text, "How to run it")


def test_limits_name_what_is_not_known(run: Path) -> None:
    emulated = Measurement("good.onnx", "latency_p50_ms", 1.0, "ms", "emulated", "pi", None, {"samples": "x.npz"})
    open_gate = Verdict("good.onnx", "pi", "max_latency_p50_ms", "INCONCLUSIVE", None, 5.0, None, "emulated")
    manifest = runs.read(run)
    counts = ({"correct": 9, "total": 10}, {"correct": 4, "total": 10}, {"correct": 0, "total": 0})
    found = runs.Run(run, manifest)
    arena = Measurement("good.onnx", "arena_kib", 1.0, "KiB", "emulated", "m4", None, {"samples": "x.npz"})
    guess = Measurement("good.onnx", "latency_p50_ms", 1.0, "ms", "estimated", "m4")
    assert "- Its latency was measured on no device." in section(card(run), "Limits")
    found.update(
        measurements=(*manifest.measurements, emulated, arena, guess),
        verdicts=(*manifest.verdicts, open_gate),
        per_class={"good.onnx": counts},
        warnings=("few images",),
    )
    lines = section(card(run, "limits=Not at night."), "Limits")
    assert lines[:6] == [
        "- Not at night.",
        "- Latency on m4 is estimated, not measured.",
        "- Latency on pi is emulated, not measured.",
        "- Its score rests on 40 test images: look at the interval, not at the number alone.",
        "- Its worst class is 'green': 40.0% right.",
        "- Not settled: max_latency_p50_ms.",
    ]
    assert lines[-1] == "- Warning of the run: few images"


def test_card_names_no_folder_of_the_user_and_keeps_its_tables_whole(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", classes=("a|b", "c\nd", "e"))
    text = card(run)
    assert "| test | 40 | colors | `ffffffffffffffff` |" in text
    assert "/home/someone" not in text
    assert "Classes (3): a\\|b, c d, e." in text
